"""A flow's state: fibers, each a list of frames; open promises; what the machine counts.

Everything here is plain data to the codec. The machine changes it in place within a transition;
whoever wants an earlier state takes it from a snapshot or from the log.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from flowmetal.lang.functions import DONE, FAILED, OPEN, Arity, Closure, Promise


class Frame:
    """One call: its code, position, locals ([version, closure, …]), operands and handlers.

    A handler is (position, depth of the operand stack, slot for the error, the fiber's shield where it was set up).
    """

    __slots__ = ("arity", "handlers", "locals", "pc", "stack")

    def __init__(self, arity: Arity, locals_: list[Any]) -> None:
        self.arity = arity
        self.pc = 0
        self.locals = locals_
        self.stack: list[Any] = []
        self.handlers: list[tuple[int, int, int, int]] = []

    @property
    def closure(self) -> Closure:
        """The function that runs here."""
        closure: Closure = self.locals[1]
        return closure

    @property
    def span(self) -> Any:
        """Where the frame stands in its source."""
        spans = self.arity.spans
        return spans[self.pc - 1] if 0 < self.pc <= len(spans) else self.arity.code.span


ENDS_WAIT = {"value": (DONE, FAILED), "select": (DONE, FAILED), "all": (FAILED,), "any": (DONE,), "settled": ()}
"""For each mode of waiting, the outcomes of one promise that end it while others are open."""


class Wait:
    """What a fiber waits for: promises, and how their outcome becomes its value.

    `mode` is `value` (of the one promise), `select` ([key value] of the first settled), `all` (a vector of all values, or
    the first failure), `any` (the first value, or the last failure) or `settled` (nil when all are, whatever their
    outcomes). `owned` promises are withdrawn when the fiber is cancelled; others belong to somebody else.
    """

    __slots__ = ("keys", "left", "mode", "owned", "promises")

    def __init__(self, mode: str, promises: list[Promise], keys: list[Any], owned: bool) -> None:
        self.mode = mode
        self.promises = promises
        self.keys = keys
        self.owned = owned
        self.left = sum(1 for p in promises if p.status == OPEN)
        """How many are open."""

    def over(self) -> tuple[bool, Promise | None]:
        """Whether there is nothing to wait for, and the promise that decided that."""
        for p in self.promises:
            if p.status in ENDS_WAIT[self.mode]:
                return True, p
        return self.left == 0, self.promises[-1] if self.promises else None

    def decided(self, settled: Promise) -> bool:
        """Whether the wait is over, now that one of its promises is settled."""
        self.left -= 1
        return self.left == 0 or settled.status in ENDS_WAIT[self.mode]


RUNNING, CANCEL_ASKED, CANCEL_THROWN = 0, 1, 2


class Fiber:
    """One line of execution in a flow. `cancel` says whether a cancel was asked for or thrown."""

    __slots__ = ("cancel", "error", "frames", "id", "nursery", "promise", "reason", "saga", "shield", "undoing", "value", "wait")

    def __init__(self, id: int, promise: Promise) -> None:
        self.id = id
        self.promise = promise
        self.frames: list[Frame] = []
        self.wait: Wait | None = None
        self.value: Any = None
        """The value to go on with, when it was waiting and is ready."""
        self.error: Any = None
        """The error to go on with, likewise."""
        self.cancel = RUNNING
        self.reason: Any = None
        self.shield = 0
        """How many `finally` it stands in: a cancel waits until it is out of them."""
        self.saga: Any = None
        """The atom with the rollbacks of the innermost saga around it."""
        self.undoing: Any = None
        """Two atoms: what is known of the call that `undoable` makes here, and the mark of its step."""
        self.nursery: Any = None
        """The atom of the innermost nursery around it: the number of the fiber that waits for its children, and their promises."""


class Program:
    """What a flow runs: a program and its arguments, or the text of a cell, form by form."""

    __slots__ = ("args", "body", "file", "index", "name", "ns", "source", "total")

    def __init__(
        self, *, name: str = "", body: Closure | None = None, args: list[Any] | None = None, source: str | None = None, ns: str = "user", file: str = ""
    ) -> None:
        self.name = name
        self.body = body
        self.args = args or []
        self.source = source
        self.ns = ns
        self.file = file
        self.index = 0
        """The number of top-level forms of a cell that have begun."""
        self.total = 0


class State:
    """The whole state of a flow."""

    __slots__ = (
        "cancelled", "ending", "fibers", "flow_id", "kind", "main", "next_define", "next_fiber", "open", "parent", "pin", "program", "ready", "run", "steps",
    )  # fmt: skip

    def __init__(self, flow_id: str, run: str, kind: str, pin: int, program: Program, parent: str | None = None) -> None:
        self.flow_id = flow_id
        self.run = run
        self.kind = kind
        self.pin = pin
        self.program = program
        self.parent = parent
        self.steps = 0
        self.next_fiber = 1
        self.next_define = 0
        self.fibers: dict[int, Fiber] = {}
        self.ready: deque[int] = deque()
        self.open: dict[Any, Promise] = {}
        """Open promises by id: steps, fibers, awaits of other flows."""
        self.main: Promise | None = None
        """The first fiber's promise: the flow's result."""
        self.ending: tuple[Any, Any] | None = None
        """(value, error) of the first fiber, while others are still cleaning up."""
        self.cancelled = False
        """A cell that was cancelled does not wait for its open promises."""

    @property
    def waiting(self) -> bool:
        """Whether no fiber can run."""
        return not self.ready

    @property
    def ended(self) -> bool:
        """Whether no fiber is left."""
        return not self.fibers
