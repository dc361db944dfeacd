"""Text to forms: each case is a text and the text that its forms print as, or its error and place."""

from __future__ import annotations

import pytest
from hypothesis import given
from value_strategies import values

from flowmetal.errors import SourceError
from flowmetal.lang import reader
from flowmetal.lang.equality import equal
from flowmetal.lang.persistent import Cons, List, Map
from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import MAX_DEPTH, Reader, read_all
from flowmetal.lang.spans import Source
from flowmetal.lang.values import Symbol, kw, sym


def read(text: str) -> list[object]:
    return read_all(Source("test", text), ns="user", aliases={"u": "util.core"})


def shown(text: str) -> str:
    return " ".join(pr_str(form) for form in read(text))


NUMBERS = [
    ("0 -0 +5 -12 000", "0 0 5 -12 0"),
    ("017 -017 0x1F -0XfF 36rZZ 2r101", "15 -15 31 -255 1295 5"),
    ("1N 017N 0x1FN", "1 15 31"),
    ("5. 1.50 -0.0 1e3 1E-3 09.5", "5.0 1.5 -0.0 1000.0 0.001 9.5"),
    ("1M 1.10M 1e3M", "1M 1.10M 1E+3M"),
    ("1/2 4/2 -1/4", "0.5 2 -0.25"),
    ("##Inf ##-Inf ##NaN", "##Inf ##-Inf ##NaN"),
    ("1'a", "1 (quote a)"),
]
NAMES = [
    ("a + - -a +a .5 ... / a/b a// a.b/c %", "a + - -a +a .5 ... / a/b a// a.b/c %"),
    ("a'b a# a%b ->x *x* x? <=", "a'b a# a%b ->x *x* x? <="),
    (":a :a/b :1 :/ :a:b :a.b/c-d", ":a :a/b :1 :/ :a:b :a.b/c-d"),
    ("::k ::u/k", ":user/k :util.core/k"),
    ("nil true false", "nil true false"),
]
STRINGS = [
    (r'"" "a\"b\\c\n\t\r\b\f"', r'"" "a\"b\\c\n\t\r\b\f"'),
    (r'"\u0041\101\0"', '"AA\0"'),
    (r'"\ud83d\ude00"', '"\N{GRINNING FACE}"'),
    ('"a\nb"', r'"a\nb"'),
    (r"\a \newline \space \tab \u0041 \o101 \( \, \\", r'"a" "\n" " " "\t" "A" "A" "(" "," "\\"'),
    (r'#"a\d\"b" #"" #"\\"', r'#"a\d\"b" #"" #"\\"'),
]
COLLECTIONS = [
    ("() [] {} #{}", "() [] {} #{}"),
    ("(a [b {:c #{d}}])", "(a [b {:c #{d}}])"),
    ("{:b 1 :a 2 1 :x 1.0 :y true :z}", "{:b 1, :a 2, 1 :x, 1.0 :y, true :z}"),
    ("#:n{:a 1 b 2 :_/c 3 :m/d 4 5 6}", "{:n/a 1, n/b 2, :c 3, :m/d 4, 5 6}"),
    ("#::{:a 1} #::u{:a 1} #:n {:a 1}", "{:user/a 1} {:util.core/a 1} {:n/a 1}"),
    ("[1,,2] ; comment\n#! another\n3", "[1 2] 3"),
]
PREFIXES = [
    ("'a @a `a ~a ~@a #'a", "(quote a) (deref a) (syntax-quote a) (unquote a) (unquote-splicing a) (var a)"),
    ("''a '(b @c)", "(quote (quote a)) (quote (b (deref c)))"),
    ("#_a b #_ #_ a b c [#_a] (#_ #_ 1 2 3) {:a #_b 1}", "b c [] (3) {:a 1}"),
    ("'#_a b", "(quote b)"),
    (
        "#(+ % %2) #(f %&) #() #(do [%3 {:a %}])",
        "(fn [%1 %2] (+ %1 %2)) (fn [& %&] (f %&)) (fn [] ()) (fn [%1 %2 %3] (do [%3 {:a %1}]))",
    ),
    ("^:a x ^{:b 1} [2] #^:c (3)", "x [2] (3)"),
]
TAGGED = [
    ('#inst "2020-02-29"', '#inst "2020-02-29T00:00:00.000-00:00"'),
    ('#inst "2020-01-01T01:30:00.5+01:00"', '#inst "2020-01-01T00:30:00.500-00:00"'),
    ('#uuid "00000000-0000-0000-0000-0000000000Ff"', '#uuid "00000000-0000-0000-0000-0000000000ff"'),
    ('#dur "90m" #dur "-1.5s" #dur "PT1H"', '#dur "1h30m" #dur "-1s500ms" #dur "1h"'),
    ('#b64 "aGk="', '#b64 "aGk="'),
    ('#error {:type :x :message "m"}', '#error {:type :x, :message "m"}'),
]


@pytest.mark.parametrize(("text", "expected"), NUMBERS + NAMES + STRINGS + COLLECTIONS + PREFIXES + TAGGED)
def test_reads(text: str, expected: str) -> None:
    assert shown(text) == expected


