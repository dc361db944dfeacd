"""A copy of a store that is in use.

In: a cursor of the store, and a folder. Out: a file there that opens as a store. The one rule: it holds what was committed at one
moment, all of it, and has its name only when it is whole and on disk.

The tables go through Parquet files: the database writes and reads those itself, in one transaction that disturbs no writer. (A
copy of the file's bytes would need the writer to stand still, and reading them would give up the lock that the database has on it.)
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from flowmetal.store import schema
from flowmetal.store.disk import quoted, sync
from flowmetal.store.protocol import FORMAT_VERSION, StoreError

TABLES: Final = ("meta", "log", "large", "blobs", "snapshots")


def archive_of(path: Path) -> Path:
    """The folder beside a store in which its database may read and write, and nowhere else."""
    return path.with_name(path.name + ".archive")


def copy_store(cursor: duckdb.DuckDBPyConnection, source: Path, folder: Path) -> Path:
    """Copies the store at `source`, which the cursor reads, into a folder; the new file."""
    target = folder / source.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise StoreError(f"{target} is there already", type="store/path", hint="name another folder")
        partial = folder / f".{source.name}.{uuid.uuid4().hex[:8]}"
        with working_folder(source) as work:
            cursor.execute("BEGIN TRANSACTION")
            archived = _held(cursor, archive_of(source), work)
            for table in TABLES:
                cursor.execute(f"COPY fm.{table} TO '{quoted(work / table)}' (FORMAT parquet, COMPRESSION zstd)")
            cursor.execute("COMMIT")
            try:
                _write(partial, work)
                sync(partial)
                _copy_archive(archived, archive_of(target))
                os.link(partial, target)  # unlike a rename, this never replaces what came meanwhile
                sync(folder)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"the store cannot be copied to {folder}: {error.strerror or error}", type="store/path") from error
    return target


def _held(cursor: duckdb.DuckDBPyConnection, source: Path, work: Path) -> list[Path]:
    """The files of the archive that count, under names that stay while they are copied: they are never written again, but may go."""
    found = cursor.execute("SELECT value FROM fm.meta WHERE key = 'archive'").fetchone()
    names = json.loads(found[0]) if found else []
    for name in names:
        os.link(source / name, work / name)
    return [work / name for name in names]


def _copy_archive(files: list[Path], target: Path) -> None:
    for path in files:
        target.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(path, target / path.name)
        (target / path.name).chmod(0o600)
        sync(target / path.name)


def _write(path: Path, work: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.begin()
        for version in range(1, FORMAT_VERSION + 1):
            for sql in schema.MIGRATIONS[version]:
                connection.execute(sql)
        for table in TABLES:
            connection.execute(f"INSERT INTO fm.{table} SELECT * FROM read_parquet('{quoted(work / table)}') WHERE {_MEANT.get(table, 'true')}")
        connection.commit()
        connection.execute("CHECKPOINT")
    path.chmod(0o600)


_MEANT: Final = {"meta": "key NOT IN ('views', 'cold')"}
"""What is copied of a table; a store makes its views anew when it is opened."""


@contextmanager
def working_folder(source: Path) -> Iterator[Path]:
    """A folder of its own for files on their way, in the one that the database may use; gone afterwards."""
    above = archive_of(source)
    work = above / f"tmp-{uuid.uuid4().hex[:8]}"
    work.mkdir(parents=True, mode=0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not any(above.iterdir()):
            above.rmdir()
