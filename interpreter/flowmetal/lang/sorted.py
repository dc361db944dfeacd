"""Sorted maps and sets: persistent, in the order of a comparator.

What goes in: entries, and a comparator (Clojure's `compare` unless a program gave its own). What comes
out: maps and sets that iterate in order. The one rule: two keys are the same key when the comparator
gives 0, whatever `=` says.

The body is a weight-balanced tree: an update copies the path from the root, O(log n) nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cmp_to_key
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.maps import Map, Set
from flowmetal.lang.vectors import Vector

Order = Callable[[Any, Any], int]


class Comparator:
    """An order of keys: `function` is what the program gave, None for the natural order."""

    __slots__ = ("function", "order", "version")

    def __init__(self, order: Order, function: Any = None, version: int = 0) -> None:
        self.order = order
        self.function = function
        self.version = version
        """The definitions version that a function of the program sees."""

    def check_first(self, key: Any) -> None:
        """Refuses a key without an order at once, and not when the second one comes."""
        from flowmetal.lang.equality import has_order, kind_name

        if self.function is None and not has_order(key):
            raise LispError(f"{kind_name(key)} has no order: a sorted collection needs keys that compare can put in one", type="type")
        self.order(key, key)


class Node:
    """A subtree: an entry between those before it and those after it."""

    __slots__ = ("key", "left", "right", "size", "value")

    def __init__(self, key: Any, value: Any, left: Node | None, right: Node | None) -> None:
        self.key = key
        self.value = value
        self.left = left
        self.right = right
        self.size: int = 1 + (left.size if left else 0) + (right.size if right else 0)


Tree = Node | None
_DELTA, _GAMMA = 3, 2  # how much heavier one side may be, and when one turn is enough (Hirai and Yamamoto, 2011)


def _size(t: Tree) -> int:
    return t.size if t else 0


def _balanced(key: Any, value: Any, left: Tree, right: Tree) -> Node:
    """A node of two sides of which one may be an element too heavy."""
    a, b = _size(left) + 1, _size(right) + 1
    if right and b > _DELTA * a:
        inner = right.left
        if inner is None or inner.size + 1 < _GAMMA * (_size(right.right) + 1):
            return Node(right.key, right.value, Node(key, value, left, inner), right.right)
        return Node(inner.key, inner.value, Node(key, value, left, inner.left), Node(right.key, right.value, inner.right, right.right))
    if left and a > _DELTA * b:
        inner = left.right
        if inner is None or inner.size + 1 < _GAMMA * (_size(left.left) + 1):
            return Node(left.key, left.value, left.left, Node(key, value, inner, right))
        return Node(inner.key, inner.value, Node(left.key, left.value, left.left, inner.left), Node(key, value, inner.right, right))
    return Node(key, value, left, right)


def _built(entries: list[tuple[Any, Any]], low: int, high: int) -> Tree:
    """A tree of entries that are in order."""
    if low >= high:
        return None
    middle = (low + high) // 2
    return Node(*entries[middle], _built(entries, low, middle), _built(entries, middle + 1, high))


def _found(t: Tree, key: Any, order: Order) -> Tree:
    while t is not None:
        side = order(key, t.key)
        if side == 0:
            return t
        t = t.left if side < 0 else t.right
    return None


def _with(t: Tree, key: Any, value: Any, order: Order) -> Node:
    if t is None:
        return Node(key, value, None, None)
    side = order(key, t.key)
    if side == 0:
        return Node(t.key, value, t.left, t.right)
    if side < 0:
        return _balanced(t.key, t.value, _with(t.left, key, value, order), t.right)
    return _balanced(t.key, t.value, t.left, _with(t.right, key, value, order))


def _without(t: Tree, key: Any, order: Order) -> Tree:
    if t is None:
        return None
    side = order(key, t.key)
    if side < 0:
        return _balanced(t.key, t.value, _without(t.left, key, order), t.right)
    if side > 0:
        return _balanced(t.key, t.value, t.left, _without(t.right, key, order))
    return _joined(t.left, t.right)


def _joined(left: Tree, right: Tree) -> Tree:
    if left is None or right is None:
        return left or right
    first = right
    while first.left is not None:
        first = first.left
    return _balanced(first.key, first.value, left, _without_first(right))


def _without_first(t: Node) -> Tree:
    return t.right if t.left is None else _balanced(t.key, t.value, _without_first(t.left), t.right)


def _walk(t: Tree) -> Iterator[Node]:
    stack: list[Node] = []
    while stack or t is not None:
        while t is not None:
            stack.append(t)
            t = t.left
        node = stack.pop()
        yield node
        t = node.right


def _walk_from(t: Tree, key: Any, order: Order, inclusive: bool) -> Iterator[Node]:
    """Nodes from a key on."""
    stack: list[Node] = []
    while t is not None:
        side = order(key, t.key)
        if side < 0 or (side == 0 and inclusive):
            stack.append(t)
            t = t.left
        else:
            t = t.right
    while stack:
        node = stack.pop()
        yield node
        stack_of = node.right
        while stack_of is not None:
            stack.append(stack_of)
            stack_of = stack_of.left


class SortedMap(Map):
    """A map in the order of its comparator."""

    __slots__ = ("comparator", "tree")
    by_comparator = True

    def __init__(self, tree: Tree, comparator: Comparator, meta: Map | None = None) -> None:
        super().__init__({}, meta)
        self.tree = tree
        self.comparator = comparator

    @staticmethod
    def in_order(entries: list[tuple[Any, Any]], comparator: Comparator) -> SortedMap:
        """The sorted map of entries that are in order already."""
        return SortedMap(_built(entries, 0, len(entries)), comparator)

    @staticmethod
    def sorted(pairs: Iterable[tuple[Any, Any]], comparator: Comparator, meta: Map | None = None) -> SortedMap:
        """The sorted map of these pairs; the last value of a key counts."""
        order = comparator.order
        entries: list[tuple[Any, Any]] = []
        by = cmp_to_key(order)
        given = list(pairs)
        if len(given) == 1:
            comparator.check_first(given[0][0])
        for k, v in sorted(given, key=lambda pair: by(pair[0])):
            if entries and order(entries[-1][0], k) == 0:
                entries[-1] = (entries[-1][0], v)
            else:
                entries.append((k, v))
        return SortedMap(_built(entries, 0, len(entries)), comparator, meta)

    def __len__(self) -> int:
        return _size(self.tree)

    def __contains__(self, key: Any) -> bool:
        return _found(self.tree, key, self.comparator.order) is not None

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values, in order."""
        return ((n.key, n.value) for n in _walk(self.tree))

    _entries = items

    def items_from(self, key: Any, inclusive: bool) -> Iterator[tuple[Any, Any]]:
        """Keys and values from a key on."""
        return ((n.key, n.value) for n in _walk_from(self.tree, key, self.comparator.order, inclusive))

    def keys(self) -> Iterator[Any]:
        """Keys, in order."""
        return (n.key for n in _walk(self.tree))

    def values(self) -> Iterator[Any]:
        """Values, in order of their keys."""
        return (n.value for n in _walk(self.tree))

    def get(self, key: Any, default: Any = None) -> Any:
        """The value at `key`; a key that cannot be compared with the others is a `:type` error."""
        node = _found(self.tree, key, self.comparator.order)
        return default if node is None else node.value

    def find(self, key: Any) -> Vector | None:
        """The entry of `key` as a vector of two; None when absent."""
        node = _found(self.tree, key, self.comparator.order)
        return None if node is None else Vector((node.key, node.value))

    def assoc(self, key: Any, value: Any) -> SortedMap:
        """With `value` at `key`."""
        if self.tree is None:
            self.comparator.check_first(key)
        return SortedMap(_with(self.tree, key, value, self.comparator.order), self.comparator, self.meta)

    def assoc_all(self, pairs: Iterable[tuple[Any, Any]]) -> SortedMap:
        """With all these pairs."""
        if self.tree is None:
            return SortedMap.sorted(pairs, self.comparator, self.meta)
        tree: Tree = self.tree
        for k, v in pairs:
            tree = _with(tree, k, v, self.comparator.order)
        return SortedMap(tree, self.comparator, self.meta)

    def dissoc(self, key: Any) -> SortedMap:
        """Without `key`; itself when the key is absent."""
        if key not in self:
            return self
        return SortedMap(_without(self.tree, key, self.comparator.order), self.comparator, self.meta)

    def with_meta(self, meta: Map | None) -> SortedMap:
        """The same entries with other metadata."""
        copy = SortedMap(self.tree, self.comparator, meta)
        copy._hash = self._hash
        return copy

    def unordered(self) -> Map:
        """The same entries with look-up by `=`."""
        return Map.of(self.items())

    def emptied(self) -> SortedMap:
        """Without entries: the same comparator and metadata."""
        return SortedMap(None, self.comparator, self.meta)


