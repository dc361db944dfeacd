"""Making sorted maps and sets, and their parts between two keys.

What goes in: keys, values, and perhaps a comparator: a leaf, or a function of the program that waits
for nothing. What comes out: sorted collections and sequences. The one rule: a comparator is pure; it
runs in the middle of a look-up, where nothing may be suspended.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from flowmetal.lang.equality import compare, truthy
from flowmetal.lang.primitives.checks import NUMBERS, wrong
from flowmetal.lang.primitives.collections import _pairs as pairs_of
from flowmetal.lang.primitives.leaf_calls import is_leaf
from flowmetal.lang.primitives.predicates import outcome
from flowmetal.lang.primitives.registry import Primitive, primitive
from flowmetal.lang.primitives.sequences import binary, sequence
from flowmetal.lang.sorted import Comparator, Order, SortedMap, SortedSet
from flowmetal.lang.vectors import Vector

NATURAL = Comparator(compare)


def comparator(function: Any, version: int = 0) -> Comparator:
    """The order that a function of the program gives; None is the natural one."""
    if function is None:
        return NATURAL
    call: list[Callable[[Any, Any], Any]] = []

    def order(a: Any, b: Any) -> int:
        if not call:  # not earlier: a decoded function is filled in after the collections that hold it
            call.append(binary(function) if is_leaf(function) else _pure(function, version))
        result = call[0](a, b)
        if type(result) in NUMBERS:
            return outcome(result)
        return -1 if truthy(result) else 1 if truthy(call[0](b, a)) else 0

    return Comparator(order, function, version)


def _pure(f: Any, version: int) -> Callable[[Any, Any], Any]:
    """A function of the program as a Python function: it runs to its end at once, and may not wait."""
    from flowmetal.lang import evaluate

    definitions = f.code.root.definitions
    return lambda a, b: evaluate.run(definitions, f, [a, b], version, kind="macro")


@primitive("core", "sorted-map", "([& keyvals])", "A map whose keys are in the order of compare.", "(sorted-map :b 1 :a 2) ;=> {:a 2, :b 1}")
def sorted_map(*keyvals: Any) -> SortedMap:
    """`sorted-map`."""
    return SortedMap.sorted(pairs_of("sorted-map", keyvals), NATURAL)


@primitive("core", "sorted-set", "([& xs])", "A set whose members are in the order of compare.", "(sorted-set 3 1 2) ;=> #{1 2 3}")
def sorted_set(*xs: Any) -> SortedSet:
    """`sorted-set`."""
    return SortedSet.sorted(xs, NATURAL)


def sorted_map_by(f: Any, version: int, keyvals: list[Any]) -> SortedMap:
    """The sorted map of a comparator."""
    return SortedMap.sorted(pairs_of("sorted-map-by", tuple(keyvals)), comparator(f, version))


def sorted_set_by(f: Any, version: int, xs: list[Any]) -> SortedSet:
    """The sorted set of a comparator."""
    return SortedSet.sorted(xs, comparator(f, version))


_TESTS: dict[str, Callable[[int], bool]] = {">": lambda c: c > 0, ">=": lambda c: c >= 0, "<": lambda c: c < 0, "<=": lambda c: c <= 0}


def _between(who: str, coll: Any, bounds: tuple[Any, ...]) -> list[Any]:
    """The members or entries whose keys pass every (test, key) of the bounds."""
    if not isinstance(coll, (SortedMap, SortedSet)):
        raise wrong(who, "a sorted map or set", coll)
    body = coll if isinstance(coll, SortedMap) else coll.body
    order = body.comparator.order
    tests = []
    for test, key in zip(bounds[::2], bounds[1::2], strict=True):
        if type(test) is not Primitive or test.name not in _TESTS:
            raise wrong(who, "one of > >= < <= as a test", test)
        tests.append((test.name, key))
    lower = next(((name, key) for name, key in tests if name[0] == ">"), None)
    entries: Iterator[tuple[Any, Any]] = body.items() if lower is None else body.items_from(lower[1], lower[0] == ">=")
    for name, key in tests:
        passes = _TESTS[name]
        if name[0] == "<":
            entries = itertools.takewhile(lambda e, passes=passes, key=key: passes(order(e[0], key)), entries)  # type: ignore[misc]
    return [Vector(e) for e in entries] if isinstance(coll, SortedMap) else [k for k, _ in entries]


_ARGLISTS = "([coll test key] [coll start-test start-key end-test end-key])"


@primitive(
    "core",
    "subseq",
    _ARGLISTS,
    "The part of a sorted collection whose keys pass the tests > >= < <=; nil when it is empty.",
    "(subseq (sorted-set 1 2 3) > 1) ;=> (2 3)",
)
def subseq(coll: Any, test: Any, key: Any, end_test: Any = None, end_key: Any = None) -> Any:
    """`subseq`."""
    bounds = (test, key) if end_test is None else (test, key, end_test, end_key)
    return sequence(_between("subseq", coll, bounds)) or None


@primitive("core", "rsubseq", _ARGLISTS, "Like subseq, last first.", "(rsubseq (sorted-set 1 2 3) > 1) ;=> (3 2)")
def rsubseq(coll: Any, test: Any, key: Any, end_test: Any = None, end_key: Any = None) -> Any:
    """`rsubseq`."""
    bounds = (test, key) if end_test is None else (test, key, end_test, end_key)
    return sequence(_between("rsubseq", coll, bounds)[::-1]) or None


__all__ = ["Order", "comparator", "sorted_map_by", "sorted_set_by"]
