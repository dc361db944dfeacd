"""The forms of a cell's text, one by one, and whatever making one of them may raise.

What goes in: a machine that is given its forms. What is promised: what was done before stays done, and what a text
brings about, if it is no error of the language at all, is the error with which the cell ends; never an exception of the machine.
"""

from __future__ import annotations

from typing import Any

import pytest
from ways import no_supply

from flowmetal.lang.frames import Program, State
from flowmetal.lang.functions import Closure
from flowmetal.lang.library import library
from flowmetal.lang.machine import Machine
from flowmetal.lang.printer import pr_str
from flowmetal.lang.requests import Define, Ended
from flowmetal.lang.session import Cell

RAISED = [
    (RecursionError("maximum recursion depth exceeded"), ":limit", "the data nests too deep for this operation"),
    (MemoryError(), ":limit", "not enough memory for this operation"),
    (OverflowError("it is"), ":arithmetic", "a number is too large: it is"),
    (AttributeError("no first"), ":type", "wrong kind of value: no first"),
    (KeyError("x"), ":value", "bad value: 'x'"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), ":value", "bad value: 'utf-8' codec can't decode byte 0xff in position 0: no"),
]


@pytest.mark.parametrize(("raised", "type_", "message"), RAISED, ids=[type(raised).__name__ for raised, _, _ in RAISED])
def test_what_a_form_raises_that_is_no_error_of_the_language_ends_its_cell(raised: Exception, type_: str, message: str) -> None:
    definitions = library()
    forms = Cell(definitions)

    def next_form(state: State) -> Closure | None:
        if state.program.index == 1:
            raise raised
        return forms(state)

    state = State("", "", "cell", definitions.version, Program(source="(def a 1) (def b 2)"))
    machine = Machine(definitions, state, no_supply, next_form)
    machine.begin()
    done: list[Any] = []
    while machine.state.ready or machine.outbox:
        machine.run(1000)
        for action in machine.outbox:
            if isinstance(action, Define):
                machine.defined(action.number, definitions.version, action.ns, action.name)
        done += machine.outbox
        machine.outbox = []
    assert [action.name for action in done if isinstance(action, Define)] == ["a"]
    [end] = [action for action in done if isinstance(action, Ended)]
    assert end.error is not None and (pr_str(end.error.type), end.error.message) == (type_, message)
