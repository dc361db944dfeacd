"""Promises about commits, and about reading what was committed."""

from __future__ import annotations

import hashlib
import json

from flowmetal.store.protocol import Commit, CommitResult, Duplicate, Row, Snapshot, Store, StoreConflict, StoreError
from flowmetal.store.testing.kit import T0, MakeStore, commit, promise, raises, row, started


@promise
def seq_grows_within_a_flow_and_pos_over_the_store(store: Store) -> None:
    commit(store, started("a"), row("a", "log"), started("b"))
    commit(store, row("b", "log"), row("a", "log"))
    assert [(r.pos, r.flow_id, r.seq) for f in "ab" for r in store.rows(f)] == [
        (1, "a", 1), (2, "a", 2), (5, "a", 3), (3, "b", 1), (4, "b", 2),
    ]  # fmt: skip
    assert store.last_pos() == 5
    assert (store.last_seq("a"), store.last_seq("b"), store.last_seq("c")) == (3, 2, 0)


@promise
def a_row_comes_back_as_it_was_written(store: Store) -> None:
    written = Row("f", "effect-requested", '{"a":"\\u0000 é 🙂"}', -5, step=2**40, fiber=3, exact='["x"]', key="k/1")
    bare = Row("f", "log", "{}", 2**52)
    commit(store, written, bare)
    assert store.rows("f") == [written, bare]
    assert written.seq == 1 and bare.pos == 2


@promise
def rows_after_and_limit(store: Store) -> None:
    commit(store, *(row("f", "log", i) for i in range(10)))
    assert [r.seq for r in store.rows("f", 4)] == [5, 6, 7, 8, 9, 10]
    assert [r.seq for r in store.rows("f", 4, 2)] == [5, 6]
    assert store.rows("f", 10) == [] and store.rows("f", 0, 0) == []
    assert store.last_seq("f") == 10


@promise
def what_is_read_is_the_readers_own(store: Store) -> None:
    mine = row("f", "log", 1)
    commit(store, mine)
    mine.data = "spoilt"
    store.rows("f")[0].data = "spoilt"
    assert store.rows("f")[0].data == "1"


@promise
def expect_says_how_far_the_author_has_seen(store: Store) -> None:
    commit(store, started("a"), expect={"a": 0})
    conflict, fine, stale = store.commit_group(
        [
            Commit([started("a")], {"a": 0}),
            Commit([row("a", "log")], {"a": 1}),
            Commit([row("a", "log")], {"a": 1}),
        ]
    )
    assert isinstance(conflict, StoreConflict) and (conflict.expected, conflict.actual) == (0, 1)
    assert isinstance(fine, CommitResult)
    assert isinstance(stale, StoreConflict) and stale.actual == 2
    assert store.last_seq("a") == 2


@promise
def a_conflict_writes_nothing_of_its_commit(store: Store) -> None:
    commit(store, started("a"))
    refused = Commit([started("b"), row("a", "log")], {"a": 7}, [Snapshot("b", 1, 0, "1", b"x")])
    (outcome,) = store.commit_group([refused])
    assert isinstance(outcome, StoreConflict)
    assert store.rows("b") == [] and store.snapshot("b") is None and store.last_pos() == 1


@promise
def arrivals_are_not_checked(store: Store) -> None:
    commit(store, started("a"))
    assert [r.seq for r in commit(store, row("a", "message-received"))] == [2]


@promise
def unique_gives_back_the_row_that_is_there(store: Store) -> None:
    first = row("$requests", "request", {"flow_id": "a"}, key="r1")
    commit(store, first, started("a"), unique=("request", "r1"))
    again = Commit([row("$requests", "request", key="r1"), started("b")], {"b": 0}, unique=("request", "r1"))
    for outcome in store.commit_group([again, again]):
        assert isinstance(outcome, Duplicate) and outcome.row == first
    assert store.last_seq("b") == 0
    commit(store, row("$requests", "other", key="r1"), unique=("other", "r1"))


@promise
def unique_within_one_group(store: Store) -> None:
    def ask() -> Commit:
        return Commit([row("$requests", "request", key="r1")], unique=("request", "r1"))

    one, two = store.commit_group([ask(), ask()])
    assert isinstance(one, CommitResult) and isinstance(two, Duplicate)
    assert two.row.pos == 1


