"""The stores that the suite asks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_store import SQLiteStore

from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Faults, Store
from flowmetal.store.testing import MakeStore


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was just made: a copy of it is there sooner than another new one."""
    path = tmp_path_factory.mktemp("empty") / "store.duckdb"
    DuckDBStore(path).close()
    return path


@pytest.fixture(params=["memory", "duckdb", "postgres", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path, empty_file: Path) -> Iterator[MakeStore]:
    """Makes stores of one kind, and closes them."""
    made: list[Store] = []
    databases: list[str] = []
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        from flowmetal.store.postgres_store import PostgresStore

    def make(faults: Faults | None = None) -> Store:
        store: Store
        if request.param == "memory":
            store = MemoryStore(faults=faults)
        elif request.param == "duckdb":
            store = DuckDBStore(shutil.copy(empty_file, tmp_path / f"store{len(made)}.duckdb"), faults=faults)
        elif request.param == "sqlite":
            store = SQLiteStore(str(tmp_path / f"store{len(made)}.sqlite"), faults=faults)
        else:
            databases.append(server.store())
            store = PostgresStore(databases[-1], faults=faults)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()
    for url in databases:
        server.give_back(url)


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """An empty store of each kind."""
    return make_store()
