"""Stores for the tests of the runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import Stores

from flowmetal.store.protocol import Store


@pytest.fixture
def store(stores: Stores, tmp_path: Path) -> Store:
    """A store that outlives engines."""
    return stores.open(tmp_path / "store.duckdb")
