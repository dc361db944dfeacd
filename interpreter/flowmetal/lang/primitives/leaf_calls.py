"""Calling a leaf as a function value: primitives, keywords, symbols, maps, sets and vectors.

What stands here cannot suspend, so a whole loop over it may run as one transition of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.persistent import Map, Set, Vector
from flowmetal.lang.primitives.registry import Primitive, plural
from flowmetal.lang.sorted import SortedMap, SortedSet
from flowmetal.lang.values import Keyword, Symbol


def is_leaf(f: Any) -> bool:
    """Whether `f` can be called without the machine."""
    return type(f) in _INVOKE or type(f) is Primitive


def leaf_callable(f: Any) -> Callable[..., Any]:
    """A Python callable that applies the leaf `f`; raises LispError (`:type`) for anything else.

    In the loops of the prelude (`registry.leaf_loop`), `f` may be a Python function already.
    """
    if type(f) is FunctionType:
        return f
    if type(f) is Primitive:
        return lambda *args: call_primitive(f, args)
    invoke = _INVOKE.get(type(f))
    if invoke is None:
        raise LispError(f"{type(f).__name__} cannot be called as a function", type="type")
    return lambda *args: invoke(f, args)


def call_leaf(f: Any, *args: Any) -> Any:
    """Applies the leaf `f` to `args`."""
    return leaf_callable(f)(*args)


def call_primitive(f: Primitive, args: tuple[Any, ...] | list[Any]) -> Any:
    """Applies a primitive; a wrong number of arguments is an `:arity` error."""
    if len(args) < f.low or (f.high is not None and len(args) > f.high):
        raise f.arity_error(len(args))
    return f.fn(*args)


def _lookup(coll: Any, key: Any, default: Any) -> Any:
    if isinstance(coll, (Map, Set)):
        return coll.get(key, default)
    if isinstance(coll, Vector) and type(key) is int:
        return coll.nth(key) if 0 <= key < len(coll) else default
    getter = getattr(coll, "lookup", None)
    return default if getter is None else getter(key, default)


def _keyword(f: Any, args: tuple[Any, ...] | list[Any]) -> Any:
    _check(f, args, 1, 2)
    return _lookup(args[0], f, args[1] if len(args) == 2 else None)


def _map(f: Map, args: tuple[Any, ...] | list[Any]) -> Any:
    _check(f, args, 1, 2)
    return f.get(args[0], args[1] if len(args) == 2 else None)


def _set(f: Set, args: tuple[Any, ...] | list[Any]) -> Any:
    _check(f, args, 1, 2)
    return f.get(args[0], args[1] if len(args) == 2 else None)


def _vector(f: Vector, args: tuple[Any, ...] | list[Any]) -> Any:
    _check(f, args, 1, 1)
    if type(args[0]) is not int:
        raise LispError("a vector as a function takes an integer index", type="type")
    return f.nth(args[0])


def called_with(kind: type) -> Callable[[Any], Any]:
    """Registers how a value of `kind` is called: (value, arguments) → result."""

    def register(rule: Callable[[Any, tuple[Any, ...] | list[Any]], Any]) -> Any:
        _INVOKE[kind] = rule
        return rule

    return register


def _check(f: Any, args: tuple[Any, ...] | list[Any], low: int, high: int) -> None:
    if not low <= len(args) <= high:
        wants = str(low) if low == high else f"{low} or {high}"
        raise LispError(f"a {type(f).__name__.lower()} as a function takes {plural(wants)}, but was given {len(args)}", type="arity")


_INVOKE: dict[type, Callable[[Any, tuple[Any, ...] | list[Any]], Any]] = {
    Keyword: _keyword,
    Symbol: _keyword,
    Map: _map,
    SortedMap: _map,
    Set: _set,
    SortedSet: _set,
    Vector: _vector,
}
