"""Sagas need three things of the machine: which saga a fiber stands in, the key of its next step, an error with more data."""

from __future__ import annotations

from typing import Any

from flowmetal.lang.frames import Fiber
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.persistent import EMPTY_MAP, Vector
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.values import ErrorValue


@op("flow", "current-saga*", 0, 0, "([])", "The atom with the rollbacks of the saga that this fiber stands in, or nil. Fibers begun in a saga stand in it.")
def _current_saga(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return fiber.saga


@op("flow", "set-saga*", 1, 1, "([rollbacks])", "Says which saga this fiber stands in.")
def _set_saga(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    fiber.saga = args[0]
    return None


@op("flow", "next-key*", 0, 0, "([])", "The idempotency key of the next step of this flow.")
def _next_key(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.key(m.state.steps + 1)


@op("flow", "next-step*", 0, 0, "([])", "The mark of the next step of this flow: whoever makes it undoes it.")
def _next_step(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return Vector.of([m.state.steps + 1, 0])


@op("flow", "this-moment*", 0, 0, "([])", "The mark of this moment, between two steps of this flow.")
def _this_moment(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.origin.mark(m.state.steps)


@op("flow", "owns?*", 1, 1, "([mark])", "Whether what was registered at a mark is this flow's to undo: in a fork, what the original did is not.")
def _owns(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.origin.owns(args[0], m.state.steps)


@op("flow", "set-undoing*", 1, 1, "([atoms])", "Says which atoms hold the key, the step, and with a :timeout the awaited step of the call made here.")
def _set_undoing(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    m.check_cancel(fiber)  # before the call is registered: one that is not made is not undone
    before, fiber.undoing = fiber.undoing, args[0]
    return before


@primitive("flow", "with-error-data*", "([error key value])", "An error with one entry more in its data.")
def _with_error_data(error: Any, key: Any, value: Any) -> Any:
    data = (error.data if error.data is not None else EMPTY_MAP).assoc(key, value)
    return ErrorValue(error.type, error.message, data, error.cause, error.span, error.trace)
