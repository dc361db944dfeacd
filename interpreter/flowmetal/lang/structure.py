"""Values that have parts, and the walks that compare and hash them without recursion.

What goes in: any two values. What comes out: whether they are `=`, and a hash that agrees with it.
The one rule: nesting costs heap, never Python's stack; a hundred thousand levels are as good as one.

A class of structured values derives from `Structure`, says what `kind` it is and lists its parts.
Vectors, lists and seqs are one kind (they compare by their elements), maps, sets and records others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from math import isnan
from typing import Any, Final

SEQUENTIAL: Final = 1
MAP: Final = 2
SET: Final = 3
RECORD: Final = 4

_MISSING: Final = object()
_MASK: Final = (1 << 61) - 1

# A key that Python would mix up with another (1, 1.0 and true are equal to it) is stored as a pair.
_BOOL, _FLOAT, _DECIMAL = 1, 2, 3
_TRUE_KEY: Final = (_BOOL, True)
_FALSE_KEY: Final = (_BOOL, False)
PAIRED: Final = frozenset({bool, float, Decimal})
"""The types whose keys are paired."""


def key_of(x: Any) -> Any:
    """The Python key that stands for `x` in a dict, so that 1, 1.0 and true are three keys."""
    t = type(x)
    if t is bool:
        return _TRUE_KEY if x else _FALSE_KEY
    if t is float:
        # The extra object makes a NaN equal to nothing, itself included.
        return (_FLOAT, x) if not isnan(x) else (_FLOAT, x, object())
    return (_DECIMAL, x) if t is Decimal else x


def unkey(k: Any) -> Any:
    """The value that a key of `key_of` stands for."""
    return k[1] if type(k) is tuple else k


class Structure:
    """A value that is compared by its parts. Its hash is computed once, without recursion."""

    __slots__ = ("_hash", "meta", "span")
    kind: int = RECORD
    _hash: int | None
    meta: Any
    """Its metadata, a Map or None: it does not count in equality."""
    span: Any
    """Where the reader met it, a Span or None."""
    by_comparator = False
    """Whether a look-up asks a comparator, which does not know all that `=` knows."""

    def _parts(self) -> Iterable[Any]:
        """All parts: elements, or keys and values."""
        raise NotImplementedError

    def _entries(self) -> Iterable[tuple[Any, Any]]:
        """Keys with their values (None in a set); only for maps and sets."""
        raise NotImplementedError

    def get(self, key: Any, default: Any = None) -> Any:
        """The value at a key; only for maps and sets."""
        raise NotImplementedError

    def unordered(self) -> Structure:
        """The same entries with look-up by `=`."""
        return self

    def __len__(self) -> int:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return equal(self, other)

    def __hash__(self) -> int:
        h = self._hash
        return _hash_structure(self) if h is None else h


_UNALIKE: Final = frozenset({int, float, bool, Decimal, str, bytes, type(None)})


def equal(a: Any, b: Any) -> bool:
    """Whether `a` and `b` are `=`: 1, 1.0 and true differ; a vector equals a list of equal elements."""
    if a is b:
        return type(a) is not float or not isnan(a)
    t = type(a)
    if t in _UNALIKE:
        return type(b) is t and bool(a == b)
    if isinstance(a, Structure):
        return isinstance(b, Structure) and _equal_structures(a, b)
    return _equal_atoms(a, b)


def _equal_atoms(a: Any, b: Any) -> bool:
    if type(a) is not type(b) and (type(a) in _UNALIKE or type(b) in _UNALIKE or isinstance(b, Structure)):
        return False
    return bool(a == b)


def _equal_structures(a: Structure, b: Structure) -> bool:
    todo = [(a, b)]
    seen: set[tuple[int, int]] = set()
    while todo:
        a, b = todo.pop()
        if a is b:
            continue
        if a.kind != b.kind or len(a) != len(b):
            return False
        if a._hash is not None and b._hash is not None and a._hash != b._hash:
            return False
        pair = (id(a), id(b))
        if pair in seen:
            continue
        seen.add(pair)
        if a.kind == RECORD and type(a) is not type(b):
            return False
        alike = _match_entries(a, b, todo) if a.kind in (MAP, SET) else _match(zip(a._parts(), b._parts(), strict=True), todo)
        if not alike:
            return False
    return True


def _match(pairs: Iterable[tuple[Any, Any]], todo: list[tuple[Structure, Structure]]) -> bool:
    """Compares atoms at once and leaves pairs of structures for later."""
    for x, y in pairs:
        if x is y:
            if type(x) is float and isnan(x):
                return False
        elif isinstance(x, Structure):
            if not isinstance(y, Structure):
                return False
            todo.append((x, y))
        elif not _equal_atoms(x, y):
            return False
    return True


def _match_entries(a: Structure, b: Structure, todo: list[tuple[Structure, Structure]]) -> bool:
    deep = []
    if b.by_comparator:
        a, b = b, a
        if b.by_comparator:
            b = b.unordered()
    for k, v in a._entries():
        if isinstance(k, Structure):
            deep.append((k, v))
            continue
        other = b.get(k, _MISSING)
        if other is v and type(v) is not float:
            continue
        if other is _MISSING or (a.kind == MAP and not _match(((v, other),), todo)):
            return False
    return not deep or _match_deep_keys(deep, b, todo)


def _match_deep_keys(deep: list[tuple[Structure, Any]], b: Structure, todo: list[tuple[Structure, Structure]]) -> bool:
    """Pairs keys that are structures by their hashes: a look-up would compare them recursively."""
    buckets: dict[int, list[tuple[Structure, Any]]] = {}
    for k, v in b._entries():
        if isinstance(k, Structure):
            buckets.setdefault(hash(k), []).append((k, v))
    for k, v in deep:
        found = buckets.get(hash(k), [])
        if len(found) > 1:  # a collision: rare enough to compare at once
            found = [entry for entry in found if equal(k, entry[0])]
        if not found or not _match(((k, found[0][0]), (v, found[0][1])), todo):
            return False
    return True


def hash_of(x: Any) -> int:
    """A hash that agrees with `equal`, within one process."""
    t = type(x)
    if t is int:
        return hash(x) if x != -1 else 0x5BD1E995
    return hash(key_of(x)) if t in PAIRED else hash(x)


def _hash_structure(root: Structure) -> int:
    stack = [root]
    while stack:
        node = stack[-1]
        if node._hash is not None:
            stack.pop()
            continue
        waiting = [c for c in node._parts() if isinstance(c, Structure) and c._hash is None]
        if waiting:
            stack.extend(waiting)
        else:
            node._hash = _combine(node)
            stack.pop()
    assert root._hash is not None
    return root._hash


def _combine(node: Structure) -> int:
    if node.kind == MAP:
        return hash((MAP, sum(hash((hash_of(k), hash_of(v))) for k, v in node._entries()) & _MASK))
    if node.kind == SET:
        return hash((SET, sum(hash((SET, hash_of(k))) for k, _ in node._entries()) & _MASK))
    return hash((node.kind, *map(hash_of, node._parts())))


def parts_of(x: Structure) -> Iterator[Any]:
    """The parts of a structure, in order."""
    return iter(x._parts())
