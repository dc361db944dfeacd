"""Walks over nested data with a function that is a leaf: as deep as the data goes, without recursion.

What goes in: a leaf and any value. What comes out: the value with the leaf applied to each part. The
one rule: what `walk/walk` does with each kind of collection is done here in the same way.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.lists import Cons, List
from flowmetal.lang.maps import Map, Set
from flowmetal.lang.persistent import list_of, seq_of
from flowmetal.lang.primitives.collections import empty
from flowmetal.lang.primitives.collections import into as into_
from flowmetal.lang.primitives.leaf_calls import leaf_callable
from flowmetal.lang.primitives.registry import leaf_loop
from flowmetal.lang.vectors import Vector

_COLLECTIONS = (Vector, List, Map, Set)
MAX_LEVELS = 150_000
"""How deep a walk may go: a function that wraps each part that it is given would walk for ever."""


def rebuilt(form: Any, parts: list[Any]) -> Any:
    """A collection of the same kind and metadata, with other parts."""
    if isinstance(form, Vector):
        return Vector.of(parts, form.meta)
    if isinstance(form, List):
        made = list_of(parts) if isinstance(form, Cons) else seq_of(tuple(parts))
        return made if form.meta is None else made.with_meta(form.meta)
    return into_(empty(form), Vector.of(parts))


def _walk(form: Any, before: Any, after: Any) -> Any:
    """`before` sees a part on the way down, `after` on the way up."""
    form = before(form)
    if not isinstance(form, _COLLECTIONS):
        return after(form)
    levels: list[tuple[Any, Any, list[Any]]] = [(form, iter(form), [])]
    while True:
        form, parts, done = levels[-1]
        for part in parts:
            part = before(part)
            if isinstance(part, _COLLECTIONS):
                if len(levels) >= MAX_LEVELS:
                    raise LispError(f"the walk goes deeper than {MAX_LEVELS} levels: does the function make ever new parts?", type="limit")
                levels.append((part, iter(part), []))
                break
            done.append(after(part))
        else:
            levels.pop()
            value = after(rebuilt(form, done))
            if not levels:
                return value
            levels[-1][2].append(value)


def _same(x: Any) -> Any:
    return x


@leaf_loop("postwalk*", "([f form])", "walk/postwalk with a leaf.", ns="walk")
def postwalk(f: Any, form: Any) -> Any:
    """`walk/postwalk*`."""
    return _walk(form, _same, leaf_callable(f))


@leaf_loop("prewalk*", "([f form])", "walk/prewalk with a leaf.", ns="walk")
def prewalk(f: Any, form: Any) -> Any:
    """`walk/prewalk*`."""
    return _walk(form, leaf_callable(f), _same)
