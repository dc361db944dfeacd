"""Persistent maps and sets that keep the order of insertion.

What goes in: keys and values. What comes out: a map or set that shares what it can with the one it
came from. The one rule: order is that of insertion, so it never depends on Python's hashes, which
differ from process to process.

Up to 32 keys are a dict that is copied. More are a hash trie from key to (slot, value), beside a
vector of slots that holds the keys in order, with holes where keys were removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import immutables
from pyrsistent import pvector
from pyrsistent.typing import PVector

from flowmetal.lang.structure import MAP, PAIRED, SET, Structure, key_of
from flowmetal.lang.vectors import SMALL, Vector

_HOLE: Final = object()
_SHRINK: Final = 16  # a large map becomes small again only here, so that a border is not crossed back and forth


class _Large:
    """The body of a map of many keys."""

    __slots__ = ("index", "order")

    def __init__(self, index: immutables.Map[Any, tuple[int, Any]], order: PVector[Any]) -> None:
        self.index = index
        self.order = order

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Any]:
        if len(self.order) == len(self.index):
            return iter(self.order)
        return (k for k in self.order if k is not _HOLE)

    def __contains__(self, k: Any) -> bool:
        return k in self.index

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values in order."""
        index = self.index
        return ((k, index[k][1]) for k in self)

    def values(self) -> Iterator[Any]:
        """Values in order."""
        index = self.index
        return (index[k][1] for k in self)

    @staticmethod
    def of(pairs: Iterable[tuple[Any, Any]]) -> _Large:
        """From pairs of different keys."""
        fixed = tuple(pairs)
        return _Large(immutables.Map((k, (i, v)) for i, (k, v) in enumerate(fixed)), pvector(k for k, _ in fixed))

    def set(self, k: Any, value: Any) -> _Large:
        hit = self.index.get(k)
        if hit is not None:
            return _Large(self.index.set(self.order[hit[0]], (hit[0], value)), self.order)
        return _Large(self.index.set(k, (len(self.order), value)), self.order.append(k))

    def set_all(self, pairs: Iterable[tuple[Any, Any]]) -> _Large:
        order = self.order.evolver()
        end = len(self.order)
        index = self.index.mutate()
        for k, value in pairs:
            hit = index.get(k)
            if hit is None:
                index[k] = (end, value)
                order.append(k)
                end += 1
            else:
                index[k] = (hit[0], value)
        return _Large(index.finish(), order.persistent())

    def delete(self, k: Any) -> _Large | dict[Any, Any]:
        slot = self.index[k][0]
        index = self.index.delete(k)
        left = _Large(index, self.order.set(slot, _HOLE))
        if len(index) <= _SHRINK:
            return dict(left.items())
        return _Large.of(left.items()) if len(left.order) > 2 * len(index) + SMALL else left


_Data = dict[Any, Any] | _Large


