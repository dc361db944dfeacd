"""Sequence functions that take no functions, and the leaf halves of those that do.

What goes in: nil, lists, vectors, maps, sets, strings, reducibles. What comes out: eager sequences.
The one rule: nil is the empty sequence, and nothing else that is no collection is a sequence.
Names that end in `*` serve the prelude: they hold the loops over functions that are leaves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.equality import truthy
from flowmetal.lang.lists import EMPTY_LIST, Chain, Cons, Link, List, Seq
from flowmetal.lang.maps import Map, Set
from flowmetal.lang.persistent import list_of, seq_of
from flowmetal.lang.primitives.checks import count_of, integer, wrong
from flowmetal.lang.primitives.leaf_calls import leaf_callable
from flowmetal.lang.primitives.numbers import BINARY
from flowmetal.lang.primitives.reducibles import PLAIN, Reduced, Reducible, endless, prefix_of
from flowmetal.lang.primitives.registry import Primitive, leaf_loop, primitive
from flowmetal.lang.structure import key_of
from flowmetal.lang.vectors import Vector

_COLLECTIONS = (Vector, List, Map, Set)


def items_of(who: str, coll: Any) -> Sequence[Any]:
    """All elements of a bounded sequence; a map's are its entries, a string's its characters."""
    if isinstance(coll, _COLLECTIONS):
        return tuple(coll)
    if coll is None:
        return ()
    if type(coll) is str:
        return coll
    if type(coll) is bytes:
        return tuple(coll)
    if type(coll) is Reducible:
        raise endless(who, coll)
    raise wrong(who, "a sequence", coll)


def iterate_over(who: str, coll: Any) -> Iterable[Any]:
    """Like `items_of`, without making a tuple."""
    return coll if isinstance(coll, _COLLECTIONS) else items_of(who, coll)


def spread(coll: Any) -> Sequence[Any]:
    """The last argument of `apply`, as arguments."""
    return items_of("apply", coll)


def as_seq(who: str, coll: Any) -> List:
    """A bounded sequence as a list or seq, `()` for nil."""
    if isinstance(coll, (List, Vector)):
        return seq_of(coll)
    return seq_of(items_of(who, coll))


def sequence(items: Iterable[Any]) -> List:
    """A new seq."""
    return seq_of(tuple(items))


@primitive("core", "seq", "([coll])", "A sequence of the elements; nil when there are none.", "(seq [1 2]) ;=> (1 2)")
def seq(coll: Any) -> Any:
    """`seq`."""
    if isinstance(coll, (List, Vector)):
        return seq_of(coll) if len(coll) else None
    if type(coll) is Reducible:
        return coll if coll.kind in PLAIN or coll.prefix(1) else None
    return (seq_of(items_of("seq", coll)) or None) if coll is not None else None


@primitive("core", "first", "([coll])", "The first element; nil when there is none.", "(first [1 2]) ;=> 1")
def first(coll: Any) -> Any:
    """`first`."""
    if isinstance(coll, List):
        return coll.first() if coll._count else None
    if isinstance(coll, Vector):
        return coll.nth(0) if coll._count else None
    if coll is None:
        return None
    if type(coll) is Reducible:
        return next(iter(coll.prefix(1)), None)
    return next(iter(iterate_over("first", coll)), None)


@primitive("core", "rest", "([coll])", "All but the first element; () when there are no more.", "(rest [1 2 3]) ;=> (2 3)")
def rest(coll: Any) -> Any:
    """`rest`."""
    if isinstance(coll, List):
        return coll.rest() if coll._count else EMPTY_LIST
    if type(coll) is Reducible:
        return coll.drop(1)
    found = as_seq("rest", coll)
    return found.rest() if len(found) else EMPTY_LIST


@primitive("core", "next", "([coll])", "All but the first element; nil when there are no more.", "(next [1]) ;=> nil")
def next_(coll: Any) -> Any:
    """`next`."""
    if isinstance(coll, List):
        return coll.rest() if coll._count > 1 else None
    if type(coll) is Reducible:
        return coll.drop(1) if seq(coll.drop(1)) is not None else None  # once more: what is known now may be shorter
    found = as_seq("next", coll)
    return found.rest() if len(found) > 1 else None


primitive("core", "second", "([coll])", "The second element.", "(second [1 2]) ;=> 2")(lambda coll: first(next_(coll)))
primitive("core", "ffirst", "([coll])", "The first element of the first.", "(ffirst [[1 2] 3]) ;=> 1")(lambda coll: first(first(coll)))
primitive("core", "fnext", "([coll])", "The first of the next: the second.", "(fnext [1 2]) ;=> 2")(lambda coll: first(next_(coll)))
primitive("core", "nfirst", "([coll])", "The next of the first element.", "(nfirst [[1 2] 3]) ;=> (2)")(lambda coll: next_(first(coll)))
primitive("core", "nnext", "([coll])", "The next of the next.", "(nnext [1 2 3]) ;=> (3)")(lambda coll: next_(next_(coll)))


@primitive("core", "last", "([coll])", "The last element.", "(last [1 2 3]) ;=> 3")
def last(coll: Any) -> Any:
    """`last`."""
    if isinstance(coll, Vector):
        return coll.peek()
    items = items_of("last", coll)
    return items[-1] if items else None


@primitive("core", "butlast", "([coll])", "All but the last element; nil when there are no more.", "(butlast [1 2 3]) ;=> (1 2)")
def butlast(coll: Any) -> Any:
    """`butlast`."""
    return sequence(items_of("butlast", coll)[:-1]) or None


@primitive("core", "cons", "([x coll])", "x before the elements of coll.", "(cons 0 [1 2]) ;=> (0 1 2)")
def cons(x: Any, coll: Any) -> Any:
    """`cons`."""
    if type(coll) is Reducible:
        return Reducible("cons", x, coll)
    if coll is None:
        return Cons(x, EMPTY_LIST)
    return Link(x, as_seq("cons", coll))


@primitive("core", "list", "([& xs])", "A list of the arguments.", "(list 1 2) ;=> (1 2)")
def list_(*xs: Any) -> List:
    """`list`."""
    return list_of(xs)


@primitive("core", "list*", "([x] [x & more])", "The arguments before the elements of the last one.", "(list* 1 2 [3]) ;=> (1 2 3)")
def list_star(x: Any, *more: Any) -> Any:
    """`list*`."""
    *before, tail = (x, *more)
    result = seq(tail)
    for y in reversed(before):
        result = cons(y, result)
    return result


@primitive("core", "concat", "([& colls])", "The elements of all collections, one after the other.", "(concat [1] [2 3]) ;=> (1 2 3)")
def concat(*colls: Any) -> Any:
    """`concat`."""
    out: list[Any] = []
    for c in colls:
        if type(c) is Reducible:  # it has no end: nothing behind it is ever reached
            result: Any = c
            for x in reversed(out):
                result = cons(x, result)
            return result
        out.extend(iterate_over("concat", c))
    return sequence(out)


@primitive("core", "concat-all*", "([colls])", "The elements of all collections of a collection.")
def concat_all(colls: Any) -> Any:
    """`concat-all*`."""
    return concat(*colls)


@primitive("core", "reverse", "([coll])", "The elements, last first.", "(reverse [1 2 3]) ;=> (3 2 1)")
def reverse(coll: Any) -> List:
    """`reverse`."""
    return list_of(items_of("reverse", coll)[::-1])


@primitive("core", "take*", "([n coll])", "The first n elements of a sequence that a leaf can walk.")
def take(n: Any, coll: Any) -> Any:
    """`take*`."""
    n = max(count_of("take", n), 0)
    if type(coll) is Reducible:
        return sequence(coll.prefix(n))
    if isinstance(coll, List) and n >= len(coll):
        return coll
    return sequence(itertools.islice(iterate_over("take", coll), n))


@primitive("core", "drop*", "([n coll])", "All but the first n elements.")
def drop(n: Any, coll: Any) -> Any:
    """`drop*`."""
    n = max(count_of("drop", n), 0)
    if type(coll) is Reducible:
        return coll.drop(n) if n else coll
    found = as_seq("drop", coll)
    while n and isinstance(found, Chain) and found._count:
        found = found.rest()
        n -= 1
    return found.drop(n) if isinstance(found, Seq) and n else found


@primitive("core", "take-last", "([n coll])", "The last n elements; nil when there are none.", "(take-last 2 [1 2 3]) ;=> (2 3)")
def take_last(n: Any, coll: Any) -> Any:
    """`take-last`."""
    n = max(count_of("take-last", n), 0)
    items = items_of("take-last", coll)
    return sequence(items[max(len(items) - n, 0) :]) or None


@primitive("core", "drop-last", "([coll] [n coll])", "All but the last n (1) elements.", "(drop-last [1 2 3]) ;=> (1 2)")
def drop_last(*args: Any) -> Any:
    """`drop-last`."""
    _last_of("drop-last", args)
    n, coll = (1, *args)[-2:]
    items = items_of("drop-last", coll)
    return sequence(items[: max(len(items) - max(count_of("drop-last", n), 0), 0)])


@primitive("core", "split-at", "([n coll])", "[(take n coll) (drop n coll)].", "(split-at 1 [1 2 3]) ;=> [(1) (2 3)]")
def split_at(n: Any, coll: Any) -> Vector:
    """`split-at`."""
    return Vector.of((take(n, coll), drop(n, coll)))


@primitive("core", "take-nth*", "([n coll])", "Every nth element.")
def take_nth(n: Any, coll: Any) -> Any:
    """`take-nth*`."""
    if integer("take-nth", n) < 1:
        items = items_of("take-nth", coll)
        return Reducible("repeat", items[0]) if items else EMPTY_LIST
    return sequence(items_of("take-nth", coll)[::n])


@primitive("core", "nthrest", "([coll n])", "coll after n times rest.", "(nthrest [1 2 3] 2) ;=> (3)")
def nthrest(coll: Any, n: Any) -> Any:
    """`nthrest`."""
    return coll if count_of("nthrest", n) <= 0 else drop(n, coll)


@primitive("core", "nthnext", "([coll n])", "coll after n times next.", "(nthnext [1 2 3] 2) ;=> (3)")
def nthnext(coll: Any, n: Any) -> Any:
    """`nthnext`."""
    if coll is None:
        return None
    return seq(drop(n, coll))


def _chunks(who: str, n: Any, step: Any, coll: Any) -> list[Sequence[Any]]:
    if type(n) is int and n < 0 and n == step:
        return []
    if integer(who, n) < 1 or integer(who, step) < 1:
        raise LispError(f"{who} needs a size and a step of 1 or more, but was given {n} and {step}", type="value")
    items = items_of(who, coll)
    return [items[i : i + n] for i in range(0, len(items), step)]


@primitive("core", "partition*", "([n coll] [n step coll] [n step pad coll])", "partition of a bounded sequence.")
def partition(n: Any, *args: Any) -> Any:
    """`partition*`."""
    if not 1 <= len(args) <= 3:
        raise LispError(f"partition takes 2 to 4 arguments, but was given {len(args) + 1}", type="arity")
    coll, step = args[-1], args[0] if len(args) > 1 else n
    out = []
    for chunk in _chunks("partition", n, step, coll):
        if len(chunk) == n:
            out.append(sequence(chunk))
        elif len(args) == 3:
            out.append(sequence((*chunk, *prefix_of(args[1] if type(args[1]) is Reducible else items_of("partition", args[1]), n - len(chunk)))))
            break
        else:
            break
    return sequence(out)


@primitive("core", "partition-all*", "([n step coll])", "Groups of n, with short ones at the end.")
def partition_all(n: Any, step: Any, coll: Any) -> Any:
    """`partition-all*`."""
    return sequence(sequence(c) for c in _chunks("partition-all", n, step, coll))


@primitive("core", "partitionv", "([n coll] [n step coll] [n step pad coll])", "Like partition, with vectors.", "(partitionv 2 [1 2 3]) ;=> ([1 2])")
def partitionv(n: Any, *args: Any) -> Any:
    """`partitionv`."""
    return sequence(Vector.of(c) for c in partition(n, *args))


@primitive("core", "partitionv-all", "([n coll] [n step coll])", "Like partition-all, with vectors.", "(partitionv-all 2 [1 2 3]) ;=> ([1 2] [3])")
def partitionv_all(n: Any, *args: Any) -> Any:
    """`partitionv-all`."""
    if not 1 <= len(args) <= 2:
        raise LispError(f"partitionv-all takes 2 or 3 arguments, but was given {len(args) + 1}", type="arity")
    return sequence(Vector.of(c) for c in partition_all(n, args[0] if len(args) == 2 else n, args[-1]))


@primitive("core", "splitv-at", "([n coll])", "Like split-at, with a vector first.", "(splitv-at 1 [1 2 3]) ;=> [[1] (2 3)]")
def splitv_at(n: Any, coll: Any) -> Vector:
    """`splitv-at`."""
    return Vector.of((Vector.of(take(n, coll)), drop(n, coll)))


@primitive("core", "interleave*", "([& colls])", "interleave of sequences of which one has an end.")
def interleave(*colls: Any) -> Any:
    """`interleave*`."""
    return sequence(x for row in rows_of("interleave", colls) for x in row)


@primitive("core", "interpose*", "([sep coll])", "sep between the elements.")
def interpose(sep: Any, coll: Any) -> Any:
    """`interpose*`."""
    return sequence([y for x in items_of("interpose", coll) for y in (sep, x)][1:])


def rows_of(who: str, colls: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Elements side by side, as long as every collection has one."""
    bounded = [len(items_of(who, c)) for c in colls if type(c) is not Reducible]
    if not colls:
        return []
    if not bounded:
        raise endless(who, colls[0])
    n = min(bounded)
    columns = [prefix_of(c, n) if type(c) is Reducible else items_of(who, c) for c in colls]
    return list(zip(*columns, strict=False))


