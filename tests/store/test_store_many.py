"""Reading for many flows at once gives what reading for each of them gives, in few questions; positions take little room."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from log_rows import commit, row, started

from flowmetal.store import positions
from flowmetal.store.memory import MemoryStore
from flowmetal.store.positions import Positions
from flowmetal.store.protocol import Row, Snapshot, Store
from flowmetal.store.writer import Writer


def fill(store: Store) -> None:
    """Three flows of different length; two have snapshots, one of them two."""
    for n, flow_id in enumerate("abc", 1):
        snapshots = [Snapshot(flow_id, seq, 0, "f", f"{flow_id}{seq}".encode()) for seq in range(1, n)]
        commit(store, started(flow_id), *[row(flow_id, "log", {"n": k}) for k in range(n)], snapshots=snapshots)


def test_rows_of_many_are_those_of_each(store: Store) -> None:
    fill(store)
    found = store.rows_of({"a": 0, "b": 1, "c": 9, "nobody": 0})
    assert found == {"a": store.rows("a"), "b": store.rows("b", 1)}
    assert store.rows_of({"c": 2, "a": 0}, frozenset({"log"})) == {"c": store.rows("c", 2), "a": store.rows("a", 1)}
    assert store.rows_of({"b": 0}) == {"b": store.rows("b")}
    assert store.rows_of({}) == store.rows_of({"nobody": 0, "nor this": 0}) == {}


def test_rows_of_many_keep_large_values(store: Store) -> None:
    fill(store)
    large = {"text": "x" * 100_000}
    commit(store, row("a", "log", large), row("b", "log", large))
    assert store.rows_of({"a": 0, "b": 0}) == {"a": store.rows("a"), "b": store.rows("b")}


def test_snapshots_of_many_are_the_newest(store: Store) -> None:
    fill(store)
    commit(store, row("b", "log"), snapshots=[Snapshot("b", 3, 0, "f", b"new")])
    found = store.snapshots_of(["a", "b", "c", "nobody"])
    assert {flow_id: s.body for flow_id, s in found.items()} == {"b": b"new", "c": b"c2"}
    assert store.snapshots_of(["c"]) == {"c": store.snapshot("c")}
    assert store.snapshots_of(["a", "nobody"]) == store.snapshots_of([]) == {}
    store.drop_derived()
    assert store.snapshots_of(["b", "c"]) == {}
    assert store.snapshot("b") is None
    commit(store, row("b", "log"), snapshots=[Snapshot("b", 4, 0, "f", b"again")])
    assert {s.body for s in store.snapshots_of(["b", "c"]).values()} == {b"again"}


class Counting(MemoryStore):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[list[str]] = []

    def many(self, flow_ids: list[str]) -> dict[str, list[Row]]:
        self.questions.append(flow_ids)
        if "bad" in flow_ids:
            raise ValueError("bad")
        return self.rows_of(dict.fromkeys(flow_ids, 0))


def test_questions_that_come_together_are_one() -> None:
    store = Counting()
    fill(store)

    async def ask(flow_ids: Sequence[str]) -> list[object]:
        writer = Writer(store)
        writer.start()
        answers = await asyncio.gather(*[writer.ask(store.many, flow_id) for flow_id in flow_ids], return_exceptions=True)
        await writer.stop()
        return list(answers)

    for flow_ids in (["a"], ["a", "b", "a", "nobody"] * 100):
        assert asyncio.run(ask(flow_ids)) == [store.rows(flow_id) or None for flow_id in flow_ids]
    assert sum(map(len, store.questions)) < 100
    assert all(isinstance(answer, ValueError) for answer in asyncio.run(ask(["bad"])))


@given(st.lists(st.integers(0, 400), max_size=300), st.integers(1, 20), st.integers(1, 100))
def test_positions_are_lower_bounds(names: list[int], fresh: int, largest: int) -> None:
    before = positions.FRESH, positions.LARGEST
    positions.FRESH, positions.LARGEST = fresh, largest  # type: ignore[misc]
    try:
        index = Positions()
        first: dict[int, int] = {}
        for pos, name in enumerate(names, 1):
            index.add(name, pos)
            first.setdefault(name, pos)
        loaded = Positions()
        loaded.load((name, pos) for pos, name in enumerate(names, 1))
        for name in range(401):
            assert index.get(name) == loaded.get(name) == first.get(name)
    finally:
        positions.FRESH, positions.LARGEST = before  # type: ignore[misc]
