"""Reading other databases as sources of events: one page of rows after a cursor, and what is said of rows that were published.

In: a database's URL, a SELECT with `:cursor` in it. Out: the rows, a vector of maps, by the order of the cursor's column.
The one rule: reading changes nothing there; only `:done`, a statement of the user's own, is run to write.
"""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from flowmetal.connect.secrets import SecretOf, filled, secrets_of
from flowmetal.connect.sql_query import SECONDS, Threads, kind_of, maps, param, path_of, postgres, read
from flowmetal.errors import LispError
from flowmetal.lang.persistent import Vector
from flowmetal.lang.values import Instant
from flowmetal.runtime.connector import Call, Completed, Failed, Outcome

MAX_CONCURRENT = 4
_TOKENS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\$\w*\$.*?\$\w*\$|::|:([A-Za-z_]\w*)|%", re.DOTALL)
"""What a `:name` may stand in without being a parameter: texts, quoted names, comments, casts. And `%`, which psycopg gives a meaning."""
_MARKS = {"sqlite": ":{}", "duckdb": "${}", "postgresql": "%({})s"}
NEEDS = "a source in PostgreSQL"
Params = dict[str, Any]


class SourceConnector:
    """Performs `source/read` and `source/done` on a few threads of its own."""

    ops = frozenset({"source/read", "source/done"})

    def __init__(self, *, secret_of: SecretOf | None = None) -> None:
        self._secret_of = secret_of or secrets_of(None)
        self._threads = Threads("flowmetal-source", MAX_CONCURRENT)
        self.close = self._threads.close

    async def perform(self, call: Call) -> Outcome:
        """`source/read`: url, column or nil, cursor, most rows. `source/done`: url, rows."""
        try:
            url = str(filled(call.args[0], self._secret_of))
            kind = kind_of(url)
        except LispError as error:
            return Failed(error.type, error.message, error.data)
        work = _read if call.op == "source/read" else _done
        try:
            return Completed(await self._threads.run(SECONDS, work, kind, url, call.target, call.args[1:]))
        except TimeoutError:
            return Failed("flow/timeout", f"the database took longer than {SECONDS:g} s")
        except Exception as error:  # noqa: BLE001  each database has errors of its own, and all of them are the source's
            return Failed("sql/failed", str(error).replace(url, "the database").strip()[:2000] or type(error).__name__)


def _read(kind: str, url: str, sql: str, args: tuple[Any, ...]) -> Vector:
    column, cursor, most = args
    query = sql.strip().rstrip(";")
    if column is not None:
        query = f"SELECT * FROM ({query}\n) AS flowmetal_source ORDER BY {column}"
    params = {} if column is None else {"cursor": _bound(kind, cursor)}
    query = named(query, params, kind) + (f"\nLIMIT {most}" if column is not None else "")
    columns, rows = read(kind, url, query, params, SECONDS, "timezone=UTC", needs=NEEDS)
    return maps(columns, rows[:most])


def _done(kind: str, url: str, sql: str, args: tuple[Any, ...]) -> None:
    each = [{k.name: _bound(kind, v) for k, v in row.items()} for row in args[0]]
    names = each[0] if each else {}
    statement = named(sql, names, kind)
    used = {match for match in _TOKENS.findall(sql) if match in names}
    _write(kind, url, statement, [{name: row[name] for name in used} for row in each])


def named(sql: str, params: Params, kind: str) -> str:
    """SQL whose `:name`s, of those that there are, stand as the database wants them."""

    def put(match: re.Match[str]) -> str:
        if match[1] in params:
            return _MARKS[kind].format(match[1])
        return match[0].replace("%", "%%") if kind == "postgresql" and params else match[0]

    return _TOKENS.sub(put, sql)


def _bound(kind: str, x: Any) -> Any:
    """A value as the database takes it; SQLite has times as text."""
    if isinstance(x, Instant) and kind != "postgresql":
        at = datetime.fromtimestamp(x.micros / 1e6, UTC).replace(tzinfo=None)
        return at.isoformat(" ") if kind == "sqlite" else at
    return param(x)


def _write(kind: str, url: str, statement: str, each: list[Params]) -> None:
    if kind == "sqlite":
        lite = sqlite3.connect(f"file:{quote(path_of(url))}?mode=rw", uri=True, timeout=SECONDS)
        try:
            with lite:
                lite.executemany(statement, each)
        finally:
            lite.close()
    elif kind == "duckdb":
        import duckdb

        with duckdb.connect(path_of(url), config={"enable_external_access": False}) as duck:
            duck.execute("BEGIN")
            for params in each:
                duck.execute(statement, params)
            duck.execute("COMMIT")
    else:
        with postgres(url, SECONDS, "default_transaction_read_only=off", "timezone=UTC", needs=NEEDS) as connection, connection.cursor() as cursor:
            cursor.executemany(statement, each)