EOF, SYNTAX = "reader/eof", "reader/syntax"
ERRORS = [
    ("(a (b [c]", EOF, "1:4", "the ( that opens here is never closed"),
    ("\n  {:a", EOF, "2:3", "} is missing"),
    ("#{1", EOF, "1:1", "#{"),
    ('x "abc', EOF, "1:3", "string"),
    ('#"abc', EOF, "1:1", "regular expression"),
    ("'", EOF, "1:1", "' needs a form"),
    ("^:a", EOF, "1:1", "^ needs a form"),
    ("#_", EOF, "1:1", "#_ needs a form"),
    ("(a]", SYNTAX, "1:3", "expected ) to close the ( of line 1, but found ]"),
    ("a)", SYNTAX, "1:2", "nothing to close"),
    ("(')", SYNTAX, "1:2", "' needs a form"),
    ("[#_]", SYNTAX, "1:2", "#_ needs a form"),
    ("{:a}", SYNTAX, "1:1", "odd number"),
    ("{:a 1 :a 2}", SYNTAX, "1:1", "duplicate in a map: :a"),
    ("#{[1] (1)}", SYNTAX, "1:1", "duplicate in a set"),
    ("#:n{:a 1 :n/a 2}", SYNTAX, "1:1", "duplicate"),
    ("08", SYNTAX, "1:1", "invalid number: 08"),
    ("1a", SYNTAX, "1:1", "invalid number: 1a"),
    ("37r1", SYNTAX, "1:1", "invalid number"),
    ("2r2", SYNTAX, "1:1", "invalid number"),
    ("1/0", SYNTAX, "1:1", "invalid number"),
    ("0x", SYNTAX, "1:1", "invalid number"),
    ("foo/", SYNTAX, "1:1", "invalid name"),
    ("/foo", SYNTAX, "1:1", "invalid name"),
    ("a:", SYNTAX, "1:1", "invalid name"),
    (":", SYNTAX, "1:1", "needs a name"),
    (":a::b", SYNTAX, "1:1", "invalid name"),
    ("::nope/k", SYNTAX, "1:1", "alias nope"),
    (r'"\q"', SYNTAX, "1:1", r"unsupported escape: \q"),
    (r'"\u12"', SYNTAX, "1:1", "four hexadecimal digits"),
    (r'"\400"', SYNTAX, "1:1", "octal"),
    (r"\nope", SYNTAX, "1:1", "unsupported character"),
    ('#"a(?=b)"', SYNTAX, "1:1", "linear time"),
    ("[ #nope 1]", SYNTAX, "1:3", "unknown tag #nope"),
    ('#inst "2021-02-29"', SYNTAX, "1:1", "not an instant"),
    ("#inst 5", SYNTAX, "1:1", "needs a string"),
    ('#uuid "1"', SYNTAX, "1:1", "not a UUID"),
    ('#b64 "?"', SYNTAX, "1:1", "base64"),
    ("#=(f)", SYNTAX, "1:1", "reading never runs code"),
    ("##nope", SYNTAX, "1:1", "unknown symbolic value"),
    ("#(a #(b))", SYNTAX, "1:5", "inside another"),
    ("#(%21)", SYNTAX, "1:3", "at most 20"),
    ("#(%x)", SYNTAX, "1:3", "an argument of #()"),
    ("^1 a", SYNTAX, "1:1", "metadata is"),
    ("^:a 1", SYNTAX, "1:1", "metadata can stand only"),
]


@pytest.mark.parametrize(("text", "type_", "place", "message"), ERRORS)
def test_refuses(text: str, type_: str, place: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        read(text)
    assert caught.value.type == type_
    assert str(caught.value.span) == f"test:{place}"
    assert message in caught.value.message


@given(values)
def test_what_was_printed_reads_back(value: object) -> None:
    text = pr_str(value)
    (back,) = read(text)
    assert equal(back, value), text
    assert pr_str(back) == text


def test_nan_reads_back() -> None:
    assert shown("[##NaN]") == "[##NaN]"


def test_metadata_is_merged_from_the_outside_in() -> None:
    (form,) = read("^:a ^{:b 2 :a 5} ^String x")
    assert isinstance(form, Symbol)
    assert equal(form.meta, Map.of([(kw("tag"), sym("String")), (kw("b"), 2), (kw("a"), True)]))


def test_spans_cover_the_form() -> None:
    reader = Reader(Source("f", "(a\n  'b)\n  [1 2]"))
    form = next(reader)
    assert isinstance(form, List)
    assert repr(form.span) == "Span('f', 1, 1, 2, 6)"
    quoted = form.rest().first()
    assert repr(quoted.span) == "Span('f', 2, 3, 2, 5)"
    assert repr(quoted.rest().first().span) == "Span('f', 2, 4, 2, 5)"
    assert reader.last_text == "(a\n  'b)"
    assert repr(next(reader).span) == "Span('f', 3, 3, 3, 8)"
    assert reader.last_text == "[1 2]"


def test_forms_before_an_error_are_read() -> None:
    reader = Reader(Source("f", "1 :b (c"))
    assert next(reader) == 1
    assert next(reader) is kw("b")
    with pytest.raises(SourceError):
        next(reader)


def test_the_namespace_may_change_between_forms() -> None:
    reader = Reader(Source("f", "::a ::a"))
    assert next(reader) is kw("user/a")
    reader.ns = "other"
    assert next(reader) is kw("other/a")


def test_a_list_that_was_read_is_a_list() -> None:
    assert all(type(form) is Cons for form in read("() (1) (1 2) 'a"))


@pytest.mark.parametrize("opener", ["(", "[", "{:a ", "#{", "'", "^:a ", "#_", "#(do [", "#inst "])
def test_deep_nesting_is_a_limit(opener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_DEPTH", 3_000)
    with pytest.raises(SourceError) as caught:
        read(opener.replace("#(do [", "[") * 3_001)
    assert caught.value.type == "limit"
    assert "3000" in caught.value.message


def test_depth_up_to_the_limit_is_read() -> None:
    (form,) = read("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    depth = 0
    while form is not None:
        depth, form = depth + 1, form.nth(0) if len(form) else None
    assert depth == MAX_DEPTH


def test_many_digits() -> None:
    digits = "9" * 10_000
    assert shown(digits) == digits
    with pytest.raises(SourceError, match="at most"):
        read("9" * 300_000)
