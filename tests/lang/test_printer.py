"""Values to text: `pr-str`, `str` and `print` of one value."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pytest
from value_strategies import DEEP

from flowmetal.errors import LispError
from flowmetal.lang import printer
from flowmetal.lang.persistent import EMPTY_LIST, Map, Set, Vector, cons, list_of, seq_of
from flowmetal.lang.printer import display_str, float_str, pr_str, print_str
from flowmetal.lang.values import Duration, ErrorValue, Instant, Regex, Var, kw, sym

inf, nan = float("inf"), float("nan")

CASES = [
    # value, pr-str, str
    (None, "nil", ""),
    (True, "true", "true"),
    (12, "12", "12"),
    (1.0, "1.0", "1.0"),
    (inf, "##Inf", "Infinity"),
    (-inf, "##-Inf", "-Infinity"),
    (nan, "##NaN", "NaN"),
    (Decimal("1.10"), "1.10M", "1.10"),
    ('a"\\\n\t', '"a\\"\\\\\\n\\t"', 'a"\\\n\t'),
    ("\ud800x", '"\\ud800x"', "\ud800x"),
    (kw("a/b"), ":a/b", ":a/b"),
    (sym("a/b"), "a/b", "a/b"),
    (Regex('a"b'), '#"a\\"b"', 'a"b'),
    (b"hi", '#b64 "aGk="', '#b64 "aGk="'),
    (UUID(int=255), '#uuid "00000000-0000-0000-0000-0000000000ff"', "00000000-0000-0000-0000-0000000000ff"),
    (Instant(1), '#inst "1970-01-01T00:00:00.000001-00:00"', "1970-01-01T00:00:00.000001Z"),
    (Instant(0), '#inst "1970-01-01T00:00:00.000-00:00"', "1970-01-01T00:00:00Z"),
    (Duration(5_400_000_000), '#dur "1h30m"', "1h30m"),
    (Var("user", "x"), "#'user/x", "#'user/x"),
    (EMPTY_LIST, "()", "()"),
    (Vector.of(["a", None, 1.0]), '["a" nil 1.0]', '["a" nil 1.0]'),
    (list_of([1, list_of([2])]), "(1 (2))", "(1 (2))"),
    (cons(0, Vector.of([1])), "(0 1)", "(0 1)"),
    (seq_of((1, 2)), "(1 2)", "(1 2)"),
    (Set.of([1, "b"]), '#{1 "b"}', '#{1 "b"}'),
    (Map.of([(kw("a"), 1), ("b", Vector.of([]))]), '{:a 1, "b" []}', '{:a 1, "b" []}'),
    (ErrorValue(kw("x"), "m", Map.of([(1, 2)])), '#error {:type :x, :message "m", :data {1 2}}', None),
]


@pytest.mark.parametrize(("value", "readable", "displayed"), CASES)
def test_texts(value: object, readable: str, displayed: str | None) -> None:
    assert pr_str(value) == readable
    assert display_str(value) == (readable if displayed is None else displayed)


def test_print_leaves_strings_bare() -> None:
    assert print_str(Vector.of(["a", None, Map.of([("b", '"')])])) == '[a nil {b "}]'


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (100.0, "100.0"),
        (1e7, "10000000.0"),
        (123456789012345680.0, "123456789012345680.0"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (0.001, "0.001"),
        (0.00001, "0.00001"),
        (1.5e-6, "0.0000015"),
        (1e-7, "1e-7"),
        (-0.0, "-0.0"),
        (5e-324, "5e-324"),
    ],
)
def test_floats(number: float, text: str) -> None:
    assert float_str(number) == text
    assert float(text) == number


def test_what_has_a_name_of_its_own_prints_as_that() -> None:
    class Thing:
        def flowmetal_repr(self) -> str:
            return "#thing[1]"

    assert pr_str(Vector.of([Thing()])) == "[#thing[1]]"
    assert display_str(Thing()) == "#thing[1]"


def test_deep_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printer, "MAX_PARTS", 4 * DEEP)
    deep = Vector.of([])
    for _ in range(DEEP):
        deep = Vector.of([deep])
    assert len(pr_str(deep)) == 2 * DEEP + 2
    doubled: Vector = Vector.of([])
    for _ in range(64):
        doubled = Vector.of([doubled, doubled])
    with pytest.raises(LispError, match="cannot be printed") as caught:
        pr_str(doubled)
    assert caught.value.type == "limit"
