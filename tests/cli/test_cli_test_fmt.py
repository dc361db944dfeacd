"""`flowmetal test` and `flowmetal fmt`, as a user has them."""

from __future__ import annotations

import json
import re

from command_line import Cli

TESTS = """\
(defforeign charge-card [order])
(defflow nap [] (sleep #dur "14d") :rested)

(deftest a-fortnight
  (let [h (start nap)]
    (advance! #dur "13d")
    (is (= :waiting (status h)))
    (advance! #dur "1d")
    (is (= :rested (result h)))))

(deftest sums
  (testing "of two"
    (is (= 5 (+ 2 2)) "arithmetic"))
  (println "looking into it"))

(deftest refused
  (charge-card 1))
"""


def test_a_report_names_tests_places_and_values(cli: Cli) -> None:
    done = cli("test", cli.file(TESTS, "shop.flow"))
    assert done.code == 1
    shown = re.sub(r"\d+ ms", "N ms", done.out)
    assert shown.startswith("shop.flow\n  ✓ a-fortnight  N ms\n  ✗ sums  N ms\n  ✗ refused  N ms\n")
    assert "FAIL sums  shop.flow:13\n  of two\n  arithmetic\n  expected: (= 5 (+ 2 2))\n    actual: (not (= 5 4))\n  printed:\n    looking into it\n" in shown
    assert "ERROR refused  shop.flow:16\n  charge-card was called, and nothing in this test answers it: (with-foreign {charge-card" in shown
    assert shown.endswith("3 tests, 3 assertions: 2 failed\n")


def test_exit_codes_tell_passed_failed_and_not_loadable(cli: Cli) -> None:
    cli.file("(deftest fine (is true))", "fine.flow")
    assert cli("test").code == 0
    assert cli("test", "-k", "nothing-like-it").code == 2
    cli.file("(deftest broken (is (= 1 1))", "broken.flow")
    done = cli("test")
    assert done.code == 2 and ":reader/eof" in done.out and "broken.flow:1:1" in done.out and "✓ fine" in done.out
    done = cli("test", "none.flow")
    assert done.code == 2 and "there is no file none.flow" in done.err


def test_json_is_an_object_a_test(cli: Cli) -> None:
    rows = cli("test", "--json", cli.file(TESTS, "shop.flow")).rows()
    assert [(row["name"], row["status"]) for row in rows] == [("a-fortnight", "passed"), ("sums", "failed"), ("refused", "failed")]
    assert rows[1]["failures"][0]["line"] == 13


def test_notebooks_are_tested(cli: Cli) -> None:
    cells = [{"cell_type": "code", "source": TESTS.split("(deftest sums")[0]}, {"cell_type": "code", "source": "%flows"}]
    done = cli("test", cli.file(json.dumps({"cells": cells}), "book.ipynb"))
    assert done.code == 0 and "1 test, 2 assertions: all passed" in done.out


def test_cells_of_a_notebook_require_files_and_stay_in_their_namespace(cli: Cli) -> None:
    (cli.folder / "shop").mkdir()
    cli.file("(ns shop.util)\n(defn twice [x] (* 2 x))\n", "shop/util.flow")
    sources = [
        "(ns shop.book (:require [shop.util :as u]))",
        "(def two (u/twice 1))",
        "(require '[clojure.test :refer [deftest is]])\n(deftest doubles (is (= [4 :shop.util/a] [(u/twice two) ::u/a])))",
    ]
    done = cli("test", cli.file(json.dumps({"cells": [{"cell_type": "code", "source": s} for s in sources]}), "book.ipynb"))
    assert done.code == 0 and "shop.book/doubles" in done.out, done.out + done.err


def test_fmt_lays_out_files_and_says_which_would_change(cli: Cli) -> None:
    name = cli.file("(defn f [x]\n;; kept\nx)\n", "f.flow")
    done = cli("fmt", "--check")
    assert (done.code, done.out) == (1, "f.flow\n")
    assert cli("fmt", name).code == 0
    assert (cli.folder / name).read_text() == "(defn f [x]\n  ;; kept\n  x)\n"
    assert cli("fmt", "--check", name).code == 0


def test_fmt_reads_standard_input_and_refuses_what_it_cannot_read(cli: Cli) -> None:
    assert cli("fmt", "-", input="(a\nb)").out == "(a\n b)\n"
    name = cli.file("(a", "bad.flow")
    done = cli("fmt", name)
    assert done.code == 2 and "never closed" in done.err
    assert (cli.folder / name).read_text() == "(a"
