"""What each store backend promises, in prose and in types.

What goes in: commits, each a list of log rows with what their author had seen of the log.
What comes out: rows, snapshots, the newest state of a flow, and answers to read-only SQL.
The one rule: the log is the truth; a commit is in it whole and on disk, or not at all.

The promises, which one suite of tests asks of every backend:

- **Order.** `pos` grows by one over the whole store, in the order of commit, and a reader that has seen a `pos`
  never misses a smaller one. `seq` grows by one within a flow, from 1.
- **All or nothing.** The rows, snapshots and blobs of one `Commit` are visible together, after `commit_group` has
  returned, and survive the process from then on.
- **Isolation in a group.** `commit_group` takes many commits in one transaction. A member that is refused
  (`StoreConflict`, `Duplicate`, a fault) leaves no trace and does not disturb the others; when the transaction itself
  fails, its members are tried again one by one. The list of outcomes has the order of the list of commits.
  Within a group, a later member sees the rows of an earlier one that was accepted.
- **Expectation.** `Commit.expect` maps a flow to the last `seq` that the author has seen (0: it must not exist yet).
  A flow that is not in `expect` is appended to without a check: arrivals use that.
- **Removal.** `Commit.remove` names flows with a `seq` each: their rows up to it go, with what only they refer to, in the
  same commit that writes its rows. `seq` and `pos` of what remains do not change. A commit that removes writes a row of a
  stream that is never emptied, so that no `pos` is given twice. A flow that loses its last row begins
  again at 1, with rows of that very commit if it has some.
- **Uniqueness.** `Commit.unique` is checked before `expect`; when a row of that kind and key is there, nothing is
  written, and the outcome is `Duplicate` with the row. A retry after a lost answer is therefore safe.
- **Threads.** All methods but `query` belong to one thread, the writer's. `query` may be called from any.
- **Secrets.** `Row.key` and `Row.exact` are never visible to users' SQL.
- **Derived data.** Whatever a backend keeps beyond the log, snapshots, blobs and meta is derived, and `drop_derived`
  drops it; every answer stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowmetal.errors import StoreError

__all__ = [
    "FORMAT_VERSION",
    "Commit",
    "CommitResult",
    "Duplicate",
    "Faults",
    "Outcome",
    "Result",
    "Row",
    "Snapshot",
    "SqlRefused",
    "Store",
    "StoreConflict",
    "StoreError",
]

FORMAT_VERSION = 1
"""The version of the log's format that this program writes. A store of a newer one is refused."""

Faults = Callable[[str], None]
"""A failure point: called with `commit:before`, `commit:after` and `meta`; what it raises fails what is written there."""


@dataclass(slots=True)
class Row:
    """One event of the log. `data` is plain JSON text, for people; `exact` the lossless encoding, opaque to the store."""

    flow_id: str
    kind: str
    data: str
    at: int
    """Microseconds since 1970, UTC."""
    step: int | None = None
    fiber: int | None = None
    exact: str | None = None
    key: str | None = None
    """What `find` looks for: a callback's token, a request id, a message's idempotency key."""
    seq: int = 0
    """Given by the store at commit: 1, 2, 3 … within the flow."""
    pos: int = 0
    """Given by the store at commit: 1, 2, 3 … over the whole store."""


@dataclass(slots=True)
class Snapshot:
    """A flow's encoded state after it has consumed the rows up to `seq`; a cache, which the log can rebuild."""

    flow_id: str
    seq: int
    step: int
    format: str
    body: bytes


@dataclass(slots=True)
class Commit:
    """What is written together or not at all."""

    rows: list[Row]
    expect: dict[str, int] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    unique: tuple[str, str] | None = None
    remove: dict[str, int] = field(default_factory=dict)
    """Flows, and the last `seq` of each that goes; the commit is then made by itself."""


@dataclass(slots=True)
class CommitResult:
    """A commit that is on disk: its rows, with `seq` and `pos` filled in."""

    rows: list[Row]

    @property
    def pos(self) -> int:
        """The position of the last row, 0 when the commit had none."""
        return self.rows[-1].pos if self.rows else 0


class Duplicate(StoreError):
    """A row of the commit's `unique` kind and key is in the log already: `row`. Nothing was written."""

    type = "store/duplicate"

    def __init__(self, row: Row) -> None:
        super().__init__(f"a row {row.kind} with that key is in the log already, in {row.flow_id}")
        self.row = row