class Map(Structure):
    """A persistent map. `Map.of(pairs)` makes one; iterating gives entries, vectors of two."""

    __slots__ = ("_data",)
    kind = MAP

    def __init__(self, data: _Data, meta: Map | None = None) -> None:
        """`data` holds keys as `key_of` gives them, and must never change."""
        self._data = data
        self._hash = None
        self.meta = meta
        self.span = None

    @staticmethod
    def of(pairs: Iterable[tuple[Any, Any]], meta: Map | None = None) -> Map:
        """The map of these pairs; the last value of a key counts."""
        return Map(_body({key_of(k): v for k, v in pairs}), meta)

    @staticmethod
    def from_dict(d: Mapping[Any, Any], meta: Map | None = None) -> Map:
        """The map of a Python dict's items."""
        return Map.of(d.items(), meta)

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Vector]:
        return (Vector(entry) for entry in self.items())

    def __contains__(self, key: Any) -> bool:
        return (key_of(key) if type(key) in PAIRED else key) in self._data

    def __repr__(self) -> str:
        return f"Map of {len(self._data)}"

    def _parts(self) -> Iterator[Any]:
        for k, v in self.items():
            yield k
            yield v

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values, in order."""
        return ((k[1], v) if type(k) is tuple else (k, v) for k, v in self._data.items())

    _entries = items

    def keys(self) -> Iterator[Any]:
        """Keys, in order."""
        return (k[1] if type(k) is tuple else k for k in self._data)

    def values(self) -> Iterator[Any]:
        """Values, in order."""
        return iter(self._data.values())

    def get(self, key: Any, default: Any = None) -> Any:
        """The value at `key`, or `default` when the key is absent."""
        if type(key) in PAIRED:
            key = key_of(key)
        data = self._data
        if type(data) is dict:
            return data.get(key, default)
        hit = data.index.get(key)  # type: ignore[union-attr]
        return default if hit is None else hit[1]

    def find(self, key: Any) -> Vector | None:
        """The entry of `key` as a vector of two, with the key as the map holds it; None when absent."""
        k, data = key_of(key), self._data
        if k not in data:
            return None
        if type(data) is not dict:
            slot, value = data.index[k]  # type: ignore[union-attr]
            held = data.order[slot]  # type: ignore[union-attr]
        else:
            value = data[k]
            held = next(h for h in data if h == k)
        return Vector((held[1] if type(held) is tuple else held, value))

    def assoc(self, key: Any, value: Any) -> Map:
        """With `value` at `key`; a new key comes last."""
        if type(key) in PAIRED:
            key = key_of(key)
        data = self._data
        if type(data) is not dict:
            return Map(data.set(key, value), self.meta)  # type: ignore[union-attr]
        grown = data.copy()
        grown[key] = value
        return Map(grown if len(grown) <= SMALL else _Large.of(grown.items()), self.meta)

    def assoc_all(self, pairs: Iterable[tuple[Any, Any]]) -> Map:
        """With all these pairs, in one go."""
        keyed = ((key_of(k), v) for k, v in pairs)
        data = self._data
        if type(data) is dict:
            grown = data.copy()
            grown.update(keyed)
            return Map(_body(grown), self.meta)
        return Map(data.set_all(keyed), self.meta)  # type: ignore[union-attr]

    def dissoc(self, key: Any) -> Map:
        """Without `key`; itself when the key is absent."""
        if type(key) in PAIRED:
            key = key_of(key)
        data = self._data
        if key not in data:
            return self
        if type(data) is not dict:
            return Map(data.delete(key), self.meta)  # type: ignore[union-attr]
        less = data.copy()
        del less[key]
        return Map(less, self.meta)

    def with_meta(self, meta: Map | None) -> Map:
        """The same entries with other metadata."""
        copy = Map(self._data, meta)
        copy.span = self.span
        copy._hash = self._hash
        return copy


class Set(Structure):
    """A persistent set. `Set.of(iterable)` makes one."""

    __slots__ = ("_map",)
    kind = SET

    def __init__(self, members: Map, meta: Map | None = None) -> None:
        """`members` maps each member to itself."""
        self._map = members
        self._hash = None
        self.meta = meta
        self.span = None

    @staticmethod
    def of(items: Iterable[Any], meta: Map | None = None) -> Set:
        """The set of these members; of equal ones the first is kept."""
        members: dict[Any, Any] = {}
        for x in items:
            members.setdefault(key_of(x), x)
        return Set(Map(_body(members)), meta)

    def __len__(self) -> int:
        return len(self._map)

    def __iter__(self) -> Iterator[Any]:
        return self._map.values()

    _parts = __iter__

    def __contains__(self, x: Any) -> bool:
        return x in self._map

    def __repr__(self) -> str:
        return f"Set of {len(self._map)}"

    def _entries(self) -> Iterator[tuple[Any, Any]]:
        return ((x, None) for x in self._map.values())

    def get(self, key: Any, default: Any = None) -> Any:
        """The member equal to `key`, or `default` when there is none."""
        return self._map.get(key, default)

    def conj(self, x: Any) -> Set:
        """With `x`; itself when there is an equal member."""
        return self if x in self._map else Set(self._map.assoc(x, x), self.meta)

    def conj_all(self, items: Iterable[Any]) -> Set:
        """With all of `items`, in one go."""
        members = self._map
        return Set(members.assoc_all((x, members.get(x, x)) for x in items), self.meta)

    def disj(self, x: Any) -> Set:
        """Without `x`; itself when it is no member."""
        return Set(self._map.dissoc(x), self.meta) if x in self._map else self

    def with_meta(self, meta: Map | None) -> Set:
        """The same members with other metadata."""
        copy = Set(self._map, meta)
        copy.span = self.span
        copy._hash = self._hash
        return copy


def _body(data: dict[Any, Any]) -> _Data:
    return data if len(data) <= SMALL else _Large.of(data.items())


EMPTY_MAP = Map({})
EMPTY_SET = Set(EMPTY_MAP)
