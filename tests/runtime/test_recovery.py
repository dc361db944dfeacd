"""What a crash or a refused commit leaves behind, and what the next engine makes of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from bench import Bench, scene
from stores import both

from flowmetal.errors import StoreError
from flowmetal.runtime.connector import Call, Completed, Failed
from flowmetal.runtime.crashes import ENOUGH
from flowmetal.runtime.process import loader
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Outcome

FOREVER = "(loop [n 0] (recur (inc n)))"


class Refusing:
    """A store that refuses commits that hold a row of some flow, as often as it is told."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.refused: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def commit_group(self, commits: Any) -> list[Outcome]:
        """See `Store.commit_group`."""
        commit: Commit = commits[0]
        for row in commit.rows:
            if self.refused.get(row.flow_id, 0) > 0:
                self.refused[row.flow_id] -= 1
                return [StoreError("the disk says no")]
        return list(self.store.commit_group(commits))


class Stuck:
    """An effect that never comes back; it remembers how it was asked."""

    ops = frozenset({"foreign", "http/request"})

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def perform(self, call: Call) -> Completed:
        """Waits for ever."""
        self.calls.append(call)
        await asyncio.Event().wait()
        raise AssertionError("nobody lets it go on")

    async def close(self) -> None:
        """Nothing is held."""


async def reach(b: Bench, count: int, stuck: Stuck) -> None:
    """Waits until so many calls were made."""
    while len(stuck.calls) < count:
        await asyncio.sleep(0)


# Effects


@both
@scene
async def test_an_open_request_is_sent_again_under_the_same_key(b: Bench) -> None:
    b.world = stuck = Stuck()  # type: ignore[assignment]
    await b.restart()
    await b.load("(defforeign work [n]) (defflow main [] (work {:a 1}))")
    flow, _ = await b.engine.start_flow("main", [])
    await reach(b, 1, stuck)
    await b.restart()
    await reach(b, 2, stuck)
    first, second = stuck.calls
    assert first.idempotency_key == second.idempotency_key
    assert (second.args, second.attempt) == (first.args, 1), "a crash is no attempt"
    assert b.kinds(flow).count(kinds.EFFECT_REQUESTED) == 1


@both
@scene
async def test_a_recorded_outcome_is_never_asked_for_again(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (work 1) (receive))")
    flow = await b.start("main")
    for _ in range(3):
        await b.restart()
        await b.settle()
    assert list(b.world.sent.values()) == [1]
    await b.engine.send(flow, "end")
    assert await b.result(flow) == "end"


@both
@scene
async def test_a_failed_attempt_and_its_next_time_are_on_disk_before_the_back_off(b: Bench) -> None:
    seen: list[tuple[int, int | None]] = []

    async def perform(call: Call) -> Completed:
        seen.append((call.attempt, call.not_before))
        if call.attempt == 1:
            await call.attempt_failed(1, Failed("http/connect", "nobody there"), b.clock.time + 5_000_000)
            await asyncio.Event().wait()
        return Completed("ok", call.attempt)

    b.world.perform = perform  # type: ignore[method-assign,assignment]
    await b.load("(defforeign work [n]) (defflow main [] (work 1))")
    flow, _ = await b.engine.start_flow("main", [])
    while not b.rows(flow, kinds.ATTEMPT_FAILED):
        await asyncio.sleep(0)
    (failed,) = b.rows(flow, kinds.ATTEMPT_FAILED)
    assert (failed["attempt"], failed["next_at"], failed["error"]["type"]) == (1, "2026-01-01T00:00:05Z", "http/connect")
    await b.restart()
    assert await b.result(flow) == "ok"
    assert seen == [(1, None), (2, b.clock.time + 5_000_000)], "after a restart the number and the time go on"
    assert b.rows(flow, kinds.EFFECT_COMPLETED)[0]["attempts"] == 2


@scene
async def test_the_time_of_a_call_counts_from_its_request(b: Bench) -> None:
    b.world = stuck = Stuck()  # type: ignore[assignment]
    await b.restart()
    await b.load('(defflow main [] (http/get "http://x/" {:timeout #dur "1m"}))')
    await b.engine.start_flow("main", [])
    await reach(b, 1, stuck)
    b.clock.time += 30_000_000
    await b.restart()
    await reach(b, 2, stuck)
    assert [call.elapsed for call in stuck.calls] == [0.0, 30.0]


