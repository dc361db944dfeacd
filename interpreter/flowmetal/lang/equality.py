"""`=`, `hash`, `compare` and truth.

What goes in: any values. What comes out: Clojure's answers. The one rule: 1, 1.0 and true are three
different values to `=`; only `compare` and `==` look across kinds of number.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from flowmetal.errors import LispError
from flowmetal.lang.persistent import Vector
from flowmetal.lang.printer import pr_str
from flowmetal.lang.structure import MAP, SET, Structure, equal, hash_of, key_of, unkey
from flowmetal.lang.values import Duration, Instant, Keyword, Symbol

_NUMBERS: Final = frozenset({int, float, Decimal})
_ORDERED: Final = frozenset({str, bool, Instant, Duration, UUID})


def truthy(x: Any) -> bool:
    """Everything but nil and false is true."""
    return x is not None and x is not False


def stable_hash(x: Any) -> int:
    """A hash of 32 bits that agrees with `equal` and is the same in every process."""
    done: dict[int, int] = {}
    stack = [x]
    while stack:
        node = stack[-1]
        parts = list(node._parts()) if isinstance(node, Structure) else []
        waiting = [p for p in parts if isinstance(p, Structure) and id(p) not in done]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        if id(node) not in done:
            done[id(node)] = _stable(node, [done[id(p)] if isinstance(p, Structure) else _stable_atom(p) for p in parts])
    return done[id(x)]


def _stable(node: Any, hashes: list[int]) -> int:
    if not isinstance(node, Structure):
        return _stable_atom(node)
    if node.kind == MAP:
        return _mix([sum(_mix(list(entry)) for entry in zip(hashes[::2], hashes[1::2], strict=True)), MAP])
    return _mix([sum(_mix([h]) for h in hashes), SET]) if node.kind == SET else _mix([*hashes, node.kind])


def _mix(numbers: list[int]) -> int:
    h = 1
    for n in numbers:
        h = (h ^ n) * 0x01000193 % 0x100000000
        h ^= h >> 15
    return h


def _stable_atom(x: Any) -> int:
    if isinstance(x, Decimal):
        x = x.normalize()
    elif isinstance(x, float):
        x += 0.0  # -0.0 is equal to 0.0
    return zlib.crc32(pr_str(x).encode("utf-8", "surrogatepass"))


def compare(a: Any, b: Any) -> int:
    """-1, 0 or 1, as Clojure's `compare` orders: nil first, shorter vectors first; else a `:type` error."""
    waiting: list[Iterator[tuple[Any, Any]]] = [iter(((a, b),))]
    while waiting:
        for x, y in waiting[-1]:
            if type(x) is Vector and type(y) is Vector:
                if len(x) != len(y):
                    return -1 if len(x) < len(y) else 1
                waiting.append(zip(x, y, strict=True))
                break
            order = _compare_atoms(x, y)
            if order:
                return order
        else:
            waiting.pop()
    return 0


def has_order(x: Any) -> bool:
    """Whether `compare` puts values of this kind in an order."""
    return x is None or type(x) in _ORDERED or type(x) in _NUMBERS or type(x) in (Keyword, Symbol, Vector)


def _compare_atoms(a: Any, b: Any) -> int:
    if a is None or b is None:
        return (a is not None) - (b is not None)
    t, u = type(a), type(b)
    if (t is u and t in _ORDERED) or (t in _NUMBERS and u in _NUMBERS):
        if a != a or b != b:
            return 0  # NaN is before and after nothing
        return -1 if a < b else 1 if b < a else 0
    if t is u and t in (Keyword, Symbol):
        x, y = (a.ns or "", a.name), (b.ns or "", b.name)
        return -1 if x < y else 1 if y < x else 0
    if a is b:
        return 0
    raise LispError(f"can't compare {kind_name(a)} with {kind_name(b)}", type="type")


_KINDS: Final = {
    "NoneType": "nil", "bool": "a boolean", "int": "an integer", "float": "a float", "Decimal": "a decimal",
    "str": "a string", "Keyword": "a keyword", "Symbol": "a symbol", "Vector": "a vector", "Map": "a map",
    "Set": "a set", "SortedMap": "a sorted map", "SortedSet": "a sorted set", "Cons": "a list", "Link": "a seq", "Seq": "a seq", "Duration": "a duration",
    "Instant": "an instant", "UUID": "a UUID", "Regex": "a regex", "bytes": "bytes",
    "ErrorValue": "an error", "Var": "a var", "Atom": "an atom", "Promise": "a promise",
    "Callback": "a callback", "Transient": "a transient",
    "Reduced": "a reduced value",
    "Reducible": "a sequence without an end",
    "Delay": "a delay",
    "FlowHandle": "a flow handle",
}  # fmt: skip


def kind_name(x: Any) -> str:
    """What kind of value `x` is, in words with an article, for messages of errors."""
    return _KINDS.get(type(x).__name__, "a function")


__all__ = ["compare", "equal", "has_order", "hash_of", "key_of", "kind_name", "stable_hash", "truthy", "unkey"]