@primitive("core", "zip*", "([colls])", "Elements side by side, as seqs; without an end where no collection has one.")
def zip_(colls: Any) -> Any:
    """`zip*`."""
    every = tuple(colls)
    if every and all(type(c) is Reducible for c in every):
        return Reducible("zip", colls)
    return sequence(seq_of(row) for row in rows_of("map", every))


@primitive("core", "zipmap", "([keys vals])", "A map of keys to values, side by side.", "(zipmap [:a :b] [1 2]) ;=> {:a 1, :b 2}")
def zipmap(keys: Any, vals: Any) -> Map:
    """`zipmap`."""
    return Map.of(rows_of("zipmap", (keys, vals)))


@primitive("core", "distinct*", "([coll])", "The elements without repetitions.")
def distinct(coll: Any) -> Any:
    """`distinct*`."""
    return sequence(Set.of(items_of("distinct", coll)))


@primitive("core", "dedupe*", "([coll])", "The elements without repetitions in a row.")
def dedupe(coll: Any) -> Any:
    """`dedupe*`."""
    items = items_of("dedupe", coll)
    from flowmetal.lang.equality import equal

    return sequence(x for i, x in enumerate(items) if i == 0 or not equal(items[i - 1], x))


@primitive("core", "frequencies", "([coll])", "How often each element occurs.", '(frequencies "aab") ;=> {"a" 2, "b" 1}')
def frequencies(coll: Any) -> Map:
    """`frequencies`."""
    counts: dict[Any, list[Any]] = {}
    for x in iterate_over("frequencies", coll):
        counts.setdefault(key_of(x), [x, 0])[1] += 1
    return Map.of(map(tuple, counts.values()))


