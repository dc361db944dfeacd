"""Generators of language values, for properties."""

from __future__ import annotations

import os
from decimal import Decimal

from hypothesis import strategies as st

from flowmetal.lang.persistent import Map, Set, Vector, cons, list_of, seq_of
from flowmetal.lang.values import Duration, Instant, Regex, Symbol, keyword

DEEP = 100_000 if os.environ.get("FLOWMETAL_LONG") == "1" else 10_000
"""Levels of nesting that nothing may recurse over: far more than Python's stack has."""

names = st.from_regex(r"[a-zA-Z*+!_?<>=-][a-zA-Z0-9*+!_?<>='.-]{0,5}", fullmatch=True).filter(
    lambda s: s not in ("nil", "true", "false") and not (s[0] in "+-" and s[1:2].isdigit())
)
namespaces = st.none() | st.from_regex(r"[a-z][a-z.-]{0,5}", fullmatch=True)

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.sampled_from([0, 1, -1, 0.0, 1.0, -1.0, 2**61 - 1, Decimal("1.0")]),
    st.text(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.binary(max_size=8),
    st.uuids(),
    st.builds(keyword, namespaces, names),
    st.builds(Symbol, namespaces, names),
    st.builds(Instant, st.integers(-(10**15), 10**15)),
    st.builds(Duration, st.integers(-(10**15), 10**15)),
    st.builds(Regex, st.lists(st.sampled_from(["a", '"', r"\"", "\n", ".*", r"\d+", r"\\"]), max_size=4).map("".join)),
)


def collections(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Every kind of collection, of elements drawn from `children`."""
    elements = st.lists(children, max_size=5)
    return st.one_of(
        elements.map(Vector.of),
        elements.map(list_of),
        elements.map(seq_of),
        st.builds(cons, children, elements),
        elements.map(Set.of),
        st.lists(st.tuples(children, children), max_size=5).map(Map.of),
    )


values = st.recursive(atoms, collections, max_leaves=20)
