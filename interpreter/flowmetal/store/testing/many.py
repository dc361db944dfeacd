"""Promises about reading for many flows at once: it gives what reading for each of them gives."""

from __future__ import annotations

from flowmetal.store.protocol import Snapshot, Store
from flowmetal.store.testing.kit import commit, promise, row, started


def fill(store: Store) -> None:
    """Three flows of different length; two have snapshots, one of them two."""
    for n, flow_id in enumerate("abc", 1):
        snapshots = [Snapshot(flow_id, seq, 0, "f", f"{flow_id}{seq}".encode()) for seq in range(1, n)]
        commit(store, started(flow_id), *[row(flow_id, "log", {"n": k}) for k in range(n)], snapshots=snapshots)


@promise
def rows_of_many_are_those_of_each(store: Store) -> None:
    fill(store)
    found = store.rows_of({"a": 0, "b": 1, "c": 9, "nobody": 0})
    assert found == {"a": store.rows("a"), "b": store.rows("b", 1)}
    assert store.rows_of({"c": 2, "a": 0}, frozenset({"log"})) == {"c": store.rows("c", 2), "a": store.rows("a", 1)}
    assert store.rows_of({"b": 0}) == {"b": store.rows("b")}
    assert store.rows_of({}) == store.rows_of({"nobody": 0, "nor this": 0}) == {}


@promise
def rows_of_many_keep_large_values(store: Store) -> None:
    fill(store)
    large = {"text": "x" * 100_000}
    commit(store, row("a", "log", large), row("b", "log", large))
    assert store.rows_of({"a": 0, "b": 0}) == {"a": store.rows("a"), "b": store.rows("b")}


@promise
def snapshots_of_many_are_the_newest(store: Store) -> None:
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
