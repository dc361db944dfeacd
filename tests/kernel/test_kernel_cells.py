"""What a cell shows: values, output, errors, tables, Python's data, the notebook's own magics."""

from __future__ import annotations

import re

import pytest
from kernel_driver import Notebook

from flowmetal import Flowmetal

VALUES = [
    ("(+ 1 2)", "3"),
    ("(def x {:a 1})", "#'user/x"),
    ("(def y 1) (+ y 1)", "2"),
    ('[1 nil true "a\\nb" :k 1.0]', '[1 nil true "a\\nb" :k 1.0]'),
    ("; a remark\n\n(* 6 7)", "42"),
    ('(sleep #dur "1ms") :rested', ":rested"),
    ("(defflow doubles [n] (* 2 n)) (doubles 21)", "42"),
    ("@(start doubles 4)", "8"),
]


@pytest.mark.parametrize(("code", "value"), VALUES)
def test_a_cell_shows_its_last_value(nb: Notebook, code: str, value: str) -> None:
    assert nb.ok(code).value == value


@pytest.mark.parametrize("code", ["nil", "", "  \n", "; only a remark", "(do)"])
def test_nothing_is_shown_for_nothing(nb: Notebook, code: str) -> None:
    cell = nb.ok(code)
    assert cell.idle
    assert cell.of("execute_result", "display_data", "stream") == []


def test_a_long_value_is_broken_over_lines_and_still_reads_back(nb: Notebook) -> None:
    nb.ok('(def long (mapv (fn [n] {:number n, :text (str "number " n)}) (range 30)))')
    shown = nb.ok("long").value
    assert max(len(line) for line in shown.split("\n")) <= 100
    assert nb.ok(f"(= long {shown})").value == "true"


def test_output_stands_above_the_value_and_is_shown_after_its_commit(nb: Notebook, fm: Flowmetal) -> None:
    cell = nb.send('(println "first") (def m (receive)) (println "second") m')
    nb.until_output("first")
    written = fm.sql("SELECT flow_id FROM events WHERE kind = 'output' AND data->>'text' LIKE 'first%'").fetchall()
    assert len(written) == 1  # what is on the page is on disk
    fm.send(written[0][0], {"go": True})
    nb.finish(cell)
    kinds = [m["msg_type"] for m in cell.messages if m["msg_type"] in ("stream", "execute_result")]
    assert (cell.output, kinds[-1]) == ("first\nsecond\n", "execute_result")


def test_a_silent_cell_shows_nothing(nb: Notebook) -> None:
    cell = nb.run('(println "unheard") 7', silent=True)
    assert cell.of("execute_result", "stream") == []
    failing = nb.run("(/ 1 0)", silent=True)
    assert failing.of("error") == []


ERRORS = [
    ("(+ 1\n   nope)", "compile/unresolved", "2:4", "nope)"),
    ("(filtr odd? [1])", "compile/unresolved", "filter", "(filtr"),
    ('(+ 1 "a")', "type", "1:1", "(+ 1"),
    ("(defn f [a b] a)\n(f 1)", "arity", "2:1", "(f 1)"),
    ("(str 1", "reader/eof", "1:1", "(str 1"),
    ("(/ 1 0)", "arithmetic", "1:1", "(/ 1 0)"),
    ('(throw (ex-info "my own words" {:type :shop/closed}))', "shop/closed", "my own words", "(throw"),
]


@pytest.mark.parametrize(("code", "kind", "says", "line"), ERRORS)
def test_an_error_names_its_type_its_place_and_shows_the_line_with_a_caret(nb: Notebook, code: str, kind: str, says: str, line: str) -> None:
    cell = nb.run(code)
    assert cell.error["ename"] == kind
    text = "\n".join(cell.traceback)
    assert says in text
    assert any(line in shown and set(below.strip()) == {"^"} for shown, below in zip(cell.traceback, cell.traceback[1:], strict=False)), text
    assert "Traceback" not in text and ".py" not in text


def test_an_error_in_a_later_form_keeps_what_came_before(nb: Notebook) -> None:
    nb.run("(def kept 5)\n(nope)\n(def lost 6)")
    assert nb.ok("kept").value == "5"
    assert nb.run("lost").error["ename"] == "compile/unresolved"


def test_execution_counts_go_up_by_one(nb: Notebook) -> None:
    replies = [nb.run(code) for code in ("(+ 1 1)", "%%python\n2", "(nope)", "%help", "(+ 1 2)")]
    counts = [cell.of("execute_input")[0]["execution_count"] for cell in replies]
    assert counts == list(range(counts[0], counts[0] + 5))


# SQL


def test_sql_shows_a_table(nb: Notebook) -> None:
    bundle = nb.ok("%%sql\nSELECT 1 AS one, 'a<b' AS text, NULL AS nothing").data
    assert "<td" in bundle["text/html"] and "a&lt;b" in bundle["text/html"] and "a<b" not in bundle["text/html"]
    assert re.search(r"one\s+text\s+nothing\n.*\n\s*1\s+a<b", bundle["text/plain"])


