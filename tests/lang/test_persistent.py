"""Persistent collections against Python's own, and what each refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowmetal.errors import LispError
from flowmetal.lang.equality import equal
from flowmetal.lang.persistent import (
    EMPTY_LIST,
    EMPTY_MAP,
    EMPTY_SET,
    EMPTY_VECTOR,
    Cons,
    List,
    Map,
    Seq,
    Set,
    Vector,
    cons,
    list_of,
    seq_of,
)  # fmt: skip
from flowmetal.lang.values import kw, sym

META = Map.of([(kw("m"), 1)])
sizes = st.sampled_from([0, 1, 3, 15, 16, 17, 31, 32, 33, 34, 64, 100, 1100])
vector_steps = st.lists(
    st.tuples(st.sampled_from(["conj", "assoc", "pop", "subvec", "extend"]), st.integers(0, 2000), st.integers(0, 2000)),
    max_size=60,
)


@settings(deadline=None)
@given(sizes, vector_steps)
def test_vector_is_a_python_list(size: int, steps: list[tuple[str, int, int]]) -> None:
    model = list(range(size))
    vector = Vector.of(model)
    history = []
    for step, a, b in steps:
        history.append((vector, list(model)))
        if step == "conj":
            model = [*model, a]
            vector = vector.conj(a)
        elif step == "extend":
            model = model + list(range(a % 50))
            vector = vector.extend(range(a % 50))
        elif step == "assoc":
            i = a % (len(model) + 1)
            model = [*model[:i], b, *model[i + 1 :]]
            vector = vector.assoc(i, b)
        elif step == "pop" and model:
            model = model[:-1]
            vector = vector.pop()
        elif step == "subvec":
            low, high = sorted((a % (len(model) + 1), b % (len(model) + 1)))
            if high - low > 20:
                model, vector = model[low:high], vector.subvec(low, high)
    for old, expected in [*history, (vector, model)]:
        assert list(old) == expected
        assert len(old) == len(expected)
        assert [old.nth(i) for i in range(len(old))] == expected
        assert old.peek() == (expected[-1] if expected else None)


def test_pop_to_the_end_of_a_large_vector() -> None:
    vector = Vector.of(range(5000))
    for i in reversed(range(5000)):
        assert vector.peek() == i
        vector = vector.pop()
    assert equal(vector, EMPTY_VECTOR)


@pytest.mark.parametrize("size", [3, 100])
@pytest.mark.parametrize("i", [-1, 100, 5000])
def test_vector_indices_never_wrap(size: int, i: int) -> None:
    vector = Vector.of(range(size))
    refused: list[Callable[[], Any]] = [
        lambda: vector.nth(i),
        lambda: vector.assoc(i + (i == size), 0),
        lambda: vector.subvec(i, i + 1),
    ]
    for f in refused:
        with pytest.raises(LispError) as caught:
            f()
        assert caught.value.type == "index"


keys = st.one_of(
    st.integers(-40, 40), st.sampled_from([True, False, 0.0, 1.0, None, "a", kw("a"), sym("a")]),
    st.lists(st.integers(0, 3), max_size=2).map(Vector.of),
)  # fmt: skip
map_steps = st.lists(st.tuples(st.sampled_from(["assoc", "assoc", "assoc", "dissoc", "all"]), keys, st.integers()), max_size=120)


def tagged(k: Any) -> Any:
    """A key for Python's own dict: 1, 1.0 and true are different."""
    return (type(k), tuple(k) if isinstance(k, Vector) else k)


@settings(deadline=None)
@given(sizes, map_steps)
def test_map_is_a_python_dict(size: int, steps: list[tuple[str, Any, int]]) -> None:
    model = {tagged(i): (i, i) for i in range(size)}
    m = Map.of((i, i) for i in range(size))
    history = []
    for step, k, value in steps:
        history.append((m, list(model.values())))
        model = dict(model)
        if step == "assoc":
            model[tagged(k)] = (k, value)
            m = m.assoc(k, value)
        elif step == "dissoc":
            model.pop(tagged(k), None)
            m = m.dissoc(k)
        else:
            model.update({tagged(i): (i, value) for i in range(35)})
            m = m.assoc_all((i, value) for i in range(35))
    for old, expected in [*history, (m, list(model.values()))]:
        assert [(tagged(k), x) for k, x in old.items()] == [(tagged(k), x) for k, x in expected]
        assert len(old) == len(expected)
        assert all(old.get(k) == x and k in old for k, x in expected)
        assert [list(e) for e in old] == [[k, x] for k, x in expected]
        assert list(old.values()) == [x for _, x in expected]
        assert len(list(old.keys())) == len(expected)


