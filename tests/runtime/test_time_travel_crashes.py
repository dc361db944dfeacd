"""Forks and upgrades, with the process killed, and commits refused, at every commit."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from flowmetal.errors import FlowEnded
from flowmetal.runtime.engine import Engine
from flowmetal.runtime.fork import Wish
from flowmetal.store import kinds
from flowmetal.testing import Program, check
from flowmetal.testing.crash import Hardship, hardships

LEAF = """\
(defforeign work [n])
(defflow leaf [] (let [a (:target (work 1)) c (callback)] (work 2) (let [m (receive)] [a (:n @c) m])))
"""


async def until_asked(engine: Engine, flow_id: str, step: int) -> None:
    """Returns when a flow has asked for a step."""
    async for _ in engine.watch(flow_id):
        if any(row.step == step for row in await engine.writer.call(engine.store.rows, flow_id)):
            return


async def post(engine: Engine, flow_id: str) -> None:
    """Says when the forks are to be made; posts to the callback of the original when they are there, and wakes all."""
    call, store = engine.writer.call, engine.store
    await until_asked(engine, flow_id, 2)
    leaf = json.loads((await call(store.rows, flow_id, 0, None, frozenset({kinds.VALUE_RECORDED})))[0].data)["child"]
    await until_asked(engine, leaf, 4)
    try:
        await engine.send(flow_id, "fork", key="m1")
        await until_asked(engine, flow_id, 5)
        token = next(row.key for row in await call(store.rows, leaf) if row.step == 2 and row.key)
        answer, _ = await engine.settle_callback(token, {"n": 7})
        assert answer in ("accepted", "again")
        await engine.send(flow_id, "go", key="m2")
    except FlowEnded:  # it had all of that in an earlier life
        return


async def upgrade(engine: Engine, flow_id: str) -> None:
    """Moves the flow to other definitions when it waits, and wakes it."""
    await until_asked(engine, flow_id, 2)
    try:
        await engine.load(UPGRADED.replace(":old", ":new"), file="new.flow")
        await engine.upgrades.upgrade(flow_id, by="test", request_id="u")
        await engine.send(flow_id, "go", key="m")
    except FlowEnded:  # it had all of that in an earlier life
        return


async def fork(engine: Engine, flow_id: str) -> None:
    """Forks the flow from outside, and wakes both."""
    await until_asked(engine, flow_id, 2)
    made = await engine.forks.fork(flow_id, Wish(2, ("given",)), by="test", request_id="f")
    try:
        await engine.send(flow_id, "go", key="m")
    except FlowEnded:
        return
    async for _ in engine.watch(made):
        if await engine.writer.call(engine.store.rows, made, 0, 1, kinds.ENDING):
            return


UPGRADED = """\
(defforeign work [n])
(defflow main [] (println "began") (let [a (:target (work 1)) m (receive)] (println "goes on") [:old a m (:target (work 2))]))
"""

PROGRAMS = {
    "forks of a flow, whose callback both wait for": Program(
        LEAF
        + """(defflow main []
               (let [h (start leaf)]
                 (receive)
                 (let [f (fork h {:at 3}) g (fork h {:at 4 :with :given})]
                   (receive)
                   (send h 1)
                   (send f 2)
                   [@h @f @g])))""",
        drive=post,
    ),
    "a fork in whose past a call is open": Program(
        """(defforeign work [n])
           (defflow leaf [] (sleep #dur "1h") (work 3) :leaf)
           (defflow inner [] (let [p (async (leaf))] (work 1) (sleep #dur "1m") [@p (work 2)]))
           (defn outcome [h] (try @h (catch :default e (ex-type e))))
           (defflow main []
             (let [h (start inner)]
               (sleep #dur "10m")
               (let [f (fork h {:at 3})] (cancel! h) [(outcome h) (outcome f)])))"""
    ),
    "a fork of a saga": Program(
        """(defforeign charge [n]) (defforeign refund [r]) (defforeign ship [n])
           (defflow order []
             (saga (undoable (charge 1) refund) (ship 1) (undoable (charge 2) refund) (receive) (throw (ex-info "no" {:type :my/no}))))
           (defflow main []
             (let [h (start order)]
               (sleep #dur "1s")
               (let [f (fork h {:at 2}) g (fork h {:at 4 :with :go :adopt-rollbacks true})]
                 (send f :go)
                 (send h :go)
                 (mapv (fn [x] (try @x (catch :my/no e :no))) [h f g]))))"""
    ),
    "a fork from outside": Program(
        """(defforeign work [n]) (defflow main [] (let [a (work 1) m (receive)] [m (:target (work 2))]))""",
        drive=fork,
    ),
    "an upgrade": Program(UPGRADED, drive=upgrade),
}


def every_other(commits: int) -> Iterator[Hardship]:
    """A kill and a refused commit at each commit, before and after it in turn; all that a short program can be disturbed by."""
    for what, faults, conditions in hardships(commits):
        at = max((n for n, _ in faults.points), default=0)
        if commits < 12 or not at or ("before" in what) == (at % 2 == 0):
            yield what, faults, conditions


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_failure_makes_no_difference(name: str) -> None:
    outcomes = check(PROGRAMS[name], of=every_other)
    assert max(outcome.lives for outcome in outcomes) > 1, "no run was killed"
