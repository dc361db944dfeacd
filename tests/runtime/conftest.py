"""Stores for the tests of the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.memory import MemoryStore


@pytest.fixture(params=["memory", "duckdb", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A store that outlives engines."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        from flowmetal.store.postgres_store import PostgresStore

        url = server.store()
        shared = PostgresStore(url)
        yield shared
        shared.close()
        server.give_back(url)
        return
    made = MemoryStore() if request.param == "memory" else DuckDBStore(tmp_path / "store.duckdb")
    yield made
    made.close()
