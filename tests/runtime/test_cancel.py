"""Cancelling and terminating: where it reaches a flow, what runs then, what is shielded."""

from __future__ import annotations

import asyncio

import pytest
from bench import Bench, scene
from stores import Stores, both

from flowmetal.errors import FlowEnded
from flowmetal.runtime.connector import Completed
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, CommitResult

FOREVER = "(loop [n 0] (recur (inc n)))"


@scene
async def test_a_cancel_arrives_where_the_flow_waits(b: Bench) -> None:
    await b.load("(defflow main [] (try (receive) (catch :flow/cancelled e (log (ex-message e)))))")
    flow = await b.start("main")
    await b.engine.control(flow, "cancel", reason="no longer needed", by="ann")
    assert b.status(flow) == "cancelled"
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == ["no longer needed"]
    (asked,) = b.rows(flow, kinds.CANCEL_REQUESTED)
    assert (asked["reason"], asked["by"]) == ("no longer needed", "ann")
    assert b.rows(flow)[-1]["error"]["type"] == "flow/cancelled"


@scene
async def test_default_does_not_catch_it(b: Bench) -> None:
    await b.load("(defflow main [] (try (receive) (catch :default e (log :caught))) (log :went-on))")
    flow = await b.start("main")
    await b.engine.control(flow, "cancel")
    assert (b.status(flow), b.rows(flow, kinds.LOG)) == ("cancelled", [])


@scene
async def test_it_is_thrown_again_at_the_end_of_the_catch(b: Bench) -> None:
    await b.load("(defflow main [] (try (receive) (catch :flow/cancelled e (log :first) :value)) (log :never))")
    flow = await b.start("main")
    await b.engine.control(flow, "cancel")
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == ["first"]
    assert b.status(flow) == "cancelled"


@both
@scene
async def test_clean_up_may_wait_and_survives_restarts(b: Bench) -> None:
    await b.load('(defforeign undo [n]) (defflow main [] (try (receive) (finally (sleep #dur "1h") (undo 1) (log "clean"))))')
    flow = await b.start("main")
    await b.engine.control(flow, "cancel")
    assert b.status(flow) == "waiting"
    await b.restart()
    await b.advance("1h")
    assert b.status(flow) == "cancelled"
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == ["clean"]
    assert len(b.world.sent) == 1


@scene
async def test_clean_up_is_shielded_from_further_cancels(b: Bench) -> None:
    await b.load('(defflow main [] (try (receive) (catch :flow/cancelled e (sleep #dur "1s") (log 1)) (finally (sleep #dur "1s") (log 2))))')
    flow = await b.start("main")
    for _ in range(3):
        await b.engine.control(flow, "cancel")
    await b.advance("2s")
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == [1, 2]
    assert b.kinds(flow).count(kinds.CANCEL_REQUESTED) == 1


@scene
async def test_a_finally_that_runs_anyway_is_shielded_too(b: Bench) -> None:
    await b.load('(defflow main [] (try 1 (finally (sleep #dur "1s") (log "whole"))) (sleep #dur "1s") (log "never"))')
    flow = await b.start("main")
    await b.engine.control(flow, "cancel")
    assert b.status(flow) == "waiting"
    await b.restart()
    await b.advance("5s")
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == ["whole"]
    assert b.status(flow) == "cancelled", "the cancel reaches it at the next wait after the finally"


@scene
async def test_a_finally_is_shielded_from_outer_deadlines(b: Bench) -> None:
    await b.load(
        """(defflow main []
             (try (with-timeout #dur "1s" (try 1 (finally (try (sleep #dur "5s") (finally (log "inner"))) (log "outer"))) (sleep #dur "1h") (log "never"))
                  (catch :flow/timeout e (log "late"))))"""
    )
    flow = await b.start("main")
    await b.ending(flow)
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == ["inner", "outer", "late"]


@scene
async def test_a_shield_ends_with_its_finally_even_when_that_throws(b: Bench) -> None:
    await b.load(
        """(defflow main []
             (try (try 1 (finally (throw (ex-info "no" {})))) (catch :user e nil))
             (try (receive) (finally (log "cancelled"))))"""
    )
    flow = await b.start("main")
    await b.engine.control(flow, "cancel")
    assert b.status(flow) == "cancelled"
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == ["cancelled"]


@scene
async def test_an_error_in_the_clean_up_fails_the_flow(b: Bench) -> None:
    await b.load('(defflow main [] (try (receive) (finally (throw (ex-info "clean-up broke" {:type :x/broke})))))')
    flow = await b.start("main")
    await b.engine.control(flow, "cancel")
    assert b.status(flow) == "failed"
    assert b.rows(flow)[-1]["error"]["type"] == "x/broke"