@scene
async def test_at_most_once_is_interrupted_only_after_its_sending_began(b: Bench) -> None:
    sent: list[int] = []

    async def perform(call: Call) -> Completed:
        if call.args[0] == 1:
            await call.attempt_started(1)
        sent.append(call.args[0])
        await asyncio.Event().wait()
        raise AssertionError("never")

    b.world.perform = perform  # type: ignore[method-assign,assignment]
    await b.load(
        """(defforeign work [n])
           (defflow main [n] (try (work n) (catch :effect/interrupted e :may-have-happened)))"""
    )
    begun, _ = await b.engine.start_flow("main", [1])
    other, _ = await b.engine.start_flow("main", [2])
    while len(sent) < 2:
        await asyncio.sleep(0)
    await b.restart()
    answer = await b.engine.result(begun, 10)
    assert answer is not None and answer["result"] == "may-have-happened"
    while len(sent) < 3:
        await asyncio.sleep(0)
    assert sorted(sent) == [1, 2, 2], "what was not marked as begun is sent again"
    assert b.status(other) == "running"


@scene
async def test_a_call_at_most_once_that_is_taken_up_too_late_is_not_sent_again(b: Bench) -> None:
    """What was read of it before its outcome came says that it was never sent."""
    sent: list[int] = []

    async def perform(call: Call) -> Completed:
        await call.attempt_started(call.attempt)
        sent.append(call.step)
        return Completed("done")

    b.world.perform = perform  # type: ignore[method-assign,assignment]
    await b.load("(defforeign work []) (defflow main [] [(work) (receive)])")
    flow = await b.start("main")
    request = next(row for row in b.store.rows(flow) if row.kind == kinds.EFFECT_REQUESTED)
    run = json.loads(b.store.rows(flow)[0].data)["run"]
    b.engine.dispatcher.begin(flow, run, to_draft(request, loader(b.engine.definitions.registry)), [])
    await b.settle()
    assert sent == [1] and not b.engine.dispatcher.calls
    await b.engine.send(flow, "on")
    assert await b.result(flow) == ["done", "on"]


@scene
async def test_a_connectors_bug_is_the_steps_failure(b: Bench) -> None:
    async def perform(call: Call) -> Completed:
        raise ZeroDivisionError("oops")

    b.world.perform = perform  # type: ignore[method-assign,assignment]
    await b.load("(defforeign work [n]) (defflow main [] (try (work 1) (catch :value e (ex-message e))))")
    assert await b.result(await b.start("main")) == "foreign failed: ZeroDivisionError: oops"


@scene
async def test_many_waiting_flows_add_no_task_at_opening(b: Bench) -> None:
    await b.load("(defflow main [] (await (callback)))")
    flows = [(await b.engine.start_flow("main", []))[0] for _ in range(300)]
    await b.settle()
    before = len(asyncio.all_tasks())
    await b.restart()
    await b.settle()
    assert len(asyncio.all_tasks()) <= before
    assert not b.engine.actors, "and no state in memory"
    assert (await b.engine.settle_callback(b.token(flows[7], 1), 5))[0] == "accepted"
    assert await b.result(flows[7]) == 5


# Group commit


@scene
async def test_the_failing_member_alone_drops_its_state(b: Bench) -> None:
    b.store = refusing = Refusing(b.store)  # type: ignore[assignment]
    await b.restart()
    await b.load("(defflow main [] [(receive) (receive)])")
    one, two = await b.start("main"), await b.start("main")
    kept = b.engine.actors[two].process
    refusing.refused[one] = 1
    with pytest.raises(StoreError, match="the disk says no"):
        await b.engine.send(one, 1)
    await b.engine.send(two, "a")
    assert b.engine.actors[two].process is kept
    await b.settle()
    assert b.kinds(one).count(kinds.MESSAGE_RECEIVED) == 0
    for flow, message in ((one, "b"), (one, "c"), (two, "b")):
        await b.engine.send(flow, message)
    assert await b.result(one) == ["b", "c"]
    assert await b.result(two) == ["a", "b"]


