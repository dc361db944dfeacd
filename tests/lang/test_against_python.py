"""The collection functions against Python's own collections.

What goes in: random lists of small integers. What is promised: each function gives what a line of Python
gives for the same data. Run through the language, so that reading, compiling and printing take part.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowmetal.lang.persistent import Map, Set, Vector, seq_of
from flowmetal.lang.printer import pr_str
from flowmetal.lang.session import Session

small = st.integers(-20, 20)
lists = st.lists(small, max_size=80)
counts = st.integers(-2, 85)


@lru_cache(maxsize=1)
def session() -> Session:
    """One session for all."""
    return Session()


def lisp(x: Any) -> Any:
    """A Python value as a value of the language: lists are vectors, tuples sequences."""
    if isinstance(x, list):
        return Vector.of(map(lisp, x))
    if isinstance(x, tuple):
        return seq_of(tuple(map(lisp, x)))
    if isinstance(x, (set, frozenset)):
        return Set.of(map(lisp, sorted(x)))
    if isinstance(x, dict):
        return Map.of((lisp(k), lisp(v)) for k, v in x.items())
    return x


def unchanged(xs: list[int]) -> list[int]:
    """The elements where only neighbours that are equal are left out."""
    return [k for k, _ in itertools.groupby(xs)]


Model = Callable[[list[int], list[int], int], Any]

FUNCTIONS: dict[str, Model] = {
    "(reverse xs)": lambda xs, ys, n: tuple(reversed(xs)),
    "(take n xs)": lambda xs, ys, n: tuple(xs[: max(n, 0)]),
    "(drop n xs)": lambda xs, ys, n: tuple(xs[max(n, 0) :]),
    "(take-last n xs)": lambda xs, ys, n: tuple(xs[max(len(xs) - max(n, 0), 0) :]) or None,
    "(drop-last n xs)": lambda xs, ys, n: tuple(xs[: max(len(xs) - max(n, 0), 0)]),
    "(split-at n xs)": lambda xs, ys, n: [tuple(xs[: max(n, 0)]), tuple(xs[max(n, 0) :])],
    "(take-while pos? xs)": lambda xs, ys, n: tuple(itertools.takewhile(lambda x: x > 0, xs)),
    "(drop-while pos? xs)": lambda xs, ys, n: tuple(itertools.dropwhile(lambda x: x > 0, xs)),
    "(map inc xs)": lambda xs, ys, n: tuple(x + 1 for x in xs),
    "(map + xs ys)": lambda xs, ys, n: tuple(x + y for x, y in zip(xs, ys, strict=False)),
    "(map (fn [x] (* x x)) xs)": lambda xs, ys, n: tuple(x * x for x in xs),
    "(mapv vector xs ys)": lambda xs, ys, n: [[x, y] for x, y in zip(xs, ys, strict=False)],
    "(mapcat (fn [x] [x x]) xs)": lambda xs, ys, n: tuple(y for x in xs for y in (x, x)),
    "(filter even? xs)": lambda xs, ys, n: tuple(x for x in xs if x % 2 == 0),
    "(remove even? xs)": lambda xs, ys, n: tuple(x for x in xs if x % 2),
    "(keep #(if (odd? %) (* 2 %)) xs)": lambda xs, ys, n: tuple(2 * x for x in xs if x % 2),
    "(reduce + xs)": lambda xs, ys, n: sum(xs),
    "(reduce - n xs)": lambda xs, ys, n: n - sum(xs),
    "(reductions + 0 xs)": lambda xs, ys, n: tuple(itertools.accumulate(xs, initial=0)),
    "(sort xs)": lambda xs, ys, n: tuple(sorted(xs)),
    "(sort > xs)": lambda xs, ys, n: tuple(sorted(xs, reverse=True)),
    "(sort-by abs xs)": lambda xs, ys, n: tuple(sorted(xs, key=abs)),
    "(sort-by (fn [x] (mod x 3)) xs)": lambda xs, ys, n: tuple(sorted(xs, key=lambda x: x % 3)),
    "(distinct xs)": lambda xs, ys, n: tuple(dict.fromkeys(xs)),
    "(dedupe xs)": lambda xs, ys, n: tuple(unchanged(xs)),
    "(frequencies xs)": lambda xs, ys, n: dict(Counter(xs)),
    "(group-by odd? xs)": lambda xs, ys, n: {k: [x for x in xs if (x % 2 == 1) is k] for k in dict.fromkeys(x % 2 == 1 for x in xs)},
    "(partition-by odd? xs)": lambda xs, ys, n: tuple(tuple(g) for _, g in itertools.groupby(xs, key=lambda x: x % 2)),
    "(partition 3 xs)": lambda xs, ys, n: tuple(tuple(xs[i : i + 3]) for i in range(0, len(xs) - 2, 3)),
    "(partition 3 1 xs)": lambda xs, ys, n: tuple(tuple(xs[i : i + 3]) for i in range(len(xs) - 2)),
    "(partition-all 4 xs)": lambda xs, ys, n: tuple(tuple(xs[i : i + 4]) for i in range(0, len(xs), 4)),
    "(interleave xs ys)": lambda xs, ys, n: tuple(v for pair in zip(xs, ys, strict=False) for v in pair),
    "(interpose 0 xs)": lambda xs, ys, n: tuple(y for x in xs for y in (0, x))[1:],
    "(concat xs ys)": lambda xs, ys, n: tuple(xs + ys),
    "(into xs ys)": lambda xs, ys, n: xs + ys,
    "(into #{} xs)": lambda xs, ys, n: set(xs),
    "(into (sorted-set) xs)": lambda xs, ys, n: set(xs),
    "(seq (into (sorted-set) xs))": lambda xs, ys, n: tuple(sorted(set(xs))) or None,
    "(keys (into (sorted-map) (map vector xs ys)))": lambda xs, ys, n: tuple(sorted(dict(zip(xs, ys, strict=False)))) or None,
    "(subseq (into (sorted-set) xs) > n)": lambda xs, ys, n: tuple(sorted(x for x in set(xs) if x > n)) or None,
    "(seq (reduce disj (into (sorted-set) xs) ys))": lambda xs, ys, n: tuple(sorted(set(xs) - set(ys))) or None,
    "(zipmap xs ys)": lambda xs, ys, n: dict(zip(xs, ys, strict=False)),
    "(set/union (set xs) (set ys))": lambda xs, ys, n: set(xs) | set(ys),
    "(set/intersection (set xs) (set ys))": lambda xs, ys, n: set(xs) & set(ys),
    "(set/difference (set xs) (set ys))": lambda xs, ys, n: set(xs) - set(ys),
    "(set/subset? (set xs) (set ys))": lambda xs, ys, n: set(xs) <= set(ys),
    "(count xs)": lambda xs, ys, n: len(xs),
    "(get xs n :none)": lambda xs, ys, n: xs[n] if 0 <= n < len(xs) else session().eval(":none"),
    "(nth xs n nil)": lambda xs, ys, n: xs[n] if 0 <= n < len(xs) else None,
    "(last xs)": lambda xs, ys, n: xs[-1] if xs else None,
    "(rseq xs)": lambda xs, ys, n: tuple(reversed(xs)) or None,
    "(some #{n} xs)": lambda xs, ys, n: n if n in xs else None,
    "(every? pos? xs)": lambda xs, ys, n: all(x > 0 for x in xs),
    "(= xs ys)": lambda xs, ys, n: xs == ys,
    "(= (hash xs) (hash (apply list xs)))": lambda xs, ys, n: True,
    "(into [] (comp (map inc) (filter even?) (take 5)) xs)": lambda xs, ys, n: [x + 1 for x in xs if x % 2][:5],
    "(transduce (map inc) + xs)": lambda xs, ys, n: sum(x + 1 for x in xs),
    "(sequence (partition-all 3) xs)": lambda xs, ys, n: tuple(xs[i : i + 3] for i in range(0, len(xs), 3)),
    "(for [x xs :when (odd? x) y (take 2 ys)] (+ x y))": lambda xs, ys, n: tuple(x + y for x in xs if x % 2 for y in ys[:2]),
    "(persistent! (reduce conj! (transient []) xs))": lambda xs, ys, n: xs,
    "(mapv #(* 2 %) (filterv odd? xs))": lambda xs, ys, n: [2 * x for x in xs if x % 2],
    "(loop [s (seq xs) out ()] (if s (recur (next s) (conj out (first s))) out))": lambda xs, ys, n: tuple(reversed(xs)),
    "(reduce (fn [m x] (update m (mod x 5) (fnil conj []) x)) {} xs)": lambda xs, ys, n: {
        k: [x for x in xs if x % 5 == k] for k in dict.fromkeys(x % 5 for x in xs)
    },
    "(apply max 0 xs)": lambda xs, ys, n: max([0, *xs]),
    "(str/join \",\" xs)": lambda xs, ys, n: ",".join(map(str, xs)),
}  # fmt: skip


@lru_cache(maxsize=1)
def every_function() -> str:
    """The name of a function that gives what every expression gives, in order."""
    calls = []
    for i, expression in enumerate(FUNCTIONS):
        session().eval(f"(defn f{i} [xs ys n] {expression})", expression)
        calls.append(f"(f{i} xs ys n)")
    session().eval(f"(defn every-function [xs ys n] [{' '.join(calls)}])")
    return "every-function"


@given(lists, lists, counts)
def test_functions_agree_with_python(xs: list[int], ys: list[int], n: int) -> None:
    found = session().eval(f"({every_function()} {pr_str(lisp(xs))} {pr_str(lisp(ys))} {n})")
    for (expression, model), value in zip(FUNCTIONS.items(), found, strict=True):
        assert value == lisp(model(xs, ys, n)), f"{expression} gives {pr_str(value)}"


@given(st.lists(st.tuples(st.sampled_from(["assoc", "dissoc", "conj", "pop"]), small, small), max_size=60))
def test_sorted_map_agrees_with_a_dict(steps: list[tuple[str, int, int]]) -> None:
    from flowmetal.lang.primitives.sorted_collections import NATURAL
    from flowmetal.lang.sorted import SortedMap

    found, model = SortedMap.sorted([], NATURAL), {}
    for op, k, v in steps:
        if op == "dissoc":
            found = found.dissoc(k)
            model.pop(k, None)
        elif op == "pop" and model:
            first = min(model)
            assert next(iter(found.keys())) == first
            found = found.dissoc(first)
            del model[first]
        else:
            found = found.assoc(k, v)
            model[k] = v
        assert list(found.items()) == sorted(model.items())
        assert len(found) == len(model)
        assert [k for k, _ in found.items_from(0, True)] == sorted(k for k in model if k >= 0)
        assert balanced(found.tree)


def balanced(tree: Any) -> bool:
    """Whether no subtree is much heavier than its sister, and sizes are right."""
    if tree is None:
        return True
    a = (tree.left.size if tree.left else 0) + 1
    b = (tree.right.size if tree.right else 0) + 1
    return tree.size + 1 == a + b and a <= 3 * b and b <= 3 * a and balanced(tree.left) and balanced(tree.right)
