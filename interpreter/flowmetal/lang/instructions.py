"""The rarer instructions: a table from operation to rule. The frequent ones stand in the machine's inner loop.

In: a machine, its running fiber and frame, and an instruction. Out: the frame after it, and True where the machine
has to leave it, since it ended or waits; or `Thrown`, where an error goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowmetal.lang import compiler as c
from flowmetal.lang.frames import CANCEL_THROWN, Fiber, Frame
from flowmetal.lang.functions import CANCELLED, CONTINUED
from flowmetal.lang.leaves import BUILDERS
from flowmetal.lang.thrown import Thrown
from flowmetal.lang.values import ErrorValue, kw

if TYPE_CHECKING:
    from flowmetal.lang.machine import Machine

DEFAULT = kw("default")


def _jump(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.pc = ins[1]


def _jump_unless(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    t = frame.stack.pop()
    if t is None or t is False:
        frame.pc = ins[1]


def _set(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.locals[ins[1]] = frame.stack.pop()


def _exec(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    ins[1](frame.locals)


def _pop(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.stack.pop()


def _recur(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> bool:
    slots = ins[2]
    values = frame.stack[len(frame.stack) - len(slots) :]
    del frame.stack[len(frame.stack) - len(slots) :]
    return m.go_round(fiber, frame, ins[1], slots, values)


def _recur_leaves(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> bool:
    return m.go_round(fiber, frame, ins[1], ins[2], [leaf(frame.locals) for leaf in ins[3]])


def _build(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    count = ins[2]
    items = frame.stack[len(frame.stack) - count :]
    del frame.stack[len(frame.stack) - count :]
    frame.stack.append(BUILDERS[ins[1]](items))


def _try(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.locals[ins[2]] = None
    frame.handlers.append((ins[1], len(frame.stack), ins[2], fiber.shield))


def _end_try(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.handlers.pop()


def _catch(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    _, error_slot, wanted, slot, otherwise = ins
    error: ErrorValue = frame.locals[error_slot]
    if error.type is wanted or (wanted is DEFAULT and error.type is not CONTINUED and not _is_cancel(fiber, error)):
        frame.locals[slot] = error
        frame.locals[error_slot] = None
    else:
        frame.pc = otherwise


def is_caught(fiber: Fiber, error: ErrorValue) -> bool:
    """Whether some `catch` around a fiber takes an error. A saga throws it again after its rollbacks, so that it does not count."""
    for frame in fiber.frames:
        code = frame.arity.code
        if code.root.prelude is not None and code.name in ("saga*", "undoable*"):
            continue
        for pc, *_ in frame.handlers:
            ins = frame.arity.instructions[pc]
            while ins[0] == c.CATCH:
                if ins[2] is error.type or ins[2] is DEFAULT:
                    return True
                ins = frame.arity.instructions[ins[4]]
    return False


def _is_cancel(fiber: Fiber, error: Any) -> bool:
    """Whether an error is the cancel of this very fiber: only that passes through `catch`. What a cancelled fiber or step
    gives to others is an error like any other."""
    return isinstance(error, ErrorValue) and error.type is CANCELLED and fiber.cancel == CANCEL_THROWN


def _rethrow(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    raise Thrown(frame.locals[ins[1]])


def _end_catch(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    error = frame.locals[ins[1]]
    if _is_cancel(fiber, error):
        raise Thrown(error)


def _finally(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    fiber.shield += 1


def _end_finally(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    fiber.shield -= 1
    error = frame.locals[ins[1]]
    if error is not None:
        raise Thrown(error)


def _def(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> bool:
    _, ns, name, kind, facts = ins
    m.define(fiber, ns, name, kind, facts.meta, frame.stack.pop())
    return True


def _patch(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.locals[ins[1]].captures[:] = ins[2](frame.locals).captures


RULES: dict[int, Callable[[Machine, Fiber, Frame, tuple[Any, ...]], bool | None]] = {
    c.JUMP: _jump, c.JUMP_UNLESS: _jump_unless, c.SET: _set, c.EXEC: _exec, c.POP: _pop, c.RECUR: _recur, c.RECUR_LEAVES: _recur_leaves, c.BUILD: _build,
    c.TRY: _try, c.END_TRY: _end_try, c.CATCH: _catch, c.RETHROW: _rethrow, c.END_CATCH: _end_catch, c.FINALLY: _finally, c.END_FINALLY: _end_finally,
    c.DEF: _def, c.PATCH: _patch,
}  # fmt: skip