@scene
async def test_what_came_from_inside_is_recorded_when_the_store_works_again(b: Bench) -> None:
    b.store = refusing = Refusing(b.store)  # type: ignore[assignment]
    b.world.store = None
    await b.restart()
    await b.load('(defforeign work [n]) (defflow leaf [] (receive) :leaf) (defflow main [] [(:target (work 1)) (do (sleep #dur "1s") 2) (leaf)])')
    flow, _ = await b.engine.start_flow("main", [])
    while not b.engine.dispatcher.calls:
        await asyncio.sleep(0)
    refusing.refused[flow] = 3
    await b.settle()
    await asyncio.sleep(0.01)
    refusing.refused[flow] = 2
    await b.advance("1s")
    await asyncio.sleep(0.01)
    await b.settle()
    leaf = b.child(flow, 3)
    refusing.refused[flow] = 2
    await b.engine.send(leaf, 1)
    await asyncio.sleep(0.01)
    await b.settle()
    assert await b.result(flow) == ["work", 2, "leaf"]
    assert list(b.world.sent.values()) == [1], "and its effect was not sent again"


@scene
async def test_nothing_uncommitted_is_dispatched(b: Bench) -> None:
    b.store = refusing = Refusing(b.store)  # type: ignore[assignment]
    b.world.store = None
    await b.restart()
    await b.load("(defforeign work [n]) (defflow leaf [] 1) (defflow main [] (receive) (start leaf) (work 1) (callback))")
    flow = await b.start("main")
    refusing.refused[flow] = 1
    with pytest.raises(StoreError):
        await b.engine.send(flow, 1)
    assert not b.world.sent
    assert [row["flow_id"] for row in b.store.flow_rows()] == [flow]


@scene
async def test_a_bug_in_the_engine_pauses_the_flow_and_says_so(b: Bench) -> None:
    await b.load("(defflow main [] [(receive) (receive)])")
    flow = await b.start("main")

    def broken(process: Any) -> Draft:
        raise ZeroDivisionError("a bug")

    b.engine.put(flow, broken)
    await b.settle()
    assert b.status(flow) == "paused"
    assert b.rows(flow, kinds.FLOW_PAUSED)[0]["reason"].endswith("ZeroDivisionError: a bug")
    (report,) = b.reports
    assert isinstance(report["exception"], ZeroDivisionError)
    b.reports.clear()
    b.engine.actors[flow].inbox.clear()
    await b.engine.control(flow, "resume")
    for n in (1, 2):
        await b.engine.send(flow, n)
    assert await b.result(flow) == [1, 2]


# Crashes while computing


@scene
async def test_a_flow_that_was_computing_at_three_crashes_in_a_row_opens_paused(b: Bench) -> None:
    b.options["fuel"] = 500
    await b.restart()
    await b.load(f"(defflow busy [] {FOREVER}) (defflow main [] (receive))")
    busy, _ = await b.engine.start_flow("busy", [])
    calm, _ = await b.engine.start_flow("main", [])
    for crash in range(1, ENOUGH + 1):
        for _ in range(20):
            await asyncio.sleep(0)
        assert b.status(busy) == "running", f"before crash {crash}"
        await b.restart()
    await b.settle()
    assert b.status(busy) == "paused"
    assert "crashed 3 times in a row while this flow was computing" in b.rows(busy, kinds.FLOW_PAUSED)[0]["reason"]
    assert b.status(calm) == "waiting"
    await b.engine.control(busy, "resume")
    for _ in range(20):
        await asyncio.sleep(0)
    assert b.status(busy) == "running", "a person may let it go on"
    await b.engine.control(busy, "terminate")


@scene
async def test_an_orderly_end_is_no_crash(b: Bench) -> None:
    b.options["fuel"] = 500
    await b.restart()
    await b.load(f"(defflow busy [] {FOREVER})")
    busy, _ = await b.engine.start_flow("busy", [])
    for _ in range(5):
        for _ in range(20):
            await asyncio.sleep(0)
        await b.engine.close()
        await b.open()
    assert b.status(busy) == "running"
    await b.engine.control(busy, "terminate")


@scene
async def test_a_flow_that_only_waits_for_an_effect_is_not_counted(b: Bench) -> None:
    b.world = stuck = Stuck()  # type: ignore[assignment]
    await b.restart()
    await b.load("(defforeign work [n]) (defflow main [] (work 1))")
    flow, _ = await b.engine.start_flow("main", [])
    for crash in range(1, 6):
        await reach(b, crash, stuck)
        for _ in range(20):
            await asyncio.sleep(0)
        await b.restart()
    await reach(b, 6, stuck)
    assert b.status(flow) == "running"


