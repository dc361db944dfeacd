"""The namespace `set`, as far as it takes no functions.

What goes in: sets (nil is the empty one), or sets of maps as relations. What comes out: sets. The one
rule: the order of the first set is kept.
"""

from __future__ import annotations

from typing import Any

from flowmetal.lang.maps import EMPTY_SET, Map, Set
from flowmetal.lang.primitives.checks import wrong
from flowmetal.lang.primitives.collections import conj2, select_keys
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.primitives.sequences import items_of
from flowmetal.lang.vectors import Vector


def _need(who: str, s: Any) -> Set:
    if s is None:
        return EMPTY_SET
    if not isinstance(s, Set):
        raise wrong(f"set/{who}", "sets", s)
    return s


@primitive("set", "union", "([] [s & sets])", "All members.", "(set/union #{1} #{2}) ;=> #{1 2}")
def union(*sets: Any) -> Any:
    """`set/union`."""
    if not sets:
        return EMPTY_SET
    if len(sets) == 1:
        return sets[0]
    result: Any = _need("union", sets[0]) if sets[0] is None else sets[0]
    for s in sets[1:]:
        if isinstance(result, Set) and isinstance(s, Set):
            result = result.conj_all(s)
        else:
            for x in items_of("set/union", s):
                result = conj2(result, x)
    return result


@primitive("set", "intersection", "([s & sets])", "The members of all.", "(set/intersection #{1 2} #{2 3}) ;=> #{2}")
def intersection(s: Any, *sets: Any) -> Any:
    """`set/intersection`."""
    if not sets:
        return s
    result = _need("intersection", s)
    for other in sets:
        keep = _need("intersection", other)
        result = Set.of((x for x in result if x in keep), result.meta)
    return None if s is None else result


@primitive("set", "difference", "([s & sets])", "The members of the first that are in no other.", "(set/difference #{1 2} #{2}) ;=> #{1}")
def difference(s: Any, *sets: Any) -> Any:
    """`set/difference`."""
    if not sets or s is None:
        return s
    result = _need("difference", s)
    for other in sets:
        gone = other if isinstance(other, Map) else _need("difference", other)
        result = Set.of((x for x in result if x not in gone), result.meta)
    return result


@primitive("set", "subset?", "([a b])", "Whether every member of a is one of b.", "(set/subset? #{1} #{1 2}) ;=> true")
def is_subset(a: Any, b: Any) -> bool:
    """`set/subset?`."""
    a, b = _need("subset?", a), _need("subset?", b)
    return len(a) <= len(b) and all(x in b for x in a)


@primitive("set", "superset?", "([a b])", "Whether every member of b is one of a.", "(set/superset? #{1 2} #{1}) ;=> true")
def is_superset(a: Any, b: Any) -> bool:
    """`set/superset?`."""
    return is_subset(b, a)  # type: ignore[no-any-return]


def rename(m: Any, names: Any) -> Any:
    """A map with keys renamed."""
    if m is None:
        return None
    if not isinstance(m, Map) or not isinstance(names, Map):
        raise wrong("set/rename-keys", "two maps", m if not isinstance(m, Map) else names)
    result = m
    for old, _ in names.items():
        result = result.dissoc(old)
    for old, new in names.items():
        if old in m:
            result = result.assoc(new, m.get(old))
    return result


@primitive("set", "rename-keys", "([map names])", "A map with its keys renamed by a map.", "(set/rename-keys {:a 1} {:a :b}) ;=> {:b 1}")
def rename_keys(m: Any, names: Any) -> Any:
    """`set/rename-keys`."""
    return rename(m, names)


@primitive("set", "rename", "([rel names])", "A set of maps with keys renamed.", "(set/rename #{{:a 1}} {:a :b}) ;=> #{{:b 1}}")
def rename_all(rel: Any, names: Any) -> Set:
    """`set/rename`."""
    return Set.of((rename(m, names) for m in items_of("set/rename", rel)), getattr(rel, "meta", None))


@primitive("set", "project", "([rel keys])", "A set of maps with only these keys.", "(set/project #{{:a 1 :b 2}} [:a]) ;=> #{{:a 1}}")
def project(rel: Any, keys: Any) -> Set:
    """`set/project`."""
    return Set.of((select_keys(m, keys) for m in items_of("set/project", rel)), getattr(rel, "meta", None))


@primitive("set", "map-invert", "([map])", "A map from values to keys.", "(set/map-invert {:a 1}) ;=> {1 :a}")
def map_invert(m: Any) -> Map:
    """`set/map-invert`."""
    if m is not None and not isinstance(m, Map):
        raise wrong("set/map-invert", "a map", m)
    return Map.of((v, k) for k, v in (m.items() if m is not None else ()))


@primitive(
    "set",
    "index",
    "([rel keys])",
    "A map from the values of keys to the sets of maps that have them.",
    "(set/index #{{:a 1 :b 2}} [:a]) ;=> {{:a 1} #{{:a 1, :b 2}}}",
)
def index(rel: Any, keys: Any) -> Map:
    """`set/index`."""
    groups: dict[Any, list[Any]] = {}
    for m in items_of("set/index", rel):
        groups.setdefault(select_keys(m, keys), []).append(m)
    return Map.of((k, Set.of(ms)) for k, ms in groups.items())


@primitive(
    "set",
    "join",
    "([a b] [a b keys])",
    "Maps of two sets put together where their common (or the given) keys agree.",
    "(set/join #{{:a 1 :b 2}} #{{:a 1 :c 3}}) ;=> #{{:a 1, :b 2, :c 3}}",
)
def join(a: Any, b: Any, keys: Any = None) -> Set:
    """`set/join`."""
    left, right = items_of("set/join", a), items_of("set/join", b)
    for m in (*left, *right):
        if not isinstance(m, Map):
            raise wrong("set/join", "sets of maps", m)
    if keys is not None and not isinstance(keys, Map):
        raise wrong("set/join", "a map of keys to keys", keys)
    if not left or not right:
        return EMPTY_SET
    pairs = [(k, k) for k, _ in left[0].items() if k in right[0]] if keys is None else list(keys.items())
    found: dict[Any, list[Any]] = {}
    for m in right:
        found.setdefault(Vector.of(m.get(k) for _, k in pairs), []).append(m)
    return Set.of(m.assoc_all(other.items()) for m in left for other in found.get(Vector.of(m.get(k) for k, _ in pairs), ()))
