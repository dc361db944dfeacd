"""Promises about users' SQL: one SELECT, nothing else, no secrets, within limits. Only what all dialects have is asked."""

from __future__ import annotations

import threading
import time
from typing import Final

from flowmetal.store.protocol import SqlRefused, Store
from flowmetal.store.testing.kit import commit, promise, raises, row, started

FINE: Final = {
    "SELECT 1": [(1,)],
    "select count(*) from flows;": [(1,)],
    "VALUES (1), (2)": [(1,), (2,)],
    "WITH a AS (SELECT 1 AS x) SELECT * FROM a UNION ALL SELECT 2": [(1,), (2,)],
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT max(n) FROM t": [(3,)],
    "SELECT (SELECT max(seq) FROM events) m -- a comment": [(2,)],
    "SELECT data->>'op' AS op FROM events WHERE seq = 2": [("callback",)],
    "SELECT data->>'$.op' AS op FROM events WHERE seq = 2": [("callback",)],
    "SELECT data->>'$.of.place' AS place, data->'$.of'->>'place' FROM events WHERE seq = 2": [("x", "x")],
    "SELECT status, count(*) FROM flows GROUP BY status ORDER BY 2 DESC": [("running", 1)],
    "SELECT f.name, e.seq FROM flows f JOIN events e USING (flow_id) ORDER BY e.seq": [("f", 1), ("f", 2)],
    "SELECT sum(seq) AS total FROM events": [(3,)],
    "SELECT coalesce(NULL, 'x') || ';' AS text": [("x;",)],
    "SELECT x FROM (SELECT row_number() OVER (ORDER BY seq DESC) AS x FROM events) t ORDER BY x": [(1,), (2,)],
}
REFUSED: Final = [
    "",
    "-- nothing",
    "/* nothing */ ;",
    "SELEC 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW flows",
    "INSERT INTO flows VALUES (1)",
    "INSERT INTO fm.log VALUES (1)",
    "UPDATE fm.meta SET value = '9'",
    "DELETE FROM fm.log",
    "WITH a AS (DELETE FROM fm.log RETURNING *) SELECT * FROM a",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP TABLE t AS SELECT 1",
    "DROP VIEW flows",
    "COPY flows TO '/tmp/x.csv'",
    "COPY (SELECT 1) TO '/tmp/x.csv'",
    "LOAD httpfs",
    "SET threads = 1",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "COMMIT",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN SELECT 1",
    "SELECT * FROM fm.log",
    'SELECT * FROM "fm"."log"',
    "SELECT * FROM FM.meta",
    "SELECT * FROM fm.entries",
    "SELECT * FROM log",
    "SELECT * FROM flows, fm.snapshots",
    "SELECT * FROM nowhere",
    "SELECT nothing FROM flows",
    "SELECT 1 / 'x'",
    "SELECT $1",
]
RUNAWAY: Final = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 0 FROM t) SELECT count(*) FROM t"


def one_flow(store: Store) -> None:
    """A flow of two rows, one of which has a secret key and a hidden encoding."""
    asked = {"op": "callback", "of": {"place": "x"}}
    commit(store, started("a"), row("a", "effect-requested", asked, step=1, key="SECRET", exact="HIDDEN"))


@promise
def selects_are_answered(store: Store) -> None:
    one_flow(store)
    for sql, expected in FINE.items():
        assert store.query(sql).rows == expected, sql


@promise
def all_else_is_refused(store: Store) -> None:
    one_flow(store)
    for sql in REFUSED:
        try:
            store.query(sql)
        except SqlRefused as error:
            assert error.type == "sql/refused" and error.message, sql
            assert "SECRET" not in error.render() and "HIDDEN" not in error.render() and "Traceback" not in error.render(), sql
        else:
            raise AssertionError(f"not refused: {sql}")
    assert store.last_seq("a") == 2 and store.query("SELECT count(*) FROM flows").rows == [(1,)]


@promise
def no_view_shows_a_secret(store: Store) -> None:
    one_flow(store)
    for view in ("flows", "events", "effects", "messages", "timers", "definitions", "schedules"):
        text = repr(store.query(f"SELECT * FROM {view}").rows)
        assert "SECRET" not in text and "HIDDEN" not in text, view


@promise
def parameters(store: Store) -> None:
    one_flow(store)
    assert store.query("SELECT $1 + 1, $2", [1, "x"]).rows == [(2, "x")]
    assert store.query("SELECT ? || '!'", ["x"]).rows == [("x!",)]
    assert store.query("SELECT seq FROM events WHERE seq > ? AND flow_id = ?", [1, "a"]).rows == [(2,)]
    assert store.query("SELECT name FROM flows WHERE flow_id = $id", {"id": "a"}).rows == [("f",)]
    assert store.query("SELECT '$id ?' AS text FROM flows WHERE flow_id = $id OR name = $id", {"id": "f"}).rows == [("$id ?",)]


@promise
def the_limit_of_rows(store: Store) -> None:
    commit(store, *(row("a", "log", n) for n in range(20)))
    result = store.query("SELECT * FROM events", limit=10)
    assert len(result.rows) == 10 and result.truncated
    assert not store.query("SELECT * FROM events", limit=20).truncated


@promise
def a_runaway_query_is_stopped(store: Store) -> None:
    begun = time.monotonic()
    with raises(SqlRefused, "longer than"):
        store.query(RUNAWAY, timeout=0.3)
    assert time.monotonic() - begun < 5
    commit(store, started("a"))
    assert store.query("SELECT count(*) FROM events").rows == [(1,)]


@promise
def queries_see_what_is_committed_while_others_commit(store: Store) -> None:
    """Many readers beside one writer: each answer is a state after some commit, and never goes back."""
    seen: list[list[int]] = [[] for _ in range(3)]
    done = threading.Event()
    failures: list[BaseException] = []

    def read(mine: list[int]) -> None:
        try:
            while not done.is_set():
                ((rows, flows),) = store.query("SELECT count(*), count(DISTINCT flow_id) FROM events").rows
                assert rows == 2 * flows
                mine.append(rows)
        except BaseException as error:  # noqa: BLE001 - told at the end
            failures.append(error)

    readers = [threading.Thread(target=read, args=(mine,)) for mine in seen]
    for reader in readers:
        reader.start()
    for i in range(60):
        commit(store, started(f"f{i}"), row(f"f{i}", "log"))
    while not all(seen):
        time.sleep(0.01)
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert all(mine == sorted(mine) for mine in seen)
    assert store.query("SELECT count(*) FROM events").rows == [(120,)]
