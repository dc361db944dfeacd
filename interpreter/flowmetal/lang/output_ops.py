"""What a program prints: into the history, or into the string that `with-out-str` gives.

In: values. Out: marks in the history. Who captures is found on the stack itself: the innermost call of
`capture*` in this fiber, whose atom the text goes to. So capturing survives a restart like any other call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.lang.frames import Fiber
from flowmetal.lang.functions import Atom
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.primitives.checks import LIMIT, too_large
from flowmetal.lang.printer import pr_str, print_str
from flowmetal.lang.requests import Mark

_CAPTURE = "core/capture*"


def say(m: Machine, fiber: Fiber, text: str) -> None:
    """Prints a text for a fiber."""
    for frame in reversed(fiber.frames):
        if frame.arity.code.root.prelude == _CAPTURE:
            atom = next((x for x in frame.locals if isinstance(x, Atom)), None)
            if atom is not None:
                if len(atom.value) + len(text) > LIMIT:
                    raise too_large("with-out-str")
                atom.value += text
                return
    m.outbox.append(Mark("output", fiber.id, text))


def _printer(name: str, show: Callable[[Any], str], end: str, doc: str) -> None:
    @op("core", name, 0, None, "([& values])", doc, f"({name} 1) ;=> nil")
    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        say(m, fiber, " ".join(show(a) for a in args) + end)
        return None


_printer("print", print_str, "", "Prints values for people: strings without quotes.")
_printer("println", print_str, "\n", "Prints values for people, and a newline.")
_printer("pr", pr_str, "", "Prints values so that they read back.")
_printer("prn", pr_str, "\n", "Prints values so that they read back, and a newline.")


@op("core", "newline", 0, 0, "([])", "Prints a newline.", "(newline) ;=> nil")
def _newline(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    say(m, fiber, "\n")
    return None


@op("core", "flush", 0, 0, "([])", "Does nothing: what is printed is shown when it is on disk.", "(flush) ;=> nil")
def _flush(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return None
