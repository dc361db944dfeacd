"""Maps, vectors, sets and lists: making, looking up, changing.

What goes in: a collection (nil is the empty one of the kind asked for) and keys, indices, elements.
What comes out: a new collection that shares the rest. The one rule: an index never wraps, and a
wrong kind or an odd number of arguments is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.equality import equal, hash_of, stable_hash
from flowmetal.lang.lists import EMPTY_LIST, Cons, List
from flowmetal.lang.maps import EMPTY_MAP, EMPTY_SET, Map, Set
from flowmetal.lang.primitives.checks import LIMIT, integer, integer_of, shown, too_large, wrong
from flowmetal.lang.primitives.numbers import BINARY
from flowmetal.lang.primitives.reducibles import Reducible
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.primitives.sequences import items_of, iterate_over, sequence
from flowmetal.lang.sorted import SortedMap, SortedSet
from flowmetal.lang.vectors import EMPTY_VECTOR, Vector

_ABSENT: Any = object()


# Making


@primitive("core", "vector", "([& xs])", "A vector of the arguments.", "(vector 1 2) ;=> [1 2]")
def vector(*xs: Any) -> Vector:
    """`vector`."""
    return Vector.of(xs)


@primitive("core", "vec", "([coll])", "A vector of the elements.", "(vec '(1 2)) ;=> [1 2]")
def vec(coll: Any) -> Vector:
    """`vec`."""
    return coll if isinstance(coll, Vector) else Vector.of(items_of("vec", coll))


def _pairs(who: str, kvs: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    if len(kvs) % 2:
        raise LispError(f"{who} needs a value for each key, but {shown(kvs[-1])} has none", type="value")
    return zip(kvs[::2], kvs[1::2], strict=True)


@primitive("core", "hash-map", "([& keyvals])", "A map of keys and values in turn.", "(hash-map :a 1) ;=> {:a 1}")
def hash_map(*keyvals: Any) -> Map:
    """`hash-map`."""
    return Map.of(_pairs("hash-map", keyvals))


@primitive("core", "array-map", "([& keyvals])", "A map of keys and values in turn.", "(array-map :a 1) ;=> {:a 1}")
def array_map(*keyvals: Any) -> Map:
    """`array-map`."""
    return Map.of(_pairs("array-map", keyvals))


@primitive("core", "hash-set", "([& xs])", "A set of the arguments.", "(hash-set 1 1 2) ;=> #{1 2}")
def hash_set(*xs: Any) -> Set:
    """`hash-set`."""
    return Set.of(xs)


@primitive("core", "set", "([coll])", "A set of the elements.", "(set [1 1 2]) ;=> #{1 2}")
def set_(coll: Any) -> Set:
    """`set`."""
    if not isinstance(coll, Set):
        return Set.of(items_of("set", coll))
    return coll if coll.meta is None else coll.with_meta(None)


# Looking up


@primitive("core", "count", "([coll])", "The number of elements; 0 of nil.", "(count [1 2]) ;=> 2")
def count(coll: Any) -> int:
    """`count`."""
    if coll is None:
        return 0
    if isinstance(coll, (Vector, List, Map, Set, str, bytes)) or hasattr(coll, "held"):
        return len(coll)
    return len(items_of("count", coll))


@primitive("core", "bounded-count", "([n coll])", "The number of elements; of a sequence without an end, n.", "(bounded-count 3 [1 2]) ;=> 2")
def bounded_count(n: Any, coll: Any) -> int:
    """`bounded-count`."""
    return len(coll.prefix(integer("bounded-count", n))) if isinstance(coll, Reducible) else count(coll)


@primitive("core", "empty?", "([coll])", "Whether there are no elements.", "(empty? []) ;=> true")
def is_empty(coll: Any) -> bool:
    """`empty?`."""
    return not coll.prefix(1) if isinstance(coll, Reducible) else count(coll) == 0


@primitive("core", "not-empty", "([coll])", "The collection; nil when it has no elements.", "(not-empty []) ;=> nil")
def not_empty(coll: Any) -> Any:
    """`not-empty`."""
    return None if is_empty(coll) else coll


@primitive("core", "empty", "([coll])", "An empty collection of the same kind, with the same metadata.", "(empty [1 2]) ;=> []")
def empty(coll: Any) -> Any:
    """`empty`."""
    if isinstance(coll, (SortedMap, SortedSet)):
        return coll.emptied()
    for kind, none in ((Vector, EMPTY_VECTOR), (Map, EMPTY_MAP), (Set, EMPTY_SET), (List, EMPTY_LIST)):
        if isinstance(coll, kind):
            return none if coll.meta is None else none.with_meta(coll.meta)
    return EMPTY_LIST if isinstance(coll, Reducible) else None


@primitive("core", "get", "([coll key] [coll key default])", "The value at a key or index; default (nil) when there is none.", "(get {:a 1} :a) ;=> 1")
def get(coll: Any, key: Any, default: Any = None) -> Any:
    """`get`."""
    if isinstance(coll, (Map, Set)):
        return coll.get(key, default)
    if type(coll) in (Vector, str) and type(key) is int:
        if not 0 <= key < len(coll):
            return default
        return coll[key] if type(coll) is str else coll.nth(key)
    lookup = getattr(coll, "lookup", None)
    return default if lookup is None else lookup(key, default)


def get2(coll: Any, key: Any) -> Any:
    """`(get coll key)`."""
    return coll.get(key) if type(coll) is Map else get(coll, key)


@primitive("core", "nth", "([coll i] [coll i default])", "The element at an index; out of range it is default, or an error.", "(nth [1 2] 1) ;=> 2")
def nth(coll: Any, i: Any, default: Any = _ABSENT) -> Any:
    """`nth`."""
    if type(i) is not int:
        i = integer_of("nth", i)
    if coll is None:
        return None if default is _ABSENT else default
    if isinstance(coll, (Vector, List)):
        return coll.nth(i) if default is _ABSENT or 0 <= i < len(coll) else default
    if isinstance(coll, (Map, Set)):
        raise wrong("nth", "a sequence with an order", coll)
    if hasattr(coll, "held"):
        return nth(coll.held(), i, default)
    if isinstance(coll, Reducible) and i >= LIMIT:
        raise too_large("nth")
    items: Any = coll.prefix(i + 1) if isinstance(coll, Reducible) and i >= 0 else items_of("nth", coll)
    if 0 <= i < len(items):
        return items[i]
    if default is _ABSENT:
        raise LispError(f"index {i} is out of range for {shown(coll)}", type="index")
    return default


@primitive("core", "contains?", "([coll key])", "Whether a key is in a map or set, or an index in a vector.", "(contains? {:a nil} :a) ;=> true")
def contains(coll: Any, key: Any) -> bool:
    """`contains?`."""
    if isinstance(coll, (Map, Set)):
        return key in coll
    if coll is None:
        return False
    if isinstance(coll, (Vector, str)):
        if isinstance(coll, str) and type(key) is not int:
            raise wrong("contains? on a string", "an integer", key)
        return type(key) is int and 0 <= key < len(coll)
    if getattr(coll, "lookup", None) is not None:
        return coll.lookup(key, _ABSENT) is not _ABSENT
    raise LispError(
        f"contains? looks for keys: it needs a map, set or vector, but was given {shown(coll)}", type="type", hint="(some #{x} coll) looks for an element"
    )


@primitive("core", "find", "([coll key])", "The entry at a key, as [key value]; nil when there is none.", "(find {:a 1} :a) ;=> [:a 1]")
def find(coll: Any, key: Any) -> Any:
    """`find`."""
    if isinstance(coll, Map):
        return coll.find(key)
    if isinstance(coll, Vector):
        return Vector.of((key, coll.nth(key))) if type(key) is int and 0 <= key < len(coll) else None
    if coll is None:
        return None
    raise wrong("find", "a map or a vector", coll)


@primitive("core", "get-in", "([coll keys] [coll keys default])", "The value at a path of keys.", "(get-in {:a {:b 1}} [:a :b]) ;=> 1")
def get_in(coll: Any, keys: Any, default: Any = None) -> Any:
    """`get-in`."""
    for k in items_of("get-in", keys):
        coll = get(coll, k, _ABSENT)
        if coll is _ABSENT:
            return default
    return coll


def _map(who: str, coll: Any) -> Map:
    if coll is None:
        return EMPTY_MAP
    if isinstance(coll, Map):
        return coll
    return Map.of(tuple(_entry(who, x)) for x in items_of(who, coll))


def _entry(who: str, x: Any) -> Any:
    if isinstance(x, Vector) and len(x) == 2:
        return x
    raise wrong(who, "a map or entries", x)


@primitive("core", "keys", "([map])", "The keys; nil of an empty map.", "(keys {:a 1}) ;=> (:a)")
def keys(coll: Any) -> Any:
    """`keys`."""
    return sequence(_map("keys", coll).keys()) or None


@primitive("core", "vals", "([map])", "The values; nil of an empty map.", "(vals {:a 1}) ;=> (1)")
def vals(coll: Any) -> Any:
    """`vals`."""
    return sequence(_map("vals", coll).values()) or None


@primitive("core", "key", "([entry])", "The key of a map entry.", "(key (first {:a 1})) ;=> :a")
def key_(entry: Any) -> Any:
    """`key`."""
    return _entry("key", entry).nth(0)


@primitive("core", "val", "([entry])", "The value of a map entry.", "(val (first {:a 1})) ;=> 1")
def val(entry: Any) -> Any:
    """`val`."""
    return _entry("val", entry).nth(1)


@primitive("core", "map-entry", "([key value])", "A map entry.", "(map-entry :a 1) ;=> [:a 1]")
def map_entry(k: Any, v: Any) -> Vector:
    """`map-entry`."""
    return Vector.of((k, v))


@primitive("core", "select-keys", "([map keys])", "A map of only these keys.", "(select-keys {:a 1 :b 2} [:a :c]) ;=> {:a 1}")
def select_keys(coll: Any, wanted: Any) -> Map:
    """`select-keys`."""
    out = []
    for k in items_of("select-keys", wanted):
        v = coll.get(k, _ABSENT) if isinstance(coll, Map) else get(coll, k, _ABSENT) if isinstance(coll, Vector) else _ABSENT
        if v is not _ABSENT:
            out.append((k, v))
    if coll is not None and not isinstance(coll, (Map, Vector)) and wanted:
        raise wrong("select-keys", "a map", coll)
    return Map.of(out, coll.meta if isinstance(coll, Map) else None)


# Changing


def conj2(coll: Any, x: Any) -> Any:
    """`(conj coll x)`."""
    if isinstance(coll, (Vector, List, Set)):
        return coll.conj(x)
    if coll is None:
        return Cons(x, EMPTY_LIST)
    if isinstance(coll, Map):
        return _conj_map(coll, x)
    if isinstance(coll, Reducible):
        return Reducible("cons", x, coll)
    raise wrong("conj", "a collection", coll)


def _conj_map(coll: Map, x: Any) -> Map:
    if isinstance(x, Vector):
        if len(x) != 2:
            raise LispError(f"conj on a map needs an entry [key value], but was given a vector of {len(x)}", type="value")
        return coll.assoc(x.nth(0), x.nth(1))
    if x is None:
        return coll
    if isinstance(x, Map):
        if len(coll) or type(coll) is not Map or type(x) is not Map:
            return coll.assoc_all(x.items())
        return x if coll.meta is None and x.meta is None else x.with_meta(coll.meta)
    raise wrong("conj on a map", "an entry [key value] or a map", x)


@primitive("core", "conj", "([] [coll & xs])", "coll with xs: at the end of a vector, in front of a list.", "(conj [1] 2 3) ;=> [1 2 3]")
def conj(*args: Any) -> Any:
    """`conj`."""
    if len(args) == 2:
        return conj2(args[0], args[1])
    if not args:
        return EMPTY_VECTOR
    coll = args[0]
    for x in args[1:]:
        coll = conj2(coll, x)
    return coll


def assoc3(coll: Any, k: Any, v: Any) -> Any:
    """`(assoc coll k v)`."""
    if isinstance(coll, Map):
        return coll.assoc(k, v)
    if isinstance(coll, Vector):
        return coll.assoc(k if type(k) is int else integer("assoc on a vector", k), v)
    if coll is None:
        return EMPTY_MAP.assoc(k, v)
    raise wrong("assoc", "a map or a vector", coll)


@primitive("core", "assoc", "([coll key val & keyvals])", "coll with values at keys (or indices).", "(assoc {:a 1} :b 2) ;=> {:a 1, :b 2}")
def assoc(coll: Any, k: Any, v: Any, *keyvals: Any) -> Any:
    """`assoc`."""
    coll = assoc3(coll, k, v)
    for more_k, more_v in _pairs("assoc", keyvals):
        coll = assoc3(coll, more_k, more_v)
    return coll


@primitive("core", "dissoc", "([map & keys])", "The map without keys.", "(dissoc {:a 1 :b 2} :a) ;=> {:b 2}")
def dissoc(coll: Any, *ks: Any) -> Any:
    """`dissoc`."""
    if coll is None:
        return None
    if not isinstance(coll, Map):
        if not ks:
            return coll
        raise wrong("dissoc", "a map", coll)
    for k in ks:
        coll = coll.dissoc(k)
    return coll


@primitive("core", "disj", "([set & xs])", "The set without members.", "(disj #{1 2} 1) ;=> #{2}")
def disj(coll: Any, *xs: Any) -> Any:
    """`disj`."""
    if coll is None or (not xs and coll is not None):
        return coll
    if not isinstance(coll, Set):
        raise wrong("disj", "a set", coll)
    for x in xs:
        coll = coll.disj(x)
    return coll


@primitive("core", "assoc-in", "([map keys value])", "The map with a value at a path; missing maps are made.", "(assoc-in {} [:a :b] 1) ;=> {:a {:b 1}}")
def assoc_in(coll: Any, path: Any, v: Any) -> Any:
    """`assoc-in`."""
    keys_ = list(items_of("assoc-in", path)) or [None]
    levels = [coll]
    for k in keys_[:-1]:
        levels.append(get(levels[-1], k))
    for level, k in zip(reversed(levels), reversed(keys_), strict=True):
        v = assoc3(level, k, v)
    return v


@primitive("core", "merge", "([& maps])", "The maps in one; later values count.", "(merge {:a 1} {:a 2 :b 3}) ;=> {:a 2, :b 3}")
def merge(*maps: Any) -> Any:
    """`merge`."""
    if all(m is None or m is False for m in maps):
        return None
    result = maps[0] if maps[0] is not None else EMPTY_MAP
    for m in maps[1:]:
        result = conj2(result, m)
    return result


@primitive("core", "into*", "([to from])", "All elements of from, conjoined to to.")
def into(to: Any, source: Any) -> Any:
    """`into*`."""
    if isinstance(to, Vector):
        return to.extend(items_of("into", source))
    if isinstance(to, Set):
        return to.conj_all(items_of("into", source))
    if isinstance(to, Map) and isinstance(source, Map):
        return to.assoc_all(source.items())
    for x in iterate_over("into", source):
        to = conj2(to, x)
    return to


@primitive("core", "peek", "([coll])", "The first of a list, the last of a vector.", "(peek [1 2]) ;=> 2")
def peek(coll: Any) -> Any:
    """`peek`."""
    if coll is None:
        return None
    if not isinstance(coll, (Vector, Cons)):
        raise wrong("peek", "a list or a vector", coll)
    return coll.peek()


@primitive("core", "pop", "([coll])", "A list without its first, a vector without its last element.", "(pop [1 2]) ;=> [1]")
def pop(coll: Any) -> Any:
    """`pop`."""
    if coll is None:
        return None
    if not isinstance(coll, (Vector, Cons)):
        raise wrong("pop", "a list or a vector", coll)
    return coll.pop()


@primitive("core", "subvec", "([v start] [v start end])", "The elements of a vector from start up to, not including, end.", "(subvec [1 2 3] 1) ;=> [2 3]")
def subvec(v: Any, start: Any, end: Any = _ABSENT) -> Vector:
    """`subvec`."""
    if not isinstance(v, Vector):
        raise wrong("subvec", "a vector", v)
    return v.subvec(integer_of("subvec", start), len(v) if end is _ABSENT else integer_of("subvec", end))


@primitive("core", "rseq", "([coll])", "The elements of a vector, last first; nil when there are none.", "(rseq [1 2]) ;=> (2 1)")
def rseq(coll: Any) -> Any:
    """`rseq`."""
    if not isinstance(coll, (Vector, SortedMap, SortedSet)):
        raise wrong("rseq", "a vector or a sorted collection", coll)
    return sequence(tuple(coll)[::-1]) or None


@primitive("core", "replace*", "([smap coll])", "Elements replaced by what a map gives for them.")
def replace(smap: Any, coll: Any) -> Any:
    """`replace*`."""
    found = [get(smap, x, x) for x in items_of("replace", coll)]
    return Vector.of(found, coll.meta) if isinstance(coll, Vector) else sequence(found)


@primitive("core", "index-of*", "([coll x])", "The index of the first element that is = to x, or nil.")
def index_of(coll: Any, x: Any) -> Any:
    """`index-of*`."""
    return next((i for i, y in enumerate(items_of("index-of", coll)) if equal(x, y)), None)


@primitive("core", "hash", "([x])", "A number that is the same for equal values, in this process.", "(= (hash [1]) (hash '(1))) ;=> true")
def hash_(x: Any) -> int:
    """`hash`."""
    return stable_hash(x)


def limited(who: str, items: Iterable[Any]) -> list[Any]:
    """A list of items, of at most LIMIT."""
    out = []
    for x in items:
        out.append(x)
        if len(out) > LIMIT:
            raise too_large(who)
    return out


BINARY.update({"conj": conj2, "get": get2, "nth": nth, "contains?": contains})
__all__ = ["conj2", "get", "hash_of", "into", "limited", "stable_hash"]
