"""Taking rows out of the tables, with what only they refer to.

In: a connection within a transaction; flows, each with the last `seq` that goes. Out: nothing of them is left: rows, snapshots,
large values. The one rule: what another row refers to stays, and no other row changes.

The connection that writes has no optimizer, so what is to go is found first, and then named by its `pos`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import duckdb

from flowmetal.store import schema

_ROWS: Final = """SELECT l.pos, CASE WHEN starts_with(l.data, $3) THEN l.data END, CASE WHEN starts_with(l.exact, $3) THEN l.exact END
    FROM fm.log l WHERE l.flow_id IN (SELECT unnest($1::VARCHAR[])) AND l.seq >= $4
    AND l.seq <= list_extract($2::BIGINT[], list_position($1::VARCHAR[], l.flow_id))"""
_UNUSED: Final = """SELECT d FROM (SELECT unnest($1::VARCHAR[]) AS d)
    WHERE d NOT IN (SELECT data FROM fm.log WHERE starts_with(data, $2)) AND d NOT IN (SELECT exact FROM fm.log WHERE starts_with(exact, $2))"""
_BY_POS: Final = "DELETE FROM {} WHERE pos IN (SELECT unnest($1::BIGINT[]))"
_SNAPSHOTS: Final = """DELETE FROM fm.snapshots WHERE flow_id IN (SELECT unnest($1::VARCHAR[]))
    AND seq <= list_extract($2::BIGINT[], list_position($1::VARCHAR[], flow_id))"""
_BLOBS: Final = "DELETE FROM fm.blobs WHERE digest IN (SELECT unnest($1::VARCHAR[]))"


def remove(connection: duckdb.DuckDBPyConnection, removed: Mapping[str, int], first: int = 1) -> None:
    """Takes out the rows of these flows from `first` up to a `seq` each."""
    found = connection.execute(_ROWS, [list(removed), list(removed.values()), schema.REFERENCE, first]).fetchall()
    if not found:
        return
    places = [pos for pos, _, _ in found]
    references = sorted({text for _, *texts in found for text in texts if text is not None})
    connection.execute(_BY_POS.format("fm.log"), [places])
    connection.execute(_SNAPSHOTS, [list(removed), list(removed.values())])
    if references:
        connection.execute(_BY_POS.format("fm.large"), [places])
        unused = connection.execute(_UNUSED, [references, schema.REFERENCE]).fetchall()
        connection.execute(_BLOBS, [[reference[len(schema.REFERENCE) :] for (reference,) in unused]])
