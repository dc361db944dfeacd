"""Errors on their way through the machine.

In: what a leaf, a primitive or the program raised. Out: the error value that `catch` sees. The one
rule: whatever a program can make happen becomes an error of that program, never of the engine.
"""

from __future__ import annotations

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
    frames: list[tuple[str, Any]] = []
    times: list[int] = []
    for f in reversed(fiber.frames):
        frame = (f.arity.code.name or "fn", f.span if f.arity.code.root.prelude is None else None)
        if frames and frame[1] is None and frames[-1][1] is None:
            frames[-1] = frame
        elif frames and frame == frames[-1]:
            times[-1] += 1
        else:
            frames.append(frame)
            times.append(1)
    frames = [(name if n == 1 else f"{name} ({n} times)", span) for (name, span), n in zip(frames, times, strict=True)]
    half = MAX_TRACE // 2
    return tuple(frames if len(frames) <= MAX_TRACE else [*frames[:half], (f"… {len(frames) - MAX_TRACE} more …", None), *frames[-half:]])
