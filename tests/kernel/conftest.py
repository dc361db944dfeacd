"""Kernels for tests: one for a module whose tests do not disturb each other, and one for a test that ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel_driver import Notebook
from processes import end_host
from stores import Stores

import flowmetal

Opener = Callable[..., Notebook]


@pytest.fixture(scope="module")
def nb(tmp_path_factory: pytest.TempPathFactory, module_stores: Stores) -> Iterator[Notebook]:
    """A kernel and its store, for a whole module."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = Notebook(folder, module_stores.at(folder / "flowmetal.duckdb"))
    notebook.ok("(+ 1 1)")
    yield notebook
    notebook.kill()
    end_host(notebook.store)


@pytest.fixture
def fm(nb: Notebook) -> Iterator[flowmetal.Flowmetal]:
    """The module's store, as another program sees it."""
    with nb.open() as opened:
        yield opened


@pytest.fixture
def opened(tmp_path: Path, stores: Stores) -> Iterator[Opener]:
    """Opens kernels on one store of the test's own."""
    notebooks: list[Notebook] = []
    store = stores.at(tmp_path / "flowmetal.duckdb")

    def open_one(**options: object) -> Notebook:
        notebooks.append(Notebook(tmp_path, store, **options))
        return notebooks[-1]

    yield open_one
    for notebook in notebooks:
        notebook.kill()
    end_host(store)