@primitive("core", "flatten", "([coll])", "The elements of nested sequences, as one; () for what is none.", "(flatten [1 [2 [3]]]) ;=> (1 2 3)")
def flatten(coll: Any) -> Any:
    """`flatten`."""
    out: list[Any] = []
    levels = [iter(coll)] if isinstance(coll, (List, Vector)) else []
    while levels:
        for x in levels[-1]:
            if isinstance(x, (List, Vector)):
                levels.append(iter(x))
                break
            out.append(x)
        else:
            levels.pop()
    return sequence(out)


@primitive("core", "doall", "([coll] [n coll])", "The collection: sequences are computed already.", "(doall [1 2]) ;=> [1 2]")
def doall(*args: Any) -> Any:
    """`doall`."""
    return _last_of("doall", args)


@primitive("core", "dorun", "([coll] [n coll])", "nil: sequences are computed already.", "(dorun [1 2]) ;=> nil")
def dorun(*args: Any) -> None:
    """`dorun`."""
    _last_of("dorun", args)


def _last_of(who: str, args: tuple[Any, ...]) -> Any:
    """The collection, which may have a number before it."""
    if not 1 <= len(args) <= 2:
        raise LispError(f"{who} takes 1 or 2 arguments, but was given {len(args)}: ([coll] [n coll])", type="arity")
    return args[-1]


