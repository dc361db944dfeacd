"""Promises about rows that are taken out of the log: what is left is as if they had never been, and no place is given twice."""

from __future__ import annotations

import json

from flowmetal.store.protocol import Commit, CommitResult, Snapshot, Store, StoreConflict, StoreError
from flowmetal.store.testing.kit import MakeStore, commit, promise, row, started

LARGE = "x" * 100_000


def remove(store: Store, **seqs: int) -> None:
    commit(store, row("$removed", "flow-deleted", sorted(seqs)), remove=seqs)


@promise
def a_flow_is_gone_with_all_that_was_its_own(store: Store) -> None:
    commit(store, started("a"), row("a", "effect-requested", step=1, key="k"), snapshots=[Snapshot("a", 2, 1, "1", b"s")])
    commit(store, started("b"), row("b", "log"))
    remove(store, a=2)
    assert store.rows("a") == [] and store.last_seq("a") == 0 and store.snapshot("a") is None
    assert store.find("effect-requested", "k") is None
    assert store.flow_row("a") is None and [r["flow_id"] for r in store.flow_rows()] == ["b"]
    assert store.open_flows() == ["b"] and store.open_requests() == [] and store.find_flows("a") == []
    assert store.query("SELECT DISTINCT flow_id FROM events ORDER BY 1").rows == [("$removed",), ("b",)]
    assert store.query("SELECT flow_id FROM flows").rows == [("b",)]


@promise
def what_remains_keeps_its_place_and_no_place_is_given_twice(make_store: MakeStore) -> None:
    store = make_store()
    commit(store, started("a"), started("b"), row("a", "log"))
    remove(store, a=2)
    assert [(r.seq, r.pos) for r in store.rows("b")] == [(1, 2)]
    assert store.last_pos() == 4
    assert [(r.seq, r.pos) for r in commit(store, started("a"))] == [(1, 5)]
    assert store.rows("a")[0].pos == 5 and store.last_seq("a") == 1


@promise
def the_older_part_of_a_stream_goes_and_its_numbers_go_on(store: Store) -> None:
    commit(store, *(row("$topic/t", "published", n, key=f"k{n}") for n in range(5)))
    commit(store, row("$removed", "flow-deleted"), remove={"$topic/t": 3})
    assert [json.loads(r.data) for r in store.rows("$topic/t")] == [3, 4]
    assert [json.loads(r.data) for r in store.rows("$topic/t", 4)] == [4]
    assert store.find("published", "k1") is None and store.find("published", "k4") is not None
    assert [r.seq for r in commit(store, row("$topic/t", "published", 5))] == [6]


@promise
def a_large_value_goes_with_the_last_row_that_has_it(store: Store) -> None:
    commit(store, started("a"), row("a", "info", LARGE, exact=json.dumps(LARGE)), started("b"), row("b", "info", LARGE))
    remove(store, a=2)
    assert json.loads(store.rows("b")[1].data) == LARGE
    assert store.query("SELECT length(data::VARCHAR) > 100000 FROM events WHERE flow_id = 'b' AND kind = 'info'").rows == [(True,)]
    remove(store, b=2)
    assert store.rows("b") == []


@promise
def a_flow_that_has_gone_on_is_not_removed(store: Store) -> None:
    commit(store, started("a"), row("a", "log"))
    (outcome,) = store.commit_group([Commit([row("$removed", "flow-deleted")], {"a": 1}, remove={"a": 1})])
    assert isinstance(outcome, StoreConflict)
    assert len(store.rows("a")) == 2 and store.last_pos() == 2


@promise
def a_removal_that_says_nothing_is_refused(store: Store) -> None:
    commit(store, started("a"))
    for silent in (Commit([], remove={"a": 1}), Commit([row("b", "log")], remove={"a": 1}), Commit([row("$x", "log")], remove={"$x": 1})):
        (outcome,) = store.commit_group([silent])
        assert isinstance(outcome, StoreError)
    assert store.last_pos() == 1


@promise
def a_removal_that_fails_is_whole_or_not_at_all(make_store: MakeStore) -> None:
    for point in ("commit:before", "commit:after"):
        _fails_at(make_store, point)


def _fails_at(make_store: MakeStore, point: str) -> None:
    failing = False

    def fault(where: str) -> None:
        if failing and where == point:
            raise RuntimeError(where)

    store = make_store(fault)
    commit(store, started("a"), started("b"))
    failing = True
    removal = Commit([row("$removed", "flow-deleted")], remove={"a": 1})
    removed, other = store.commit_group([removal, Commit([row("b", "log")])])
    failing = False
    assert str(removed) == point and not isinstance(other, CommitResult)
    there = point == "commit:before"
    assert bool(store.rows("a")) == there
    assert store.last_pos() == (2 if there else 4)


@promise
def a_flow_may_begin_again_in_the_commit_that_removes_it(store: Store) -> None:
    commit(store, started("a", "old"), row("a", "log", LARGE, key="k"), snapshots=[Snapshot("a", 2, 1, "1", b"old")])
    rows = [row("$removed", "flow-deleted"), started("a", "new"), row("a", "log", LARGE)]
    commit(store, *rows, expect={"a": 2}, remove={"a": 2}, snapshots=[Snapshot("a", 2, 1, "1", b"new")])
    assert [(r.seq, r.pos, json.loads(r.data)) for r in store.rows("a")][1] == (2, 5, LARGE) and store.last_seq("a") == 2
    flow = store.flow_row("a")
    assert flow is not None and flow["name"] == "new" and store.find("log", "k") is None
    assert commit(store, row("a", "log"), expect={"a": 2})[0].seq == 3
