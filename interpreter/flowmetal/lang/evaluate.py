"""Evaluation that may not wait: macros, definitions of the prelude, files that are loaded.

In: a root and definitions. Out: values and what was defined. A program that asks for anything of
the outside gets an error that says where it may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.errors import FlowmetalError, LispError, SourceError
from flowmetal.lang import compiler
from flowmetal.lang.definitions import Binding, Definitions
from flowmetal.lang.frames import Program, State
from flowmetal.lang.functions import Closure, Root
from flowmetal.lang.machine import Machine
from flowmetal.lang.requests import Action, Define, Ended, Mark, Request
from flowmetal.lang.values import ErrorValue

MACRO_FUEL = 20_000_000
"""Transitions that a macro or the top level of a file may take."""

SLICE = 20_000

OnDefine = Callable[[Define], int]


def _no_supply(request: Request) -> Any:
    raise LispError(f"{request.op} cannot be used here: macros and the top level of a file may not wait, nor read time or chance", type="compile/syntax")


def run(
    definitions: Definitions,
    f: Closure,
    args: list[Any],
    pin: int,
    *,
    kind: str,
    on_define: OnDefine | None = None,
    marks: list[Mark] | None = None,
    fuel: int | None = None,
) -> Any:
    """Calls `f` and gives its value; raises LispError for an error, for anything that would wait, and after `fuel` (else `MACRO_FUEL`) transitions."""
    fuel = MACRO_FUEL if fuel is None else fuel
    state = State("", "", kind, pin, Program(body=f, args=args))
    machine = Machine(definitions, state, _no_supply)
    machine.begin()
    while True:
        slice_ = min(SLICE, fuel)
        left = machine.run(slice_)
        fuel -= slice_ - left
        if left == slice_ and not machine.outbox:
            raise LispError("this waits for what never comes: macros and the top level of a file may not wait", type="compile/syntax")
        actions, machine.outbox = machine.outbox, []
        for action in actions:
            if isinstance(action, Ended):
                if action.error is not None:
                    raise raised(action.error)
                return action.value
            _perform(machine, action, on_define, marks)
        if fuel <= 0:
            raise LispError("evaluation took too many steps", type="limit")


def _perform(machine: Machine, action: Action, on_define: OnDefine | None, marks: list[Mark] | None) -> None:
    if isinstance(action, Define) and on_define is not None:
        machine.defined(action.number, on_define(action), action.ns, action.name)
    elif isinstance(action, Mark) and marks is not None:
        marks.append(action)
    elif isinstance(action, Request):
        _no_supply(action)


def raised(error: ErrorValue) -> LispError:
    """The Python exception of an error value."""
    e = LispError(error.message, type=error.type.text.lstrip(":"), span=error.span, data=error.data)
    e.value = error  # type: ignore[attr-defined]
    return e


def compile_form(definitions: Definitions, root: Root, form: Any) -> Closure:
    """Compiles a form, expanding its macros."""
    closure = compiler.compile_form(definitions, root, form, macro_runner(definitions))
    definitions.keep_compiled(root)
    return closure


def compiled(definitions: Definitions, root: Root) -> Root:
    """A root with its codes."""
    return compiler.compile_root(definitions, root, macro_runner(definitions))


def macro_runner(definitions: Definitions) -> Callable[[Closure, list[Any], int], Any]:
    """What the analyzer calls to expand a macro."""
    return lambda macro, args, version: run(definitions, macro, args, version, kind="macro")


def definition(definitions: Definitions, root: Root) -> tuple[Any, dict[str, Any]]:
    """The value and the facts of a root that holds one definition of the prelude."""
    found: list[Define] = []

    def keep(d: Define) -> int:
        found.append(d)
        return 0

    form = compiler.read_root(root, definitions)
    run(definitions, compile_form(definitions, root, form), [], 0, kind="load", on_define=keep)
    return found[-1].value, found[-1].meta


def bind(definitions: Definitions, d: Define, version: int) -> None:
    """Adds a definition to the registry."""
    if d.kind == "declare" and definitions.lookup(d.ns, d.name, version) is not None:
        return
    definitions.define(d.ns, d.name, Binding(d.value, version=version, kind=d.kind, macro=d.kind == "defmacro", meta=d.meta))


def guard(error: FlowmetalError) -> SourceError | LispError:
    """An error of a load as one of the two kinds that callers tell apart."""
    return error if isinstance(error, (SourceError, LispError)) else LispError(error.message, type=error.type, span=error.span)
