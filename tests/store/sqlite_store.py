"""A third backend, as somebody else would write one: a store in an SQLite file, with the building blocks of `flowmetal.store`.

What goes in and comes out: see `flowmetal.store.protocol`. The one rule: SQLite keeps rows; what a commit writes is decided by
`Plan`, what is open is found by `unanswered`, a flow's row made by `flow_row`, and users' SQL answered by a `Mirror`.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowmetal.store import kinds
from flowmetal.store.flow_table import flow_row, last_status
from flowmetal.store.mirror import Mirror
from flowmetal.store.plan import Plan, by_itself
from flowmetal.store.protocol import FORMAT_VERSION, Commit, Faults, Outcome, Result, Row, Snapshot, StoreError
from flowmetal.store.unanswered import unanswered

TABLES = """
CREATE TABLE IF NOT EXISTS log (flow_id TEXT, kind TEXT, data BLOB, at INTEGER, step INTEGER, fiber INTEGER, exact BLOB, key BLOB,
    seq INTEGER, pos INTEGER PRIMARY KEY, UNIQUE (flow_id, seq)) STRICT;
CREATE INDEX IF NOT EXISTS log_key ON log (kind, key) WHERE key IS NOT NULL;
CREATE TABLE IF NOT EXISTS snapshots (flow_id TEXT, seq INTEGER, step INTEGER, format TEXT, body BLOB) STRICT;
CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, body BLOB) STRICT;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) STRICT;
"""
ROW = "flow_id, kind, data, at, step, fiber, exact, key, seq, pos"


class SQLiteStore:
    """A `Store` in an SQLite file."""

    def __init__(self, path: str, *, faults: Faults | None = None) -> None:
        self._faults = faults
        self._closed = False
        self._lock = threading.RLock()  # `query` comes from any thread
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript("PRAGMA journal_mode = wal; PRAGMA synchronous = full;" + TABLES)
        for key, value in (("format", str(FORMAT_VERSION)), ("store_id", str(uuid.uuid4()))):
            self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
        self._mirror: Mirror | None = None

    def commit_group(self, commits: Sequence[Commit]) -> list[Outcome]:
        if self._closed:
            return [StoreError("the store is closed")] * len(commits)
        if by_itself(commits):
            return [outcome for commit in commits for outcome in self.commit_group([commit])]
        plan = Plan.of(commits, self.last_pos(), self.last_seq, self.find)
        if not plan.accepted:
            return plan.outcomes
        try:
            self._fault("commit:before")
            with self._lock:
                self._write(plan)
        except Exception as error:
            if len(commits) > 1:
                return [outcome for commit in commits for outcome in self.commit_group([commit])]
            return plan.fail(StoreError(f"the store failed: {error}") if isinstance(error, sqlite3.Error) else error)
        try:
            self._fault("commit:after")
        except Exception as error:
            return plan.fail(error)
        return plan.outcomes

    def _write(self, plan: Plan) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for flow_id, seq in plan.removed.items():
                self._db.execute("DELETE FROM log WHERE flow_id = ? AND seq <= ?", (flow_id, seq))
                self._db.execute("DELETE FROM snapshots WHERE flow_id = ? AND seq <= ?", (flow_id, seq))
            self._db.executemany(f"INSERT INTO log ({ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_stored, plan.rows))
            kept = [(s.flow_id, s.seq, s.step, s.format, s.body) for _, s in plan.snapshots]
            self._db.executemany("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)", kept)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        if plan.removed:
            self._drop_mirror()

    def rows(self, flow_id: str, after_seq: int = 0, limit: int | None = None, of: frozenset[str] | None = None) -> list[Row]:
        rows = self._rows("flow_id = ? AND seq > ? ORDER BY seq", flow_id, after_seq)
        return [row for row in rows if of is None or row.kind in of][:limit]

    def rows_of(self, after: Mapping[str, int], of: frozenset[str] | None = None) -> dict[str, list[Row]]:
        found = {flow_id: self.rows(flow_id, seq, of=of) for flow_id, seq in after.items()}
        return {flow_id: rows for flow_id, rows in found.items() if rows}

    def last_seq(self, flow_id: str) -> int:
        return int(self._run("SELECT coalesce(max(seq), 0) FROM log WHERE flow_id = ?", flow_id)[0][0])

    def last_pos(self) -> int:
        return int(self._run("SELECT coalesce(max(pos), 0) FROM log")[0][0])

    def find(self, kind: str, key: str) -> Row | None:
        return next(iter(self._rows("kind = ? AND key = ? ORDER BY pos LIMIT 1", kind, _bytes(key))), None)

    def snapshot(self, flow_id: str, before_seq: int | None = None) -> Snapshot | None:
        sql = "SELECT * FROM snapshots WHERE flow_id = ? AND seq <= ? ORDER BY seq DESC, rowid DESC LIMIT 1"
        found = self._run(sql, flow_id, 2**62 if before_seq is None else before_seq)
        return Snapshot(*found[0]) if found else None

    def snapshots_of(self, flow_ids: Sequence[str]) -> dict[str, Snapshot]:
        found = {flow_id: self.snapshot(flow_id) for flow_id in flow_ids}
        return {flow_id: snapshot for flow_id, snapshot in found.items() if snapshot is not None}

    def open_flows(self, status: str | None = None) -> list[str]:
        standing = [(flow_id, last_status(self.rows(flow_id))) for flow_id in self._started()]
        return [flow_id for flow_id, its in standing if its not in kinds.ENDED and status in (None, its)]

    def open_requests(self) -> list[Row]:
        return sorted((row for flow_id in self.open_flows() for row in unanswered(self.rows(flow_id))), key=lambda row: row.pos)

    def each_open_request(self, idle: frozenset[str] = frozenset()) -> Iterator[Row]:
        for row in self.open_requests():
            data = json.loads(row.data)
            if row.kind != kinds.EFFECT_REQUESTED or data.get("op") not in idle or data.get("due_at") is not None or "linked" in data:
                yield row

    def orphans(self) -> list[tuple[str, str]]:
        open_ = self.open_flows()
        parents = [(flow_id, json.loads(self.rows(flow_id, limit=1)[0].data).get("parent")) for flow_id in open_]
        return [(flow_id, parent) for flow_id, parent in parents if parent is not None and parent not in open_]

    def query(self, sql: str, params: Any = None, *, limit: int | None = None, timeout: float | None = None) -> Result:
        with self._lock:
            self._check()
            if self._mirror is None:
                self._mirror = Mirror()
            mirror = self._mirror
            mirror.catch_up(self._rows("1 ORDER BY pos"))
            cursor = mirror.cursor()
        return mirror.select(cursor, sql, params, limit, timeout)

    def flow_row(self, flow_id: str) -> dict[str, Any] | None:
        return flow_row(self.rows(flow_id))

    def flow_rows(self, status: str | None = None, name: str | None = None, limit: int = 100, after: str | None = None) -> list[dict[str, Any]]:
        ids = self._started()[::-1]
        rows = (self.flow_row(flow_id) for flow_id in (ids[ids.index(after) + 1 :] if after in ids else ids))
        return [row for row in rows if row is not None and status in (None, row["status"]) and name in (None, row["name"])][:limit]

    def find_flows(self, prefix: str, limit: int = 2) -> list[str]:
        found = sorted(flow_id for flow_id in self._started() if flow_id.startswith(prefix))
        return [prefix] if prefix in found else found[:limit]

    def get_meta(self, key: str) -> str | None:
        found = self._run("SELECT value FROM meta WHERE key = ?", key)
        return found[0][0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        self._fault("meta")
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)

    def put_blob(self, digest: str, body: bytes) -> None:
        self._run("INSERT OR IGNORE INTO blobs VALUES (?, ?)", digest, body)

    def get_blob(self, digest: str) -> bytes | None:
        found = self._run("SELECT body FROM blobs WHERE digest = ?", digest)
        return found[0][0] if found else None

    def drop_derived(self) -> None:
        self._run("DELETE FROM snapshots")
        self._drop_mirror()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._drop_mirror()
            self._db.close()

    def _started(self) -> list[str]:
        sql = f"SELECT flow_id FROM log WHERE kind = '{kinds.FLOW_STARTED}' GROUP BY flow_id ORDER BY min(pos)"
        return [flow_id for (flow_id,) in self._run(sql)]

    def _rows(self, condition: str, *params: object) -> list[Row]:
        return [_row(found) for found in self._run(f"SELECT {ROW} FROM log WHERE {condition}", *params)]

    def _run(self, sql: str, *params: object) -> list[Any]:
        with self._lock:
            self._check()
            return self._db.execute(sql, params).fetchall()

    def _drop_mirror(self) -> None:
        if self._mirror is not None:
            self._mirror.close()
            self._mirror = None

    def _fault(self, point: str) -> None:
        if self._faults is not None:
            self._faults(point)

    def _check(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")


def _bytes(text: str | None) -> bytes | None:
    """Text as bytes: SQLite's own text ends at NUL for some of its functions, and cannot hold lone surrogates."""
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _stored(row: Row) -> tuple[object, ...]:
    return (row.flow_id, row.kind, _bytes(row.data), row.at, row.step, row.fiber, _bytes(row.exact), _bytes(row.key), row.seq, row.pos)


def _row(found: tuple[Any, ...]) -> Row:
    flow_id, kind, data, at, step, fiber, exact, key, seq, pos = found
    texts = [None if text is None else text.decode("utf-8", "surrogatepass") for text in (data, exact, key)]
    return Row(flow_id, kind, texts[0] or "", at, step, fiber, texts[1], texts[2], seq, pos)