@promise
def unique_is_asked_before_expect(store: Store) -> None:
    commit(store, row("a", "request", key="r"), unique=("request", "r"), expect={"a": 0})
    (outcome,) = store.commit_group([Commit([row("a", "request", key="r")], {"a": 0}, unique=("request", "r"))])
    assert isinstance(outcome, Duplicate)


@promise
def find_gives_the_first(store: Store) -> None:
    assert store.find("k", "x") is None
    commit(store, row("a", "k", 1, key="x"), row("a", "j", 2, key="x"), row("b", "k", 3, key="x"))
    found = store.find("k", "x")
    assert found is not None and found.data == "1"
    assert store.find("k", "y") is None


@promise
def a_failing_group_is_tried_one_by_one(make_store: MakeStore) -> None:
    """The whole group fails, then one member does: the others are there, in their order, without a gap."""
    calls: list[str] = []

    def faults(point: str) -> None:
        calls.append(point)
        if point == "commit:before" and calls.count(point) in (1, 3):
            raise RuntimeError(f"fault {calls.count(point)}")

    store = make_store(faults)
    one, two, three = store.commit_group([Commit([started(f)], {f: 0}) for f in "abc"])
    assert isinstance(one, CommitResult) and isinstance(three, CommitResult)
    assert str(two) == "fault 3"
    assert [store.last_seq(f) for f in "abc"] == [1, 0, 1]
    assert [r.pos for f in "ac" for r in store.rows(f)] == [1, 2]


@promise
def a_bad_member_fails_alone(store: Store) -> None:
    bad = Commit([Row("bad", "log", "{}", 0, step="no number")])  # type: ignore[arg-type]
    good = [Commit([started(f)]) for f in "ab"]
    outcomes = store.commit_group([good[0], bad, good[1]])
    assert isinstance(outcomes[0], CommitResult) and isinstance(outcomes[2], CommitResult)
    assert [store.last_seq(f) for f in "ab"] == [1, 1]


@promise
def faults_around_the_commit(make_store: MakeStore) -> None:
    at = ""

    def faults(point: str) -> None:
        if point == at:
            raise RuntimeError(point)

    store = make_store(faults)
    at = "commit:before"
    assert str(store.commit_group([Commit([started("a")], {"a": 0})])[0]) == "commit:before"
    assert store.last_seq("a") == 0 and store.last_pos() == 0
    at = "commit:after"
    assert str(store.commit_group([Commit([started("a")], {"a": 0})])[0]) == "commit:after"
    assert store.last_seq("a") == 1
    at = ""
    assert commit(store, row("a", "log"), expect={"a": 1})[0].pos == 2


@promise
def snapshots(store: Store) -> None:
    commit(store, started("a"), snapshots=[Snapshot("a", 1, 0, "1", b"one")])
    commit(store, *(row("a", "log") for _ in range(4)), snapshots=[Snapshot("a", 5, 2, "1", b"five\x00")])
    commit(store, snapshots=[Snapshot("a", 3, 1, "1", b"three")])
    assert store.snapshot("a") == Snapshot("a", 5, 2, "1", b"five\x00")
    assert [getattr(store.snapshot("a", n), "seq", None) for n in (0, 1, 2, 3, 4, 5, 6)] == [None, 1, 1, 3, 3, 5, 5]
    assert store.snapshot("b") is None


@promise
def open_flows_in_the_order_of_their_start(store: Store) -> None:
    for f in ("c", "a", "b", "d", "e"):
        commit(store, started(f))
    commit(store, row("$definitions", "defined"), row("a", "flow-completed"), row("d", "flow-failed"), row("e", "flow-moved"))
    commit(store, row("c", "flow-waiting"), row("b", "flow-paused"))
    assert store.open_flows() == ["c", "b"]
    commit(store, row("d", "flow-running"))
    assert store.open_flows() == ["c", "b", "d"]


