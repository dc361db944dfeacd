"""The state at any past step: the machine at the instant of that request."""

from __future__ import annotations

import asyncio

import pytest
from bench import Bench, scene

from flowmetal.errors import FlowNotFound, LispError
from flowmetal.runtime.connector import Failed

SOURCE = """\
(defforeign work [n])

(defn helper [x]
  (let [doubled (* 2 x)]
    (work doubled)))

(defflow main [start]
  (let [other (async (receive))
        a (:target (work start))
        t (now)]
    (helper 21)
    (sleep #dur "1h")
    [a @other]))
"""


@scene
async def test_the_asking_fiber_stands_on_that_call(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    first = await b.engine.state(flow, 1)
    assert [(f["function"], f["line"], f["locals"]) for f in first["stack"]] == [("main", 9, {"start": 5, "other": {"promise": "f2"}})]
    assert first["waiting_for"][0]["op"] == "foreign"
    third = await b.engine.state(flow, 4)
    assert [(f["function"], f["line"]) for f in third["stack"]] == [("helper", 5), ("main", 11)]
    assert third["stack"][0]["locals"] == {"x": 21, "doubled": 42}
    assert third["stack"][1]["locals"]["a"] == "work"
    assert third["stack"][0]["source"] == "(work doubled)))"


@scene
async def test_the_other_fibers_stand_where_they_wait(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    state = await b.engine.state(flow, 4)
    fibers = {f["fiber"]: f["stack"] for f in state["fibers"]}
    assert set(fibers) == {1, 2}
    assert fibers[2][0]["source"].startswith("(let [other (async (receive))")
    assert {w["op"] for w in state["waiting_for"]} == {"foreign", "receive"}


@scene
async def test_as_it_is_now(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    for _ in range(2):
        state = await b.engine.state(flow)
        assert (state["status"], state["stack"][0]["line"]) == ("waiting", 12)
        await b.restart()


@scene
async def test_looking_changes_nothing(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    before = b.kinds(flow)
    for step in (1, 2, 3, 4, 5, None):
        await b.engine.state(flow, step)
    assert b.kinds(flow) == before
    assert list(b.world.sent.values()) == [1, 1]
    await b.advance("1h")
    await b.engine.send(flow, "m")
    assert await b.result(flow) == ["work", "m"]
    assert (await b.engine.state(flow, 4))["stack"][0]["locals"] == {"x": 21, "doubled": 42}, "after its end, too"
    assert (await b.engine.state(flow))["stack"] == []


@scene
async def test_each_step_of_a_long_flow(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (loop [i 0] (if (< i 60) (do (work i) (recur (inc i))) (receive))))")
    flow = await b.start("main")
    assert b.store.snapshot(flow) is not None
    for step in range(1, 61):
        state = await b.engine.state(flow, step)
        assert state["stack"][0]["locals"] == {"i": step - 1}


@scene
async def test_a_computing_flow_can_be_looked_at(b: Bench) -> None:
    b.engine.fuel = 500
    await b.load("(defforeign work [n]) (defflow main [] (now) (loop [n 0] (recur (inc n))))")
    flow, _ = await b.engine.start_flow("main", [])
    for _ in range(5):
        await asyncio.sleep(0)
    state = await asyncio.wait_for(b.engine.state(flow), 10)
    assert state["stack"][0]["function"] == "main"
    assert (await b.engine.state(flow, 1))["stack"][0]["line"] == 1
    await b.engine.control(flow, "terminate")


@scene
async def test_a_paused_flow_shows_what_it_has_not_taken_as_not_taken(b: Bench) -> None:
    await b.load("(defflow main [] (let [a (receive) c (receive)] [a c]))")
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    await b.engine.send(flow, 1)
    for _ in range(2):
        state = await b.engine.state(flow)
        assert (state["status"], state["stack"][0]["locals"]) == ("paused", {})
        await b.restart()


@scene
async def test_steps_that_do_not_exist(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    for step in (0, 6, -1):
        with pytest.raises(LispError, match="it has steps 1 to 5"):
            await b.engine.state(flow, step)
    await b.load("(defflow empty [] 1)")
    with pytest.raises(LispError, match="it has no steps"):
        await b.engine.state(await b.start("empty"), 1)
    with pytest.raises(FlowNotFound):
        await b.engine.state("nobody", 1)


@scene
async def test_a_flow_looks_at_another(b: Bench) -> None:
    await b.load(SOURCE + "(defflow look [h] (let [s (state-at h 4)] [(:status s) (:function (first (:stack s)))]))")
    flow = await b.start("main", 5)
    assert await b.result(await b.start("look", flow)) == ["waiting", "helper"]


@scene
async def test_a_step_that_was_asked_anew_after_an_upgrade_is_seen_as_it_was_asked_then(b: Bench) -> None:
    await b.load('(defforeign work [n]) (defflow main [] (let [old 1] (work old)) (receive)) (defflow top [] (start-with {:id "a" :on-failure :pause} main))')
    b.world.answer = lambda call: Failed("my/bad", "no")
    await b.start("top")
    await b.load("(defflow main [] (let [new 1 more 2] (work new)) (receive))")
    await b.engine.upgrades.upgrade("a")
    b.world.answer = lambda call: 1
    await b.engine.control("a", "retry")
    await b.settle()
    assert b.status("a") == "waiting"
    assert (await b.engine.state("a", 1))["stack"][0]["locals"] == {"new": 1, "more": 2}
