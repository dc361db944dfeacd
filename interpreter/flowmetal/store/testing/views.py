"""Promises about the views that users query: names, types, values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flowmetal.store.protocol import Store
from flowmetal.store.testing.kit import SECOND, T0, commit, promise, row, started, table

COLUMNS = {
    "flows": "flow_id, name, kind, status, parent_id, forked_from, forked_at, definitions_version, created_at, updated_at, "
    "finished_at, steps, args, tags, info, result, error",
    "events": "pos, flow_id, seq, at, kind, step, fiber, data",
    "effects": "flow_id, step, fiber, op, target, args, status, attempts, requested_at, completed_at, duration_ms, result, error, line, source",
    "messages": "message_id, topic, flow_id, received_at, consumed_at, source, idempotency_key, data",
    "timers": "flow_id, step, due_at, fired_at",
    "definitions": "version, ns, name, kind, source, hash, defined_at",
}
TYPES = {"JSON": "args tags info result error data", "TIMESTAMP WITH TIME ZONE": "created_at updated_at at due_at requested_at",
         "BIGINT": "pos seq step fiber steps attempts line version"}  # fmt: skip


@promise
def columns_and_types(store: Store) -> None:
    expected = {name: sql_type for sql_type, names in TYPES.items() for name in names.split()}
    for view, columns in COLUMNS.items():
        result = store.query(f"SELECT * FROM {view}")
        assert result.columns == columns.split(", "), view
        for name, sql_type in zip(result.columns, result.types, strict=True):
            assert sql_type == expected.get(name, sql_type), (view, name)


@promise
def schedules_are_there(store: Store) -> None:
    assert table(store, "SELECT * FROM schedules") == []


STATUSES = [
    ([], "running"),
    (["flow-waiting"], "waiting"),
    (["flow-waiting", "flow-running"], "running"),
    (["flow-paused"], "paused"),
    (["flow-paused", "flow-resumed"], "running"),
    (["flow-waiting", "cancel-requested", "log"], "waiting"),
    (["flow-waiting", "flow-completed"], "completed"),
    (["flow-failed", "message-received"], "failed"),
    (["flow-cancelled"], "cancelled"),
    (["flow-moved"], "moved"),
    (["flow-failed", "flow-running"], "running"),
]


@promise
def status(store: Store) -> None:
    for n, (later, expected) in enumerate(STATUSES):
        commit(store, started(f"f{n}"), *(row(f"f{n}", kind) for kind in later))
        flow = store.flow_row(f"f{n}")
        assert flow is not None and flow["status"] == expected, later
        assert (flow["finished_at"] is not None) == (expected in ("completed", "failed", "cancelled", "moved")), later
        assert table(store, "SELECT * FROM flows WHERE flow_id = $1", f"f{n}") == [flow]


@promise
def a_flow_in_full(store: Store) -> None:
    args = [{"id": "A-17", "total": 4200}, None, 1.5, "é"]
    commit(
        store,
        started("p/1", "ship", args=args, parent="p", parent_step=3, definitions=7, kind="child", tags={"env": "x"}),
        row("p/1", "value-recorded", {"op": "now", "args": [], "result": 1}, T0 + SECOND, step=1, fiber=0),
        row("p/1", "info", {"data": {"progress": 1}}, T0 + SECOND),
        row("p/1", "info", {"data": {"progress": 2}}, T0 + 2 * SECOND),
        row("p/1", "flow-failed", {"error": {"type": "user", "message": "no", "data": None}}, T0 + 3 * SECOND + 5000),
    )
    expected = {
        "flow_id": "p/1", "name": "ship", "kind": "child", "status": "failed", "parent_id": "p",
        "forked_from": None, "forked_at": None, "definitions_version": 7,
        "created_at": "2023-11-14T22:13:20Z", "updated_at": "2023-11-14T22:13:23.005Z",
        "finished_at": "2023-11-14T22:13:23.005Z", "steps": 1, "args": args, "tags": {"env": "x"},
        "info": {"progress": 2}, "result": None, "error": {"type": "user", "message": "no", "data": None},
    }  # fmt: skip
    assert store.flow_row("p/1") == expected
    assert table(store, "SELECT * FROM flows WHERE flow_id = $1", "p/1") == [expected]
    assert store.flow_row("p") is None


@promise
def a_cells_result_is_there_while_it_goes_on(store: Store) -> None:
    commit(store, started("c", kind="cell"), row("c", "cell-result", {"result": 42}))
    flow = store.flow_row("c")
    assert flow is not None and (flow["status"], flow["result"]) == ("running", 42)
    assert table(store, "SELECT * FROM flows") == [flow]


@promise
def flow_rows_page_from_the_newest(store: Store) -> None:
    for i in range(7):
        commit(store, started(f"f{i}", "even" if i % 2 == 0 else "odd"), row("$definitions", "defined"))
    commit(store, row("f3", "flow-completed", {"result": 3}), row("f4", "flow-completed"))

    def ids(**asked: Any) -> list[str]:
        return [flow["flow_id"][1:] for flow in store.flow_rows(**asked)]

    assert ids() == list("6543210")
    assert ids(limit=3) == list("654")
    assert ids(limit=3, after="f4") == list("321")
    assert ids(status="running") == list("65210")
    assert ids(status="completed", name="odd") == ["3"]
    assert ids(name="even", after="f4") == ["2", "0"]
    assert ids(name="none") == ids(status="none") == ids(limit=0) == []
    assert store.flow_rows(status="completed", name="odd")[0]["result"] == 3


@promise
def find_flows_by_prefix(store: Store) -> None:
    for flow_id in ("ab", "abc", "abd", "x_y"):
        commit(store, started(flow_id))
    commit(store, row("abz", "log"))
    assert store.find_flows("ab") == ["ab"]
    assert store.find_flows("abd") == ["abd"] == store.find_flows("abd", 5)
    assert store.find_flows("a") == ["ab", "abc"]
    assert store.find_flows("a", 9) == ["ab", "abc", "abd"]
    assert store.find_flows("x%") == [] == store.find_flows("abz")


@promise
def effects(store: Store) -> None:
    asked = {"op": "http/request", "target": "POST u", "args": [1], "line": 3, "source": "f.flow", "hash": "h"}
    commit(store, started("a"), *(row("a", "effect-requested", asked, step=n, fiber=1, key=f"t{n}") for n in (1, 2, 3, 4)))
    commit(store, row("a", "value-recorded", {"op": "rand", "args": [], "result": 0.5, "line": 4}, T0 + 7, step=5, fiber=0))
    commit(store, row("a", "effect-completed", {"result": {"status": 200}, "attempts": 2}, T0 + 1500, step=1))
    commit(store, row("a", "attempt-failed", {"attempt": 1, "error": {}}, step=2), row("a", "attempt-started", {"attempt": 2}, step=2))
    commit(store, row("a", "effect-failed", {"error": {"type": "http/timeout"}, "attempts": 5}, step=3))
    commit(store, row("a", "effect-cancelled", {"reason": "lost"}, step=4), row("a", "effect-completed", {"result": 1}, step=4))
    rows = {r["step"]: r for r in table(store, "SELECT * FROM effects ORDER BY step")}
    assert [(r["status"], r["attempts"]) for r in rows.values()] == [
        ("completed", 2), ("requested", 2), ("failed", 5), ("cancelled", 1), ("recorded", 1),
    ]  # fmt: skip
    assert rows[1] == {
        "flow_id": "a", "step": 1, "fiber": 1, "op": "http/request", "target": "POST u", "args": [1], "status": "completed",
        "attempts": 2, "requested_at": "2023-11-14T22:13:20Z", "completed_at": "2023-11-14T22:13:20.001500Z",
        "duration_ms": 1.5, "result": {"status": 200}, "error": None, "line": 3, "source": "f.flow",
    }  # fmt: skip
    assert rows[3]["error"] == {"type": "http/timeout"} and rows[2]["completed_at"] is None
    assert (rows[4]["result"], rows[5]["result"], rows[5]["duration_ms"]) == (None, 0.5, 0)


@promise
def messages_are_deliveries(store: Store) -> None:
    commit(store, started("a"), row("a", "effect-requested", {"op": "callback", "args": []}, step=1, key="SECRET"))
    mail = {"message_id": "m1", "message": {"x": 1}, "from": None, "source": "http", "topic": "t"}
    commit(store, row("a", "message-received", mail, T0, key="idem"), row("a", "message-received", {**mail, "message_id": "m2"}))
    commit(store, row("a", "effect-requested", {"op": "receive"}, step=2))
    commit(store, row("a", "effect-completed", {"result": {"x": 1}, "message_id": "m1"}, T0 + SECOND, step=2))
    commit(store, row("a", "effect-completed", {"result": {"paid": True}, "message_id": "m3"}, T0 + SECOND, step=1))
    rows = table(store, "SELECT * FROM messages ORDER BY message_id")
    assert [(r["message_id"], r["idempotency_key"], r["consumed_at"] is None) for r in rows] == [
        ("m1", "idem", False), ("m2", None, True), ("m3", None, False),
    ]  # fmt: skip
    assert rows[0]["data"] == {"x": 1} and rows[0]["topic"] == "t" and rows[0]["source"] == "http"
    assert rows[2]["data"] == {"paid": True} and rows[2]["source"] == "callback"


@promise
def timers(store: Store) -> None:
    commit(store, started("a"))
    for step, op in ((1, "sleep"), (2, "timer"), (3, "http/request")):
        commit(store, row("a", "effect-requested", {"op": op, "due_at": "2026-01-31T09:30:00.25Z"}, step=step))
    commit(store, row("a", "effect-completed", {}, T0 + SECOND, step=1))
    assert table(store, "SELECT * FROM timers ORDER BY step") == [
        {"flow_id": "a", "step": 1, "due_at": "2026-01-31T09:30:00.250Z", "fired_at": "2023-11-14T22:13:21Z"},
        {"flow_id": "a", "step": 2, "due_at": "2026-01-31T09:30:00.250Z", "fired_at": None},
    ]


@promise
def definitions(store: Store) -> None:
    data = {"ns": "user", "name": "ship", "kind": "flow", "source": "(defflow ship [])", "hash": "h1", "doc": None}
    commit(store, row("$definitions", "engine"), row("$definitions", "defined", data), row("a", "defined", {"version": 2}))
    assert table(store, "SELECT * FROM definitions") == [{
        "version": 2, "ns": "user", "name": "ship", "kind": "flow", "source": "(defflow ship [])", "hash": "h1",
        "defined_at": "2023-11-14T22:13:20Z",
    }]  # fmt: skip
    assert table(store, "SELECT * FROM flows") == []


@promise
def events_are_the_log_without_its_secrets(store: Store) -> None:
    commit(store, started("a"), row("a", "effect-requested", {"op": "callback"}, T0 + 250_000, step=1, fiber=0, key="SECRET"))
    (event,) = table(store, "SELECT * FROM events WHERE seq = 2")
    assert event == {
        "pos": 2, "flow_id": "a", "seq": 2, "at": "2023-11-14T22:13:20.250Z", "kind": "effect-requested", "step": 1,
        "fiber": 0, "data": {"op": "callback"},
    }  # fmt: skip
    result = store.query('SELECT "at" FROM events WHERE seq = 1')
    assert result.rows == [(datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),)]


@promise
def a_row_that_is_no_json_spoils_no_view(store: Store) -> None:
    bad = row("a", "log")
    bad.data = "{NaN"
    commit(store, started("a"), bad)
    assert [r["data"] is None for r in table(store, "SELECT data FROM events ORDER BY pos")] == [False, True]
    assert len(table(store, "SELECT * FROM flows")) == 1


@promise
def a_step_asked_again_shows_its_latest_asking(store: Store) -> None:
    asked = {"op": "foreign", "target": "f", "args": []}
    commit(store, started("a"), row("a", "effect-requested", asked, T0, step=1))
    commit(store, row("a", "effect-failed", {"error": {"type": "user"}, "attempts": 3}, T0 + 1, step=1))
    commit(store, row("a", "effect-requested", {**asked, "args": [2]}, T0 + 2, step=1))
    (effect,) = table(store, "SELECT * FROM effects")
    assert (effect["status"], effect["args"], effect["error"]) == ("requested", [2], None)
    commit(store, row("a", "effect-completed", {"result": 7, "attempts": 1}, T0 + 3, step=1))
    (effect,) = table(store, "SELECT * FROM effects")
    assert (effect["status"], effect["result"], effect["attempts"]) == ("completed", 7, 1)


@promise
def steps_of_each_run_have_their_own_outcome(store: Store) -> None:
    commit(store, started("a"))
    for run in (1, 2):
        commit(store, row("a", "effect-requested", {"op": "foreign", "target": f"run {run}", "args": []}, step=1))
        commit(store, row("a", "effect-completed", {"result": run, "attempts": 1}, step=1))
    assert [(e["target"], e["result"]) for e in table(store, "SELECT * FROM effects ORDER BY target")] == [("run 1", 1), ("run 2", 2)]


@promise
def a_step_of_a_retried_flow_shows_its_latest_asking(store: Store) -> None:
    asked = {"op": "foreign", "target": "f", "args": []}
    commit(store, started("a"), row("a", "effect-requested", asked, T0, step=1), row("a", "effect-requested", asked, T0, step=2))
    commit(store, row("a", "effect-cancelled", {"reason": "no"}, step=1), row("a", "flow-failed"), row("a", "flow-retried", {"since": 4}))
    (one, two) = table(store, "SELECT status FROM effects ORDER BY step")
    assert (one["status"], two["status"]) == ("cancelled", "requested")
    commit(store, row("a", "effect-requested", {**asked, "args": [2]}, T0 + 2, step=1))
    (effect,) = table(store, "SELECT * FROM effects WHERE step = 1")
    assert (effect["status"], effect["args"], effect["attempts"]) == ("requested", [2], 0)
    commit(store, row("a", "effect-completed", {"result": 7, "attempts": 1}, T0 + 1_002, step=1))
    (effect,) = table(store, "SELECT * FROM effects WHERE step = 1")
    assert (effect["status"], effect["result"], effect["duration_ms"]) == ("completed", 7, 1.0)


@promise
def forks_and_upgrades_are_seen_in_flows(store: Store) -> None:
    commit(store, started("a", forked_from="b", forked_at=3), row("a", "flow-forked", at=T0 + SECOND), row("a", "flow-upgraded", {"version": 5}))
    flow = store.flow_row("a")
    assert flow is not None and table(store, "SELECT * FROM flows") == [flow]
    assert (flow["forked_from"], flow["forked_at"], flow["definitions_version"]) == ("b", 3, 5)
    assert flow["created_at"] == "2023-11-14T22:13:21Z"
