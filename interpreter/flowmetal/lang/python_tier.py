"""The second tier: pure code as Python functions, abandoned for the machine where that is not enough.

In: an analyzed function. Out: a Python function that does the same, or None. The one rule: nothing
that a Python function of this tier did can be observed. So it may be abandoned at any point (it met
an effect, an error, too deep a recursion, or it ran too long), and the machine then runs the same
call from its beginning, with frames, spans and fuel. Only time is lost.

A loop that stands last in its function is a function of its own, from its slots to the function's
result: the machine enters it in the middle of a run (`enter_loop`), and leaves it with the slots as
they are when its turn is over. The idea is that of the deoptimising compilers (Hölzle, Chambers and
Ungar, "Debugging optimized code with dynamic deoptimization", 1992), without their bookkeeping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.lang import nodes as n
from flowmetal.lang.functions import Arity, Closure
from flowmetal.lang.persistent import seq_of
from flowmetal.lang.pure_calls import TURN, Abandon, TurnOver, turn
from flowmetal.lang.python_writer import Loop, Refused, Writer, may_be_pure

CALLS_BEFORE = 30
"""Calls of a function, or rounds of its loop, before it is compiled for this tier."""
STRIKES = 12
"""How often a function is abandoned before this tier leaves it to the machine for good."""


class Tier:
    """What this tier knows of one arity."""

    __slots__ = ("calls", "function", "loops", "node", "strikes")

    def __init__(self, node: n.Node) -> None:
        self.node: n.Node | None = node
        """The body, until it is compiled."""
        self.calls = 0
        self.strikes = 0
        self.function: Callable[..., Any] | None = None
        self.loops: dict[int, Loop] = {}
        """Loops that stand last, by the position of their start: their slots and their function."""

    def ready(self, arity: Arity) -> Callable[..., Any] | None:
        """The Python function, once the arity was called often enough to be worth one."""
        if self.node is not None:
            self.calls += 1
            if self.calls > CALLS_BEFORE:
                self.compile(arity)
        return self.function

    def compiled(self, arity: Arity) -> Callable[..., Any] | None:
        """The Python function, made now; None where there can be none."""
        if self.node is not None:
            self.compile(arity)
        return self.function

    def loop(self, arity: Arity, at: int) -> Loop | None:
        """The loop that starts at a position, once it went round often enough."""
        if self.node is not None:
            self.ready(arity)
        return self.loops.get(at)

    def compile(self, arity: Arity) -> None:
        """Makes the Python functions now; where the code is not pure, there are none."""
        node, self.node = self.node, None
        assert node is not None
        try:
            self.function, self.loops = Writer(arity).write(node)
        except (Refused, SyntaxError, RecursionError):
            self.function = None

    def strike(self) -> None:
        """It was abandoned; too often, and it is not tried again."""
        self.strikes += 1
        if self.strikes > STRIKES:
            self.function = None
            self.loops = {}


def tier_of(node: n.Node) -> Tier | None:
    """A tier for a body that could be pure; None where that can be seen to be false."""
    return Tier(node) if may_be_pure(node) else None


def enter(tier: Tier, arity: Arity, version: int, f: Closure, args: list[Any]) -> Any:
    """Calls a function of this tier from the machine; raises Abandon where the machine has to run it."""
    assert tier.function is not None
    if arity.variadic:
        rest = args[arity.params :]
        args = [*args[: arity.params], seq_of(tuple(rest)) if rest else None]
    try:
        value = tier.function(version, f, *args)
    except Exception as e:
        tier.strike()
        raise Abandon from e
    if tier.strikes:
        tier.strikes -= 1
    return value


def enter_loop(tier: Tier, loop: Loop, L: list[Any]) -> Any:
    """Goes on with a loop from a frame's locals. Raises TurnOver, with the locals moved on, or Abandon."""
    slots, function = loop
    try:
        return function(L[0], L[1], L)
    except TurnOver as e:
        turn.left = 0
        for slot, value in zip(slots, e.slots, strict=True):
            L[slot] = value
        raise
    except Exception as e:
        tier.strike()
        raise Abandon from e


__all__ = ["TURN", "Abandon", "Tier", "enter", "enter_loop", "tier_of", "turn"]
