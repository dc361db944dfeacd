"""Pause: recording goes on, consuming stops."""

from __future__ import annotations

from bench import Bench, scene
from stores import both

from flowmetal.store import kinds


@scene
async def test_a_paused_flow_records_and_consumes_nothing(b: Bench) -> None:
    await b.load("(defflow main [] [(receive) (receive)])")
    flow = await b.start("main")
    await b.engine.control(flow, "pause", reason="look", by="ann")
    await b.engine.send(flow, 1)
    await b.engine.send(flow, 2)
    await b.settle()
    assert b.status(flow) == "paused"
    assert b.kinds(flow).count(kinds.MESSAGE_RECEIVED) == 2
    assert b.kinds(flow)[-1] == kinds.MESSAGE_RECEIVED, "no outcome of a receive"
    await b.restart()
    await b.settle()
    assert (b.status(flow), b.kinds(flow)[-1]) == ("paused", kinds.MESSAGE_RECEIVED)
    await b.engine.control(flow, "resume")
    assert await b.result(flow) == [1, 2]


@scene
async def test_timers_that_fall_due_meanwhile_fire_on_resume(b: Bench) -> None:
    await b.load('(defflow main [] (sleep #dur "1h") (sleep #dur "1h") (log "up") (receive))')
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    await b.advance("3h")
    assert b.kinds(flow)[-1] == kinds.FLOW_PAUSED
    await b.engine.control(flow, "resume")
    await b.advance("0s")
    (first,) = b.rows(flow, kinds.EFFECT_COMPLETED)
    assert first["step"] == 1
    assert b.rows(flow, kinds.LOG) == [], "the second hour begins now"
    await b.advance("1h")
    assert b.kinds(flow).count(kinds.LOG) == 1


@both
@scene
async def test_timers_that_fell_due_fire_on_resume_after_a_restart(b: Bench) -> None:
    await b.load('(defflow main [] (sleep #dur "1h") :up)')
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    await b.advance("3h")
    await b.restart()
    await b.advance("1h")
    assert b.status(flow) == "paused"
    await b.engine.control(flow, "resume")
    assert await b.result(flow) == "up"


@scene
async def test_an_effect_goes_on_while_its_flow_is_paused(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (receive) (:target (work 1)))")
    flow = await b.start("main")
    await b.engine.send(flow, 1)
    await b.engine.control(flow, "pause")
    await b.settle()
    assert len(b.world.sent) == 1
    assert b.rows(flow, kinds.EFFECT_COMPLETED)[-1]["step"] == 2, "its outcome is recorded"
    assert b.status(flow) == "paused"
    await b.engine.control(flow, "resume")
    assert await b.result(flow) == "work"


@scene
async def test_cancel_resumes_for_the_clean_up(b: Bench) -> None:
    await b.load('(defflow main [] (try (receive) (finally (sleep #dur "1s") (log "clean"))))')
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    await b.engine.control(flow, "cancel")
    await b.advance("1s")
    assert b.status(flow) == "cancelled"
    assert b.kinds(flow)[2:6] == [kinds.FLOW_WAITING, kinds.FLOW_PAUSED, kinds.FLOW_RESUMED, kinds.CANCEL_REQUESTED]
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == ["clean"]


@scene
async def test_terminate_ends_a_paused_flow(b: Bench) -> None:
    await b.load("(defflow main [] (receive))")
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    await b.engine.control(flow, "terminate")
    assert b.status(flow) == "cancelled"


@scene
async def test_pausing_twice_and_resuming_what_runs_change_nothing(b: Bench) -> None:
    await b.load("(defflow main [] (receive))")
    flow = await b.start("main")
    await b.engine.control(flow, "resume")
    await b.engine.control(flow, "pause")
    await b.engine.control(flow, "pause")
    assert b.kinds(flow).count(kinds.FLOW_PAUSED) == 1
    assert b.kinds(flow).count(kinds.FLOW_RESUMED) == 0


@scene
async def test_a_computing_flow_can_be_paused_and_goes_on_where_it_was(b: Bench) -> None:
    b.engine.fuel = 100
    await b.load("(defflow main [] (let [n (loop [i 0] (if (< i 20000) (recur (inc i)) i))] [n (receive)]))")
    flow, _ = await b.engine.start_flow("main", [])
    await b.engine.control(flow, "pause")
    await b.settle()
    assert b.status(flow) == "paused"
    await b.restart()
    await b.engine.control(flow, "resume")
    await b.engine.send(flow, "m")
    assert await b.result(flow) == [20000, "m"]


@scene
async def test_a_flow_can_pause_itself(b: Bench) -> None:
    await b.load('(defflow main [] (pause! (self) "look at me") (log "on") :done)')
    flow = await b.start("main")
    assert (b.status(flow), b.rows(flow, kinds.LOG)) == ("paused", [])
    await b.engine.control(flow, "resume")
    assert await b.result(flow) == "done"


@scene
async def test_a_parent_waits_for_a_paused_child(b: Bench) -> None:
    await b.load("(defflow leaf [] (receive)) (defflow main [] (leaf))")
    flow = await b.start("main")
    leaf = b.child(flow, 1)
    await b.engine.control(leaf, "pause")
    await b.engine.send(leaf, 1)
    await b.settle()
    assert b.status(flow) == "waiting"
    await b.engine.control(leaf, "resume")
    assert await b.result(flow) == 1
