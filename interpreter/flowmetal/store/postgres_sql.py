"""Users' SQL on PostgreSQL: one SELECT over the views, within limits.

What goes in: SQL text of a user, and a connection. What comes out: a `Result`, or `SqlRefused` saying why.
The one rule: read-only by the database's own means: a READ ONLY transaction, a cursor (which takes nothing but a SELECT), and
the role `flowmetal_reader`, which may read the views and nothing else, where that role is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from flowmetal.store.guard import HINT, MAX_ROWS, TIMEOUT
from flowmetal.store.postgres_open import READER, driver, first_line, quoted
from flowmetal.store.postgres_text import from_json, from_text
from flowmetal.store.postgres_tokens import checked
from flowmetal.store.protocol import Result, SqlRefused

TYPES: Final = {
    "bool": "BOOLEAN", "int2": "SMALLINT", "int4": "INTEGER", "int8": "BIGINT", "float4": "FLOAT", "float8": "DOUBLE", "numeric": "DECIMAL",
    "text": "VARCHAR", "varchar": "VARCHAR", "bpchar": "VARCHAR", "name": "VARCHAR", "unknown": "VARCHAR", "json": "JSON", "jsonb": "JSON",
    "bytea": "BLOB", "date": "DATE", "time": "TIME", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "interval": "INTERVAL", "uuid": "UUID",
}  # fmt: skip
"""DuckDB's names of the types."""

_DECLARE: Final = "DECLARE fm_answer NO SCROLL CURSOR FOR "
_FETCH: Final = "FETCH FORWARD {} FROM fm_answer"

_HINTS: Final = {
    "42P01": HINT,  # there is no such table
    "42883": "Not all of PostgreSQL's SQL is DuckDB's: docs/sql.md has both. JSON is compared as text: column::text.",
    "0A000": HINT,  # DELETE and its like inside WITH
    "42501": HINT,
}
"""What to do about an error, by the database's code for it."""


def run_select(
    connection: Any,
    schema: str,
    *,
    as_reader: bool,
    sql: str,
    params: Sequence[Any] | dict[str, Any] | None,
    limit: int | None,
    timeout: float | None,
) -> Result:
    """The answer to one SELECT of a user. OperationalError where the connection is lost."""
    psycopg = driver()
    statement, values = checked(sql, params)
    most = MAX_ROWS if limit is None else limit
    seconds = TIMEOUT if timeout is None else timeout
    role = f"SET LOCAL ROLE {READER};" if as_reader else ""
    begin = f"BEGIN READ ONLY; SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}; SET LOCAL search_path = {quoted(schema)}; {role}"
    try:
        connection.execute(begin + "SET LOCAL cursor_tuple_fraction = 1")
        connection.execute(_DECLARE + statement, values)
        return result_of(connection, connection.execute(_FETCH.format(most + 1)), most)
    except psycopg.errors.QueryCanceled as error:
        raise SqlRefused(f"the query took longer than {seconds:g} s and was stopped", hint="Ask for less, or give it more time.") from error
    except psycopg.OperationalError as error:
        if connection.closed:
            raise
        raise _refused(error, statement) from error
    except (psycopg.Error, ValueError, OverflowError) as error:
        raise _refused(error, statement) from error
    finally:
        if not connection.closed:
            connection.rollback()


def result_of(connection: Any, cursor: Any, most: int = MAX_ROWS) -> Result:
    """The answer that a cursor holds, its first rows."""
    rows = cursor.fetchall()
    columns, types = [], []
    for n, column in enumerate(cursor.description):
        sql_type, values = _column(_type_name(connection, column.type_code), column, [row[n] for row in rows[:most]])
        types.append(sql_type)
        columns.append(values)
    kept = list(zip(*columns, strict=True)) if columns else [()] * len(rows[:most])
    return Result([column.name for column in cursor.description], types, kept, truncated=len(rows) > most)


def _column(sql_type: str, column: Any, values: list[Any]) -> tuple[str, list[Any]]:
    """A column's type and values, as DuckDB has them: there a sum of whole numbers is one, and an average a float."""
    if sql_type == "JSON":
        return sql_type, [from_json(value) if isinstance(value, str) else value for value in values]
    if sql_type == "DECIMAL" and column.precision is not None:
        return f"DECIMAL({column.precision},{column.scale})", [None if value is None else Decimal(value) for value in values]
    if sql_type == "DECIMAL":
        whole = any(isinstance(value, int) for value in values) and not any(isinstance(value, Decimal) for value in values)
        return ("HUGEINT", values) if whole else ("DOUBLE", [None if value is None else float(value) for value in values])
    return sql_type, [from_text(value) if isinstance(value, str) else value for value in values]


def _type_name(connection: Any, oid: int) -> str:
    found = connection.adapters.types.get(oid)
    if found is None:
        return "VARCHAR"
    name = TYPES.get(found.name, found.name.upper())
    return f"{name}[]" if found.array_oid == oid else name


def _refused(error: Exception, statement: str) -> SqlRefused:
    """What is wrong and where, with the database's own hint."""
    diag = getattr(error, "diag", None)
    said = [text for text in (getattr(diag, "message_primary", None), getattr(diag, "message_hint", None)) if text] or [first_line(error)]
    if said[0].startswith("DECLARE CURSOR must not contain"):
        said = ["only a SELECT is allowed here, not one that writes"]
    at = getattr(diag, "statement_position", None)
    if at is not None and int(at) > len(_DECLARE):
        said.extend(_mark(statement, int(at) - len(_DECLARE) - 1))
    return SqlRefused("\n".join(said), hint=_HINTS.get(getattr(error, "sqlstate", None) or ""))


def _mark(statement: str, at: int) -> list[str]:
    """The line with that place in it, and a mark below the place."""
    before = statement[:at].split("\n")
    line = statement.split("\n")[len(before) - 1]
    head = f"LINE {len(before)}: "
    return [head + line, " " * (len(head) + len(before[-1])) + "^"]