def test_map_shrinks_and_stays_in_order() -> None:
    m = Map.of((i, i) for i in range(1000))
    for i in range(0, 1000, 2):
        m = m.dissoc(i)
    m = m.assoc(0, "back").assoc(1, "same place")
    assert list(m.keys()) == [*range(1, 1000, 2), 0]
    for i in range(3, 1000, 2):
        m = m.dissoc(i)
    assert list(m.items()) == [(1, "same place"), (0, "back")]


def test_map_find_gives_the_key_it_holds() -> None:
    for more in (0, 100):
        m = Map.of([(list_of([1]), None), *((i, i) for i in range(more))])
        entry = m.find(Vector.of([1]))
        assert entry is not None
        assert isinstance(entry.nth(0), List)
        assert m.find(-5) is None
        assert m.get(-5, "no") == "no"


@settings(deadline=None)
@given(st.lists(keys, max_size=60), st.lists(keys, max_size=60))
def test_set_is_a_python_set(ins: list[Any], outs: list[Any]) -> None:
    model = {tagged(k): k for k in ins}
    grown = EMPTY_SET
    for k in ins:
        grown = grown.conj(k)
    for s in (Set.of(ins), grown, EMPTY_SET.conj_all(ins)):
        assert [tagged(k) for k in s] == list(model)
        left, rest = s, dict(model)
        for k in outs:
            left = left.disj(k)
            rest.pop(tagged(k), None)
        assert [tagged(k) for k in left] == list(rest)
        assert all((k in left) == (tagged(k) in rest) for k in ins + outs)


def test_set_get_gives_the_member_it_holds() -> None:
    assert isinstance(Set.of([list_of([1])]).get(Vector.of([1])), List)
    assert Set.of([None]).get(None, "no") is None
    assert EMPTY_SET.get(1, "no") == "no"


@given(st.lists(st.integers(), max_size=50))
def test_lists_are_python_lists(xs: list[int]) -> None:
    for made in (list_of(xs), seq_of(xs), seq_of(Vector.of(xs)), cons(0, xs).rest()):
        walked = []
        node: List = made
        while node:
            walked.append(node.first())
            node = node.rest()
        assert walked == list(made) == [made.nth(i) for i in range(len(made))] == xs
        assert len(made) == len(xs)
        assert list(made.conj(7)) == list(cons(7, made)) == [7, *xs]


def test_which_are_lists() -> None:
    assert isinstance(list_of([1]).conj(2), Cons)
    assert isinstance(EMPTY_LIST.conj(2), Cons)
    assert isinstance(cons(1, None), Cons)
    assert not isinstance(cons(1, Vector.of([2])), Cons)
    assert not isinstance(seq_of([1]), Cons)
    assert isinstance(seq_of([1]), Seq)
    assert isinstance(seq_of([1]).rest(), Cons)
    assert EMPTY_LIST.first() is None
    assert len(EMPTY_LIST.rest()) == 0


def test_a_seq_of_a_window_ends_with_it() -> None:
    window = Vector.of(range(100)).subvec(10, 60)
    assert list(seq_of(window)) == list(range(10, 60))
    assert list(seq_of(window).rest()) == list(range(11, 60))


@pytest.mark.parametrize("empty", [EMPTY_VECTOR, EMPTY_LIST])
def test_pop_of_nothing(empty: Any) -> None:
    with pytest.raises(LispError, match="can't pop"):
        empty.pop()


METAS = [
    Vector.of([1]), Vector.of(range(100)), list_of([1]), EMPTY_LIST, seq_of([1, 2]), Map.of([(1, 2)]), EMPTY_MAP,
    Map.of((i, i) for i in range(50)), Set.of([1]),
]  # fmt: skip


@pytest.mark.parametrize("coll", METAS)
def test_metadata_is_a_copys_and_survives_changes(coll: Any) -> None:
    marked = coll.with_meta(META)
    assert marked.meta is META
    assert coll.meta is None
    assert equal(marked, coll)
    changed = marked.assoc(0, 0) if isinstance(coll, Map) else marked.conj(0)
    assert changed.meta is META


def test_order_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from flowmetal.lang.persistent import *; from flowmetal.lang.values import kw;"
        "m = Map.of((kw(f'k{i}'), i) for i in range(99)).dissoc(kw('k3')).assoc('x', 1);"
        "print(list(m.items()), list(Set.of(str(i) for i in range(60)).conj('z')))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(texts) == 1
