"""Three ways to evaluate a form: straight, with its state stored at every transition, with fuel of 1.

What goes in: definitions and a form. What comes out: its value, or the error that it ends with. The one
rule: the three must agree, whatever the form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.errors import FlowmetalError, LispError
from flowmetal.lang import evaluate
from flowmetal.lang.codec import decode, encode_state
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.frames import Program, State
from flowmetal.lang.functions import Closure, Root
from flowmetal.lang.library import load_root
from flowmetal.lang.machine import Machine
from flowmetal.lang.printer import pr_str
from flowmetal.lang.requests import Define, Ended, Mark, Request
from flowmetal.lang.session import Session, read_forms

FUEL = 5_000_000


def no_supply(request: Request) -> Any:
    """Time and chance have no place in a table."""
    raise LispError(f"{request.op} is not for tables", type="test/unanswered")


class Way:
    """Runs closures in its own way. `slice` is the fuel of one turn; `store` says whether the state is stored after it."""

    def __init__(self, name: str, slice_: int, *, store: bool = False) -> None:
        self.name = name
        self.slice = slice_
        self.store = store

    def run(self, definitions: Definitions, closure: Closure, pin: int, on_define: Callable[[Define], int]) -> Any:
        """The value of a closure of no arguments; raises LispError."""
        machine = Machine(definitions, State("", "", "load", pin, Program(body=closure)), no_supply)
        machine.begin()
        left = FUEL
        while left > 0:
            left -= max(self.slice - machine.run(self.slice), 1)
            actions, machine.outbox = machine.outbox, []
            for action in actions:
                if isinstance(action, Ended):
                    if action.error is not None:
                        raise evaluate.raised(action.error)
                    return action.value
                if isinstance(action, Define):
                    machine.defined(action.number, on_define(action), action.ns, action.name)
                else:
                    assert isinstance(action, (Mark, Request)), action
            if self.store:
                state = decode(encode_state(machine.state), lambda root: _loaded(definitions, root))
                machine = Machine(definitions, state, no_supply)
        raise LispError("evaluation took too many steps", type="limit")


def _loaded(definitions: Definitions, root: Root) -> Root:
    return load_root(definitions, root)


STRAIGHT = Way("straight", 100_000)
FUEL_OF_ONE = Way("fuel of one", 1)
STORED = Way("stored at every transition", 1, store=True)


class Table(Session):
    """A session that evaluates in one of the ways and gives what `flowmetal eval --each` would print."""

    def __init__(self, way: Way, definitions: Definitions | None = None) -> None:
        super().__init__(definitions)
        self.way = way

    def line(self, text: str) -> str:
        """The printed value, or `!! :type line:column message`."""
        try:
            value = None
            for form, source, span in read_forms(self.definitions, text, "case", self.ns, self.definitions.version):
                root = Root(self.ns, self.definitions.version, span.source.name, span.line, span.column, source)
                closure = evaluate.compile_form(self.definitions, root, form)
                value = self.way.run(self.definitions, closure, root.pin, self._define)
            return pr_str(value)
        except FlowmetalError as e:
            place = f"{e.span.line}:{e.span.column}" if e.span is not None else "0:0"
            hint = f"; {e.hint}" if e.hint else ""
            return f"!! :{e.type} {place} {e.message}{hint}".replace("\n", "\\n")
