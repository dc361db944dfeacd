"""The stores that the suite asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from log_rows import MakeStore

from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Faults, Store


@pytest.fixture(params=["memory", "duckdb"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Makes stores of one kind, and closes them."""
    made: list[Store] = []

    def make(faults: Faults | None = None) -> Store:
        path = tmp_path / f"store{len(made)}.duckdb"
        store: Store = MemoryStore(faults=faults) if request.param == "memory" else DuckDBStore(path, faults=faults)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """An empty store of each kind."""
    return make_store()
