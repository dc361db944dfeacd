"""`=`, hashes and `compare` (SEMANTICS 1, 2, 9, 14)."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from value_strategies import DEEP, values

from flowmetal.errors import LispError
from flowmetal.lang.equality import compare, equal, hash_of, key_of, stable_hash, truthy, unkey
from flowmetal.lang.persistent import EMPTY_LIST, Map, Set, Vector, cons, list_of, seq_of
from flowmetal.lang.values import Duration, ErrorValue, Instant, Regex, kw, sym

nan = float("nan")


def v(*xs: Any) -> Vector:
    return Vector.of(xs)


def m(**kwargs: Any) -> Map:
    return Map.of((kw(k), x) for k, x in kwargs.items())


EQUAL = [
    (1, 1),
    (10**30, 10**30),
    (0.0, -0.0),
    (Decimal("1.0"), Decimal("1.00")),
    (v(1, 2), list_of([1, 2])),
    (v(1, 2), seq_of((1, 2))),
    (list_of([1, 2]), cons(1, [2])),
    (v(), EMPTY_LIST),
    (v(*range(50)), seq_of(tuple(range(50)))),
    (v(*range(100)).subvec(10, 90), list_of(range(10, 90))),
    (m(a=1, b=2), m(b=2, a=1)),
    (m(a=v(1)), m(a=list_of([1]))),
    (Set.of([1, v(2)]), Set.of([list_of([2]), 1])),
    (Map.of([(v(1), 1), (v(-1), 2), (v(-2), 3)]), Map.of([(list_of([-2]), 3), (v(-1), 2), (v(1), 1)])),
    (Map.of((i, i) for i in range(100)), Map.of((i, i) for i in reversed(range(100)))),
    (v(1).with_meta(m(a=1)), v(1)),
    (sym("a/b"), sym("a/b").with_meta(m(a=1))),
    (Regex("a"), Regex("a")),
    (ErrorValue(kw("a"), "m", m(x=1)), ErrorValue(kw("a"), "m", m(x=1))),
]
UNEQUAL = [
    (1, 1.0),
    (1, True),
    (0, False),
    (1.0, True),
    (1, Decimal(1)),
    (1.0, Decimal(1)),
    (nan, nan),
    (v(nan), v(nan)),
    (Set.of([nan]), Set.of([nan])),
    (m(a=nan), m(a=nan)),
    ("a", kw("a")),
    (kw("a"), sym("a")),
    ("", None),
    (False, None),
    (v(), None),
    (v(), ""),
    (v("a"), "a"),
    (v(), m()),
    (v(), Set.of([])),
    (m(), Set.of([])),
    (v(1), v(1.0)),
    (v(1), v(True)),
    (v(1, 2), v(2, 1)),
    (v(1), v(1, 2)),
    (m(a=1), m(a=1.0)),
    (m(a=None), m(b=None)),
    (Map.of([(1, 0)]), Map.of([(1.0, 0)])),
    (Set.of([1]), Set.of([True])),
    (Set.of([v(1)]), Set.of([v(1.0)])),
    (Set.of([v(-1)]), Set.of([v(-2)])),
    (Duration(1), Instant(1)),
    (Duration(1), 1),
    (b"a", "a"),
    (ErrorValue(kw("a"), "m"), ErrorValue(kw("a"), "n")),
    (ErrorValue(kw("a"), "m"), v(kw("a"), "m", None, None)),
]


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal(a: Any, b: Any) -> None:
    assert equal(a, b)
    assert equal(b, a)
    assert hash_of(a) == hash_of(b)
    assert stable_hash(a) == stable_hash(b)
    assert Map.of([(a, 1)]).get(b) == 1


@pytest.mark.parametrize(("a", "b"), UNEQUAL)
def test_unequal(a: Any, b: Any) -> None:
    assert not equal(a, b)
    assert not equal(b, a)
    assert Map.of([(a, 1)]).get(b) is None
    assert len(Set.of([a, b])) == 2


@given(values, values)
def test_equality_is_symmetric_and_agrees_with_hashes(a: Any, b: Any) -> None:
    assert equal(a, a)
    assert equal(a, b) == equal(b, a)
    if equal(a, b):
        assert hash_of(a) == hash_of(b)
        assert stable_hash(a) == stable_hash(b)
    assert unkey(key_of(a)) is a


def test_three_keys() -> None:
    keys = Map.of([(1, "int"), (1.0, "float"), (True, "true"), (Decimal(1), "decimal")])
    assert [keys.get(k) for k in (1, 1.0, True, Decimal(1))] == ["int", "float", "true", "decimal"]
    assert list(map(type, keys.keys())) == [int, float, bool, Decimal]


NESTINGS: dict[str, Callable[[Any], Any]] = {
    "vector": lambda x: v(x),
    "list": lambda x: list_of([x]),
    "cons": lambda x: cons(x, [1]),
    "value": lambda x: Map.of([(1, x)]),
    "key": lambda x: Map.of([(x, 1)]),
    "set": lambda x: Set.of([x, -1, v(-2)]),
    "long": lambda x: v(*range(40), x),
    "error": lambda x: ErrorValue(kw("a"), "", m(x=x)),
    "cause": lambda x: ErrorValue(kw("a"), "", None, x or None),
}


@pytest.mark.parametrize("kind", NESTINGS)
def test_a_hundred_thousand_levels(kind: str) -> None:
    nest = NESTINGS[kind]
    a, b, other = v(), v(), v(0)
    for _ in range(DEEP):
        a, b, other = nest(a), nest(b), nest(other)
    assert equal(a, b)
    assert hash(a) == hash(b)
    assert equal(a, b)
    if kind != "cause":
        assert not equal(a, other)


def test_sharing_is_not_walked_twice() -> None:
    a, b = v(1), v(1)
    for _ in range(200):
        a, b = v(a, a), v(b, b)
    assert equal(a, b)
    assert hash(a) == hash(b)


def test_a_stable_hash_is_the_same_everywhere() -> None:
    value = m(a=v("x", 1.5, None), b=Set.of([1, True, kw("k")]))
    assert stable_hash(value) == 2230723904
    assert len({stable_hash(x) for x in (1, 1.0, True, "1", v(1), Set.of([1]), m(a=1))}) == 7


def test_truth() -> None:
    assert not truthy(None)
    assert not truthy(False)
    assert all(truthy(x) for x in (0, 0.0, "", v(), m(), EMPTY_LIST, nan, True))


ORDERED = [
    (None, False), (None, v()), (False, True), (1, 2), (1, 1.5), (Decimal("0.5"), 1), (-1.0, Decimal(0)), ("a", "b"),
    ("", "a"), ("Z", "a"), (kw("a"), kw("b")), (kw("z"), kw("a/a")), (kw("a/z"), kw("b/a")), (sym("a"), sym("b")),
    (v(9), v(1, 1)),
    (v(1, 2), v(1, 3)), (v(v(1)), v(v(2))), (v(None), v(1)), (Instant(1), Instant(2)), (Duration(-1), Duration(0)),
]  # fmt: skip
SAME = [(None, None), (1, 1.0), (1, Decimal(1)), (v(1, "a"), v(1.0, "a")), (kw("a"), kw("a")), (nan, 1), (v(), v())]
MIXED = [
    (1, "a"),
    (1, True),
    ("a", kw("a")),
    (kw("a"), sym("a")),
    (v(1), v("a")),
    (v(1), list_of([1])),
    (m(), m()),
    (Duration(1), 1),
]


@pytest.mark.parametrize(("a", "b"), ORDERED)
def test_compare_orders(a: Any, b: Any) -> None:
    assert compare(a, b) == -1
    assert compare(b, a) == 1


@pytest.mark.parametrize(("a", "b"), SAME)
def test_compare_equal(a: Any, b: Any) -> None:
    assert compare(a, b) == compare(b, a) == 0


@pytest.mark.parametrize(("a", "b"), MIXED)
def test_compare_refuses(a: Any, b: Any) -> None:
    with pytest.raises(LispError, match="can't compare") as caught:
        compare(a, b)
    assert caught.value.type == "type"


def test_compare_deep_vectors() -> None:
    a, b = v(1), v(2)
    for _ in range(DEEP):
        a, b = v(a), v(b)
    assert compare(a, b) == -1


@given(st.lists(st.integers() | st.floats(allow_nan=False)))
def test_compare_agrees_with_python(xs: list[float]) -> None:
    assert all(compare(a, b) == (a > b) - (a < b) for a, b in pairwise(xs))
