"""`doc`, `source` and `apropos`: what the definitions say of themselves, printed or as data."""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang import describe
from flowmetal.lang.frames import Fiber
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.output_ops import say
from flowmetal.lang.persistent import Vector
from flowmetal.lang.printer import pr_str
from flowmetal.lang.values import Regex, Symbol, split_name


def _namespace(m: Machine, fiber: Fiber) -> str:
    """The namespace that the innermost code of the user stands in."""
    for frame in reversed(fiber.frames):
        if frame.arity.code.root.prelude is None:
            return str(frame.arity.code.root.ns)
    return m.state.program.ns


def _described(m: Machine, fiber: Fiber, name: Any) -> describe.Description | None:
    return describe.describe(m.definitions, str(name), _namespace(m, fiber), m.state.pin)


@op("core", "print-doc*", 1, 1, "([name])", "Prints what is known of a name.")
def _print_doc(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    found = _described(m, fiber, args[0])
    say(m, fiber, found.text() if found is not None else describe.unknown(str(args[0])))
    return None


@op("core", "print-source*", 1, 1, "([name])", "Prints the source of a definition.")
def _print_source(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    found = _described(m, fiber, args[0])
    text = describe.unknown(str(args[0])) if found is None else f"{found.source or f';; the source of {found.full_name} is not kept'}\n"
    say(m, fiber, text)
    return None


@op(
    "core",
    "apropos",
    1,
    1,
    "([text-or-regex])",
    "The names that contain a text, and then those whose documentation does.",
    '(first (apropos "reverse")) ;=> reverse',
)
def _apropos(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    text = args[0]
    if isinstance(text, Regex):
        return Vector.of([Symbol(*split_name(name)) for name in describe.matching(m.definitions, text.compiled, _namespace(m, fiber), m.state.pin)])
    if not isinstance(text, (str, Symbol)) or not str(text):
        raise LispError(f"apropos needs some text to look for, but found {pr_str(text)}", type="type")
    found = describe.apropos(m.definitions, str(text), _namespace(m, fiber), m.state.pin)
    return Vector.of([Symbol(*split_name(name)) for name in found])
