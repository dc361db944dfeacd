"""Writing a plan into the tables, and reading rows back.

What goes in: a `Plan` and a connection. What comes out: its rows, snapshots and large values, in one transaction.
The one rule: the common commit is one flush of an appender, and no other statement.

Measured (medians; a raw fdatasync 0.2 ms): two rows 1.0 ms, by VALUES that were parsed beforehand the same; 100 rows 1.2, by
unnest of arrays 2.5; without the optimizer, which has nothing to do for an insert, a fifth less; an explicit transaction adds 0.2.
Reading: a flow's rows 0.8 ms, and as much again where the database is asked to sort them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb

from flowmetal.store import removal, schema
from flowmetal.store.plan import Plan
from flowmetal.store.protocol import Result, Row


class LogTable:
    """The table `fm.log` and its side tables: written through one connection, read through another."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._writing = connection
        self._reading = connection.cursor()
        self._rows = connection.appender("fm.log")
        self._snapshots = connection.appender("fm.snapshots")

    def write(self, plan: Plan, also: Sequence[tuple[str, Sequence[Any]]] = ()) -> None:
        """Everything the plan holds, committed, with what other statements do."""
        blobs: dict[str, bytes] = {}
        large: list[tuple[int, str]] = []
        values = [self._values(row, blobs, large) for row in plan.rows]
        if not (plan.snapshots or blobs or plan.removed):
            _append(self._rows, values)
            return
        connection = self._writing
        connection.begin()
        if plan.removed:
            removal.remove(connection, plan.removed, 2 if plan.keeps_first else 1)
        for sql, params in also:
            connection.execute(sql, params)
        for digest, body in blobs.items():
            connection.execute(schema.INSERT_BLOB, [digest, body])
        for pos, digest in large:
            connection.execute(schema.INSERT_LARGE, [pos, digest])
        if plan.snapshots:
            _append(self._snapshots, [(pos, s.flow_id, s.seq, s.step, s.format, s.body) for pos, s in plan.snapshots])
        _append(self._rows, values)
        connection.commit()

    def read(self, sql: str, params: Sequence[object] = ()) -> list[Row]:
        """Rows of a query over `schema.ROW`, large values in place."""
        return [self._whole(Row(*found)) for found in self.select(sql, params)]

    def each(self, sql: str, params: Sequence[object] = ()) -> Iterator[Row]:
        """The same, row by row, for an answer that is long."""
        for found in self.stream(sql, params):
            yield self._whole(Row(*found))

    def _whole(self, row: Row) -> Row:
        if row.data.startswith(schema.REFERENCE):
            row.data = self._text(row.data)
        if row.exact is not None and row.exact.startswith(schema.REFERENCE):
            row.exact = self._text(row.exact)
        return row

    def select(self, sql: str, params: Sequence[object] = ()) -> list[Any]:
        """The answer of a query."""
        return self._reading.execute(sql, params).fetchall()

    def table(self, sql: str, params: Sequence[object] = ()) -> Result:
        """The answer of a query, with its columns."""
        cursor = self._reading.execute(sql, params)
        description = cursor.description or []
        return Result([c[0] for c in description], [str(c[1]) for c in description], cursor.fetchall())

    def stream(self, sql: str, params: Sequence[object] = ()) -> Iterator[Any]:
        """The answer of a query, row by row, for one that is long. Other questions may be asked meanwhile."""
        with self._reading.cursor() as cursor:
            cursor.execute(sql, params)
            while chunk := cursor.fetchmany(1_000):
                yield from chunk

    def blob(self, digest: str) -> bytes | None:
        """The bytes of that digest."""
        found = self.select("SELECT body FROM fm.blobs WHERE digest = $1", [digest])
        return bytes(found[0][0]) if found else None

    def _values(self, row: Row, blobs: dict[str, bytes], large: list[tuple[int, str]]) -> tuple[object, ...]:
        data, exact = row.data, row.exact
        if len(data) > schema.LARGE or data.startswith(schema.REFERENCE):
            data = _refer(data, blobs)
            large.append((row.pos, data[1:]))
        if exact is not None and (len(exact) > schema.LARGE or exact.startswith(schema.REFERENCE)):
            exact = _refer(exact, blobs)
        return (row.pos, row.flow_id, row.seq, row.at, row.kind, row.step, row.fiber, data, exact, row.key)

    def _text(self, reference: str) -> str:
        body = self.blob(reference[1:])
        if body is None:
            raise duckdb.DataError(f"the large value {reference[1:]} is missing")
        return body.decode()


def _append(appender: duckdb.Appender, rows: list[tuple[object, ...]]) -> None:
    """Adds rows to a table: with the transaction that is open, or as one of its own."""
    try:
        appender.append_rows(rows)
        appender.flush()
    except BaseException:
        appender.clear()
        raise


def _refer(text: str, blobs: dict[str, bytes]) -> str:
    body = text.encode()
    digest = hashlib.sha256(body).hexdigest()
    blobs[digest] = body
    return schema.REFERENCE + digest
