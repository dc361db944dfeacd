"""Persistent vectors.

What goes in: elements. What comes out: a vector that shares what it can with the one it came from.
The one rule: an update costs O(log n). Up to 32 elements are a tuple that is copied; more are a
tree, of which a vector may be a window, so that `pop` and `subvec` copy nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pyrsistent import pvector
from pyrsistent.typing import PVector

from flowmetal.errors import LispError
from flowmetal.lang.structure import SEQUENTIAL, Structure

if TYPE_CHECKING:
    from flowmetal.lang.maps import Map

SMALL = 32
"""The greatest number of elements that are kept in a tuple (or, in a map, in a dict)."""


class Vector(Structure):
    """A persistent vector. `Vector.of(iterable)` makes one."""

    __slots__ = ("_count", "_items", "_start")
    kind = SEQUENTIAL

    def __init__(self, items: tuple[Any, ...] | PVector[Any], meta: Map | None = None, start: int = 0, count: int = -1) -> None:
        """`items` is a tuple of up to 32, or a tree, of which the vector is a window."""
        self._items = items
        self._start = start
        self._count = len(items) if count < 0 else count
        self._hash = None
        self.meta = meta
        self.span = None

    @staticmethod
    def of(items: Iterable[Any], meta: Map | None = None) -> Vector:
        """The vector of these elements."""
        fixed = tuple(items)
        return Vector(fixed if len(fixed) <= SMALL else pvector(fixed), meta)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        items = self._items
        if self._count == len(items):
            return iter(items)
        return map(items.__getitem__, range(self._start, self._start + self._count))

    _parts = __iter__

    def __repr__(self) -> str:
        return f"Vector of {self._count}"

    def with_meta(self, meta: Map | None) -> Vector:
        """The same elements with other metadata."""
        copy = Vector(self._items, meta, self._start, self._count)
        copy.span = self.span
        copy._hash = self._hash
        return copy

    def nth(self, i: int) -> Any:
        """The element at `i`; a negative index is out of range."""
        if 0 <= i < self._count:
            return self._items[self._start + i]
        raise self._out_of_range(i)

    def peek(self) -> Any:
        """The last element, or None."""
        return self._items[self._start + self._count - 1] if self._count else None

    def conj(self, x: Any) -> Vector:
        """With `x` at the end."""
        items = self._items
        if type(items) is tuple:
            grown = (*items, x)
            return Vector(grown if self._count < SMALL else pvector(grown), self.meta)
        end = self._start + self._count
        more = items.append(x) if end == len(items) else items.set(end, x)  # type: ignore[union-attr]
        return Vector(more, self.meta, self._start, self._count + 1)

    def extend(self, more: Iterable[Any]) -> Vector:
        """With all of `more` at the end."""
        items = self._items
        if type(items) is tuple or self._start + self._count != len(items):
            return Vector.of((*self, *more), self.meta)
        grown = items.extend(more)  # type: ignore[union-attr]
        return Vector(grown, self.meta, self._start, len(grown) - self._start)

    def assoc(self, i: int, x: Any) -> Vector:
        """With `x` at `i`, which may be one past the end."""
        if i == self._count:
            return self.conj(x)
        if not 0 <= i < self._count:
            raise self._out_of_range(i)
        items = self._items
        if type(items) is tuple:
            return Vector((*items[:i], x, *items[i + 1 :]), self.meta)
        return Vector(items.set(self._start + i, x), self.meta, self._start, self._count)  # type: ignore[union-attr]

    def pop(self) -> Vector:
        """Without its last element; an empty vector is an `:index` error."""
        if not self._count:
            raise LispError("can't pop an empty vector", type="index")
        items = self._items
        if type(items) is tuple:
            return Vector(items[:-1], self.meta)
        end = self._start + self._count - 1
        if self._count * 4 < len(items) or self._count <= SMALL:
            return self._window(self._start, end)
        cleared = items.set(end, None)  # type: ignore[union-attr]
        return Vector(cleared, self.meta, self._start, self._count - 1)

    def subvec(self, start: int, end: int | None = None) -> Vector:
        """The elements from `start` up to, not including, `end`. Of a long vector it is a window."""
        if end is None:
            end = self._count
        if not 0 <= start <= end <= self._count:
            raise LispError(f"{start} to {end} is out of range for a vector of {self._count}", type="index")
        if end - start <= SMALL:
            return self._window(self._start + start, self._start + end)
        return Vector(self._items, None, self._start + start, end - start)

    def _window(self, start: int, end: int) -> Vector:
        return Vector.of(map(self._items.__getitem__, range(start, end)), self.meta)

    def _out_of_range(self, i: int) -> LispError:
        return LispError(f"index {i} is out of range for a vector of {self._count}", type="index")


EMPTY_VECTOR = Vector(())
