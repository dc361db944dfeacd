"""Snapshots and all else that is derived: a cache, whose loss costs time only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from bench import Bench, scene
from stores import Stores, both

from flowmetal.runtime import snapshots
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Snapshot, Store

LONG = """
(defforeign work [n])
(defflow main []
  (let [p (callback) a (atom []) kept (async (receive {:match {:to "kept"}}))]
    (loop [i 0]
      (if (< i 30) (do (work i) (swap! a conj i) (recur (inc i))) nil))
    (let [m (receive {:match {:to "main"}})]
      [(count @a) (:n m) (:v @p) (:to @kept) (receive {:timeout #dur "1s" :else :none})])))
"""


async def long_flow(b: Bench) -> str:
    """A flow with snapshots, an open callback, a fiber, an atom and a message in its mailbox."""
    await b.load(LONG)
    flow = await b.start("main")
    await b.engine.send(flow, {"to": "nobody"})
    assert b.store.snapshot(flow) is not None, "it was worth a snapshot"
    return flow


async def finish(b: Bench, flow: str) -> Any:
    """Lets the long flow end."""
    await b.engine.settle_callback(b.token(flow, 1), {"v": 7})
    await b.engine.send(flow, {"to": "kept"})
    await b.engine.send(flow, {"to": "main", "n": 5})
    return await b.result(flow)


EXPECTED = [30, 5, 7, "kept", {"to": "nobody"}]


def all_snapshots(store: Store, flow: str) -> list[Snapshot]:
    """Those of a flow that are kept, the oldest first."""
    found: list[Snapshot] = []
    newest = store.snapshot(flow)
    while newest is not None:
        found.insert(0, newest)
        newest = store.snapshot(flow, newest.seq - 1)
    return found


@both
@scene
async def test_a_flow_wakes_from_its_snapshot(b: Bench) -> None:
    flow = await long_flow(b)
    kept = b.store.snapshot(flow)
    assert kept is not None
    await b.restart()
    process = await b.engine.actor(flow).load()
    assert process.state.steps == kept.step > 0, "what comes after it is executed when the flow has something to do"
    assert await finish(b, flow) == EXPECTED


@both
@scene
async def test_dropping_all_that_is_derived_loses_nothing(b: Bench) -> None:
    flow = await long_flow(b)
    await b.restart()
    b.store.drop_derived()
    assert b.store.snapshot(flow) is None
    assert await finish(b, flow) == EXPECTED
    assert len(b.world.sent) == 30


def flip(body: bytes) -> bytes:
    """One bit of the middle is another."""
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


DAMAGE: dict[str, Callable[[Snapshot], Snapshot]] = {
    "empty": lambda s: replace(s, body=b""),
    "cut off": lambda s: replace(s, body=s.body[:-10]),
    "one bit": lambda s: replace(s, body=flip(s.body)),
    "its digest": lambda s: replace(s, body=flip(s.body[:16]) + s.body[16:]),
    "garbage": lambda s: replace(s, body=b"garbage" * 100),
    "of an older format": lambda s: replace(s, format="0-0-0"),
    "of another program": lambda s: replace(s, format=s.format + "x"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_snapshot_that_cannot_be_read_is_made_again_from_the_log(stores: Stores, damage: str) -> None:
    @scene
    async def play(b: Bench) -> None:
        flow = await long_flow(b)
        damaged = [DAMAGE[damage](snapshot) for snapshot in all_snapshots(b.store, flow)]
        b.store.drop_derived()
        (made,) = b.store.commit_group([Commit(rows=[], snapshots=damaged)])
        assert not isinstance(made, Exception) and all_snapshots(b.store, flow) == damaged != []
        await b.restart()
        assert (await b.engine.state(flow, 20))["step"] == 20
        assert await finish(b, flow) == EXPECTED
        assert len(b.world.sent) == 30

    play(stores)


@scene
async def test_resuming_does_not_cost_the_whole_history(b: Bench) -> None:
    await b.load("(defflow main [] (loop [n 0] (receive) (recur (inc n))))")
    flow = await b.start("main")
    for n in range(300):
        await b.engine.send(flow, n)
    snapshot = b.store.snapshot(flow)
    assert snapshot is not None
    assert len(b.store.rows(flow)) - snapshot.seq < 100


@scene
async def test_the_work_of_snapshots_is_within_a_factor_of_the_runs_own(b: Bench) -> None:
    await b.load("(defflow main [] (loop [all []] (recur (conj all (receive)))))")
    flow = await b.start("main")
    for n in range(400):
        await b.engine.send(flow, {"number": n, "text": "x" * 20})
    written = sum(len(s.body) for s in all_snapshots(b.store, flow))
    rows = sum(len(row.data) + len(row.exact or "") for row in b.store.rows(flow))
    assert written < 6 * rows, (written, rows)


@scene
async def test_a_flow_that_never_waits_is_kept_too(b: Bench) -> None:
    b.options["fuel"] = 200
    await b.restart()
    await b.load("(defflow main [] (loop [i 0] (if (< i 400) (do (random-uuid) (recur (inc i))) (receive))))")
    flow = await b.start("main")
    assert b.store.snapshot(flow) is not None
    await b.restart()
    await b.engine.send(flow, "end")
    assert await b.result(flow) == "end"


@scene
async def test_an_encoding_keeps_sharing(b: Bench) -> None:
    b.options["keep_snapshot"] = lambda process: not process.ended
    await b.restart()
    await b.load("(defflow main [] (let [x (loop [i 0 x [1]] (if (< i 18) (recur (inc i) [x x]) x))] (receive) (count x)))")
    flow = await b.start("main")
    snapshot = b.store.snapshot(flow)
    assert snapshot is not None and len(snapshot.body) < 10_000
    await b.restart()
    await b.engine.send(flow, 1)
    assert await b.result(flow) == 2


def test_a_snapshot_says_what_reads_it() -> None:
    assert snapshots.FORMAT.count("-") >= 2
    assert kinds.ENDING
