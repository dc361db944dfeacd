"""Reaching a PostgreSQL database, and making a store of it.

What goes in: the URL of a database. What comes out: connections with our settings; a database whose tables and views are
there, in our format. The one rule: whoever comes first makes them, under a lock; no message shows a password.
"""

from __future__ import annotations

import logging
import time
import uuid
from decimal import Decimal
from typing import Any, Final

from flowmetal.store import postgres_schema as schema
from flowmetal.store import postgres_views as views
from flowmetal.store.postgres_url import without_password
from flowmetal.store.protocol import FORMAT_VERSION, StoreError

LOCKS: Final = 0x464D
"""The class of our advisory locks; the second number says what for."""
SET_UP: Final = 1
READER: Final = "flowmetal_reader"
"""The role that users' SQL runs as: it may read the views, and nothing else."""
CONNECT_SECONDS: Final = 10

_PSYCOPG: Final = logging.getLogger("psycopg")
"""Warns of each connection that breaks in the midst of a commit, which is dealt with here."""
_SETTINGS: Final = """SET TimeZone = 'UTC'; SET client_encoding = 'UTF8'; SET statement_timeout = 0; SET lock_timeout = 0; SET jit = off;
    SET bytea_output = 'hex'; SET standard_conforming_strings = on;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"""
_WHAT: Final = "SELECT current_setting('server_encoding'), pg_is_in_recovery(), current_schema(), current_database()"


def driver() -> Any:
    """The module `psycopg`; a StoreError says how to install it."""
    try:
        import psycopg
    except ImportError:
        raise StoreError("a PostgreSQL store needs psycopg", type="store/path", hint='pip install "flowmetal[postgres]"') from None
    _PSYCOPG.setLevel(max(logging.ERROR, _PSYCOPG.level))
    return psycopg


def dial(url: str) -> Any:
    """A connection that commits each statement by itself, and takes parameters as `$1`."""
    psycopg = driver()
    try:
        given = psycopg.conninfo.conninfo_to_dict(url)
        more = {key: value for key, value in (("connect_timeout", CONNECT_SECONDS), ("application_name", "flowmetal")) if key not in given}
        connection = psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor, **more)
    except psycopg.OperationalError as error:
        raise StoreError(f"{without_password(url)} cannot be reached: {first_line(error)}", type="store/unreachable",
                         hint="Is the server running, and are the address, the user and the password right?") from None  # fmt: skip
    except (psycopg.Error, UnicodeError) as error:
        raise StoreError(f"the store's URL is wrong: {first_line(error)}", type="store/path",
                         hint="write postgresql://USER@HOST:PORT/DATABASE") from None  # fmt: skip
    connection.execute(_SETTINGS)
    _adapt(connection.adapters)
    return connection


def _adapt(adapters: Any) -> None:
    """JSON comes as its text; a whole number is one, as DuckDB's sums are."""
    adapt = driver().adapt

    class Text(adapt.Loader):  # type: ignore[misc,name-defined]
        def load(self, data: Any) -> str:
            return bytes(data).decode()

    class Number(adapt.Loader):  # type: ignore[misc,name-defined]
        def load(self, data: Any) -> int | Decimal:
            text = bytes(data).decode()
            return int(text) if text.lstrip("-").isdigit() else Decimal(text)

    adapters.register_loader("json", Text)
    adapters.register_loader("jsonb", Text)
    adapters.register_loader("numeric", Number)


