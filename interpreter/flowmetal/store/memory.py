"""The store in memory: the same promises, in plain Python.

What goes in and comes out: see `protocol`. The one rule: nothing here depends on time, threads or hash order, so that a
simulation runs the same way each time. Users' SQL runs on a DuckDB mirror of the log, made when it is first asked for.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowmetal.store import kinds
from flowmetal.store.flow_table import flow_row, last_status
from flowmetal.store.plan import Plan, by_itself
from flowmetal.store.protocol import (
    FORMAT_VERSION,
    Commit,
    Faults,
    Outcome,
    Result,
    Row,
    Snapshot,
    StoreError,
)
from flowmetal.store.unanswered import unanswered

if TYPE_CHECKING:
    from flowmetal.store.mirror import Mirror


class MemoryStore:
    """A `Store` that is gone with its process."""

    def __init__(self, *, faults: Faults | None = None) -> None:
        self._faults = faults
        self._log: list[Row] = []
        self._last_pos = 0
        self._flows: dict[str, list[Row]] = {}
        self._keys: dict[tuple[str, str], Row] = {}
        self._snapshots: dict[str, list[Snapshot]] = {}
        self._meta = {"format": str(FORMAT_VERSION), "store_id": str(uuid.uuid4())}
        self._blobs: dict[str, bytes] = {}
        self._mirror: Mirror | None = None
        self._mirror_lock = threading.Lock()
        self._closed = False

    def commit_group(self, commits: Sequence[Commit]) -> list[Outcome]:
        """See `Store.commit_group`."""
        if self._closed:
            return [StoreError("the store is closed")] * len(commits)
        if by_itself(commits):
            return [outcome for commit in commits for outcome in self.commit_group([commit])]
        plan = Plan.of(commits, self._last_pos, self.last_seq, self.find)
        if not plan.accepted:
            return plan.outcomes
        try:
            self._fault("commit:before")
            self._apply(plan)
        except Exception as error:  # noqa: BLE001 - whatever a commit fails of is its own outcome
            if len(commits) > 1:
                return [outcome for commit in commits for outcome in self.commit_group([commit])]
            return plan.fail(error)
        try:
            self._fault("commit:after")
        except Exception as error:  # noqa: BLE001 - what a failure point raises is the outcome
            return plan.fail(error)
        return plan.outcomes

    def _apply(self, plan: Plan) -> None:
        self._remove(plan.removed)
        rows = [copy.copy(row) for row in plan.rows]
        for row in rows:
            self._flows.setdefault(row.flow_id, []).append(row)
            if row.key is not None:
                self._keys.setdefault((row.kind, row.key), row)
        for _, snapshot in plan.snapshots:
            self._snapshots.setdefault(snapshot.flow_id, []).append(copy.copy(snapshot))
        self._log.extend(rows)
        self._last_pos = plan.pos

    def _remove(self, removed: Mapping[str, int]) -> None:
        if not removed:
            return
        for flow_id, seq in removed.items():
            kept = [row for row in self._flows.pop(flow_id, []) if row.seq > seq]
            if kept:
                self._flows[flow_id] = kept
            self._snapshots[flow_id] = [s for s in self._snapshots.pop(flow_id, []) if s.seq > seq]
        self._log = [row for row in self._log if row.seq > removed.get(row.flow_id, 0)]
        self._keys.clear()
        for row in self._log:
            if row.key is not None:
                self._keys.setdefault((row.kind, row.key), row)
        self._drop_mirror()

    def rows(self, flow_id: str, after_seq: int = 0, limit: int | None = None, of: frozenset[str] | None = None) -> list[Row]:
        """See `Store.rows`."""
        self._check_open()
        rows = self._flows.get(flow_id, [])
        rows = rows[bisect_right(rows, after_seq, key=lambda row: row.seq) :]
        if of is not None:
            rows = [row for row in rows if row.kind in of]
        return [copy.copy(row) for row in rows[:limit]]

    def rows_of(self, after: Mapping[str, int], of: frozenset[str] | None = None) -> dict[str, list[Row]]:
        """See `Store.rows_of`."""
        found = {flow_id: self.rows(flow_id, seq, of=of) for flow_id, seq in after.items()}
        return {flow_id: rows for flow_id, rows in found.items() if rows}

    def last_seq(self, flow_id: str) -> int:
        """See `Store.last_seq`."""
        self._check_open()
        rows = self._flows.get(flow_id)
        return rows[-1].seq if rows else 0

    def last_pos(self) -> int:
        """See `Store.last_pos`."""
        return self._last_pos

    def find(self, kind: str, key: str) -> Row | None:
        """See `Store.find`."""
        self._check_open()
        row = self._keys.get((kind, key))
        return None if row is None else copy.copy(row)

    def snapshot(self, flow_id: str, before_seq: int | None = None) -> Snapshot | None:
        """See `Store.snapshot`."""
        self._check_open()
        best: Snapshot | None = None
        for snapshot in self._snapshots.get(flow_id, ()):
            if (before_seq is None or snapshot.seq <= before_seq) and (best is None or snapshot.seq >= best.seq):
                best = snapshot
        return None if best is None else copy.copy(best)

    def snapshots_of(self, flow_ids: Sequence[str]) -> dict[str, Snapshot]:
        """See `Store.snapshots_of`."""
        found = {flow_id: self.snapshot(flow_id) for flow_id in flow_ids}
        return {flow_id: snapshot for flow_id, snapshot in found.items() if snapshot is not None}

    def open_flows(self, status: str | None = None) -> list[str]:
        """See `Store.open_flows`."""
        self._check_open()
        ended = {kinds.STATUS[kind] for kind in kinds.ENDING}
        standing = [(_start(rows), flow_id, last_status(rows)) for flow_id, rows in self._flows.items()]
        return [flow_id for _, flow_id, its in sorted(s for s in standing if s[0]) if its not in ended and status in (None, its)]

    def open_requests(self) -> list[Row]:
        """See `Store.open_requests`."""
        found = [row for flow_id in self.open_flows() for row in unanswered(self._flows[flow_id])]
        return [copy.copy(row) for row in sorted(found, key=lambda row: row.pos)]

    def each_open_request(self, idle: frozenset[str] = frozenset()) -> Iterator[Row]:
        """See `Store.each_open_request`."""
        for row in self.open_requests():
            data = json.loads(row.data)
            if row.kind != kinds.EFFECT_REQUESTED or data.get("op") not in idle or data.get("due_at") is not None or "linked" in data:
                yield row

    def orphans(self) -> list[tuple[str, str]]:
        """See `Store.orphans`."""
        open_ = self.open_flows()
        known = set(open_)
        parents = [(flow_id, json.loads(self._flows[flow_id][0].data).get("parent")) for flow_id in open_]
        return [(flow_id, parent) for flow_id, parent in parents if parent is not None and parent not in known]

    def query(
        self,
        sql: str,
        params: Sequence[Any] | dict[str, Any] | None = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Result:
        """See `Store.query`."""
        from flowmetal.store.mirror import Mirror

        self._check_open()
        with self._mirror_lock:
            if self._mirror is None:
                self._mirror = Mirror()
            self._mirror.catch_up(self._log)
            cursor = self._mirror.cursor()
        return self._mirror.select(cursor, sql, params, limit, timeout)

    def flow_row(self, flow_id: str) -> dict[str, Any] | None:
        """See `Store.flow_row`."""
        self._check_open()
        return flow_row(self._flows.get(flow_id, []))

    def flow_rows(self, status: str | None = None, name: str | None = None, limit: int = 100, after: str | None = None) -> list[dict[str, Any]]:
        """See `Store.flow_rows`."""
        self._check_open()
        started = sorted(((_start(rows), rows) for rows in self._flows.values() if _start(rows)), reverse=True, key=lambda s: s[0])
        before = None if after is None else _start(self._flows.get(after, []))
        out: list[dict[str, Any]] = []
        for pos, rows in started:
            if len(out) >= limit:
                break
            if before is not None and pos >= before:
                continue
            row = flow_row(rows)
            if row is not None and status in (None, row["status"]) and name in (None, row["name"]):
                out.append(row)
        return out

    def find_flows(self, prefix: str, limit: int = 2) -> list[str]:
        """See `Store.find_flows`."""
        self._check_open()
        found = sorted(flow_id for flow_id, rows in self._flows.items() if flow_id.startswith(prefix) and _start(rows))
        return [prefix] if prefix in found else found[:limit]

    def get_meta(self, key: str) -> str | None:
        """See `Store.get_meta`."""
        return self._meta.get(key)

    def set_meta(self, key: str, value: str) -> None:
        """See `Store.set_meta`."""
        self._check_open()
        self._fault("meta")
        self._meta[key] = value

    def put_blob(self, digest: str, body: bytes) -> None:
        """See `Store.put_blob`."""
        self._check_open()
        self._blobs.setdefault(digest, bytes(body))

    def get_blob(self, digest: str) -> bytes | None:
        """See `Store.get_blob`."""
        self._check_open()
        return self._blobs.get(digest)

    def drop_derived(self) -> None:
        """See `Store.drop_derived`."""
        self._snapshots.clear()
        self._drop_mirror()

    def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        self._drop_mirror()

    def _drop_mirror(self) -> None:
        with self._mirror_lock:
            mirror, self._mirror = self._mirror, None
        if mirror is not None:
            mirror.close()

    def _fault(self, point: str) -> None:
        if self._faults is not None:
            self._faults(point)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")


def _start(rows: Sequence[Row]) -> int:
    """The `pos` at which the flow of these rows started, 0 when it never did."""
    return next((row.pos for row in rows if row.kind == kinds.FLOW_STARTED), 0)
