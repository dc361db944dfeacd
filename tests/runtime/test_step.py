"""Step by step: a paused flow goes on to its next request, and is paused again."""

from __future__ import annotations

import json

import pytest
from bench import Bench, scene
from stores import Stores

from flowmetal.errors import FlowConflict, FlowEnded
from flowmetal.store import kinds
from flowmetal.testing.audit import audit

SOURCE = """
(defforeign work [n])
(defflow main []
  (let [a (receive)
        x (work 1)
        t (now)
        p (async (work 2))
        q (async (work 3))]
    (println "both")
    @p @q
    (sleep #dur "1h")
    a))
"""


async def paused(b: Bench, source: str = SOURCE) -> str:
    """A flow that is paused where it waits first."""
    await b.load(source)
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    return flow


async def step(b: Bench, flow: str) -> list[int]:
    """One step; the steps that it asked for."""
    before = {row.step for row in b.store.rows(flow) if row.kind in (kinds.EFFECT_REQUESTED, kinds.VALUE_RECORDED)}
    await b.engine.control(flow, "step")
    await b.settle()
    after = [row.step for row in b.store.rows(flow) if row.kind in (kinds.EFFECT_REQUESTED, kinds.VALUE_RECORDED)]
    return [n for n in after if n not in before and n is not None]


@pytest.mark.parametrize("restarts", [False, True])
def test_each_step_is_one_request(stores: Stores, restarts: bool) -> None:
    @scene
    async def play(b: Bench) -> None:
        flow = await paused(b)
        await b.engine.send(flow, "m")
        asked = []
        while b.status(flow) == "paused":
            asked.append(await step(b, flow))
            if restarts:
                await b.restart()
                await b.settle()
            if asked[-1] == [6]:
                await b.advance("1h")
                await b.engine.control(flow, "resume")
                break
        assert [n for n in asked if n] == [[2], [3], [4], [5], [6]]
        assert await b.result(flow) == "m"
        audit(b.store, b.engine.definitions.registry)

    play(stores)


@scene
async def test_of_what_arrived_meanwhile_a_step_takes_one(b: Bench) -> None:
    flow = await paused(b, "(defflow main [] (let [p (async (receive)) q (async (receive))] [@p @q]))")
    await b.engine.send(flow, 1)
    await b.engine.send(flow, 2)
    assert await step(b, flow) == []
    assert b.status(flow) == "paused"
    state = await b.engine.state(flow)
    assert [f["fiber"] for f in state["fibers"]] == [1, 3], "one fiber has had its message and is over"
    assert await step(b, flow) == []
    assert await b.result(flow) == [1, 2]


@scene
async def test_where_nothing_has_arrived_the_flow_waits_for_it_and_is_paused_after_it(b: Bench) -> None:
    flow = await paused(b, '(defflow main [] (sleep #dur "1h") (now) (sleep #dur "1h"))')
    assert await step(b, flow) == []
    assert b.status(flow) == "waiting"
    await b.advance("3h")
    assert (b.status(flow), b.kinds(flow)[-2:]) == ("paused", [kinds.VALUE_RECORDED, kinds.FLOW_PAUSED])


@scene
async def test_timers_that_fell_due_while_it_was_paused_fire_with_the_step(b: Bench) -> None:
    flow = await paused(b, '(defflow main [] (sleep #dur "1h") (sleep #dur "1h"))')
    await b.advance("5h")
    assert await step(b, flow) == [2]
    assert b.status(flow) == "paused"


@scene
async def test_where_it_stands_follows_from_its_rows(b: Bench) -> None:
    flow = await paused(b)
    await b.engine.send(flow, "m")
    while b.status(flow) == "paused" and len(b.rows(flow, kinds.FLOW_PAUSED)) < 8:
        state = await b.engine.state(flow)
        await b.restart()
        assert await b.engine.state(flow) == state
        await step(b, flow)


@scene
async def test_a_cancel_that_led_to_a_step_was_taken_with_it(b: Bench) -> None:
    flow = await paused(b, '(defflow main [] (try (receive) (finally (sleep #dur "1h"))))')
    assert await step(b, flow) == []
    await b.engine.control(flow, "cancel")
    await b.settle()
    assert b.status(flow) == "paused"
    state = await b.engine.state(flow)
    assert [each["op"] for each in state["waiting_for"]] == ["sleep"]
    await b.restart()
    assert await b.engine.state(flow) == state
    await b.load("(def something 1)")
    assert (await b.engine.upgrades.upgrade(flow, by="me"))["flow_id"] == flow
    await b.engine.control(flow, "resume")
    await b.advance("2h")
    assert b.status(flow) == "cancelled"


@scene
async def test_the_same_request_again_is_one_step(b: Bench) -> None:
    flow = await paused(b)
    await b.engine.send(flow, "m")
    for _ in range(3):
        await b.engine.control(flow, "step", request_id="once", by="ann")
        await b.settle()
    assert b.kinds(flow).count(kinds.FLOW_STEPPED) == 1
    assert json.loads(b.store.rows(flow)[-1].data).get("attempts") == 1, "what step 2 asked for has its outcome, which nobody took"


@scene
async def test_the_request_of_a_step_is_sent(b: Bench) -> None:
    flow = await paused(b)
    await b.engine.send(flow, "m")
    await step(b, flow)
    assert list(b.world.sent.values()) == [1]


@scene
async def test_a_computing_flow_that_was_paused_goes_on_to_its_next_request_only(b: Bench) -> None:
    b.engine.fuel = 100
    await b.load("(defflow main [] (loop [i 0] (when (< i 3000) (recur (inc i)))) (now) (now) :done)")
    flow, _ = await b.engine.start_flow("main", [])
    await b.engine.control(flow, "pause")
    assert await step(b, flow) == [1]
    assert await step(b, flow) == [2]
    assert await step(b, flow) == []
    assert await b.result(flow) == "done"


@scene
async def test_a_flow_that_is_paused_where_it_failed_unwinds_step_by_step(b: Bench) -> None:
    await b.load(
        '(defforeign undo [n]) (defflow main [] (try (/ 1 0) (finally (undo 1) (undo 2)))) (defflow top [] @(start-with {:on-failure :pause :id "m"} main))'
    )
    await b.start("top")
    assert await step(b, "m") == [1]
    assert await step(b, "m") == [2]
    assert b.status("m") == "paused"
    assert await step(b, "m") == []
    assert b.status("m") == "failed"


@scene
async def test_only_a_paused_flow_goes_step_by_step(b: Bench) -> None:
    await b.load("(defflow main [] (receive))")
    flow = await b.start("main")
    with pytest.raises(FlowConflict, match="only a paused flow goes step by step") as raised:
        await b.engine.control(flow, "step")
    assert raised.value.hint == f"flowmetal pause {flow}"
    await b.engine.control(flow, "terminate")
    with pytest.raises(FlowEnded):
        await b.engine.control(flow, "step")


@scene
async def test_a_flow_steps_another(b: Bench) -> None:
    await b.load(
        "(defflow leaf [] (now) (receive) (now) :done) (defflow main [] (let [h (start leaf)] (pause! h) (send h 1) (step! h) (:step (state-at h 2))))"
    )
    assert await b.result(await b.start("main")) == 2
