"""Errors on their way through the machine.

In: what a leaf, a primitive or the program raised. Out: the error value that `catch` sees. The one
rule: whatever a program can make happen becomes an error of that program, never of the engine.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from flowmetal.errors import FlowmetalError
from flowmetal.lang.frames import Fiber
from flowmetal.lang.persistent import Map
from flowmetal.lang.values import ErrorValue, kw

MAX_TRACE = 20


class Held(BaseException):
    """The flow has failed, and stops where it stands: nothing was unwound."""

    def __init__(self, error: ErrorValue) -> None:
        super().__init__(error.message)
        self.error = error


class StopAt(BaseException):
    """The machine stands at the request that it was asked to stop at."""


class Thrown(Exception):
    """An error value on its way up through the machine."""

    def __init__(self, error: ErrorValue) -> None:
        super().__init__(error.message)
        self.error = error


def error_value(e: BaseException, span: Any = None) -> ErrorValue:
    """The error value of an exception that a leaf raised."""
    if isinstance(e, Thrown):
        return e.error
    if isinstance(e, FlowmetalError):
        data = e.data if isinstance(e.data, Map) else None
        message = f"{e.message}; {e.hint}" if e.hint else e.message
        return ErrorValue(kw(e.type), message, data, None, e.span or span)
    for kinds, type_, text in _OTHERS:
        if isinstance(e, kinds):
            return ErrorValue(kw(type_), text.format(e), None, None, span)
    raise e


_OTHERS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str], ...] = (
    (RecursionError, "limit", "the data nests too deep for this operation"),
    (MemoryError, "limit", "not enough memory for this operation"),
    (OverflowError, "arithmetic", "a number is too large: {}"),
    ((TypeError, AttributeError), "type", "wrong kind of value: {}"),
    ((ValueError, KeyError, IndexError, ArithmeticError), "value", "bad value: {}"),
)
"""Exceptions of Python that a primitive may raise, and what they are to a program. In order: the first that fits."""


def trace(fiber: Fiber) -> tuple[Any, ...]:
    """(function, span) of each frame, innermost first. Of the library only what the program called, without a place; calls
    that repeat are one line, and long traces are folded."""
    called = ((f.arity.code.name or "fn", f.span if f.arity.code.root.prelude is None else None) for f in reversed(fiber.frames))
    frames: list[tuple[str, Any]] = []
    for _, same in groupby(called, key=lambda frame: frame if frame[1] is not None else None):
        *others, (name, span) = same
        frames.append((name if span is None or not others else f"{name} ({len(others) + 1} times)", span))
    half = MAX_TRACE // 2
    return tuple(frames if len(frames) <= MAX_TRACE else [*frames[:half], (f"… {len(frames) - MAX_TRACE} more …", None), *frames[-half:]])
