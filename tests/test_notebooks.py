"""Every notebook runs from top to bottom and says what it said when it was saved.

With `FLOWMETAL_UPDATE_PICTURES=1` notebooks are run and saved anew, outputs and all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import end_host, store_at
from stores import Stores, named

from flowmetal.client.store_url import StoreUrl

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
UPDATE = bool(os.environ.get("FLOWMETAL_UPDATE_PICTURES"))
VIEWS = {"application/vnd.jupyter.widget-view+json", "application/vnd.flowmetal.history+json"}

each = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


@pytest.fixture
def store(tmp_path: Path, stores: Stores) -> Iterator[StoreUrl]:
    """The store of a notebook's copy, and whoever hosts it until the end of the test."""
    store = stores.at(tmp_path / "flowmetal.duckdb")
    yield store
    end_host(store)


@each
def test_a_notebook_runs_and_says_what_it_said(notebook: Path, tmp_path: Path, store: StoreUrl) -> None:
    import nbformat

    if UPDATE:
        save_anew(notebook, tmp_path)
    copy = shutil.copy(notebook, tmp_path)
    env = {k: v for k, v in os.environ.items() if k != "FLOWMETAL_STORE"} | named(store)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "-c", os.devnull]
    command += ["--nbval", "--nbval-cell-timeout=60", str(copy)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    cells = sum(cell.cell_type == "code" for cell in nbformat.read(notebook, as_version=4).cells)
    assert f"{cells} passed" in done.stdout


@each
def test_a_notebook_is_saved_as_it_ran(notebook: Path) -> None:
    """Whoever only looks at it sees all of it: every cell's output, the histories as pictures, no error, no widget's state."""
    import nbformat

    saved = nbformat.read(notebook, as_version=4)
    nbformat.validate(saved)
    code = [cell for cell in saved.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert saved.metadata.kernelspec.name == "flowmetal"
    assert "widgets" not in saved.metadata
    outputs = [output for cell in code for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    views = [output.data for output in outputs if VIEWS & set(output.get("data", {}))]
    assert [data for data in views if not data["text/html"].startswith('<img alt="Flowmetal history of ')] == []
    assert str(Path.home()) not in notebook.read_text(encoding="utf-8")


def save_anew(notebook: Path, folder: Path) -> None:
    """Runs a notebook and writes it back with what it shows."""
    import nbformat
    from nbclient import NotebookClient

    document: Any = nbformat.read(notebook, as_version=4)
    where = folder / "saving"
    where.mkdir()
    client = NotebookClient(document, timeout=60, store_widget_state=False, record_timing=False, resources={"metadata": {"path": str(where)}})
    try:
        client.execute()
    finally:
        end_host(store_at(where / "flowmetal.duckdb"))
    nbformat.write(document, notebook)
