"""Users' SQL: one SELECT over the views, within limits.

What goes in: SQL text of a user, and a cursor of its own. What comes out: a `Result`, or `SqlRefused` saying why.
The one rule: read-only by the database's own means (a READ ONLY transaction, no access to files, settings locked),
and what those let through is refused by the shape of the parsed statement: tables outside `main`, functions that read
tables by name.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import duckdb

from flowmetal.store.protocol import Result, SqlRefused

MAX_ROWS: Final = 1_000_000
"""Rows of one answer, when the caller names no limit."""
TIMEOUT: Final = 60.0
"""Seconds of one query, when the caller names none."""
TABLE_FUNCTIONS: Final = frozenset({
    "unnest", "range", "generate_series", "generate_subscripts", "json_each", "json_tree", "repeat", "repeat_row",
    "regexp_split_to_table", "json_array_elements",
})  # fmt: skip
"""Functions that may stand where a table does. Others read files, settings, or tables by their names as text."""
QUERY_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})

HINT: Final = "Write one SELECT over flows, events, effects, messages, timers, definitions, schedules or sources."
_NOT_SELECT: Final = "only a SELECT is allowed here, not {kind}"


def run_select(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    params: Sequence[Any] | dict[str, Any] | None,
    limit: int | None,
    timeout: float | None,
) -> Result:
    """The answer to one SELECT of a user. The cursor is used up."""
    watch = _Watch(cursor, TIMEOUT if timeout is None else timeout)
    try:
        statement = check_select(cursor, sql)
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        cursor.execute(statement, params)
        return _fetch(cursor, MAX_ROWS if limit is None else limit)
    except duckdb.InterruptException as error:
        if watch.fired:
            message = f"the query took longer than {watch.seconds:g} s and was stopped"
            raise SqlRefused(message, hint="Ask for less, or give it more time.") from error
        raise SqlRefused("the query was interrupted") from error
    except duckdb.OutOfMemoryException as error:
        raise SqlRefused("the query needs more memory than it may have", hint="Ask for less.") from error
    except (duckdb.Error, ValueError, OverflowError) as error:
        raise SqlRefused(tidy(error)) from error
    finally:
        watch.stop()
        cursor.close()


def check_select(cursor: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    """The one statement of the text, when it is a SELECT that may be run; else SqlRefused."""
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        what = "there is no statement" if not statements else f"there are {len(statements)} statements"
        raise SqlRefused(f"{what}; one SELECT is wanted", hint=HINT)
    statement: duckdb.Statement = statements[0]
    kind = statement.type.name
    if kind == "MULTI":
        raise SqlRefused(_NOT_SELECT.format(kind="PIVOT as a statement"), hint="Write FROM … PIVOT (…).")
    if kind != "SELECT":
        raise SqlRefused(_NOT_SELECT.format(kind=kind), hint=HINT)
    found = cursor.execute("SELECT json_serialize_sql($1)", [sql]).fetchone()
    tree = json.loads(found[0]) if found else {"error": True}
    if tree.get("error"):
        raise SqlRefused(f"this form of SELECT is not allowed: {tree.get('error_message', 'unknown')}", hint=HINT)
    for node in _nodes(tree):
        reason = _objection(node)
        if reason:
            raise SqlRefused(reason, hint=HINT)
    return statement


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the parsed statement, without recursion."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def _objection(node: dict[str, Any]) -> str | None:
    kind = node.get("type")
    if not isinstance(kind, str):
        return None
    if kind.endswith("_NODE") and kind not in QUERY_NODES:
        return _NOT_SELECT.format(kind=kind.removesuffix("_NODE").removesuffix("_QUERY"))
    if kind == "BASE_TABLE":
        path = _path(node)
        allowed = len(path) == 1 or (len(path) == 2 and path[0].lower() in ("main", "information_schema"))
        if not allowed:
            return f"there is no table {'.'.join(path)} for queries"
    if kind == "TABLE_FUNCTION":
        path = _path(node.get("function") or {})
        if len(path) != 1 or path[0].lower() not in TABLE_FUNCTIONS:
            return f"the table function {'.'.join(path) or '?'} is not allowed"
    return None


def _path(node: dict[str, Any]) -> list[str]:
    path = (node.get("qualified_name") or {}).get("path")
    return [str(part) for part in path] if isinstance(path, list) else []


def _fetch(cursor: duckdb.DuckDBPyConnection, limit: int) -> Result:
    description = cursor.description or []
    rows = cursor.fetchmany(limit + 1)
    return Result(
        columns=[column[0] for column in description],
        types=[str(column[1]) for column in description],
        rows=rows[:limit],
        truncated=len(rows) > limit,
    )


def tidy(error: Exception) -> str:
    """A database's message for people: without its name for the error's class, with its mark below the SQL."""
    text = str(error).strip()
    head, _, rest = text.partition("Error: ")
    if rest and len(head) < 40 and "\n" not in head:
        text = rest
    lines = [line for line in text.split("\n") if line.strip()]
    return "\n".join(lines) or type(error).__name__


class _Watch:
    """Interrupts a cursor's query when its time is over."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, seconds: float) -> None:
        self.seconds = seconds
        self.fired = False
        self._cursor = cursor
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def _fire(self) -> None:
        self.fired = True
        self._cursor.interrupt()

    def stop(self) -> None:
        self._timer.cancel()