@scene
async def test_a_flow_that_crashes_the_engine_when_its_outcome_comes_opens_paused(b: Bench) -> None:
    """The outcome is never on disk: each time the process dies while the flow computes with it."""

    def die(process: Any) -> None:
        if process.flow_id == "poison" and process.state.steps and not process.open:
            raise asyncio.CancelledError  # the process is gone: nothing of this turn is written

    b.options["after_slice"] = die
    await b.restart()
    await b.load("(defforeign work [n]) (defflow main [] (work 1) (loop [i 0] (if (< i 10) (recur (inc i)) i)))")
    await b.engine.start_flow("main", [], flow_id="poison")
    for _ in range(ENOUGH):
        for _ in range(50):
            await asyncio.sleep(0)
        assert b.status("poison") == "running"
        await b.restart()
    await b.settle()
    assert b.status("poison") == "paused"


@scene
async def test_a_flow_that_computed_beside_one_that_crashes_the_engine_is_not_paused_for_it(b: Bench) -> None:
    """Both were computing at two crashes: the third time each has its turn alone, so that the crash is that one's."""
    lives, counted = 0, []

    def die(process: Any) -> None:
        if process.state.steps and not process.open:
            if lives == ENOUGH - 1:
                counted.append([flow for flow, count in json.loads(b.store.get_meta("crashes") or "{}").items() if count == lives])
            if lives < ENOUGH - 1 or process.flow_id == "poison":
                raise asyncio.CancelledError  # the process is gone: nothing of this turn is written

    b.options["after_slice"] = die
    await b.restart()
    await b.load("(defforeign work [n]) (defflow main [] (work 1) (loop [i 0] (if (< i 10) (recur (inc i)) i)))")
    for flow in ("poison", "innocent"):
        await b.engine.start_flow("main", [], flow_id=flow)
    for lives in range(ENOUGH):  # noqa: B007  what `die` looks at
        for _ in range(80):
            await asyncio.sleep(0)
        await b.restart()
    await b.settle()
    assert len(counted[0]) == 1, "only one is counted by a crash that comes now"
    assert [b.status(flow) for flow in ("poison", "innocent")] == ["paused", "completed"]


@scene
async def test_counts_are_forgotten_when_the_flow_comes_through(b: Bench) -> None:
    await b.load("(defflow main [] (loop [] (receive) (recur)))")
    flow = await b.start("main")
    for _ in range(5):
        await b.engine.send(flow, 1)
        await b.restart()
        await b.settle()
    assert b.status(flow) == "waiting"
    assert json.loads(b.store.get_meta("crashes") or "{}") == {}


# Requests of clients


@scene
async def test_a_request_that_is_made_again_starts_no_second_flow(b: Bench) -> None:
    await b.load("(defflow main [n] (receive))")
    first = await b.engine.start_flow("main", [1], request_id="r")
    await b.restart()
    assert await b.engine.start_flow("main", [1], request_id="r") == (first[0], False)
    cell = await b.engine.eval("(receive)", request_id="c")
    await b.restart()
    assert await b.engine.eval("(receive)", request_id="c") == cell
    assert len(b.store.flow_rows()) == 2


@both
@scene
async def test_the_same_id_is_the_same_flow_or_a_conflict(b: Bench) -> None:
    from flowmetal.errors import FlowConflict

    await b.load("(defflow main [n] (receive)) (defflow other [n] 1)")
    assert await b.engine.start_flow("main", [1], flow_id="one") == ("one", True)
    assert await b.engine.start_flow("main", [1], flow_id="one") == ("one", False)
    for name, args in (("main", [2]), ("other", [1])):
        with pytest.raises(FlowConflict, match="exists already, and is another call"):
            await b.engine.start_flow(name, args, flow_id="one")


@scene
async def test_definitions_survive(b: Bench) -> None:
    loaded = await b.engine.load("(ns a) (defn f [x] (* 2 x)) (def n 4) (defflow main [] (f n))", file="a.flow")
    assert loaded["names"] == ["a/f", "a/n", "a/main"]
    again = await b.engine.load("(ns a) (defn f [x] (* 2 x)) (def n 4) (defflow main [] (f n))", file="a.flow")
    assert again["version"] == loaded["version"], "what is known already makes no version"
    await b.restart()
    assert await b.result(await b.start("a/main")) == 8


@scene
async def test_what_arrives_for_a_flow_that_is_forgotten_in_the_middle_of_its_turn_is_taken(b: Bench) -> None:
    await b.load("(defflow echo [] (receive))")
    flow = await b.start("echo")
    b.engine.actor(flow).poke()
    assert flow in b.engine.busy
    b.engine.forget(flow)
    await b.engine.send(flow, "here")
    assert await b.result(flow) == "here"