class SortedSet(Set):
    """A set in the order of its comparator: the keys of a sorted map."""

    __slots__ = ()
    by_comparator = True

    @staticmethod
    def sorted(items: Iterable[Any], comparator: Comparator, meta: Map | None = None) -> SortedSet:
        """The sorted set of these members."""
        return SortedSet(SortedMap.sorted(((x, x) for x in items), comparator), meta)

    @property
    def body(self) -> SortedMap:
        """The members, each its own key."""
        assert isinstance(self._map, SortedMap)
        return self._map

    def __iter__(self) -> Iterator[Any]:
        return self._map.keys()

    _parts = __iter__

    def _entries(self) -> Iterator[tuple[Any, Any]]:
        return ((x, None) for x in self)

    def conj(self, x: Any) -> SortedSet:
        """With `x`; itself when the comparator finds it there."""
        return self if x in self._map else SortedSet(self._map.assoc(x, x), self.meta)

    def conj_all(self, items: Iterable[Any]) -> SortedSet:
        """With all of `items`."""
        members = self._map
        for x in items:
            if x not in members:
                members = members.assoc(x, x)
        return SortedSet(members, self.meta)

    def disj(self, x: Any) -> SortedSet:
        """Without `x`; itself when it is no member."""
        return SortedSet(self._map.dissoc(x), self.meta) if x in self._map else self

    def with_meta(self, meta: Map | None) -> SortedSet:
        """The same members with other metadata."""
        copy = SortedSet(self._map, meta)
        copy._hash = self._hash
        return copy

    def unordered(self) -> Set:
        """The same members with look-up by `=`."""
        return Set.of(self)

    def emptied(self) -> SortedSet:
        """Without members: the same comparator and metadata."""
        return SortedSet(self.body.emptied(), self.meta)
