"""The persistent collections under one name, and the functions that go from one kind to another.

What goes in: any collection. What comes out: a seq over it, or a list with one more in front.
The one rule: immutable, O(log n) for an update, O(1) for `first` and `rest`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowmetal.lang.lists import EMPTY_LIST, Chain, Cons, Link, List, Seq, list_of
from flowmetal.lang.maps import EMPTY_MAP, EMPTY_SET, Map, Set
from flowmetal.lang.structure import key_of, unkey
from flowmetal.lang.vectors import EMPTY_VECTOR, Vector


def seq_of(items: Iterable[Any] | None) -> List:
    """A seq over the elements, which shares an array where there is one; without any, `EMPTY_LIST`."""
    if isinstance(items, List):
        return items
    if isinstance(items, Vector):
        return Seq(items._items, items._start, items._count) if items._count else EMPTY_LIST
    fixed: Any = items if isinstance(items, (tuple, list)) else () if items is None else tuple(items)
    return Seq(fixed) if fixed else EMPTY_LIST


def cons(x: Any, coll: Iterable[Any] | None) -> List:
    """`x` before the elements of `coll`, in O(1); before nothing, a list of one."""
    rest = seq_of(coll)
    return Link(x, rest) if rest._count else Cons(x, EMPTY_LIST)


__all__ = [
    "EMPTY_LIST", "EMPTY_MAP", "EMPTY_SET", "EMPTY_VECTOR", "Chain", "Cons", "Link", "List", "Map", "Seq", "Set",
    "Vector", "cons", "key_of", "list_of", "seq_of", "unkey",
]  # fmt: skip
