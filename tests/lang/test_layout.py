"""The formatter: regular indentation, nothing lost, and a second time changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowmetal.lang
from flowmetal.errors import SourceError
from flowmetal.lang.layout import AnyAlias, indent_after, layout
from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import read_all
from flowmetal.lang.spans import Source

CASES = [
    ("(defn f [x]\nx)", "(defn f [x]\n  x)\n"),
    ("(defn f\n\"doc\"\n([x] x)\n([x y]\nx))", '(defn f\n  "doc"\n  ([x] x)\n  ([x y]\n   x))\n'),
    ("(let [a 1\nb 2]\n(+ a\nb))", "(let [a 1\n      b 2]\n  (+ a\n     b))\n"),
    ("(if a\nb\nc)", "(if a\n  b\n  c)\n"),
    ("(if a b\nc)", "(if a b\n    c)\n"),
    ("(foo\nbar\nbaz)", "(foo\n bar\n baz)\n"),
    ("(foo bar\nbaz)", "(foo bar\n     baz)\n"),
    ("(:key\nm)", "(:key\n m)\n"),
    ("((f x)\ny)", "((f x)\n y)\n"),
    ("{:a 1\n:b 2}", "{:a 1\n :b 2}\n"),
    ("#{1\n2}", "#{1\n  2}\n"),
    ("#(foo %\nbar)", "#(foo %\n      bar)\n"),
    ("(try (f)\n(catch :default e\nnil)\n(finally\nx))", "(try (f)\n     (catch :default e\n       nil)\n     (finally\n       x))\n"),
    ("(with-http {\"GET /a\" 1}\n(f))", '(with-http {"GET /a" 1}\n  (f))\n'),
    ("(deftest t\n(is (= 1 1)))", "(deftest t\n  (is (= 1 1)))\n"),
    ("(-> x\nf\n(g 1))", "(-> x\n    f\n    (g 1))\n"),
    ("(cond\na 1\n:else 2)", "(cond\n  a 1\n  :else 2)\n"),
    ("( foo  )", "(foo)\n"),
    ("(foo\n\n\n\nbar\n)", "(foo\n\n bar)\n"),
    ("\n\n(a)\n\n\n\n(b)\n\n", "(a)\n\n(b)\n"),
    ("(a)(b)\"c\"d", '(a) (b) "c" d\n'),
    ("(let [a   1\n      bcd 2] x)", "(let [a   1\n      bcd 2] x)\n"),
    ("{:a 1, :b 2,\n:c 3}", "{:a 1, :b 2,\n :c 3}\n"),
    ("(f ; why\nx)", "(f ; why\n x)\n"),
    ("(f x ; why\n)", "(f x ; why\n   )\n"),
    ("(f\n;; one\n   ;; two\nx)", "(f\n ;; one\n ;; two\n x)\n"),
    ("; first  \n(a)   ; last", "; first\n(a)   ; last\n"),
    ("' a  @ b ~ @c `(~@ d) #' e ^ :m f", "'a  @b ~ @c `(~@d) #'e ^:m f\n"),
    ("#_ (a\nb) c", "#_(a\n   b) c\n"),
    ("(f \"two\n lines\" x\ny)", '(f "two\n lines" x\n   y)\n'),
    ("#inst   \"2020-01-01\"", '#inst   "2020-01-01"\n'),
    ("#!/usr/bin/env flowmetal\n(a)", "#!/usr/bin/env flowmetal\n(a)\n"),
    ("(a)\r\n(b)\r\n", "(a)\n(b)\n"),
    ("", ""),
    (" ; only", "; only\n"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[text[:20] for text, _ in CASES])
def test_layout_of(text: str, expected: str) -> None:
    assert layout(text) == expected
    assert layout(expected) == expected


@pytest.mark.parametrize("text", ["(a", "a)", '"a', "(a]", "#<x>", "{:a}"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(SourceError):
        layout(text)


PIECES = st.sampled_from([
    "a", "foo/bar", ":k", "::a/b", "1", "-2.5", '"s"', '"two\nlines"', "\\a", '#"re"', "nil", "let", "if", "defn", "cond", "##Inf",
    "(", ")", "[", "]", "{", "}", "#(", "#{", "'", "`", "~", "~@", "@", "#'", "^", "#_", "#uuid", "%",
    " ", "  ", "\n", "\n\n\n", ",", ", ", "; comment\n", ";; x  \n", "\t", "\r\n", "#!",
])  # fmt: skip


def data_of(text: str) -> str:
    forms = read_all(Source("t", text), aliases=AnyAlias())
    return " ".join(pr_str(form) for form in forms)


def balanced(pieces: list[str]) -> str:
    """The pieces as a text whose brackets are closed."""
    closers = {"(": ")", "[": "]", "{": "}", "#(": ")", "#{": "}"}
    out: list[str] = []
    open_: list[str] = []
    for piece in pieces:
        if piece in closers:
            open_.append(closers[piece])
        elif piece in ")]}":
            if not open_:
                continue
            piece = open_.pop()
        out.append(piece)
    return "".join([*out, *(f"\n{closer}" for closer in reversed(open_))])


@given(st.lists(PIECES, max_size=40).map(balanced))
def test_only_white_space_changes_and_a_second_time_nothing(text: str) -> None:
    try:
        before = data_of(text)
    except SourceError:
        with pytest.raises(SourceError):
            layout(text)
        return
    once = layout(text)
    assert data_of(once) == before
    assert layout(once) == once
    assert comments(once) == comments(text)


def comments(text: str) -> list[str]:
    """The comments of a text without strings that hold a semicolon."""
    return [line[line.index(";") :].rstrip() for line in text.split("\n") if ";" in line]


def test_the_library_is_laid_out() -> None:
    """Our own files keep what the formatter keeps; their layout is written by hand."""
    for path in sorted((Path(flowmetal.lang.__file__).parent / "prelude").glob("*.flow")):
        text = path.read_text(encoding="utf-8")
        assert data_of(layout(text)) == data_of(text)
        assert layout(text) == text, f"{path}: flowmetal fmt would change it"


@pytest.mark.parametrize(("text", "column"), [("(let [x 1", 6), ("(let [x 1]", 2), ("(foo bar", 5), ("(a)", 0), ("(do", 2)])
def test_where_the_next_line_of_an_unfinished_text_begins(text: str, column: int) -> None:
    assert indent_after(text) == column
