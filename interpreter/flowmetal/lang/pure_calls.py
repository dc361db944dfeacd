"""What the Python functions of the second tier call: functions by their values, as the machine would, without it.

In: a definitions version, a function and its arguments. Out: its value, or `Abandon`, where only the machine
can run this: an effect, a function that is not pure, a turn that is over.
"""

from __future__ import annotations

from typing import Any

from flowmetal.lang.functions import Arity, Closure, MachineOp, MultiFn
from flowmetal.lang.leaves import Pinned
from flowmetal.lang.persistent import Map, seq_of
from flowmetal.lang.primitives.leaf_calls import call_leaf, call_primitive, is_leaf
from flowmetal.lang.primitives.registry import LOOPS, Primitive
from flowmetal.lang.primitives.sequences import spread
from flowmetal.lang.values import Keyword

TURN = 50_000
"""Calls and rounds of loops in one slice: about the time of the machine's own slice of fuel."""


class Abandon(Exception):
    """The machine has to run this."""


class TurnOver(Abandon):
    """The turn is over at the start of a loop's round; `slots` hold what it goes on with."""

    def __init__(self, slots: tuple[Any, ...]) -> None:
        super().__init__()
        self.slots = slots


class Turn:
    """What is left of a slice's turn. One thread runs machines at a time; where two do, turns are only shorter."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0


turn = Turn()


def call(version: int, f: Any, *args: Any) -> Any:
    """Calls any function; raises Abandon where only the machine can."""
    if type(f) is Closure:
        arity = f.code.arities.get(len(args))
        if arity is not None:
            tier = arity.tier
            if tier is not None:
                function = tier.function or tier.ready(arity)
                if function is not None:
                    left = turn.left = turn.left - 1
                    if left < 0:
                        raise Abandon
                    return function(version if f.version is None else f.version, f, *args)
            return call_leaf_body(version, f, arity, args)
        return call_variadic(version, f, args)
    if type(f) is Primitive:
        return call_primitive(f, args)
    if is_leaf(f):
        return call_leaf(f, *args)
    if type(f) is MachineOp:
        return call_op(version, f, args)
    if isinstance(f, MultiFn):
        method = f.methods.get(call(version, f.dispatch, *args))
        if method is not None:
            return call(version, method, *args)
    raise Abandon


def call_leaf_body(version: int, f: Closure, arity: Arity, args: tuple[Any, ...]) -> Any:
    """Calls a function whose body is one leaf."""
    if arity.leaf is None:
        raise Abandon
    L = [version if f.version is None else f.version, f, *args]
    L.extend([None] * (arity.size - len(L)))
    return arity.leaf(L)


def call_variadic(version: int, f: Closure, args: tuple[Any, ...]) -> Any:
    """Calls a function with the arity that takes any number of arguments."""
    arity = f.code.variadic
    if arity is None or len(args) < arity.params or arity.tier is None:
        raise Abandon
    function = arity.tier.function or arity.tier.ready(arity)
    if function is None:
        raise Abandon
    turn.left -= 1
    if turn.left < 0:
        raise Abandon
    rest = args[arity.params :]
    return function(version if f.version is None else f.version, f, *args[: arity.params], seq_of(rest) if rest else None)


def call_op(version: int, f: MachineOp, args: tuple[Any, ...]) -> Any:
    """Calls `apply`, or a loop over a function; every other operation is the machine's."""
    if f.ns == "core" and f.name == "apply" and len(args) > 1:
        return call(version, args[0], *args[1:-1], *spread(args[-1]))
    loop = LOOPS.get((f.ns, f.name))
    if loop is None:
        raise Abandon
    primitive, at = loop
    if type(args[at]) is Closure:
        given = args[at]
        args = (*args[:at], lambda *xs: call(version, given, *xs), *args[at + 1 :])
    return call_primitive(primitive, args)


def closure(code: Any, captures: list[Any], version: int) -> Closure:
    """Makes a function value."""
    return Closure(code, captures, version if type(version) is Pinned else None)


def lookup(coll: Any, key: Keyword) -> Any:
    """`(:key coll)`."""
    if type(coll) is Map:
        return coll.get(key, None)
    return call_leaf(key, coll)


def turn_over(slots: tuple[Any, ...]) -> None:
    """Ends a turn at the start of a loop's round."""
    raise TurnOver(slots)