# The leaf halves of functions that take functions


@leaf_loop("map*", "([f coll])", "map with a leaf, as a vector.")
def map_(f: Any, coll: Any) -> Vector:
    """`map*`."""
    return Vector.of(map(leaf_callable(f), iterate_over("map", coll)))


@leaf_loop("map-rows*", "([f rows])", "A leaf applied to each row of arguments, as a vector.")
def map_rows(f: Any, rows: Any) -> Vector:
    """`map-rows*`."""
    call = leaf_callable(f)
    return Vector.of(call(*row) for row in rows)


@leaf_loop("filter*", "([f coll wanted])", "The elements of which the truth of a leaf is as wanted, as a vector.")
def filter_(f: Any, coll: Any, wanted: Any) -> Vector:
    """`filter*`."""
    call = leaf_callable(f)
    return Vector.of(x for x in iterate_over("filter", coll) if truthy(call(x)) is wanted)


@leaf_loop("find-index*", "([f coll])", "The index of the first element of which a leaf is true; nil when there is none.")
def find_index(f: Any, coll: Any) -> Any:
    """`find-index*`."""
    call = leaf_callable(f)
    return next((i for i, x in enumerate(iterate_over("this function", coll)) if truthy(call(x))), None)


def binary(f: Any) -> Callable[[Any, Any], Any]:
    """A leaf as a function of two arguments."""
    if type(f) is Primitive and f.ns == "core" and f.name in BINARY:
        return BINARY[f.name]
    return f.fn if type(f) is Primitive and f.low <= 2 and (f.high is None or f.high >= 2) else leaf_callable(f)


