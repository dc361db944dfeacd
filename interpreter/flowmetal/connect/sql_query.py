"""Queries on other databases: `(sql/query url "SELECT …" params)`, recorded.

In: a database's URL, one SELECT and its parameters. Out: the rows, a vector of maps. The one rule: it
reads only, by the database's own means, so it may be made again after a crash.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from uuid import UUID

from flowmetal.connect.secrets import SecretOf, filled, secrets_of
from flowmetal.errors import LispError
from flowmetal.lang.persistent import Map, Vector
from flowmetal.lang.plain import to_plain
from flowmetal.lang.values import Duration, Instant, kw
from flowmetal.runtime.connector import Call, Completed, Failed, Outcome
from flowmetal.runtime.retries import seconds

MAX_ROWS = 100_000
MAX_CONCURRENT = 8
SECONDS = 60.0
"""How long a query may take, where `:timeout` does not say."""

T = TypeVar("T")
Params = Sequence[Any] | dict[str, Any]
Rows = tuple[list[str], list[tuple[Any, ...]]]


class Threads:
    """A few threads on which databases are asked, made when the first is."""

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, limit: float, work: Callable[..., T], *args: Any) -> T:
        """What a function gives; raises TimeoutError after `limit` seconds, whatever becomes of it."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._most, thread_name_prefix=self._name)
        async with asyncio.timeout(limit):
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


class QueryConnector:
    """Performs `sql/query` calls on a few threads of its own."""

    ops = frozenset({"sql/query"})

    def __init__(self, *, secret_of: SecretOf | None = None) -> None:
        self._secret_of = secret_of or secrets_of(None)
        self._threads = Threads("flowmetal-query", MAX_CONCURRENT)
        self.close = self._threads.close

    async def perform(self, call: Call) -> Outcome:
        """Performs one query."""
        try:
            url = str(filled(call.args[0], self._secret_of))
            limit = seconds(call.options.get(kw("timeout")), ":timeout", SECONDS)
            params = _params(filled(call.args[1], self._secret_of))
            kind = kind_of(url)
        except LispError as error:
            return Failed(error.type, error.message, error.data, 0)
        try:
            columns, rows = await self._threads.run(limit, read, kind, url, call.target, params, limit)
        except TimeoutError:
            return Failed("flow/timeout", f"the query took longer than {limit:g} s", None, call.attempt)
        except Exception as error:  # noqa: BLE001  each database has errors of its own, and all of them are the query's
            return Failed("sql/failed", str(error).replace(url, "the database").strip()[:2000], None, call.attempt)
        if len(rows) > MAX_ROWS:
            return Failed("limit", f"the query gives more than {MAX_ROWS:,} rows: add a LIMIT", None, call.attempt)
        return Completed(maps(columns, rows), call.attempt)


def kind_of(url: str) -> str:
    """`postgresql`, `sqlite` or `duckdb`; raises LispError for the URL of another database."""
    scheme = urlsplit(url).scheme
    if scheme in ("postgresql", "postgres"):
        return "postgresql"
    if scheme == "sqlite":
        return "sqlite"
    if scheme == "duckdb" or url.endswith(".duckdb"):
        return "duckdb"
    raise LispError("databases are named by postgresql://…, sqlite:///PATH and duckdb:///PATH", type="value")


def path_of(url: str) -> str:
    """The file that `scheme:///PATH` (relative, as SQLAlchemy has it) or `scheme:////PATH` names."""
    rest = url.partition("://")[2] if "://" in url else url
    return rest.removeprefix("/") if "://" in url else rest


def read(kind: str, url: str, query: str, params: Params, limit: float, *settings: str, needs: str = "sql/query on PostgreSQL") -> Rows:
    """The answer of one SELECT, on a connection that can do nothing else."""
    if kind == "sqlite":
        lite = sqlite3.connect(f"file:{quote(path_of(url))}?mode=ro", uri=True, timeout=limit)
        try:
            lite.execute("PRAGMA query_only = 1")
            return _fetched(lite.execute(query, params))
        finally:
            lite.close()
    if kind == "duckdb":
        import duckdb

        with duckdb.connect(path_of(url), read_only=True, config={"enable_external_access": False}) as duck:
            return _fetched(duck.execute(query, params))
    with postgres(url, limit, "default_transaction_read_only=on", *settings, needs=needs) as connection:
        connection.read_only = True
        return _fetched(connection.execute(query, params or None))


def postgres(url: str, limit: float, *settings: str, needs: str) -> Any:
    """A connection to a PostgreSQL, whose statements take at most `limit` seconds."""
    try:
        import psycopg
    except ImportError:
        raise LispError(f'{needs} needs psycopg: pip install "flowmetal[postgres]"', type="sql/failed") from None
    options = " ".join(f"-c {setting}" for setting in (*settings, f"statement_timeout={int(limit * 1000)}"))
    return psycopg.connect(url, options=options, connect_timeout=max(1, int(limit)))


def maps(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Vector:
    """Rows as the language has them."""
    keys = [kw(name) for name in columns]
    return Vector.of([Map.of(zip(keys, map(value_of, row), strict=True)) for row in rows])


def _fetched(cursor: Any) -> Rows:
    """The columns and rows of a SELECT; one row more than may be, so that too many are noticed."""
    if cursor.description is None:
        raise LispError("sql/query takes one SELECT", type="sql/refused")
    return [column[0] for column in cursor.description], cursor.fetchmany(MAX_ROWS + 1)


def _params(value: Any) -> Params:
    if isinstance(value, Map):
        return {k.name: param(v) for k, v in value.items()}
    return [param(each) for each in value]


def param(x: Any) -> Any:
    """A value as a parameter of a query."""
    if x is None or isinstance(x, (bool, int, float, str, bytes)):
        return x
    if isinstance(x, Instant):
        return datetime.fromtimestamp(x.micros / 1e6, UTC)
    return x if isinstance(x, (Decimal, UUID)) else to_plain(x)[0]


def value_of(x: Any) -> Any:
    """A column's value as the language has it."""
    if x is None or isinstance(x, (bool, int, float, str, bytes, Decimal, UUID)):
        return x
    if isinstance(x, datetime):
        aware = x if x.tzinfo is not None else x.replace(tzinfo=UTC)
        return Instant(round(aware.timestamp() * 1e6))
    if isinstance(x, timedelta):
        return Duration(round(x.total_seconds() * 1e6))
    if isinstance(x, (date, clock_time)):
        return x.isoformat()
    if isinstance(x, (list, tuple)):
        return Vector.of([value_of(each) for each in x])
    if isinstance(x, dict):
        return Map.of([(kw(str(k)), value_of(v)) for k, v in x.items()])
    return bytes(x) if isinstance(x, (bytearray, memoryview)) else str(x)
