"""Reading for many flows at once: a look-up by flow costs more than a millisecond, and two hundred in one query twenty.

What goes in: flows. What comes out: their rows, their newest snapshots, in one query each. The one rule: the answers are
those that as many single questions would have given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from flowmetal.store import schema
from flowmetal.store.duckdb_log import LogTable
from flowmetal.store.protocol import Row, Snapshot

LOOK_UP_US: Final = 1_500
QUERY_US: Final = 2_000
SCAN_US: Final = 0.15
"""Measured: a look-up by flow; a query for many flows, and what each row of the log adds to it."""

_ROWS = f"""SELECT {", ".join(f"l.{name.strip()}" for name in schema.ROW.split(","))}
    FROM fm.log l JOIN (SELECT unnest($1::VARCHAR[]) AS flow_id, unnest($2::BIGINT[]) AS seq) w
    ON l.flow_id = w.flow_id AND l.seq > w.seq WHERE l.pos >= $3"""
_SNAPSHOTS = """SELECT flow_id, seq, step, format, body FROM fm.snapshots
    WHERE pos >= $2 AND flow_id IN (SELECT unnest($1::VARCHAR[]))
    QUALIFY row_number() OVER (PARTITION BY flow_id ORDER BY seq DESC, pos DESC, rowid DESC) = 1"""


def pays(count: int, rows: int) -> bool:
    """Whether one query over that many rows of the log is faster than so many single ones."""
    return count > 1 and count * LOOK_UP_US > QUERY_US + SCAN_US * rows


def rows_of(log: LogTable, after: Mapping[str, int], first: int, of: frozenset[str] | None) -> dict[str, list[Row]]:
    """See `Store.rows_of`; no row that is meant has a smaller `pos` than `first`."""
    kinds = "" if of is None else f" AND l.kind IN ({', '.join(repr(kind) for kind in sorted(of))})"
    found: dict[str, list[Row]] = defaultdict(list)
    for row in log.read(_ROWS + kinds, [list(after), list(after.values()), first]):
        found[row.flow_id].append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row.seq)
    return found


def snapshots_of(log: LogTable, flow_ids: Sequence[str], first: int) -> dict[str, Snapshot]:
    """See `Store.snapshots_of`; no snapshot that is meant has a smaller `pos` than `first`."""
    found = log.select(_SNAPSHOTS, [list(flow_ids), first])
    return {flow_id: Snapshot(flow_id, seq, step, format_, bytes(body)) for flow_id, seq, step, format_, body in found}
