"""Opening a DuckDB file as a store, safely.

What goes in: a path. What comes out: a connection whose tables and views are there, whose format is ours, which reads
no file but its own and takes no further settings. The one rule: whatever is wrong with the path is a `StoreError` that
says what it is and what to do.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from pathlib import Path
from typing import Final

import duckdb

from flowmetal.store import schema, views
from flowmetal.store.backup import archive_of
from flowmetal.store.disk import quoted
from flowmetal.store.guard import tidy
from flowmetal.store.protocol import FORMAT_VERSION, StoreError

SETTINGS: Final = (
    "SET GLOBAL TimeZone = 'UTC'",
    "SET memory_limit = '50%'",
    "SET wal_autocheckpoint = '32MB'",
    "SET allocator_bulk_deallocation_flush_threshold = '1MB'",
    "SET python_enable_replacements = false",
    "SET autoload_known_extensions = false",
    "SET autoinstall_known_extensions = false",
)
LOCKS: Final = ("PRAGMA disable_optimizer", "SET enable_external_access = false", "SET lock_configuration = true")
"""From here on: no file but the database's own and those of its archive, no network, no further SET. The connection itself writes, which needs no
optimizer; its cursors, which read, have one."""

MAGIC: Final = b"DUCK"
MAGIC_AT: Final = 8
"""Where every DuckDB file says that it is one."""

_HOLDER: Final = re.compile(r"\(PID (\d+)\)")


def connect(path: Path | None) -> duckdb.DuckDBPyConnection:
    """A connection to the store at the path, made when it is not there; None is a store in memory."""
    if path is None:
        connection = duckdb.connect(":memory:")
        prepare(connection, None)
        return connection
    _check_path(path)
    _check_file(path)
    try:
        connection = duckdb.connect(str(path))
    except (duckdb.Error, OSError) as error:
        raise _why_not(path, error) from error
    try:
        _check_format(connection, path)
        prepare(connection, path)
    except StoreError:
        connection.close()
        raise
    except duckdb.Error as error:
        connection.close()
        raise _why_not(path, error) from error
    return connection


def prepare(connection: duckdb.DuckDBPyConnection, path: Path | None) -> None:
    """Settings, tables, views; then the locks."""
    for sql in SETTINGS:
        connection.execute(sql)
    connection.begin()
    try:
        have = _version(connection) or 0
        for version in range(have + 1, FORMAT_VERSION + 1):
            for sql in schema.MIGRATIONS[version]:
                connection.execute(sql)
        if have < FORMAT_VERSION:
            connection.execute(schema.INSERT_META, ["format", str(FORMAT_VERSION)])
        if not have:
            connection.execute(schema.INSERT_META, ["store_id", str(uuid.uuid4())])
            connection.execute(schema.INSERT_META, ["created_at", str(int(time.time()))])
        cold = views.create_cold(None if path is None else archive_of(path), archived(connection))
        if _meta(connection, "cold") != cold:
            connection.execute(cold)
            connection.execute(schema.INSERT_META, ["cold", cold])
        if _meta(connection, "views") != views.FINGERPRINT:
            for sql in views.CREATE:
                connection.execute(sql)
            connection.execute(schema.INSERT_META, ["views", views.FINGERPRINT])
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    if path is not None:
        connection.execute(f"SET allowed_directories = ['{quoted(archive_of(path))}/']")
    for sql in LOCKS:
        connection.execute(sql)


def archived(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The names of the files of the archive that count."""
    names: list[str] = json.loads(_meta(connection, "archive") or "[]")
    return names


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a directory, not a store", type="store/path", hint=f"Name a file: {path / 'flowmetal.duckdb'}")
    if not path.parent.is_dir():
        raise StoreError(f"there is no directory {path.parent}", type="store/path", hint=f"Make it first: mkdir -p {path.parent}")


def _check_file(path: Path) -> None:
    """What is no DuckDB file is not given to DuckDB at all, which would look for an extension that opens it."""
    try:
        with path.open("rb") as file:
            head = file.read(MAGIC_AT + len(MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise _why_not(path, error) from error
    if head and head[MAGIC_AT:] != MAGIC:
        what = "an SQLite database" if head.startswith(b"SQLite") else "not a DuckDB database"
        raise StoreError(f"{path} is {what}", type="store/path", hint="Name another file with --store; a new one is made where there is none.")


def _check_format(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    version = _version(connection)
    if version is None:
        found = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE NOT internal").fetchone()
        if found and found[0]:
            raise StoreError(
                f"{path} is a DuckDB database of something else, not a Flowmetal store",
                type="store/path",
                hint="Name another file with --store; a new one is made where there is none.",
            )
    elif version > FORMAT_VERSION:
        raise StoreError(
            f"{path} was written by a newer Flowmetal: its format is {version}, this program knows formats up to {FORMAT_VERSION}",
            type="store/format",
            hint="Update this program: pip install --upgrade flowmetal",
        )


def _version(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The format of the store, None when it is not a store yet."""
    there = connection.execute("SELECT 1 FROM duckdb_tables() WHERE schema_name = 'fm' AND table_name = 'meta' AND NOT temporary").fetchone()
    if there is None:
        return None
    text = _meta(connection, "format")
    return int(text) if text is not None and text.isdigit() else None


def _meta(connection: duckdb.DuckDBPyConnection, key: str) -> str | None:
    found = connection.execute("SELECT value FROM fm.meta WHERE key = $1", [key]).fetchall()  # whole: an unfinished result blocks what is appended
    return str(found[0][0]) if found else None


def _why_not(path: Path, error: Exception) -> StoreError:
    text = str(error)
    if "Could not set lock" in text or "onflicting lock" in text:
        holder = _HOLDER.search(text)
        who = f" by process {holder.group(1)}" if holder else " by another process"
        return StoreError(f"{path} is in use{who}", type="store/locked", hint="Attach to its host, or stop it: flowmetal stop")
    if "not a valid DuckDB database" in text or "database file" in text.lower() or isinstance(error, duckdb.SerializationException):
        return StoreError(f"{path} is not a DuckDB database, or is damaged", type="store/path", hint="Name another file with --store.")
    if "Permission denied" in text or isinstance(error, PermissionError):
        return StoreError(f"{path} may not be read and written", type="store/path", hint="Check who owns it and its directory.")
    return StoreError(f"{path} cannot be opened: {tidy(error)}", type="store/path")
