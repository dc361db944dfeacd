"""Foreign calls, topics and questions, with the process killed at every commit."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from flowmetal.errors import LeaseLost, StoreError
from flowmetal.runtime.engine import Engine
from flowmetal.testing import World
from flowmetal.testing.crash import Program, check


class Workers:
    """Workers outside of the process: they outlive it, and ask whichever engine there is."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()

    async def drive(self, engine: Engine, flow_id: str) -> None:
        task = asyncio.ensure_future(self._work(engine))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _work(self, engine: Engine) -> None:
        while not engine.closing:
            for task in await engine.foreign.lease(["charge", "flaky"], most=2, wait=10):
                self.sent[task["idempotency_key"]] += 1
                while not engine.closing and not await self._answer(engine, task):
                    await asyncio.sleep(0)

    async def _answer(self, engine: Engine, task: dict[str, Any]) -> bool:
        """Whether the answer was taken, or is wanted no more; a refused one is given again."""
        try:
            if task["function"] == "flaky" and task["attempt"] == 1:
                await engine.foreign.fail(task["id"], {"type": "x/busy", "message": "busy"})
            else:
                await engine.foreign.complete(task["id"], {"paid": task["args"]})
        except StoreError:
            return False
        except LeaseLost:
            return True
        return True


def lives(source: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Workers, list[Any]]:
    """Runs a program through every crash, with its foreign calls at the desk that workers ask."""
    monkeypatch.setattr(World, "ops", frozenset({"http/request"}))
    workers = Workers()
    return workers, check(Program(source, drive=workers.drive))


def test_a_leased_call_is_answered_once_whenever_the_process_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """(defforeign charge [n]) (defforeign flaky [n] {:retry {:max-attempts 3 :initial #dur "10s" :jitter 0}})
      (defflow main [] [(flaky 2) (with-timeout #dur "1h" (charge 3))])"""
    workers, outcomes = lives(source, monkeypatch)
    assert outcomes[0].ending["result"] == [{"paid": [2]}, {"paid": [3]}]
    assert len(outcomes) > 15 and sum(workers.sent.values()) >= 3 * len(outcomes)


def test_a_call_that_nobody_answers_times_out_whenever_the_process_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """(defflow main [] [(try (call "nobody" [] {:timeout #dur "1d"}) (catch :flow/timeout e :late)) (call "charge" [1])])"""
    _, outcomes = lives(source, monkeypatch)
    assert outcomes[0].ending["result"] == ["late", {"paid": [1]}]


def test_events_are_read_once_and_in_order_whenever_the_process_dies() -> None:
    source = """(defflow main []
      (let [s (subscribe "t" {:where {:k 1}})]
        (publish "t" {:k 1 :n 1}) (publish "t" {:k 2 :n 2})
        (let [a (next-event s)]
          (publish "t" {:k 1 :n 3})
          (sleep #dur "1h")
          [(:n a) (:n (next-event s))])))"""
    assert check(Program(source))[0].ending["result"] == [1, 3]


def test_an_event_that_loses_a_select_is_there_for_the_next_whenever_the_process_dies() -> None:
    source = """(defflow main []
      (let [s (subscribe "t")]
        (let [a (select {:event (next-event s) :time (timer #dur "1h")})
              _ (publish "t" 1)
              b (select [(next-event s) (timer #dur "1h")])]
          [a b])))"""
    assert check(Program(source))[0].ending["result"] == [["time", None], [0, 1]]


def test_endings_are_published_once_whenever_the_process_dies() -> None:
    source = """(defflow child [n] n)
      (defflow main [] (let [s (subscribe "$flows" {:where {:name "child"}})] (child 1) (start child 2) [(:status (next-event s)) (:status (next-event s))]))"""
    outcomes = check(Program(source))
    assert outcomes[0].ending["result"] == ["completed", "completed"]
    for outcome in outcomes:
        assert len(outcome.world.store.rows("$topic/$flows")) == 3


def test_a_question_is_answered_once_whenever_the_process_dies() -> None:
    source = """(defflow server [] (let [m (receive)] (reply m (inc (:n m)))) :done)
      (defflow main [] (let [s (start server)] [(ask s {:n 1} {:timeout #dur "1d"}) @s]))"""
    assert check(Program(source))[0].ending["result"] == [2, "done"]
