"""Keywords, symbols, times, regexes, and the errors that show a source line."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowmetal.errors import LispError, SourceError
from flowmetal.lang.spans import Source, Span
from flowmetal.lang.values import Duration, Instant, Keyword, Regex, keyword, kw, sym


@pytest.mark.parametrize(
    ("text", "ns", "name"),
    [("a", None, "a"), ("a/b", "a", "b"), ("/", None, "/"), ("a/b/c", "a", "b/c"), ("a//", "a", "/"), ("", None, "")],
)
def test_names(text: str, ns: str | None, name: str) -> None:
    k, s = Keyword.of(text), sym(text)
    assert (k.ns, k.name, k.text) == (ns, name, text)
    assert (s.ns, s.name, s.text) == (ns, name, text)


def test_keywords_are_interned() -> None:
    assert kw("a/b") is keyword("a", "b") is Keyword.of("a/b")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: keyword("many", str(i % 50)), range(5000)))
    assert len({id(k) for k in made}) == 50
    del made
    gc.collect()
    assert keyword("many", "1") is keyword("many", "1")


@pytest.mark.parametrize(
    ("text", "micros", "printed"),
    [
        ("1h30m", 5_400_000_000, "1h30m"),
        ("0s", 0, "0s"),
        ("2w", 1_209_600_000_000, "14d"),
        ("1.5s", 1_500_000, "1s500ms"),
        ("-1ms", -1_000, "-1ms"),
        ("+5us", 5, "5us"),
        ("5µs", 5, "5us"),
        ("90s", 90_000_000, "1m30s"),
        ("PT1H30M", 5_400_000_000, "1h30m"),
        ("P14D", 1_209_600_000_000, "14d"),
        ("-PT0.5S", -500_000, "-500ms"),
    ],
)
def test_durations(text: str, micros: int, printed: str) -> None:
    assert Duration.parse(text) == Duration(micros)
    assert Duration(micros).format() == printed


@pytest.mark.parametrize("text", ["", "1", "h", "1x", "1h ", "P", "PT", "1,5s", "s1", "--1s", "9" * 40 + "d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(LispError) as caught:
        Duration.parse(text)
    assert caught.value.type == "value"


@pytest.mark.parametrize(
    ("text", "formatted"),
    [
        ("2026", "2026-01-01T00:00:00Z"),
        ("2026-03", "2026-03-01T00:00:00Z"),
        ("2024-02-29", "2024-02-29T00:00:00Z"),
        ("2026-01-31T09:30", "2026-01-31T09:30:00Z"),
        ("2026-01-31T09:30:15.123Z", "2026-01-31T09:30:15.123Z"),
        ("2026-01-31T09:30:15.123456789Z", "2026-01-31T09:30:15.123456Z"),
        ("2026-01-01T00:00:00+02:00", "2025-12-31T22:00:00Z"),
        ("2026-01-01T00:00:00-05:30", "2026-01-01T05:30:00Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ("0001-01-01", "0001-01-01T00:00:00Z"),
    ],
)
def test_instants(text: str, formatted: str) -> None:
    assert Instant.parse(text).format() == formatted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "26",
        "2026-13",
        "2026-02-30",
        "2026-01-01T25",
        "2026-01-01 00:00",
        "2026-01-01T00:00+99:00",
        "0001-01-01T00:00+01:00",
    ],
)
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(LispError) as caught:
        Instant.parse(text)
    assert caught.value.type == "value"


@given(st.integers(-(10**16), 10**16))
def test_times_print_and_parse(micros: int) -> None:
    assert Duration.parse(Duration(micros).format()) == Duration(micros)
    assert Instant.parse(Instant(micros).format()) == Instant(micros)
    assert Instant.parse(Instant(micros).literal()) == Instant(micros)
    assert Instant.from_datetime(Instant(micros).to_datetime()) == Instant(micros)


def test_times_are_ordered() -> None:
    assert Duration(1) < Duration(2) <= Duration(2) > Duration(0) >= Duration(0)
    assert Instant(1) < Instant(2) <= Instant(2) > Instant(0) >= Instant(0)
    with pytest.raises(TypeError):
        _ = Instant(1) < Duration(2)  # type: ignore[operator]


def test_a_regex_without_linear_time_is_refused() -> None:
    assert Regex(r"a+").compiled.search("baa")
    with pytest.raises(LispError, match="bad regular expression") as caught:
        _ = Regex(r"(a)\1").compiled
    assert caught.value.hint is not None


def test_an_error_shows_its_line() -> None:
    source = Source("f.flow", "(def a)\n\t(foo bar)\n")
    error = SourceError("nothing is called foo", type="compile/unresolved", span=Span(source, 2, 3, 2, 6), hint="Did you mean bar?")
    assert error.render() == "nothing is called foo\n  f.flow:2:3\n  \t(foo bar)\n  \t ^^^\nDid you mean bar?"


def test_a_long_line_is_cut_around_the_caret() -> None:
    source = Source("f", "x" * 1000 + "(" + "y" * 1000)
    line, carets = Span(source, 1, 1001, 1, 1002).caret().split("\n")
    assert len(line) == 120
    assert line[carets.index("^")] == "("


def test_a_span_over_lines_marks_the_rest_of_the_first() -> None:
    assert Span(Source("f", "ab (c\nd)"), 1, 4, 2, 3).caret() == "ab (c\n   ^^"
    assert Span(Source("f", ""), 1, 1, 1, 1).caret() == "\n^"