def test_sql_rows_get_a_name_in_lisp_and_in_python(nb: Notebook) -> None:
    nb.ok("%%sql rows << SELECT 1 AS n, 'a' AS t UNION ALL SELECT 2, 'b' ORDER BY n")
    assert nb.ok("rows").value == '[{:n 1, :t "a"} {:n 2, :t "b"}]'
    assert nb.ok("%%python\n[row['t'] for row in rows]").value == "['a', 'b']"


REFUSED = [
    "DELETE FROM events",
    "SELECT 1; SELECT 2",
    "COPY (SELECT 1) TO '/tmp/out.csv'",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT nope FROM flows",
    "",
]


@pytest.mark.parametrize("query", REFUSED)
def test_sql_that_is_no_plain_select_is_refused_with_a_reason(nb: Notebook, query: str) -> None:
    cell = nb.run(f"%%sql\n{query}")
    assert cell.error["evalue"]
    assert nb.ok("(+ 1 1)").value == "2"


# Python


def test_python_runs_in_the_kernel_and_keeps_its_names(nb: Notebook) -> None:
    nb.ok("%%python\nimport os\nseen = os.getpid()")
    assert nb.ok("%%python\nseen == os.getpid()").value == "True"
    assert nb.ok("%%python\nprint('a'); 1 + 1").output == "a\n"
    assert nb.ok("%%python\nimport asyncio\nawait asyncio.sleep(0, 'awaited')").value == "'awaited'"


def test_pythons_last_value_gets_a_name_in_lisp(nb: Notebook) -> None:
    nb.ok('%%python box <<\nimport decimal\n{"a": [1, 2.5, None, True], "odd key": decimal.Decimal("1.10")}')
    assert nb.ok("box").value == '{:a [1 2.5 nil true], "odd key" 1.10M}'


def test_what_is_no_data_gets_no_name(nb: Notebook) -> None:
    cell = nb.run("%%python bad <<\n{'deep': [object()]}")
    assert "['deep'][0]" in cell.error["evalue"]
    assert nb.run("bad").error["ename"] == "compile/unresolved"


def test_a_python_error_is_pythons_own(nb: Notebook) -> None:
    cell = nb.run("%%python\n\n1 / 0")
    assert cell.error["ename"] == "ZeroDivisionError"
    assert any("line 3" in line for line in cell.traceback)


# Magics


def test_flows_lists_flows_and_not_cells(nb: Notebook) -> None:
    nb.ok('(defflow waits-here [] (receive)) (start-with {:id "listed-1"} waits-here)')
    shown = nb.ok("%flows").value
    assert "waits-here" in shown and "listed-1" in shown and "cell" not in shown
    assert "listed-1" in nb.ok("%flows waiting").value
    assert nb.ok("%flows moved").value == "no flows that are moved"


def test_store_clock_and_shim_say_where_things_are(nb: Notebook) -> None:
    assert str(nb.store) in nb.ok("%store").value
    nb.ok('(defflow waits-long [] (sleep #dur "1d")) (start waits-long)')
    clock = nb.ok("%clock").value
    assert "real time" in clock and re.search(r"in (23 h 59 min|1 d)\s.*step 1 of waits-long", clock)
    shim = nb.ok("%shim").value
    assert re.search(r"http://127\.0\.0\.1:\d+/openapi.json", shim) and "/v1/callbacks/" in shim


def test_help_names_every_magic(nb: Notebook) -> None:
    told = nb.ok("%help").value
    assert [name for name in ("%%sql", "%%python", "%%again", "%flows", "%flow ", "%store", "%clock", "%shim", "%replay") if name not in told] == []


def test_a_magic_before_lisp_leaves_the_line_numbers(nb: Notebook) -> None:
    cell = nb.run("%help\n\n(+ 1 nope)")
    assert "text/markdown" in cell.of("display_data")[0]["data"]
    assert any("3:6" in line for line in cell.traceback)


MISTAKES = [
    ("%flow", "which flow?"),
    ("%flow nosuch", "there is no flow nosuch"),
    ("%flow (+", "there is no flow"),
    ("%replay listed-1 first", "first is no step"),
    ("%replay listed-1 99", "no step 99"),
]


@pytest.mark.parametrize(("code", "says"), MISTAKES)
def test_a_magic_used_wrongly_says_so(nb: Notebook, code: str, says: str) -> None:
    assert says in nb.run(code).error["evalue"]


def test_pythons_own_magics_work(nb: Notebook) -> None:
    assert "PATH" in nb.ok("%env PATH").value or nb.ok("%env PATH").value
    assert nb.ok("!echo from the shell").output.strip() == "from the shell"
    assert "nosuchmagic" in nb.run("%nosuchmagic").remarks


def test_a_notebook_runs_no_process_before_its_reader_has_allowed_it(nb: Notebook) -> None:
    assert "flowmetal allow" in nb.run('(sh ["true"])').error["evalue"]


def test_clock_with_a_duration_is_for_virtual_time(nb: Notebook) -> None:
    assert "real time" in nb.run("%clock 1d").error["evalue"]
