"""Functions of the core that need the machine: they call functions, wait, or write into the history.

Each takes (machine, fiber, args) and gives a value, or PENDING when the value comes later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flowmetal.lang.primitives  # noqa: F401  fills the tables
from flowmetal.errors import LispError
from flowmetal.lang.frames import Fiber
from flowmetal.lang.functions import OPEN, Atom, Closure, Delay, MachineOp, Promise, SharedAtom, leaf_function
from flowmetal.lang.machine import Machine
from flowmetal.lang.persistent import List, Vector
from flowmetal.lang.primitives.checks import shown
from flowmetal.lang.primitives.registry import LOOPS, primitive
from flowmetal.lang.printer import pr_str
from flowmetal.lang.requests import Mark
from flowmetal.lang.thrown import Thrown
from flowmetal.lang.values import ErrorValue, Var

OPS: dict[tuple[str, str], MachineOp] = {}

Op = Callable[[Machine, Fiber, list[Any]], Any]


def op(ns: str, name: str, low: int, high: int | None, arglists: str, doc: str, example: str = "") -> Callable[[Op], Op]:
    """Registers a machine operation as `ns/name`."""

    def register(fn: Op) -> Op:
        OPS[ns, name] = MachineOp(ns, name, fn, low, high, arglists, doc, example)
        return fn

    return register


# Calling


WORTH_COMPILING = 64
"""Elements from which on a leaf is called often enough in one loop to be compiled for the second tier."""


def _loop(ns: str, name: str) -> None:
    loop, at = LOOPS[ns, name]

    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        f = args[at]
        if type(f) is Closure:
            often = any(isinstance(x, (Vector, List)) and len(x) > WORTH_COMPILING for x in args)
            args[at] = leaf_function(f, fiber.frames[-1].locals[0], often)
        return loop.fn(*args)

    OPS[ns, name] = MachineOp(ns, name, run, loop.low, loop.high, loop.arglists, loop.doc)


for _key in LOOPS:
    _loop(*_key)


@op("core", "apply", 2, None, "([f args] [f x & more])", "Calls f with args, the last of which is a collection that is spread.", "(apply + 1 [2 3]) ;=> 6")
def _apply(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    from flowmetal.lang.primitives.sequences import spread

    f, *rest = args
    return m.invoke(fiber, f, [*rest[:-1], *spread(rest[-1])])


@op("core", "throw", 1, 1, "([error])", "Throws an error made by ex-info, or caught before.")
def _throw(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if not isinstance(args[0], ErrorValue):
        raise LispError(
            f"throw needs an error made by ex-info, but was given {shown(args[0])}", type="type", hint='(throw (ex-info "what went wrong" {:key value}))'
        )
    raise Thrown(args[0])


# Delays


@primitive("core", "delay*", "([f])", "A delay of what a function gives.")
def _make_delay(f: Any) -> Delay:
    return Delay(f)


@primitive("core", "delay?", "([x])", "Whether x was made by delay.", "(delay? (delay 1)) ;=> true")
def _is_delay(x: Any) -> bool:
    return isinstance(x, Delay)


@primitive("core", "delay-function*", "([d])", "The function that a delay calls.")
def _delay_function(d: Any) -> Any:
    return d.function


@primitive("core", "set-delay*", "([d value])", "Gives a delay its value.")
def _set_delay(d: Any, value: Any) -> Any:
    d.function, d.value = None, value
    return value


@primitive("core", "realized?", "([x])", "Whether a delay was computed, or a promise is settled, as far as this flow knows.", "(realized? (delay 1)) ;=> false")
def _realized(x: Any) -> bool:
    if isinstance(x, Delay):
        return x.function is None
    if isinstance(x, Promise):
        return x.status != OPEN
    raise LispError(f"realized? needs a delay or a promise, but found {pr_str(x)}", type="type")


# Waiting


@op("core", "deref", 1, 1, "([x])", "What a promise, a flow's handle, an atom or a var holds; waits for it where it must. Also written @x.", "@(atom 1) ;=> 1")
def _deref(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    x = args[0]
    if isinstance(x, Atom):
        return x.value
    if isinstance(x, SharedAtom):
        return m.ask(fiber, "deref", x.id, [x.begins])
    if isinstance(x, Delay):
        return x.value if x.function is None else m.call_library(fiber, "compute-delay*", [x])
    if isinstance(x, Var):
        binding = m.definitions.lookup(x.ns, x.name, m.state.pin)
        return binding.value if binding else None
    if isinstance(x, Promise):
        return m.wait(fiber, "value", [m.own(x)])
    inner = getattr(x, "deref", None)
    if inner is not None:
        return inner()
    raise LispError(f"@ needs a promise, a flow, an atom or a var, but found {pr_str(x)}", type="type")


# The history


def _mark(name: str, kind: str, arglists: str, doc: str) -> None:
    @op("flow", name, 1, 1, arglists, doc)
    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        m.outbox.append(Mark(kind, fiber.id, args[0]))
        return None


_mark("log", "log", "([data])", "Writes data into the flow's history.")
_mark("checkpoint", "checkpoint", "([label])", "Marks a place in the flow's history.")
_mark("set-info!", "info", "([data])", "What the flow says of itself: the column info of its row.")
