"""Finer than a step, the difference of two states, and where a flow failed."""

from __future__ import annotations

import asyncio
import json

import pytest
from bench import Bench, scene

from flowmetal.errors import LispError
from flowmetal.runtime import transitions
from flowmetal.runtime.connector import Failed
from flowmetal.runtime.diff import diff

SOURCE = """\
(defforeign work [n])

(defn helper [x]
  (let [doubled (* 2 x)
        more (+ doubled 1)]
    (work more)))

(defflow main [start]
  (let [a (work start)
        b (str "b" (count "xyz"))
        t (timer #dur "1h")]
    (helper 21)
    @t))
"""


@scene
async def test_each_transition_between_two_requests(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    first = await b.engine.state(flow, 1, 0)
    total = first["transitions"]
    assert (first["transition"], first["waiting_for"][0]["op"]) == (0, "foreign")
    seen = [await b.engine.state(flow, 1, n) for n in range(total + 1)]
    assert [state["transition"] for state in seen] == list(range(total + 1))
    assert all(state["transitions"] == total for state in seen)
    bound = [set(state["stack"][0]["locals"]) for state in seen]
    assert bound[0] == {"start"}
    assert bound[-1] == {"start", "a", "b"}
    assert seen[-1]["stack"][0]["locals"]["b"] == "b3"
    await b.restart()
    assert await b.engine.state(flow, 1, total) == seen[total], "the same number is the same state after a restart"


@scene
async def test_inside_a_function(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    total = (await b.engine.state(flow, 2, 0))["transitions"]
    frames = [[f["function"] for f in (await b.engine.state(flow, 2, n))["stack"]] for n in range(total + 1)]
    assert frames[0] == ["main"]
    assert frames[-1] == ["helper", "main"], "it goes up to the next request and no further"
    with pytest.raises(LispError, match=f"made {total} transitions until its next request, not {total + 1}"):
        await b.engine.state(flow, 2, total + 1)
    with pytest.raises(LispError, match="name the step too"):
        await b.engine.state(flow, None, 1)


@scene
async def test_what_computes_for_ever_is_counted_up_to_a_limit(b: Bench) -> None:
    b.engine.fuel = 500
    await b.load("(defflow main [] (now) (loop [n 0] (recur (inc n))))")
    flow, _ = await b.engine.start_flow("main", [])
    for _ in range(5):
        await asyncio.sleep(0)
    await b.engine.control(flow, "pause")
    state = await asyncio.wait_for(b.engine.state(flow, 1, 10), 20)
    assert (state["transitions"], state["stack"][0]["function"]) == (transitions.MOST, "main")
    with pytest.raises(LispError, match="counted up to 100000"):
        await b.engine.state(flow, 1, 10**12)


@scene
async def test_looking_closer_changes_nothing(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    before = b.kinds(flow)
    await b.engine.state(flow, 1, 2)
    await b.engine.diff(flow, 1, 3)
    assert b.kinds(flow) == before
    assert list(b.world.sent.values()) == [1, 1]


@scene
async def test_the_difference_of_two_steps(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    d = await b.engine.diff(flow, 1, 3)
    (fiber,) = d["fibers"]
    assert (fiber["fiber"], fiber["what"], fiber["left"]) == (1, "went on", [])
    assert [f["function"] for f in fiber["entered"]] == ["helper"]
    assert fiber["entered"][0]["locals"] == {"x": 21, "doubled": 42, "more": 43}
    (main,) = fiber["changed"]
    assert (main["function"], main["old"]["line"], main["new"]["line"]) == ("main", 9, 12)
    assert [c["name"] for c in main["locals"]] == ["a", "b", "t"]
    assert main["locals"][1] == {"name": "b", "new": "b3"}, "it was not there before"
    assert [p["op"] for p in d["opened"]] == ["timer"]
    assert d["settled"] == []
    back = await b.engine.diff(flow, 3, 1)
    assert [f["function"] for f in back["fibers"][0]["left"]] == ["helper"]
    assert back["fibers"][0]["changed"][0]["locals"][1] == {"name": "b", "old": "b3"}
    assert [p["op"] for p in back["settled"]] == ["timer"]


@scene
async def test_the_difference_to_now_and_to_itself(b: Bench) -> None:
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    assert (await b.engine.diff(flow, 2, 2))["fibers"] == []
    now = await b.engine.diff(flow, 3, None)
    assert [f["function"] for f in now["fibers"][0]["left"]] == ["helper"]
    await b.advance("1h")
    over = await b.engine.diff(flow, 3, None)
    assert over["fibers"][0]["what"] == "ended"


def test_true_is_not_one() -> None:
    def state(x: object) -> dict[str, object]:
        frame = {"function": "f", "file": "a", "line": 1, "column": 1, "source": "", "locals": {"x": x}}
        return {"step": 1, "status": "waiting", "fibers": [{"fiber": 1, "stack": [frame]}], "promises": []}

    for a, c in ((True, 1), (1, 1.0), ([0], [False]), ({"k": 1}, {"k": True})):
        assert diff(state(a), state(c))["fibers"][0]["changed"][0]["locals"] == [{"name": "x", "old": a, "new": c}]


@scene
async def test_in_the_language(b: Bench) -> None:
    await b.load(SOURCE + "(defflow look [h] [(:transition (state-at h 1 {:transition 2})) (count (:fibers (state-diff h 1 nil))) (:step (state-at h 1 nil))])")
    flow = await b.start("main", 5)
    assert await b.result(await b.start("look", flow)) == [2, 1, 1]


@scene
async def test_a_flow_that_failed_keeps_its_whole_stack_with_its_locals(b: Bench) -> None:
    b.world.answer = lambda call: Failed("user", "no") if call.args[0] == 43 else 1
    await b.load(SOURCE)
    flow = await b.start("main", 5)
    for _ in range(2):
        state = await b.engine.state(flow)
        assert (state["status"], state["error"]["message"]) == ("failed", "no")
        assert [(f["function"], f["line"]) for f in state["stack"]] == [("helper", 6), ("main", 12)]
        assert state["stack"][0]["locals"] == {"x": 21, "doubled": 42, "more": 43}
        assert "(work more)" in state["error"]["rendered"] and "^" in state["error"]["rendered"]
        await b.restart()


@scene
async def test_the_stack_is_that_of_the_fiber_that_failed_before_its_clean_up(b: Bench) -> None:
    await b.load('(defn bad [n] (/ 1 n)) (defflow main [] (let [p (async (try (bad 0) (finally (log "over"))))] @p))')
    flow = await b.start("main")
    state = await b.engine.state(flow)
    assert (state["stack"][0]["function"], state["stack"][0]["locals"]) == ("bad", {"n": 0})
    assert len(state["fibers"]) == 2


@scene
async def test_a_flow_that_is_paused_where_it_failed_shows_the_same(b: Bench) -> None:
    await b.load('(defflow leaf [n] (/ 1 n)) (defflow main [] @(start-with {:on-failure :pause :id "leaf"} leaf 0))')
    await b.start("main")
    for _ in range(2):
        state = await b.engine.state("leaf")
        assert (state["status"], state["error"]["type"], state["stack"][0]["locals"]) == ("paused", "arithmetic", {"n": 0})
        await b.restart()


@scene
async def test_a_flow_that_was_cancelled_or_timed_out_has_no_failure_to_look_at(b: Bench) -> None:
    await b.load('(defflow leaf [] (receive)) (defflow main [] @(start-with {:timeout #dur "1h" :id "leaf"} leaf))')
    await b.start("main")
    await b.advance("2h")
    assert json.loads(b.store.rows("leaf")[-1].data)["error"]["type"] == "flow/timeout"
    assert (await b.engine.state("leaf"))["stack"] == []
