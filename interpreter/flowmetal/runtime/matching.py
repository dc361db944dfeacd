"""Data patterns: what `receive` and subscriptions match messages with.

A map matches a map that has its keys with matching values; a set any of its members; a predicate
keyword or a plain value what is equal to it; nil (no pattern) everything.
"""

from __future__ import annotations

from typing import Any

from flowmetal.lang.equality import equal
from flowmetal.lang.persistent import Map, Set


def matches(pattern: Any, value: Any) -> bool:
    """Whether `value` has the shape of `pattern`."""
    if pattern is None:
        return True
    todo = [(pattern, value)]
    while todo:
        p, v = todo.pop()
        if isinstance(p, Map):
            if not isinstance(v, Map):
                return False
            for key, wanted in p.items():
                if key not in v:
                    return False
                todo.append((wanted, v.get(key)))
        elif isinstance(p, Set):
            if v not in p:
                return False
        elif not equal(p, v):
            return False
    return True
