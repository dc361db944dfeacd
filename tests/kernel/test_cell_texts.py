"""The kernel's pure parts: how a cell is cut, when it is whole, how values are laid out and named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowmetal.errors import SourceError
from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import Reader
from flowmetal.lang.spans import Source
from flowmetal_kernel.cells import Part, is_python, parse_cell
from flowmetal_kernel.literals import NotData, lisp_literal
from flowmetal_kernel.pretty import pretty
from flowmetal_kernel.scanner import head_of_list, scan, symbol_at, token_before

CUTS = [
    ("", []),
    ("\n  \n", []),
    ("(+ 1 2)", [Part("lisp", "(+ 1 2)")]),
    ("\n(+ 1 2)", [Part("lisp", "\n(+ 1 2)")]),
    ("%flows", [Part("magic", "", "flows")]),
    ("%flow abc  ", [Part("magic", "abc", "flow")]),
    ("%replay h 3", [Part("magic", "h 3", "replay")]),
    ("%timeit 1", [Part("ipython", "%timeit 1")]),
    ("!ls", [Part("ipython", "!ls")]),
    ("%flows\n(+ 1 2)", [Part("magic", "", "flows"), Part("lisp", "\n(+ 1 2)")]),
    ("%%sql\nSELECT 1", [Part("sql", "SELECT 1")]),
    ("%%sql SELECT 1\nFROM flows", [Part("sql", "SELECT 1\nFROM flows")]),
    ("%%sql rows <<\nSELECT 1", [Part("sql", "SELECT 1", "rows")]),
    ("%%sql rows << SELECT 1", [Part("sql", "SELECT 1", "rows")]),
    ("%%sql\nSELECT 1 << 2", [Part("sql", "SELECT 1 << 2")]),
    ("%%python\nx", [Part("python", "#\nx")]),
    ("%%python y <<\nx", [Part("python", "#\nx", "y")]),
    ("%%again\n(f)", [Part("again", "\n(f)")]),
    ("%%bash\nls", [Part("ipython", "%%bash\nls")]),
    ("quit", [Part("quit", "")]),
    ("(exit)", [Part("quit", "")]),
]


@pytest.mark.parametrize(("code", "parts"), CUTS)
def test_a_cell_is_cut_at_its_magics(code: str, parts: list[Part]) -> None:
    assert parse_cell(code) == parts


def test_python_cells_get_pythons_help() -> None:
    assert [code for code in ("%%python\nx", "!ls", "%timeit 1") if not is_python(code)] == []
    assert [code for code in ("(x)", "%flows", "%%sql SELECT", "") if is_python(code)] == []


SCANS = [
    ("(+ 1 2)", "complete"),
    ('"a ( b"', "complete"),
    ("; (", "complete"),
    ('(str "\\"(")', "complete"),
    ("(a", "incomplete"),
    ('"never', "incomplete"),
    ("[1 2 {:a", "incomplete"),
    ("'", "incomplete"),
    ("#_", "incomplete"),
    (")", "invalid"),
    ("(]", "invalid"),
]


@pytest.mark.parametrize(("code", "status"), SCANS)
def test_whether_text_is_whole(code: str, status: str) -> None:
    assert scan(code).status == status


@given(st.text(alphabet="()[]{}\"\\; \n'`~@#_^abc1:", max_size=24))
def test_what_the_reader_reads_is_never_called_invalid(text: str) -> None:
    try:
        list(Reader(Source("t", text)))
    except SourceError:
        return
    assert scan(text).status == "complete"


SYMBOLS = [("(map inc xs)", 3, "ma", "map"), ("(str/upp x)", 8, "str/upp", "str/upp"), ("(f  )", 3, "", ""), (":key", 4, ":key", ":key")]


@pytest.mark.parametrize(("code", "cursor", "before", "at"), SYMBOLS)
def test_the_symbol_at_the_cursor(code: str, cursor: int, before: str, at: str) -> None:
    assert (token_before(code, cursor), symbol_at(code, cursor)) == (before, at)


def test_the_head_of_the_list_around_the_cursor() -> None:
    assert head_of_list("(reduce (fn [a b] a) 0 [1 2])", 22) == "reduce"
    assert head_of_list("[1 2]", 3) == ""


DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(alphabet="abc-", min_size=1, max_size=5), inner, max_size=5),
    max_leaves=40,
)


@given(DATA, st.integers(4, 60))
def test_laying_out_changes_white_space_only(value: object, width: int) -> None:
    printed = pr_str(next(iter(Reader(Source("t", lisp_literal(value))))))
    shown = pretty(printed, width)
    assert pr_str(next(iter(Reader(Source("t", shown))))) == printed


@given(DATA)
def test_python_data_has_a_literal_that_reads_back(value: object) -> None:
    read = next(iter(Reader(Source("t", lisp_literal(value)))))
    assert pr_str(next(iter(Reader(Source("t", pr_str(read)))))) == pr_str(read)


LITERALS = [
    ({"a": 1, "odd key": [True, None]}, '{:a 1, "odd key" [true nil]}'),
    (("x", 1.5), '["x" 1.5]'),
    (float("inf"), "##Inf"),
    (Decimal("1.10"), "1.10M"),
    (UUID(int=1), '#uuid "00000000-0000-0000-0000-000000000001"'),
    (datetime(2026, 1, 31, 9, tzinfo=UTC), '#inst "2026-01-31T09:00:00Z"'),
]


@pytest.mark.parametrize(("value", "literal"), LITERALS)
def test_literals(value: object, literal: str) -> None:
    assert lisp_literal(value) == literal


def test_what_is_no_data_is_refused_with_the_path_to_it() -> None:
    with pytest.raises(NotData, match=r"\['a'\]\[1\] is a Python object"):
        lisp_literal({"a": [1, object()]})
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    with pytest.raises(NotData, match="nested deeper"):
        lisp_literal(deep)


def test_the_kernel_spec_says_how_to_start_the_kernel() -> None:
    from pathlib import Path

    spec = json.loads((Path(__file__).parents[2] / "share/jupyter/kernels/flowmetal/kernel.json").read_text())
    assert spec["argv"] == ["python", "-m", "flowmetal_kernel", "-f", "{connection_file}"]
