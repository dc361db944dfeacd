"""Users' SQL on PostgreSQL: one SELECT over the views, within limits.

What goes in: SQL text of a user, and a connection. What comes out: a `Result`, or `SqlRefused` saying why.
The one rule: read-only by the database's own means: a READ ONLY transaction, a cursor (which takes nothing but a SELECT), and
the role `flowmetal_reader`, which may read the views and nothing else, where that role is there.
"""

from __future__ import annotations

from collections.abc import Sequence
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

_CURSOR: Final = "fm_answer"


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
        connection.execute(f"DECLARE {_CURSOR} NO SCROLL CURSOR FOR {statement}", values)
        return result_of(connection, connection.execute(f"FETCH FORWARD {most + 1} FROM {_CURSOR}"), most)
    except psycopg.errors.QueryCanceled as error:
        raise SqlRefused(f"the query took longer than {seconds:g} s and was stopped", hint="Ask for less, or give it more time.") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SqlRefused(first_line(error), hint=HINT) from error
    except psycopg.OperationalError as error:
        if connection.closed:
            raise
        raise SqlRefused(_message(error)) from error
    except (psycopg.Error, ValueError, OverflowError) as error:
        raise SqlRefused(_message(error)) from error
    finally:
        if not connection.closed:
            connection.rollback()


def result_of(connection: Any, cursor: Any, most: int = MAX_ROWS) -> Result:
    """The answer that a cursor holds, its first rows."""
    rows = cursor.fetchall()
    types = [_type_name(connection, column.type_code) for column in cursor.description]
    return Result([column.name for column in cursor.description], types, [_values(row, types) for row in rows[:most]], truncated=len(rows) > most)


def _values(row: tuple[Any, ...], types: list[str]) -> tuple[Any, ...]:
    return tuple(
        (from_json(value) if sql_type == "JSON" else from_text(value)) if isinstance(value, str) else value for value, sql_type in zip(row, types, strict=True)
    )


def _type_name(connection: Any, oid: int) -> str:
    found = connection.adapters.types.get(oid)
    if found is None:
        return "VARCHAR"
    name = TYPES.get(found.name, found.name.upper())
    return f"{name}[]" if found.array_oid == oid else name


def _message(error: Exception) -> str:
    """What is wrong, with the database's own hint; not its LINE, which is not the user's."""
    diag = getattr(error, "diag", None)
    said = [text for text in (getattr(diag, "message_primary", None), getattr(diag, "message_hint", None)) if text]
    return "\n".join(said) or first_line(error)