class StoreConflict(StoreError):
    """The flow has gone on since the commit's author looked: it stands at `actual`, not at `expected`."""

    type = "store/conflict"

    def __init__(self, flow_id: str, expected: int, actual: int) -> None:
        super().__init__(f"{flow_id} stands at row {actual}, not {expected}")
        self.flow_id = flow_id
        self.expected = expected
        self.actual = actual


class SqlRefused(StoreError):
    """SQL of a user that is not one read-only SELECT, that does not parse, or that ran into its limits."""

    type = "sql/refused"


Outcome = CommitResult | Exception
"""What became of one commit of a group."""


@dataclass(slots=True)
class Result:
    """The answer to a user's SQL. `truncated` says that `limit` cut it off."""

    columns: list[str]
    types: list[str]
    """DuckDB's names of the columns' types. A JSON column holds JSON text."""
    rows: list[tuple[Any, ...]]
    truncated: bool = False

    def plain(self) -> list[dict[str, Any]]:
        """The rows as JSON-able dicts: timestamps ISO 8601 in UTC, JSON columns parsed, decimals numbers."""
        from flowmetal.store.plain_rows import plain_rows

        return plain_rows(self)


class Store(Protocol):
    """A backend. See the module's docstring for what the methods promise together."""

    def commit_group(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Commit them all in one transaction; see *Isolation in a group*. Never raises for a member's sake."""

    def rows(self, flow_id: str, after_seq: int = 0, limit: int | None = None, of: frozenset[str] | None = None) -> list[Row]:
        """The flow's rows with a greater `seq` than `after_seq`, in order; of these kinds only, where given."""

    def rows_of(self, after: Mapping[str, int], of: frozenset[str] | None = None) -> dict[str, list[Row]]:
        """For each flow its rows with a greater `seq` than the one given, in order; of these kinds only, where given."""

    def last_seq(self, flow_id: str) -> int:
        """The `seq` of the flow's last row, 0 when there is none."""

    def last_pos(self) -> int:
        """The `pos` of the store's last row, 0 when there is none."""

    def find(self, kind: str, key: str) -> Row | None:
        """The first row of that kind and key."""

    def snapshot(self, flow_id: str, before_seq: int | None = None) -> Snapshot | None:
        """The newest snapshot, or the newest with `seq <= before_seq`."""

    def snapshots_of(self, flow_ids: Sequence[str]) -> dict[str, Snapshot]:
        """The newest snapshot of each of the flows that have one."""

    def open_flows(self, status: str | None = None) -> list[str]:
        """The flows that have started and not ended, in the order of their start; of one status only, where given."""

    def open_requests(self) -> list[Row]:
        """Rows `effect-requested` and `await` of open flows that have no outcome yet, in the order of `pos`."""

    def each_open_request(self, idle: frozenset[str] = frozenset()) -> Iterator[Row]:
        """The same, one after the other, so that not all are in memory; without those of `idle` operations that have no `due_at`
        and are not `linked` to a step of another flow."""

    def orphans(self) -> list[tuple[str, str]]:
        """Open flows that belong to a flow (`parent` in their first row) that is not open, each with that flow; in order of start."""

    def query(
        self,
        sql: str,
        params: Sequence[Any] | dict[str, Any] | None = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Result:
        """A user's SQL: one SELECT over the views, nothing else; `SqlRefused` otherwise. From any thread."""

    def flow_row(self, flow_id: str) -> dict[str, Any] | None:
        """One row of the view `flows`, its values plain: JSON parsed, timestamps ISO 8601."""

    def flow_rows(self, status: str | None = None, name: str | None = None, limit: int = 100, after: str | None = None) -> list[dict[str, Any]]:
        """Rows of the view `flows`, newest first; `after` is the `flow_id` of the last row of the page before."""

    def find_flows(self, prefix: str, limit: int = 2) -> list[str]:
        """Ids of flows that begin with `prefix`; an exact id comes alone."""

    def get_meta(self, key: str) -> str | None:
        """A setting of the store: its id, its format's version, a port …"""

    def set_meta(self, key: str, value: str) -> None:
        """Keep a setting, durably."""

    def put_blob(self, digest: str, body: bytes) -> None:
        """Keep bytes once; `digest` is their SHA-256 in hex."""

    def get_blob(self, digest: str) -> bytes | None:
        """The bytes of that SHA-256."""

    def drop_derived(self) -> None:
        """Drop whatever can be built again from the log."""

    def close(self) -> None:
        """Give up the store; what was committed is on disk. Idempotent."""