@promise
def open_requests(store: Store) -> None:
    def ask(flow: str, step: int) -> Row:
        return row(flow, "effect-requested", {"op": "x"}, step=step, key=f"{flow}{step}")

    commit(store, started("a"), ask("a", 1), ask("a", 2), ask("a", 3), ask("a", 4), row("a", "value-recorded", step=5))
    commit(store, started("b"), ask("b", 1), row("b", "await", {"flow": "a"}), row("b", "await", {"flow": "z"}))
    commit(store, started("done"), ask("done", 1), row("done", "flow-completed"))
    commit(store, row("a", "effect-completed", step=1), row("a", "effect-failed", step=2), row("a", "effect-cancelled", step=3))
    commit(store, row("b", "await-settled", {"flow": "z", "result": 1}))
    open_ = store.open_requests()
    assert [(r.flow_id, r.kind, r.step, r.key) for r in open_] == [
        ("a", "effect-requested", 4, "a4"), ("b", "effect-requested", 1, "b1"), ("b", "await", None, None),
    ]  # fmt: skip
    commit(store, ask("a", 2), row("b", "await", {"flow": "z"}))
    assert [(r.flow_id, r.step) for r in store.open_requests()][-2:] == [("a", 2), ("b", None)]


@promise
def large_values_are_given_back_whole(store: Store) -> None:
    big = json.dumps({"result": "é" * 100_000})
    exact = "E" * 200_000
    commit(store, Row("a", "flow-started", '{"name":"f"}', T0), Row("a", "flow-completed", big, T0, exact=exact), Row("b", "log", big, T0))
    assert store.rows("a")[1].data == big and store.rows("a")[1].exact == exact and store.rows("b")[0].data == big
    (found,) = store.query("SELECT result FROM flows").plain()
    assert found["result"] == "é" * 100_000
    commit(store, Row("c", "log", "{}", T0, exact="@" + "0" * 64))
    assert store.rows("c")[0].exact == "@" + "0" * 64


@promise
def blobs(store: Store) -> None:
    digest = hashlib.sha256(b"body").hexdigest()
    assert store.get_blob(digest) is None
    store.put_blob(digest, b"body")
    store.put_blob(digest, b"body")
    assert store.get_blob(digest) == b"body"


@promise
def meta(store: Store) -> None:
    assert store.get_meta("format") == "1" and store.get_meta("nothing") is None
    assert len(store.get_meta("store_id") or "") == 36
    store.set_meta("port", "8421")
    store.set_meta("port", "8422")
    assert store.get_meta("port") == "8422"


@promise
def dropping_what_is_derived_loses_nothing(store: Store) -> None:
    commit(store, started("a"), row("a", "effect-requested", key="t", step=1), snapshots=[Snapshot("a", 1, 0, "1", b"x")])
    before = (store.rows("a"), store.find("effect-requested", "t"), store.flow_row("a"), store.open_requests())
    store.query("SELECT 1")
    store.drop_derived()
    assert store.snapshot("a") is None
    assert (store.rows("a"), store.find("effect-requested", "t"), store.flow_row("a"), store.open_requests()) == before
    assert commit(store, row("a", "log"), expect={"a": 2})[0].seq == 3


@promise
def an_empty_commit_and_an_empty_group(store: Store) -> None:
    assert store.commit_group([]) == []
    (outcome,) = store.commit_group([Commit([], {"a": 0})])
    assert isinstance(outcome, CommitResult) and outcome.pos == 0


@promise
def a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    (outcome,) = store.commit_group([Commit([started("a")])])
    assert isinstance(outcome, StoreError)
    for ask in (lambda: store.rows("a"), lambda: store.query("SELECT 1"), lambda: store.find("k", "x"), store.open_flows):
        with raises(StoreError, "closed"):
            ask()


@promise
def open_requests_one_after_the_other(store: Store) -> None:
    commit(store, started("a"), started("b"))
    large = {"op": "http/request", "target": "x" * 100_000, "args": []}
    asked = [{"op": "callback", "args": []}, {"op": "receive", "args": []}, {"op": "receive", "args": [], "due_at": "2026-01-31T09:30:00Z"}, large]
    linked = {"op": "callback", "args": [], "linked": {"flow": "b", "step": 1, "seq": 2}}
    commit(store, *[row("a", "effect-requested", data, step=n) for n, data in enumerate([*asked, linked], 1)])
    commit(store, row("b", "await", {"flow": "a", "promise": "result"}), row("b", "flow-waiting"))
    assert list(store.each_open_request()) == store.open_requests()
    idle = frozenset({"callback", "receive"})
    assert [(r.flow_id, r.step) for r in store.each_open_request(idle)] == [("a", 3), ("a", 4), ("a", 5), ("b", None)]
    assert (store.open_flows("waiting"), store.open_flows("running"), store.open_flows("paused")) == (["b"], ["a"], [])
