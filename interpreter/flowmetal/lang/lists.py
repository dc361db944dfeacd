"""Lists and seqs: what is read from its front.

What goes in: elements, or an element and what follows it. What comes out: values with `first` and
`rest` in O(1) and a known length. The one rule: a walk along a list is a loop, never a recursion.

`Cons` is a list proper (`list?`), as read, written with `list`, or made by `conj` on one. `Link` is
what `cons` puts before any sequence, `Seq` the rest of an array: both are seqs, not lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError
from flowmetal.lang.structure import SEQUENTIAL, Structure

if TYPE_CHECKING:
    from flowmetal.lang.maps import Map


class List(Structure):
    """What all lists and seqs share."""

    __slots__ = ("_count",)
    kind = SEQUENTIAL
    _count: int

    def first(self) -> Any:
        """The first element, or None."""
        raise NotImplementedError

    def rest(self) -> List:
        """All but the first element; the empty list when there are no more."""
        raise NotImplementedError

    def with_meta(self, meta: Map | None) -> List:
        """The same elements with other metadata."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def _parts(self) -> Iterable[Any]:
        return iter(self)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self._count}"

    def conj(self, x: Any) -> List:
        """With `x` in front: a list stays a list, a seq a seq."""
        return Link(x, self, self.meta)

    def peek(self) -> Any:
        """The first element, or None."""
        return self.first()

    def pop(self) -> List:
        """All but the first element; an empty list is an `:index` error."""
        if not self._count:
            raise LispError("can't pop an empty list", type="index")
        return self.rest()

    def nth(self, i: int) -> Any:
        """The element at `i`, in O(i) for a chain; a negative index is out of range."""
        if not 0 <= i < self._count:
            raise LispError(f"index {i} is out of range for a list of {self._count}", type="index")
        node = self
        while i and isinstance(node, Chain):
            node = node.rest()
            i -= 1
        return node.nth(i) if i else node.first()


class Chain(List):
    """An element and the list that follows it; without elements, the empty list."""

    __slots__ = ("_first", "_rest")

    def __init__(self, first: Any, rest: List | None, meta: Map | None = None) -> None:
        """With `rest` None, the empty list."""
        self._first = first
        self._rest = rest
        self._count = 0 if rest is None else rest._count + 1
        self._hash = None
        self.meta = meta
        self.span = None

    def first(self) -> Any:
        """The first element, or None."""
        return self._first

    def rest(self) -> List:
        """All but the first element; the empty list when there are no more."""
        return EMPTY_LIST if self._rest is None else self._rest

    def with_meta(self, meta: Map | None) -> List:
        """The same elements with other metadata."""
        copy = type(self)(self._first, self._rest, meta)
        copy.span = self.span
        copy._hash = self._hash
        return copy

    def __iter__(self) -> Iterator[Any]:
        node: List = self
        while isinstance(node, Chain):
            if node._rest is None:
                return
            yield node._first
            node = node._rest
        yield from node


class Cons(Chain):
    """A list proper: `list?` is true of it. The empty list is one without a rest."""

    __slots__ = ()

    def conj(self, x: Any) -> List:
        """With `x` in front."""
        return Cons(x, self, self.meta)


class Link(Chain):
    """An element put before a sequence: a seq, not a list."""

    __slots__ = ()


class Seq(List):
    """A window on an array: the result of `map`, `seq`, `rest` of a vector; never empty."""

    __slots__ = ("_items", "_start")

    def __init__(self, items: Sequence[Any], start: int = 0, count: int = -1, meta: Map | None = None) -> None:
        """`count` elements of `items` from `start`, by default all; `items` must never change."""
        self._items = items
        self._start = start
        self._count = len(items) - start if count < 0 else count
        self._hash = None
        self.meta = meta
        self.span = None

    def first(self) -> Any:
        """The first element."""
        return self._items[self._start]

    def rest(self) -> List:
        """All but the first element; the empty list when there are no more."""
        return Seq(self._items, self._start + 1, self._count - 1) if self._count > 1 else EMPTY_LIST

    def drop(self, n: int) -> List:
        """All but the first `n` elements, in O(1)."""
        return Seq(self._items, self._start + n, self._count - n) if n < self._count else EMPTY_LIST

    def nth(self, i: int) -> Any:
        """The element at `i`, in O(1)."""
        if 0 <= i < self._count:
            return self._items[self._start + i]
        return super().nth(i)

    def with_meta(self, meta: Map | None) -> List:
        """The same elements with other metadata."""
        copy = Seq(self._items, self._start, self._count, meta)
        copy.span = self.span
        copy._hash = self._hash
        return copy

    def __iter__(self) -> Iterator[Any]:
        items = self._items
        if self._count == len(items):
            return iter(items)
        return map(items.__getitem__, range(self._start, self._start + self._count))


EMPTY_LIST = Cons(None, None)


def list_of(items: Iterable[Any], meta: Map | None = None) -> List:
    """The list (`list?`) of these elements."""
    node: List = EMPTY_LIST
    for x in reversed(items if isinstance(items, (tuple, list)) else tuple(items)):
        node = Cons(x, node)
    return node if meta is None else node.with_meta(meta)
