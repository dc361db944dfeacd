"""Flows that are stuck are named, with what to do; those that may go on are not."""

from __future__ import annotations

from typing import Any

from bench import Bench, scene

from flowmetal.runtime.connector import Failed
from flowmetal.runtime.stuck import stuck


async def named(b: Bench, after: float = 0.0) -> dict[str, tuple[str, str, str]]:
    """The findings: flow → what, detail, what to do."""
    return {f["flow_id"]: (f["what"], f["detail"], f["do"]) for f in await stuck(b.engine, after)}


@scene
async def test_what_can_go_on_is_not_named(b: Bench) -> None:
    await b.load("""
      (defflow sleeps [] (sleep #dur "1d")) (defflow mail [] (receive)) (defflow hook [] @(callback))
      (defflow calls [] (sleeps)) (defflow waits [] @(start-with {:id "s2"} sleeps)) (defflow limited [] (receive {:timeout #dur "1d"}))""")
    for name in ("sleeps", "mail", "hook", "calls", "waits", "limited"):
        await b.start(name)
    paused = await b.start("mail")
    await b.engine.control(paused, "pause", by="ann")
    assert await named(b) == {}, "a flow that somebody paused is theirs to resume"


@scene
async def test_a_flow_that_is_paused_where_it_failed(b: Bench) -> None:
    b.world.answer = lambda call: Failed("user", "no")
    await b.load('(defforeign work []) (defflow leaf [] (work)) (defflow main [] @(start-with {:on-failure :pause :id "leaf"} leaf))')
    await b.start("main")
    found = await named(b)
    assert set(found) == {"leaf"}, "who waits for it does not stand in the way"
    what, detail, do = found["leaf"]
    assert (what, detail) == ("failed", "it has failed: no")
    assert "flowmetal retry leaf" in do and "flowmetal show leaf" in do


@scene
async def test_a_flow_that_is_paused_after_a_step_is_not_stuck(b: Bench) -> None:
    await b.load("(defflow main [] (now) (receive) (now) (receive))")
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    await b.engine.send(flow, 1)
    await b.engine.control(flow, "step")
    await b.settle()
    assert b.status(flow) == "paused"
    assert await named(b) == {}


@scene
async def test_flows_that_wait_for_one_another(b: Bench) -> None:
    await b.load("""
      (defflow one [] (let [other (receive)] @other)) (defflow two [first] (send first (self)) @first)
      (defflow behind [h] @h) (defflow main [] (let [a (start-with {:id "a"} one)] (start-with {:id "b"} two a) (start-with {:id "c"} behind a) :begun))""")
    await b.result(await b.start("main"))
    found = await named(b)
    assert set(found) == {"a", "b", "c"}
    assert all(what == "deadlock" for what, _, _ in found.values())
    assert found["a"][1].startswith("it waits for flow b") and found["b"][1].startswith("it waits for flow a")
    assert found["a"][2] == "end one of them: flowmetal cancel a"
    await b.restart()
    assert set(await named(b)) == {"a", "b", "c"}


@scene
async def test_a_circle_with_a_way_out_is_none(b: Bench) -> None:
    await b.load("""
      (defflow one [] (let [other (receive)] (await other {:timeout #dur "1h" :else 1}))) (defflow two [first] (send first (self)) @first)
      (defflow main [] (let [a (start-with {:id "a"} one)] (start-with {:id "b"} two a) :begun))""")
    await b.result(await b.start("main"))
    assert await named(b) == {}


@scene
async def test_a_flow_that_waits_for_itself(b: Bench) -> None:
    await b.load("(defflow main [] (let [box (atom nil) p (async (do (await (async 1)) @(deref box)))] (reset! box p) @p))")
    flow = await b.start("main")
    found = await named(b)
    assert found[flow][:2] == ("deadlock", "its fibers wait for one another, and for nothing that can arrive")


@scene
async def test_a_queue_whose_places_are_held_by_who_waits_for_it(b: Bench) -> None:
    await b.load("""
      (defflow leaf [] :done)
      (defflow holds [] @(start-with {:queue :q :id "leaf"} leaf))
      (defflow main [] (queue :q {:concurrency 1}) (start-with {:queue :q :id "holds"} holds) :begun)""")
    await b.result(await b.start("main"))
    found = await named(b)
    assert set(found) == {"holds", "leaf"}
    assert "its turn in the queue q, which is held by holds" in found["leaf"][1]


@scene
async def test_messages_that_are_not_what_it_asks_for(b: Bench) -> None:
    await b.load('(defflow main [] (receive {:match {:kind "paid"}}))')
    flow = await b.start("main")
    await b.engine.send(flow, {"kind": "sent"})
    await b.settle()
    found = await named(b)
    assert found[flow][0] == "unmatched"
    assert "1 in its mailbox is not what its receive asks for" in found[flow][1]


async def foreign(b: Bench) -> None:
    """The bench without anybody to answer foreign calls."""
    await b.engine.abandon()
    b.world.ops = frozenset({"http/request"})  # type: ignore[misc]
    await b.open()


@scene
async def test_a_function_that_nobody_asks_for(b: Bench) -> None:
    await foreign(b)
    await b.load("(defforeign charge-card [n]) (defflow main [] (charge-card 1))")
    flow = await b.start("main")
    assert await named(b, 60.0) == {}, "it has waited for a moment only"
    found = await named(b)
    assert found[flow][:2] == ("unanswered", "it waits for charge-card, and nobody asks for calls of that function")
    assert "@fm.function('charge-card')" in found[flow][2]
    (task,) = await b.engine.foreign.lease(["charge-card"], lease=60.0)
    assert await named(b) == {}, "somebody is at work on it"
    await b.engine.foreign.complete(task["id"], 1)
    assert await b.result(flow) == 1


@scene
async def test_an_operation_that_nothing_here_performs(b: Bench) -> None:
    await foreign(b)
    await b.load('(defflow main [] (sql/query "postgresql://x/y" "SELECT 1"))')
    flow = await b.start("main")
    found: Any = await named(b)
    assert found[flow][0] == "unanswered"
    assert "nothing here performs sql/query" in found[flow][1]
