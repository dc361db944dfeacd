"""The store in a DuckDB file: the log on disk, one process at a time.

What goes in and comes out: see `protocol`. The one rule: what is kept in memory (`LogIndex`, the last `pos`) is a cache
of what is committed, so it changes after a commit and never before.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from flowmetal.errors import FlowmetalError
from flowmetal.store import duckdb_many, kinds, schema
from flowmetal.store.archive import ENDED_BEFORE, ENDED_RUNS, Archive
from flowmetal.store.backup import copy_store
from flowmetal.store.duckdb_log import LogTable
from flowmetal.store.duckdb_open import archived, connect
from flowmetal.store.guard import run_select, tidy
from flowmetal.store.index import LogIndex
from flowmetal.store.own_file import OwnFile
from flowmetal.store.plain_rows import plain_rows
from flowmetal.store.plan import Plan, by_itself
from flowmetal.store.protocol import (
    Commit,
    Faults,
    Outcome,
    Result,
    Row,
    Snapshot,
    StoreError,
)

_OPEN: set[Path] = set()
_OPEN_LOCK = threading.Lock()

_STANDING = f"""SELECT flow_id, min(pos) FILTER (kind = '{kinds.FLOW_STARTED}') AS start_pos,
    arg_max(kind, pos) AS status_kind FROM fm.log WHERE kind IN ({kinds.listed(kinds.STATUS)}) GROUP BY flow_id"""
_OPEN_FLOWS = f"""SELECT flow_id FROM ({_STANDING})
    WHERE start_pos IS NOT NULL AND status_kind NOT IN ({kinds.listed(kinds.ENDING)}) ORDER BY start_pos"""
_OPEN_REQUESTS = f"""WITH open AS ({_OPEN_FLOWS}),
    closed AS (SELECT flow_id, step, max(pos) AS pos FROM fm.log WHERE kind IN ({kinds.listed(kinds.CLOSING_STEP)}) GROUP BY ALL),
    settled AS (SELECT flow_id, data::JSON->>'$.flow' AS flow, data::JSON->>'$.promise' AS promise, max(pos) AS pos FROM fm.hot
        WHERE kind = '{kinds.AWAIT_SETTLED}' GROUP BY ALL),
    effects AS (SELECT r.* FROM fm.log r SEMI JOIN open o ON o.flow_id = r.flow_id
        ANTI JOIN closed c ON c.flow_id = r.flow_id AND c.step = r.step AND c.pos > r.pos
        WHERE r.kind = '{kinds.EFFECT_REQUESTED}' AND NOT (len($1::VARCHAR[]) > 0 AND TRY_CAST(r.data AS JSON)->>'$.due_at' IS NULL
            AND NOT contains(r.data, '"linked":') AND coalesce(list_contains($1::VARCHAR[], TRY_CAST(r.data AS JSON)->>'$.op'), false))),
    awaits AS (SELECT r.* FROM fm.log r SEMI JOIN open o ON o.flow_id = r.flow_id
        ANTI JOIN settled s ON s.flow_id = r.flow_id AND s.flow = TRY_CAST(r.data AS JSON)->>'$.flow'
            AND s.promise IS NOT DISTINCT FROM TRY_CAST(r.data AS JSON)->>'$.promise' AND s.pos > r.pos
        WHERE r.kind = '{kinds.AWAIT}')
    SELECT {schema.ROW} FROM (FROM effects UNION ALL FROM awaits) ORDER BY pos"""
_ORPHANS = f"""WITH open AS ({_OPEN_FLOWS}),
    owned AS (SELECT e.flow_id, e.pos, TRY_CAST(e.data AS JSON)->>'$.parent' AS parent FROM fm.hot e SEMI JOIN open o ON o.flow_id = e.flow_id
        WHERE e.kind = '{kinds.FLOW_STARTED}' AND contains(e.data, '"parent"'))
    SELECT w.flow_id, w.parent FROM owned w ANTI JOIN open p ON p.flow_id = w.parent WHERE w.parent IS NOT NULL ORDER BY w.pos"""


class DuckDBStore:
    """A `Store` in a file; `path=None` keeps it in memory."""

    def __init__(self, path: str | Path | None, *, faults: Faults | None = None) -> None:
        self.path = None if path is None else Path(path).resolve()
        self._faults = faults
        self._index = LogIndex()
        self._cursor_lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._last_pos = 0
        self._removed = False
        """Rows were taken out since the file gave back their place."""
        if self.path is not None:
            _claim(self.path)
        try:
            self._open()
        except BaseException:
            self._release()
            raise

    # Writing

    def commit_group(self, commits: Sequence[Commit]) -> list[Outcome]:
        """See `Store.commit_group`."""
        if by_itself(commits):
            return [outcome for commit in commits for outcome in self.commit_group([commit])]
        try:
            self._usable()
            self._file.check()
            plan = Plan.of(commits, self._last_pos, self.last_seq, self.find)
            files = self._cold.without(plan.removed) if plan.removed else None
        except (StoreError, duckdb.Error, OSError) as error:
            return [_wrap(error)] * len(commits)
        return self._write_plan(commits, plan, files)

    def _write_plan(self, commits: Sequence[Commit], plan: Plan, files: list[str] | None) -> list[Outcome]:
        """Writes a plan; `files` are those of the archive that count then, where they change."""
        if not plan.accepted:
            return plan.outcomes
        connection = self._usable()
        try:
            self._fault("commit:before")
            self._log.write(plan, [] if files is None else self._cold.statements(files))
        except Exception as error:  # noqa: BLE001 - whatever a commit fails of is its own outcome
            self._after_failure(connection)
            if len(commits) > 1:
                return [outcome for commit in commits for outcome in self.commit_group([commit])]
            return plan.fail(_wrap(error))
        self._last_pos = plan.pos
        self._index.note(plan.rows, plan.snapshots)
        self._index.drop(plan.removed)
        self._removed |= bool(plan.removed)
        if files is not None:
            self._cold.adopt(files)
        try:
            self._fault("commit:after")
        except Exception as error:  # noqa: BLE001 - what a failure point raises is the outcome
            return plan.fail(error)
        return plan.outcomes

    def set_meta(self, key: str, value: str) -> None:
        """See `Store.set_meta`."""
        self._fault("meta")
        self._write(schema.INSERT_META, [key, value])

    def put_blob(self, digest: str, body: bytes) -> None:
        """See `Store.put_blob`."""
        self._write(schema.INSERT_BLOB, [digest, body])

    def drop_derived(self) -> None:
        """See `Store.drop_derived`."""
        self._write("DELETE FROM fm.snapshots")
        self._index.forget()

    # Reading

    def rows(self, flow_id: str, after_seq: int = 0, limit: int | None = None, of: frozenset[str] | None = None) -> list[Row]:
        """See `Store.rows`."""
        first, last = self._range(flow_id)
        if first is None:
            return self._cold.rows(flow_id, after_seq, limit, of)
        sql = f"SELECT {schema.ROW} FROM fm.log WHERE pos BETWEEN $1 AND $2 AND flow_id = $3 AND seq > $4"
        if of is not None:
            sql += f" AND kind IN ({', '.join(repr(kind) for kind in sorted(of))})"
        if limit is not None:
            sql += f" ORDER BY seq LIMIT {int(limit)}"
        with _Reading():
            self._usable()
            rows = self._log.read(sql, [first, last, flow_id, after_seq])
        rows.sort(key=lambda row: row.seq)
        if self._cold.may_have(flow_id) and (of is not None or limit is not None or not rows or rows[-1].seq - after_seq != len(rows)):
            rows = sorted([*self._cold.rows(flow_id, after_seq, limit, of), *rows], key=lambda row: row.seq)[:limit]
        if rows and limit is None and of is None:
            self._index.remember(flow_id, rows[-1].seq, rows[-1].pos)
        return rows

    def last_seq(self, flow_id: str) -> int:
        """See `Store.last_seq`."""
        tail = self._index.tail(flow_id)
        if tail is not None:
            return tail[0]
        first, last = self._range(flow_id)
        if first is None:
            return self._cold.last_seq(flow_id)
        sql = "SELECT max(seq), max(pos) FROM fm.log WHERE pos BETWEEN $1 AND $2 AND flow_id = $3"
        seq, pos = self._run(sql, [first, last, flow_id])[0]
        if seq is None:
            return self._cold.last_seq(flow_id)
        self._index.remember(flow_id, seq, pos)
        return int(seq)

    def last_pos(self) -> int:
        """See `Store.last_pos`."""
        return self._last_pos

    def find(self, kind: str, key: str) -> Row | None:
        """See `Store.find`."""
        self._load_index()
        lately = self._index.keyed(kind, key)
        if lately is not None:
            return copy.copy(lately)
        first = self._index.first_of_key(kind, key)
        if first is None:
            return self._cold.find(kind, key)
        with _Reading():
            self._usable()
            for reach in ("pos = $1", "pos >= $1"):
                sql = f"SELECT {schema.ROW} FROM fm.log WHERE {reach} AND kind = $2 AND key = $3 ORDER BY pos LIMIT 1"
                rows = self._log.read(sql, [first, kind, key])
                if rows:
                    return rows[0]
            return self._cold.find(kind, key)

    def snapshot(self, flow_id: str, before_seq: int | None = None) -> Snapshot | None:
        """See `Store.snapshot`."""
        self._load_index()
        first = self._index.first_of_snapshot(flow_id)
        if first is None:
            return None
        sql = """SELECT flow_id, seq, step, format, body FROM fm.snapshots
            WHERE pos >= $1 AND flow_id = $2 AND ($3::BIGINT IS NULL OR seq <= $3) ORDER BY seq DESC, pos DESC, rowid DESC LIMIT 1"""
        found = self._run(sql, [first, flow_id, before_seq])
        if not found:
            return None
        flow, seq, step, format_, body = found[0]
        return Snapshot(flow, seq, step, format_, bytes(body))

    def rows_of(self, after: Mapping[str, int], of: frozenset[str] | None = None) -> dict[str, list[Row]]:
        """See `Store.rows_of`."""
        self._load_index()
        if self._cold and any(self._cold.may_have(flow_id) for flow_id in after):
            single = {flow_id: self.rows(flow_id, seq, of=of) for flow_id, seq in after.items()}
            return {flow_id: rows for flow_id, rows in single.items() if rows}
        known = {flow_id: first for flow_id in after if (first := self._index.first_of_flow(flow_id)) is not None}
        if not known or not duckdb_many.pays(len(known), self._last_pos - min(known.values())):
            single = {flow_id: self.rows(flow_id, after[flow_id], of=of) for flow_id in known}
            return {flow_id: rows for flow_id, rows in single.items() if rows}
        with _Reading():
            self._usable()
            found = duckdb_many.rows_of(self._log, {flow_id: after[flow_id] for flow_id in known}, min(known.values()), of)
        if of is None:
            for flow_id, rows in found.items():
                self._index.remember(flow_id, rows[-1].seq, rows[-1].pos, busy=True)
        return found

    def snapshots_of(self, flow_ids: Sequence[str]) -> dict[str, Snapshot]:
        """See `Store.snapshots_of`."""
        self._load_index()
        known = {flow_id: first for flow_id in flow_ids if (first := self._index.first_of_snapshot(flow_id)) is not None}
        if len(known) < 2:
            single = {flow_id: self.snapshot(flow_id) for flow_id in known}
            return {flow_id: snapshot for flow_id, snapshot in single.items() if snapshot is not None}
        with _Reading():
            self._usable()
            return duckdb_many.snapshots_of(self._log, list(known), min(known.values()))

    def open_flows(self, status: str | None = None) -> list[str]:
        """See `Store.open_flows`."""
        if status is None:
            return [flow_id for (flow_id,) in self._run(_OPEN_FLOWS)]
        sql = f"SELECT flow_id FROM ({_STANDING}) WHERE start_pos IS NOT NULL AND list_contains($1::VARCHAR[], status_kind) ORDER BY start_pos"
        return [flow_id for (flow_id,) in self._run(sql, [kinds.of_status(status)])]

    def open_requests(self) -> list[Row]:
        """See `Store.open_requests`."""
        return list(self.each_open_request())

    def each_open_request(self, idle: frozenset[str] = frozenset()) -> Iterator[Row]:
        """See `Store.each_open_request`."""
        with _Reading():
            self._usable()
            yield from self._log.each(_OPEN_REQUESTS, [sorted(idle)])

    def orphans(self) -> list[tuple[str, str]]:
        """See `Store.orphans`."""
        return [(flow_id, parent) for flow_id, parent in self._run(_ORPHANS)]

    def flow_row(self, flow_id: str) -> dict[str, Any] | None:
        """See `Store.flow_row`."""
        found = self._flow_table([flow_id])
        return found[0] if found else None

    def flow_rows(self, status: str | None = None, name: str | None = None, limit: int = 100, after: str | None = None) -> list[dict[str, Any]]:
        """See `Store.flow_rows`."""
        sql = f"""WITH standing AS ({_STANDING.replace("fm.log", "fm.every")})
            SELECT s.flow_id FROM standing s WHERE s.start_pos IS NOT NULL
            AND ($1::VARCHAR IS NULL OR list_contains($2::VARCHAR[], s.status_kind))
            AND ($3::VARCHAR IS NULL OR EXISTS (FROM fm.entries e WHERE e.pos = s.start_pos
                AND e.kind = '{kinds.FLOW_STARTED}' AND e.data::JSON->>'$.name' = $3))
            AND ($4::VARCHAR IS NULL OR s.start_pos < (SELECT start_pos FROM standing WHERE flow_id = $4))
            ORDER BY s.start_pos DESC LIMIT $5"""
        ids = [flow_id for (flow_id,) in self._run(sql, [status, kinds.of_status(status), name, after, limit])]
        by_id = {row["flow_id"]: row for row in self._flow_table(ids)}
        return [by_id[flow_id] for flow_id in ids]

    def find_flows(self, prefix: str, limit: int = 2) -> list[str]:
        """See `Store.find_flows`."""
        first, _ = self._range(prefix)
        started = f"SELECT 1 FROM fm.log WHERE pos >= $1 AND flow_id = $2 AND kind = '{kinds.FLOW_STARTED}' LIMIT 1"
        if (first is not None and self._run(started, [first, prefix])) or self._cold.last_seq(prefix):
            return [prefix]
        sql = f"""SELECT flow_id FROM fm.every WHERE kind = '{kinds.FLOW_STARTED}' AND starts_with(flow_id, $1)
            GROUP BY flow_id ORDER BY flow_id LIMIT $2"""
        return [flow_id for (flow_id,) in self._run(sql, [prefix, limit])]

    def get_meta(self, key: str) -> str | None:
        """See `Store.get_meta`."""
        found = self._run("SELECT value FROM fm.meta WHERE key = $1", [key])
        return found[0][0] if found else None

    def get_blob(self, digest: str) -> bytes | None:
        """See `Store.get_blob`."""
        with _Reading():
            self._usable()
            return self._log.blob(digest)

    def query(
        self,
        sql: str,
        params: Sequence[Any] | dict[str, Any] | None = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Result:
        """See `Store.query`."""
        with self._cursor_lock:
            cursor = self._usable().cursor()
        return run_select(cursor, sql, params, limit, timeout)

    def backup(self, folder: Path) -> Path:
        """See `FileStore.backup`."""
        if self.path is None:
            raise StoreError("a store in memory has no file to copy", type="store/path")
        with self._cursor_lock:
            cursor = self._usable().cursor()
        with _Reading(), cursor:
            return copy_store(cursor, self.path, folder)

    def ended_before(self, at: int, limit: int) -> list[str]:
        """See `FileStore.ended_before`."""
        return [flow_id for (flow_id,) in self._run(ENDED_BEFORE, [at, limit])]

    def archive(self, flows: Sequence[str], said: Row) -> int:
        """See `FileStore.archive`."""
        return self._archive(self._in_log(flows), said)

    def ended_runs(self, at: int, limit: int) -> dict[str, int]:
        """See `FileStore.ended_runs`."""
        return dict(self._run(ENDED_RUNS, [at, limit]))

    def archive_runs(self, runs: Mapping[str, int], said: Row) -> int:
        """See `FileStore.archive_runs`."""
        there = self._in_log(runs)
        return self._archive({flow_id: seq for flow_id, seq in runs.items() if flow_id in there}, said, keeps_first=True)

    def _archive(self, upto: dict[str, int], said: Row, *, keeps_first: bool = False) -> int:
        if self.path is None:
            raise StoreError("a store in memory has no archive", type="store/path")
        if not upto:
            return 0
        with _Reading():
            self._cold.sweep()
            files = self._cold.with_rows(upto, 2 if keeps_first else 1)
        plan = Plan(self._last_pos, self.last_seq, self.find)
        plan.add(commit := Commit([said], {} if keeps_first else dict(upto), remove=upto))
        plan.keeps_first = keeps_first
        (outcome,) = self._write_plan([commit], plan, files)
        if isinstance(outcome, Exception):
            raise outcome
        return len(upto)

    def is_in_log(self, flow_id: str) -> bool:
        """Whether the flow has rows that are not archived."""
        return bool(self._in_log([flow_id]))

    def _in_log(self, flows: Iterable[str]) -> dict[str, int]:
        """Those flows that have rows in the log, each with its last `seq`."""
        sql = "SELECT flow_id, max(seq) FROM fm.log WHERE flow_id IN (SELECT unnest($1::VARCHAR[])) GROUP BY flow_id"
        return dict(self._run(sql, [list(flows)]))

    def give_back(self) -> None:
        """See `FileStore.give_back`."""
        if not self._removed:
            return
        self._index.forget()
        with contextlib.suppress(duckdb.TransactionException):  # somebody reads: the next time will do
            self._usable().execute("CHECKPOINT")
            self._removed = False

    def close(self) -> None:
        """See `Store.close`."""
        with self._cursor_lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._release()

    # Inside

    def _open(self) -> None:
        self._connection = connect(self.path)
        self._file = OwnFile(self.path)
        self._log = LogTable(self._connection)
        self._cold = Archive(self.path, self._log, archived(self._connection))
        self._cold.sweep()
        self._last_pos = self._greatest_pos()

    def _usable(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            raise StoreError("the store is closed")
        return self._connection

    def _after_failure(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Roll back; and where the failed commit left doubt, read again where the log ends."""
        try:
            connection.rollback()
        except duckdb.Error:
            pass  # there was no transaction left to roll back
        try:
            last_pos = self._greatest_pos()
        except duckdb.Error:
            self._open_again(connection)
            return
        if last_pos != self._last_pos:
            self._index.forget()
            self._last_pos = last_pos

    def _open_again(self, connection: duckdb.DuckDBPyConnection) -> None:
        """A failed write may have made the connection useless: only what is on disk counts."""
        with self._cursor_lock:
            self._index.forget()
            self._connection = None
            connection.close()
            if self.path is not None:
                try:
                    self._file.check()
                    self._open()
                except StoreError:
                    self._release()  # each later call says that the store is closed

    def _greatest_pos(self) -> int:
        return int(self._log.select("SELECT coalesce(max(pos), 0) FROM fm.log")[0][0])

    def _release(self) -> None:
        with _OPEN_LOCK:
            if self.path is not None:
                _OPEN.discard(self.path)

    def _fault(self, point: str) -> None:
        if self._faults is not None:
            self._faults(point)

    def _run(self, sql: str, params: Sequence[Any] = ()) -> list[Any]:
        with _Reading():
            self._usable()
            return self._log.select(sql, params)

    def _write(self, sql: str, params: Sequence[Any] = ()) -> None:
        self._file.check()
        with _Reading():
            self._usable().execute(sql, params)

    def _load_index(self) -> None:
        if not self._index.loaded:
            with _Reading():
                self._usable()
                flows = self._log.stream("SELECT flow_id, min(pos) FROM fm.log GROUP BY flow_id")
                keys = self._log.stream("SELECT kind, key, pos FROM fm.log WHERE key IS NOT NULL")
                snapshots = self._log.stream("SELECT flow_id, min(pos) FROM fm.snapshots GROUP BY flow_id")
                self._index.load(flows, keys, snapshots)

    def _range(self, flow_id: str) -> tuple[int | None, int]:
        """Between which positions the flow's rows lie; None: it has none."""
        self._load_index()
        tail = self._index.tail(flow_id)
        return self._index.first_of_flow(flow_id), self._last_pos if tail is None else tail[1]

    def _flow_table(self, ids: list[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        places = ", ".join(f"${n}" for n in range(1, len(ids) + 1))
        with _Reading():
            self._usable()
            return plain_rows(self._log.table(f"SELECT * FROM main.flows WHERE flow_id IN ({places})", ids))


class _Reading:
    """Turns an error of the database into a `StoreError`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, duckdb.Error):
            raise _wrap(error) from error


def _wrap(error: Exception) -> Exception:
    if isinstance(error, FlowmetalError):
        return error
    if isinstance(error, (duckdb.Error, OSError, UnicodeError, OverflowError)):
        wrapped = StoreError(f"the store failed: {tidy(error)}", hint="Check the disk's free space and the file's permissions.")
        wrapped.__cause__ = error
        return wrapped
    return error


def _claim(path: Path) -> None:
    with _OPEN_LOCK:
        if path in _OPEN:
            raise StoreError(f"{path} is open in this process already", type="store/locked", hint="Close it there first.")
        _OPEN.add(path)
