"""Help while writing: completion, documentation, and whether Enter runs the cell."""

from __future__ import annotations

import pytest
from kernel_driver import Notebook


def test_completion_knows_the_library_and_what_was_defined(nb: Notebook) -> None:
    nb.ok("(def shipping-costs 5) (ns shop) (defn discount [x] x) (ns user)")
    assert nb.ask("complete", "(+ shipping-c", 13)["matches"] == ["shipping-costs"]
    answer = nb.ask("complete", "(str/upp rest)", 8)
    assert (answer["matches"], answer["cursor_start"], answer["cursor_end"]) == (["str/upper-case"], 1, 8)
    assert "http/get" in nb.ask("complete", "(http/", 6)["matches"]
    assert nb.ask("complete", "(", 1)["matches"] == []


def test_completion_of_magics_and_of_python(nb: Notebook) -> None:
    assert nb.ask("complete", "%fl", 3)["matches"] == ["%flow", "%flows"]
    assert nb.ask("complete", "%%p", 3)["matches"] == ["%%python"]
    nb.ok("%%python\nlong_python_name = 1")
    code = "%%python\nlong_pyth"
    assert nb.ask("complete", code, len(code))["matches"] == ["long_python_name"]


def test_inspection_shows_calls_and_docstring(nb: Notebook) -> None:
    nb.ok('(defn area "The area of a rectangle, in its own unit." [width height] (* width height))')
    answer = nb.ask("inspect", "(area 3 4)", 7)  # anywhere inside the call
    assert answer["found"]
    assert "(area width height)" in answer["data"]["text/plain"] and "in its own unit" in answer["data"]["text/markdown"]
    detailed = nb.ask("inspect", "(area 3 4)", 3, 1)["data"]["text/plain"]
    assert "(* width height)" in detailed


def test_inspection_of_the_library_and_of_nothing(nb: Notebook) -> None:
    assert "callback" in nb.ask("inspect", "(callback)", 4)["data"]["text/plain"]
    assert not nb.ask("inspect", "(no-such-name)", 4)["found"]
    assert not nb.ask("inspect", "   ", 1)["found"]


INDENTS = [
    ("(let [x 1", " " * 6),
    ("(defn f [x]\n  (+ x", " " * 4),
    ("{:a 1", " "),
]


@pytest.mark.parametrize(("code", "indent"), INDENTS)
def test_an_unfinished_cell_goes_on_indented(nb: Notebook, code: str, indent: str) -> None:
    assert nb.ask("is_complete", code) == {"status": "incomplete", "indent": indent}


def test_help_comes_while_a_cell_waits(nb: Notebook) -> None:
    nb.ok("(defflow waits-for-help [] (receive)) (def helped (start waits-for-help))")
    cell = nb.send('(println "begun") @helped')
    nb.until_output("begun")
    assert nb.ask("complete", "(random-uu", 10)["matches"] == ["random-uuid"]
    assert nb.ask("inspect", "(random-uuid)", 4)["found"]
    assert nb.ask("is_complete", "(+ 1")["status"] == "incomplete"
    assert not cell.idle
    with nb.open() as fm:
        fm.send(fm.flows(name="waits-for-help")[0]["flow_id"], {"enough": 1})
    assert nb.finish(cell).value == "{:enough 1}"