@scene
async def test_cancelling_an_open_request_is_one_commit(b: Bench) -> None:
    never = asyncio.Event()

    async def perform(call: object) -> object:
        await never.wait()
        raise AssertionError("nobody lets it go on")

    b.world.perform = perform  # type: ignore[method-assign,assignment]
    await b.load("(defforeign work [n]) (defflow main [] (work 1))")
    flow, _ = await b.engine.start_flow("main", [])
    while not b.engine.dispatcher.calls:
        await asyncio.sleep(0)
    await b.engine.control(flow, "cancel")
    assert b.kinds(flow)[-3:] == [kinds.CANCEL_REQUESTED, kinds.EFFECT_CANCELLED, kinds.FLOW_CANCELLED]
    assert not b.engine.dispatcher.calls
    await b.restart()
    await b.settle()
    assert not b.engine.dispatcher.calls, "it is never sent again"


@scene
async def test_a_late_outcome_is_recorded_and_ignored(b: Bench) -> None:
    await b.load('(defforeign work [n]) (defflow main [] (try (with-timeout #dur "1s" (work 1)) (catch :flow/timeout e :late)) (receive))')
    answered = asyncio.Event()

    async def perform(call: object) -> object:
        await answered.wait()
        return Completed(7)

    b.world.perform = perform  # type: ignore[method-assign,assignment]
    flow, _ = await b.engine.start_flow("main", [])
    while (flow, 2) not in b.engine.dispatcher.calls:
        await asyncio.sleep(0)
    commit = b.engine.writer.commit

    async def slowly(what: Commit) -> CommitResult:
        answered.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return await commit(what)

    b.engine.writer.commit = slowly  # type: ignore[method-assign]  # the answer comes while the commit that withdraws the step is under way
    b.engine.put(flow, lambda process: b.engine.dispatcher.timer_outcome(process, 1))
    await b.settle()
    await b.engine.send(flow, "end")
    assert await b.result(flow) == "end"
    assert [row["kind"] for row in b.rows(flow) if row["step"] == 2] == [kinds.EFFECT_REQUESTED, kinds.EFFECT_CANCELLED, kinds.EFFECT_COMPLETED]
    found = b.store.query("SELECT status, result FROM effects WHERE step = 2")
    assert found.rows == [("cancelled", None)]


@scene
async def test_terminate_ends_a_flow_without_running_it(b: Bench) -> None:
    await b.load('(defflow main [] (try (receive) (finally (log "clean"))))')
    flow = await b.start("main")
    await b.engine.control(flow, "terminate", reason="at once")
    assert (b.status(flow), b.rows(flow, kinds.LOG)) == ("cancelled", [])
    error = b.rows(flow)[-1]["error"]
    assert (error["type"], error["message"]) == ("flow/terminated", "at once")
    await b.restart()
    assert b.status(flow) == "cancelled"


@scene
async def test_terminate_ends_pure_code_too(b: Bench) -> None:
    b.engine.fuel = 1000
    await b.load(f"(defflow main [] {FOREVER})")
    flow, _ = await b.engine.start_flow("main", [])
    await asyncio.sleep(0.01)
    assert b.status(flow) == "running"
    await b.engine.control(flow, "terminate")
    assert b.status(flow) == "cancelled"


@scene
async def test_others_run_while_a_flow_computes(b: Bench) -> None:
    b.engine.fuel = 1000
    await b.load(f'(defflow busy [] {FOREVER}) (defflow main [n] (sleep #dur "0s") n)')
    busy, _ = await b.engine.start_flow("busy", [])
    flow, _ = await b.engine.start_flow("main", [5])
    answer = await b.engine.result(flow, 10)
    assert answer is not None and answer["result"] == 5
    await b.engine.control(busy, "terminate")


@pytest.mark.parametrize("action", ["pause", "resume", "cancel", "terminate"])
def test_what_has_ended_takes_no_control(stores: Stores, action: str) -> None:
    @scene
    async def play(b: Bench) -> None:
        await b.load("(defflow main [] 1)")
        flow = await b.start("main")
        with pytest.raises(FlowEnded, match="it is completed"):
            await b.engine.control(flow, action)
        assert b.kinds(flow)[-1] == kinds.FLOW_COMPLETED

    play(stores)


@scene
async def test_the_cancel_of_another_flow_is_not_catching(b: Bench) -> None:
    await b.load('(defflow leaf [] (receive)) (defflow main [] (let [h (start leaf)] (cancel! h "stop") (try @h (catch :flow/failed e (:cause (ex-data e))))))')
    assert await b.result(await b.start("main")) == "flow/cancelled"


@scene
async def test_control_from_a_flow_names_it(b: Bench) -> None:
    await b.load('(defflow leaf [] (receive)) (defflow main [h] (pause! h "wait") (resume! h) (cancel! h "enough") :done)')
    leaf = await b.start("leaf")
    main = await b.start("main", leaf)
    assert await b.result(main) == "done"
    by = [(row["kind"], row["by"], row["reason"]) for row in b.rows(leaf) if row.get("by")]
    assert by == [("flow-paused", main, "wait"), ("flow-resumed", main, None), ("cancel-requested", main, "enough")]
