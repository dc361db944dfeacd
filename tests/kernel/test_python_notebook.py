"""`%load_ext flowmetal_kernel` in an ordinary Python notebook."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernel_driver import Notebook
from processes import end_host
from stores import Stores

from flowmetal_kernel.views import WIDGET


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, module_stores: Stores) -> Iterator[Notebook]:
    """A Python kernel with the extension loaded."""
    folder = tmp_path_factory.mktemp("python")
    notebook = Notebook(folder, module_stores.at(folder / "flowmetal.duckdb"), kernel="python3")
    notebook.ok("%load_ext flowmetal_kernel")
    yield notebook
    notebook.kill()
    end_host(notebook.store)


def test_flow_runs_lisp_and_shows_its_value(python: Notebook) -> None:
    cell = python.ok('%%flow\n(println "from Lisp")\n(+ 1 2)')
    assert (cell.output, cell.value) == ("from Lisp\n", "3")


def test_values_come_over_to_python(python: Notebook) -> None:
    python.ok("%%flow got <<\n{:a [1 2.5 nil]}")
    assert python.ok("got").value == "{'a': [1, 2.5, None]}"


def test_sql_shows_a_table_or_names_its_rows(python: Notebook) -> None:
    assert "<table>" in python.ok("%%sql\nSELECT 7 AS n").data["text/html"]
    assert "<table>" in python.ok("%%sql SELECT 7 AS n").data["text/html"]
    python.ok("%%sql rows << SELECT 7 AS n")
    assert python.ok("rows").value == "[{'n': 7}]"


def test_a_lisp_error_is_shown_without_pythons_traceback(python: Notebook) -> None:
    cell = python.run("%%flow\n(+ 1 1)\n(nope)")
    text = "\n".join(cell.traceback)
    assert "unknown name nope" in text and "3:2" in text and ".py" not in text


def test_a_handle_is_a_live_view_and_its_buttons_work_while_a_cell_waits(python: Notebook) -> None:
    cell = python.ok('%%flow\n(defflow waits-in-python [] (:n (receive)))\n(start-with {:id "py-1"} waits-in-python)')
    assert cell.data[WIDGET] and cell.data["text/html"].startswith("<img")
    waiting = python.send('%%flow\n(println "begun") (receive)')
    python.until_output("begun")
    python.click("py-1", "pause")
    python.until_view("py-1", lambda t: t["status"] == "paused")
    python.click("py-1", "resume")
    python.click("py-1", "send", '{"n": 5}')
    assert python.until_view("py-1", lambda t: t["ended"])["result"] == "5"
    python.interrupt()
    python.finish(waiting)
    assert "the flows that this cell started go on" in waiting.error["evalue"]


def test_the_notebooks_line_magics(python: Notebook) -> None:
    python.ok('%%flow\n(defflow naps [] (sleep #dur "1ms")) (def nap (start naps)) @nap')
    assert "naps" in python.ok("%flows").value
    assert "as it asked for step 1" in python.ok("%replay nap").value
    assert python.ok("%flow nap").value.endswith(" naps]")
    assert "real time" in python.ok("%clock").value
    assert "%%sql" in python.ok("%flow_help").value
    assert "there is no flow nosuch" in python.run("%flow nosuch").error["evalue"]


def test_python_stays_python(python: Notebook) -> None:
    assert python.ok("x = 1\nx + 1").value == "2"
    assert python.ok("import asyncio\nawait asyncio.sleep(0, 'awaited')").value == "'awaited'"


def test_unloading_takes_the_magics_away(python: Notebook) -> None:
    python.ok("%unload_ext flowmetal_kernel")
    assert "not found" in python.run("%%flow\n1").remarks
    python.ok("%load_ext flowmetal_kernel")
    assert python.ok("%%flow\n(+ 1 1)").value == "2"
