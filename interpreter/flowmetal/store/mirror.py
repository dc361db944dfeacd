"""A DuckDB copy of a log that lives in Python, for users' SQL.

What goes in: the log, again before each query. What comes out: the answers that the store in a file would give.
The one rule: it is derived; it is made when the first query comes, and follows the log by `pos`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import duckdb

from flowmetal.store.duckdb_log import LogTable
from flowmetal.store.duckdb_open import connect
from flowmetal.store.guard import run_select
from flowmetal.store.plan import Plan
from flowmetal.store.protocol import Result, Row


class Mirror:
    """The same tables and views, in memory."""

    def __init__(self) -> None:
        self._connection = connect(None)
        self._table = LogTable(self._connection)
        self._pos = 0

    def catch_up(self, log: Sequence[Row]) -> None:
        """Copy what the log has gained; it is in the order of `pos`."""
        new = log[bisect_right(log, self._pos, key=lambda row: row.pos) :]
        if new:
            plan = Plan(self._pos, lambda _: 0, lambda _, __: None)
            plan.rows.extend(new)
            self._table.write(plan)
            self._pos = new[-1].pos

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor for one query."""
        return self._connection.cursor()

    def select(
        self,
        cursor: duckdb.DuckDBPyConnection,
        sql: str,
        params: Sequence[Any] | dict[str, Any] | None,
        limit: int | None,
        timeout: float | None,
    ) -> Result:
        """See `guard.run_select`."""
        return run_select(cursor, sql, params, limit, timeout)

    def close(self) -> None:
        """Drop it."""
        self._connection.close()