@leaf_loop("reduce*", "([f init coll])", "reduce with a leaf.")
def reduce_(f: Any, init: Any, coll: Any) -> Any:
    """`reduce*`."""
    call = binary(f)
    for x in iterate_over("reduce", coll):
        init = call(init, x)
        if type(init) is Reduced:
            return init.value
    return init


@primitive("core", "group*", "([keys coll])", "A map from each key to the vector of the elements that stand beside it.")
def group(keys: Any, coll: Any) -> Map:
    """`group*`."""
    groups: dict[Any, tuple[Any, list[Any]]] = {}
    for k, x in zip(keys, items_of("group-by", coll), strict=True):
        groups.setdefault(key_of(k), (k, []))[1].append(x)
    return Map.of((k, Vector.of(found)) for k, found in groups.values())


@primitive("core", "runs*", "([keys coll])", "The elements, split where the key beside them changes.")
def runs(keys: Any, coll: Any) -> Any:
    """`runs*`."""
    from flowmetal.lang.equality import equal

    out: list[list[Any]] = []
    before: Any = None
    for i, (k, x) in enumerate(zip(keys, items_of("partition-by", coll), strict=True)):
        if i == 0 or not equal(k, before):
            out.append([])
        out[-1].append(x)
        before = k
    return sequence(sequence(run) for run in out)


@primitive("core", "items*", "([who coll])", "The elements as a vector: what the prelude's loops run over.")
def items(who: Any, coll: Any) -> Vector:
    """`items*`."""
    return coll if isinstance(coll, Vector) else Vector.of(items_of(who, coll))


@primitive("core", "as-seq*", "([coll])", "The elements as a sequence; () when there are none.")
def as_sequence(coll: Any) -> Any:
    """`as-seq*`."""
    return as_seq("seq", coll)


def ordered(x: Any) -> bool:
    """Whether elements have an order of their own: lists and vectors."""
    return isinstance(x, (List, Vector))


__all__ = ["as_seq", "binary", "items_of", "iterate_over", "ordered", "rows_of", "spread", "wrong"]
