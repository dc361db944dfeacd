"""Queues: what runs at once, and how often, is held whatever happens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bench import Bench, scene
from lives import HandClock, life, play, settle
from stores import several

from flowmetal.lang.plain import from_plain
from flowmetal.runtime.engine import Engine
from flowmetal.testing import run_source

JOBS = """
(defforeign work [n] {:queue :jobs})
(defflow job [n] (sleep #dur "1h") n)
(defflow quick [n] (now))
(defflow three [] (let [hs (mapv (fn [n] (start-with {:queue :jobs} job n)) [1 2 3])] (mapv deref hs)))
"""


def held(test: str) -> None:
    (result,) = run_source(f"{JOBS}(deftest it {test})")
    assert result.ok, result
    assert result.passed


def test_no_more_flows_run_at_once_than_the_queue_allows() -> None:
    held("""(queue :jobs {:concurrency 2})
      (let [hs (mapv (fn [n] (start-with {:queue :jobs} job n)) [1 2 3 4 5])]
        (settle!)
        (is (= [:waiting :waiting :waiting :waiting :waiting] (mapv status hs)))
        (is (= [1 1 0 0 0] (mapv (fn [h] (count (filter (fn [e] (= "sleep" (get-in e [:data :op]))) (history h)))) hs)))
        (advance! #dur "1h")
        (is (= [:completed :completed :waiting :waiting :waiting] (mapv status hs)))
        (advance! #dur "1h")
        (is (= [:completed :completed :completed :completed :waiting] (mapv status hs)))
        (is (= 5 @(nth hs 4))))""")


def test_a_rate_lets_so_many_begin_in_a_time() -> None:
    held("""(queue :jobs {:rate [2 #dur "1m"]})
      (let [t (now)
            hs (mapv (fn [n] (start-with {:queue :jobs} quick n)) [1 2 3 4 5])]
        (is (= [0 0 60 60 120] (mapv (fn [h] (time/seconds (time/between t @h))) hs))))""")


def test_a_queue_that_nobody_declared_has_no_limit() -> None:
    held("""(is (= [1 2 3] @(start three)))""")


def test_the_greater_priority_begins_first() -> None:
    held("""(queue :jobs {:concurrency 1})
      (let [a (start-with {:queue :jobs} job 1)
            b (start-with {:queue :jobs} job 2)
            c (start-with {:queue :jobs :priority 5} job 3)]
        (advance! #dur "90m")
        (is (= [:completed :waiting :waiting] (mapv status [a b c])))
        (advance! #dur "30m")
        (is (= [:completed :waiting :completed] (mapv status [a b c]))))""")


def test_a_paused_flow_gives_its_place_to_another_and_has_it_again_when_it_goes_on() -> None:
    held("""(queue :jobs {:concurrency 1})
      (let [a (start-with {:queue :jobs} job 1)
            b (start-with {:queue :jobs} job 2)
            c (start-with {:queue :jobs} job 3)]
        (settle!)
        (pause! a)
        (advance! #dur "30m")
        (resume! a)
        (advance! #dur "30m")
        (is (= [:completed :completed :waiting] (mapv status [a b c])))
        (advance! #dur "1h")
        (is (= :completed (status c))))""")


def test_a_flow_that_is_cancelled_while_it_waits_never_begins() -> None:
    held("""(queue :jobs {:concurrency 1})
      (let [a (start-with {:queue :jobs} job 1)
            b (start-with {:queue :jobs} job 2)
            c (start-with {:queue :jobs} job 3)]
        (settle!)
        (cancel! b)
        (advance! #dur "2h")
        (is (= [:completed :cancelled :completed] (mapv status [a b c]))))""")


def test_a_child_in_its_parents_queue_shares_the_place() -> None:
    (result,) = run_source("""
      (defflow leaf [] (sleep #dur "1h") :leaf)
      (defflow parent* [] @(start-with {:queue :q :with-parent true} leaf))
      (deftest it (queue :q {:concurrency 1}) (is (= :leaf @(start-with {:queue :q} parent*))))""")
    assert result.ok, result


def test_calls_in_a_queue_are_sent_in_turn() -> None:
    held("""(queue :jobs {:concurrency 1})
      (with-foreign {work (fn [n] (sleep #dur "1m") (now))}
        (let [t (now)
              ends (mapv deref (mapv (fn [n] (async (work n))) [1 2 3]))]
          (is (= [60 120 180] (mapv (fn [e] (time/seconds (time/between t e))) ends)))))""")


def test_the_time_to_wait_for_a_turn_counts_as_time_of_the_call() -> None:
    held("""(queue :jobs {:concurrency 1})
      (with-foreign {work (fn [n] (sleep #dur "1h") n)}
        (let [a (async (work 1)) b (async (call 'work [2] {:queue :jobs :timeout #dur "10m"})) t (now)]
          (is (thrown? :flow/timeout @b))
          (is (= 600 (time/seconds (time/between t (now)))))
          (is (= 1 @a))))""")


@pytest.mark.parametrize("options", ["{:concurrency 0}", "{:rate 3}", '{:rate [0 #dur "1s"]}', "{:priority :high}", "{:limit 3}"])
def test_limits_that_are_none_are_refused(options: str) -> None:
    held(f"(is (thrown? :value (queue :jobs {options})))")


# Restarts

FIVE = '(mapv (fn [n] (start-with {:id (str "j" n) :queue :jobs} job n)) [1 2 3 4 5])'


def statuses(engine: Engine) -> list[str]:
    return ["begun" if any(row.kind == "effect-requested" and row.step == 1 for row in engine.store.rows(f"j{n}")) else "not" for n in range(1, 6)]


@several
def test_who_is_in_a_queue_and_who_waits_survives_a_restart(store: Any) -> None:
    async def scene() -> None:
        clock = HandClock()
        async with life(store, clock) as engine:
            await engine.load(JOBS, file="jobs.flow")
            await engine.result(await engine.eval(f"(queue :jobs {{:concurrency 2}}) {FIVE} nil"))
            await settle(engine)
            assert statuses(engine) == ["begun", "begun", "not", "not", "not"]
            await engine.control("j2", "pause")
            await settle(engine)
            assert statuses(engine) == ["begun", "begun", "begun", "not", "not"]
        async with life(store, clock) as engine:
            await settle(engine, 1800)
            assert statuses(engine) == ["begun", "begun", "begun", "not", "not"]
            await settle(engine, 1800)
            assert statuses(engine) == ["begun"] * 5
            assert (await engine.flow("j1"))["status"] == "completed"

    play(scene)


@several
def test_a_rate_is_held_over_a_restart(store: Any) -> None:
    async def scene() -> None:
        clock = HandClock()
        async with life(store, clock) as engine:
            await engine.load(JOBS, file="jobs.flow")
            await engine.result(await engine.eval(f'(queue :jobs {{:rate [2 #dur "1h"]}}) {FIVE} nil'))
            await settle(engine)
        async with life(store, clock) as engine:
            await settle(engine, 1800)
            assert statuses(engine) == ["begun", "begun", "not", "not", "not"]
            await settle(engine, 1800)
            assert statuses(engine) == ["begun", "begun", "begun", "begun", "not"]

    play(scene)


@several
def test_workers_get_no_more_than_the_queue_allows_and_the_greater_priority_first(store: Any) -> None:
    async def scene() -> None:
        async with life(store, HandClock()) as engine:
            await engine.load(JOBS + "(defforeign other [n] {:queue :first})", file="jobs.flow")
            calls = "(mapv (fn [n] (async (work n))) [1 2 3]) (async (other 9))"
            await engine.eval(f"(queue :jobs {{:concurrency 1}}) (queue :first {{:priority 1}}) {calls}")
            await settle(engine)
            leased = await engine.foreign.lease(["work", "other"], most=10)
            assert [(t["function"], t["args"]) for t in leased] == [("other", [9]), ("work", [1])]
            assert await engine.foreign.lease(["work"], most=10) == []
            waiting = asyncio.ensure_future(engine.foreign.lease(["work"], most=10, wait=5))
            await engine.foreign.complete(leased[1]["id"], 1)
            assert [t["args"] for t in await waiting] == [[2]]

    play(scene)


@scene
async def test_a_declaration_that_is_repeated_does_not_undo_a_newer_one(b: Bench) -> None:
    queues = b.engine.queues
    for concurrency, key in ((1, "k1"), (5, "k2"), (1, "k1")):
        await queues.declare("q", from_plain({"concurrency": concurrency}), key, "flow")
    assert queues.queues["q"].concurrency == 5
    await b.restart()
    assert b.engine.queues.queues["q"].concurrency == 5
