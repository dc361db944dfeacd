"""The stores that tests of behaviour run on: files of DuckDB, or with `--store postgresql` databases of PostgreSQL.

In: the name that a test has for a store, a path. Out: the store that stands for it. The one rule: a test never says what its
store is; one that is about a store of one kind says so, and why, by the mark `one_store`.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from postgres_server import Server
from processes import store_at

from flowmetal.client.store_url import StoreUrl, resolve
from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Faults, Store

KINDS = ("duckdb", "postgresql")
"""What `--store` may be."""


def named(store: StoreUrl) -> dict[str, str]:
    """What names the store to a program in whose folder its file would stand, and which looks for it there."""
    return {} if store.kind == "duckdb" else {"FLOWMETAL_STORE": store.url}


several = pytest.mark.stores("memory", "duckdb", "postgresql")
"""Runs on each of them, every time."""
both = pytest.mark.stores(*KINDS)
"""Runs on both, every time: a small part that notices soon when one of them keeps a promise no more."""


class Stores:
    """The stores of one test, or of one module: each is empty when it is first asked for, and gone at the end."""

    def __init__(self, kind: str, server: Server | None) -> None:
        self.kind = kind
        """`memory`, `duckdb` or `postgresql`."""
        self._server = server
        self._urls: dict[Path, StoreUrl] = {}
        self._opened: list[Store] = []
        self._quick = 0

    def at(self, path: Path) -> StoreUrl:
        """The store that stands for this file: the file, or a database that is the same one whenever it is asked for."""
        if self.kind == "memory":
            return resolve(":memory:")
        if self._server is None:
            return store_at(path)
        if path not in self._urls:
            self._urls[path] = resolve(self._server.store(), environ={})
        return self._urls[path]

    def quick_at(self) -> StoreUrl:
        """A new store that one program opens, once: for DuckDB the one in memory, which is a DuckDB too."""
        self._quick += 1
        return self.at(Path(f"quick-{self._quick}")) if self.kind == "postgresql" else resolve(":memory:")

    def open(self, path: Path, faults: Faults | None = None) -> Store:
        """The store behind `at(path)`, without an interpreter."""
        if self.kind == "memory":
            return self.quick(faults)
        where = self.at(path)
        if where.kind == "postgresql":
            from flowmetal.store.postgres_store import PostgresStore

            return self._kept(PostgresStore(where.url, faults=faults))
        if not where.file.exists():
            where.file.write_bytes(empty_file())
        return self._kept(DuckDBStore(where.file, faults=faults))

    def quick(self, faults: Faults | None = None) -> Store:
        """A new store that no other process has to see: for DuckDB the one in memory, which is a DuckDB too."""
        if self.kind == "postgresql":
            self._quick += 1
            return self.open(Path(f"quick-{self._quick}"), faults)
        return self._kept(MemoryStore(faults=faults))

    def close(self) -> None:
        """Closes what was opened here, and removes the databases."""
        for store in self._opened:
            store.close()
        for url in self._urls.values():
            if self._server is not None:
                self._server.give_back(url.url)

    def _kept(self, store: Store) -> Store:
        self._opened.append(store)
        return store


@functools.cache
def empty_file() -> bytes:
    """A DuckDB store that was just made: copied in half the time that making another takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.duckdb"
        DuckDBStore(path).close()
        return path.read_bytes()