def first_line(error: Exception) -> str:
    """A message of the database for people, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def prepare(connection: Any, url: str) -> str:
    """Makes or updates tables and views; the schema in which the views are."""
    psycopg = driver()
    encoding, standby, here, database = connection.execute(_WHAT).fetchone()
    name = without_password(url)
    if encoding != "UTF8":
        raise StoreError(f"{name} has the encoding {encoding}, and a store needs UTF8", type="store/path", hint="createdb -E UTF8 -T template0 NAME")
    if standby:
        raise StoreError(f"{name} is a standby, which can only be read", type="store/path", hint="Name the primary server.")
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock($1, $2)", (LOCKS, SET_UP))
            _migrate(connection, name)
            schema_name = _make_views(connection, here, name)
            _grant(connection, schema_name)
    except psycopg.errors.InsufficientPrivilege as error:
        hint = f"A store needs a database of its own, or: GRANT CREATE ON DATABASE {database} TO …; see docs/postgres.md."
        raise StoreError(f"{name}: {first_line(error)}", type="store/path", hint=hint) from None
    return schema_name


def _migrate(connection: Any, name: str) -> None:
    there = connection.execute("SELECT to_regclass('fm.meta') IS NOT NULL").fetchone()[0]
    if not there:
        for sql in schema.BEGIN:
            connection.execute(sql)
    text = get_meta(connection, "format")
    have = int(text) if text is not None and text.isdigit() else 0
    if have > FORMAT_VERSION:
        raise StoreError(
            f"{name} was written by a newer Flowmetal: its format is {have}, this program knows formats up to {FORMAT_VERSION}",
            type="store/format",
            hint="Update this program: pip install --upgrade flowmetal",
        )
    for version in range(have + 1, FORMAT_VERSION + 1):
        for sql in schema.MIGRATIONS[version]:
            connection.execute(sql)
    if have < FORMAT_VERSION:
        connection.execute(schema.INSERT_META, ("format", str(FORMAT_VERSION)))
    if not have:
        connection.execute(schema.INSERT_META, ("store_id", str(uuid.uuid4())))
        connection.execute(schema.INSERT_META, ("created_at", str(int(time.time()))))


def _make_views(connection: Any, here: str | None, name: str) -> str:
    """The views stay in the schema where they were made first."""
    known = get_meta(connection, "views_schema")
    chosen = known or here
    if chosen is None:
        raise StoreError(f"{name}: no schema of the search path exists", type="store/path", hint="CREATE SCHEMA public")
    if get_meta(connection, "views") == views.FINGERPRINT:
        return chosen
    if known is None:
        _check_free(connection, chosen, name)
    q = quoted(chosen)
    for view in reversed(views.VIEWS):
        connection.execute(f"DROP VIEW IF EXISTS {q}.{view}")
    connection.execute("DROP VIEW IF EXISTS fm.entries")
    connection.execute(views.CREATE_ENTRIES)
    for view, sql in views.VIEWS.items():
        connection.execute(f"CREATE VIEW {q}.{view} AS {sql}")
    connection.execute(schema.INSERT_META, ("views_schema", chosen))
    connection.execute(schema.INSERT_META, ("views", views.FINGERPRINT))
    return chosen


def _check_free(connection: Any, chosen: str, name: str) -> None:
    sql = """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = ANY($2) ORDER BY 1"""
    taken = [row[0] for row in connection.execute(sql, (chosen, list(views.VIEWS))).fetchall()]
    if taken:
        raise StoreError(
            f"{name}: the schema {chosen} has something of its own called {', '.join(taken)}",
            type="store/path",
            hint="Give the store a database of its own, or another schema: add ?options=-csearch_path%3DSCHEMA to the URL.",
        )


def _grant(connection: Any, schema_name: str) -> None:
    """Makes the role of readers where that is allowed, and lets it read the views where there is one."""
    errors = driver().errors
    q = quoted(schema_name)
    if not _there(connection):
        try:
            with connection.transaction():
                connection.execute(f"CREATE ROLE {READER} NOLOGIN")
                connection.execute(f"GRANT {READER} TO CURRENT_USER")
        except (errors.InsufficientPrivilege, errors.UniqueViolation, errors.DuplicateObject, errors.InternalError_):
            pass  # somebody with more rights makes it (docs/postgres.md), or a store in another database is about to
    sql = "SELECT has_table_privilege($1, $2, 'SELECT')"
    if _there(connection) and not connection.execute(sql, (READER, f"{q}.{next(iter(views.VIEWS))}")).fetchone()[0]:
        try:
            with connection.transaction():
                connection.execute(f"GRANT SELECT ON {', '.join(f'{q}.{view}' for view in views.VIEWS)} TO {READER}")
                connection.execute(f"GRANT USAGE ON SCHEMA {q} TO {READER}")
        except errors.InsufficientPrivilege:
            pass  # the views are another's, who lets them be read


def _there(connection: Any) -> bool:
    return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = $1", (READER,)).fetchone() is not None


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def get_meta(connection: Any, key: str) -> str | None:
    """A setting of the store."""
    found = connection.execute("SELECT value FROM fm.meta WHERE key = $1", (key,)).fetchone()
    return None if found is None else str(found[0])
