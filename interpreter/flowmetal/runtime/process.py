"""One flow in memory: its machine, and the book of its rows.

`Process` is pure: arrivals go in as drafts in the order of the log, drafts of what the flow asked
for come out. The same code runs a flow live and rebuilds it from its rows: then what it asks for
is compared with what is recorded, and only what is new comes out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang import codec
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.frames import Program, State
from flowmetal.lang.functions import FlowHandle, FlowProgram
from flowmetal.lang.library import load_root
from flowmetal.lang.machine import Machine
from flowmetal.lang.origin import ForkPoint, Origin
from flowmetal.lang.persistent import Map, Vector
from flowmetal.lang.printer import pr_str
from flowmetal.lang.requests import Action, Define, Ended, Mark, Request, Withdraw
from flowmetal.lang.session import Cell
from flowmetal.lang.thrown import Held, error_value
from flowmetal.lang.values import Duration, kw
from flowmetal.runtime import marks, stepping
from flowmetal.runtime.book import BEGIN, Book
from flowmetal.runtime.rows import Draft, request_hash
from flowmetal.store import kinds

ARGUMENTS_LIMIT = 200
"""Characters of arguments in a message."""
Supply = Callable[["Process", Request], Any]


class Process(Book):
    """A flow that is being run, or rebuilt."""

    __slots__ = (
        "defines_recorded", "definitions", "flow_id", "hold", "last_taken", "machine", "marks_recorded", "output", "state", "steps_recorded", "supply",
    )  # fmt: skip

    def __init__(self, definitions: Definitions, flow_id: str, supply: Supply) -> None:
        super().__init__()
        self.definitions = definitions
        self.flow_id = flow_id
        self.supply = supply
        self.state: State
        self.machine: Machine
        self.output = 0
        """Bytes that the machine has printed."""
        self.steps_recorded: dict[int, Draft] = {}
        """Steps of the log that re-execution has not come to yet."""
        self.marks_recorded = marks.Recorded()
        self.defines_recorded: set[int] = set()
        self.hold = False
        """Whether it is stopped where it fails, whatever was said at its start: to look at it there."""
        self.last_taken = 0
        """The row of the last arrival that the machine has taken."""

    # From the log

    def begin(self, started: Draft, version: int | None = None) -> None:
        """Makes the state of a flow from its first row; `version` is that of the definitions to which it was upgraded."""
        facts = started.facts
        args = list(started.values.get("args") or ())
        program = Program(name=facts["name"], args=args, source=facts.get("source"), ns=facts.get("ns", "user"), file=facts.get("file", ""))
        pin = facts["definitions"] if version is None else version
        state = State(self.flow_id, facts["run"], facts["kind"], pin, program, facts.get("parent") or facts.get("original_parent"))
        state.steps, state.next_fiber = facts.get("steps", 0), facts.get("fibers", 1)
        self.attach(state)
        try:
            if program.source is None:
                program.body = find_program(self.definitions, facts["name"], pin).body
        except LispError as e:
            self.machine.begin()
            next(iter(self.state.fibers.values())).error = error_value(e)
        else:
            self.machine.begin()
            if "timeout" in self.terms:
                self.machine.spawn_library("flow", "expire-after*", [Duration(self.terms["timeout"])])

    def attach(self, state: State) -> None:
        """Puts a machine around a state."""
        self.state = state
        definitions = self.definitions.line(state.pin)
        cell = Cell(definitions) if state.program.source is not None else None
        self.machine = Machine(definitions, state, self._supplied, cell, self._admit)
        if "forks" in self.terms:
            self.machine.origin = Origin([ForkPoint(**point) for point in self.terms["forks"]], self.terms.get("taken", 0))

    def rebuild(self, drafts: list[Draft], *, anew: bool) -> None:
        """Takes the rows that follow what is here, or with `anew` all rows: the machine begins at the last run among them."""
        begins = max((n for n, draft in enumerate(drafts) if draft.kind == kinds.FLOW_CONTINUED), default=-1)
        for draft in drafts[: begins + 1]:
            self.note(draft)
        self.record(drafts[begins + 1 :])
        if (anew or begins >= 0) and not self.ended:
            self.begin(drafts[max(begins, 0)], upgraded_to(drafts[begins + 1 :]))

    def rewind(self, drafts: list[Draft]) -> None:
        """Begins anew from these rows; what else the log holds has its numbers and its time."""
        seq, at = self.seq, self.at
        self.release()
        self.__init__(self.definitions, self.flow_id, self.supply)  # type: ignore[misc]
        self.rebuild(drafts, anew=True)
        self.seq, self.at = seq, max(at, self.at)

    def taken(self, draft: Draft) -> None:
        """The machine has taken an arrival."""
        super().taken(draft)
        self.last_taken = draft.seq

    def release(self) -> None:
        """Gives up the machine: it and the process hold each other, and both would stay until the next collection of garbage."""
        with contextlib.suppress(AttributeError):  # one that was never begun has none
            del self.machine

    def record(self, drafts: list[Draft]) -> None:
        """Rows to rebuild from: what the program will ask for again, then as the book takes them."""
        for draft in drafts:
            if draft.kind in kinds.ASKING and draft.step != BEGIN:
                assert draft.step is not None
                self.steps_recorded[draft.step] = draft
            elif draft.kind == kinds.DEFINED:
                self.defines_recorded.add(draft.facts["number"])
            elif draft.kind == kinds.FLOW_UPGRADED:
                self.marks_recorded = marks.Recorded(draft.facts["marks"])
            else:
                self.marks_recorded.count(draft)
            self.note(draft)

    @property
    def rebuilding(self) -> bool:
        """Whether there are steps in the log that the machine has not come to again."""
        return bool(self.steps_recorded)

    # Running

    @property
    def runnable(self) -> bool:
        """Whether there is something to compute."""
        if self.ended or self.paused or not self.begun:
            return False
        return bool(self.state.ready) or bool(self.pending)

    def run(self, fuel: int) -> tuple[list[Draft], list[Define]]:
        """Computes for at most `fuel` transitions: rows to write, and definitions to be made."""
        machine = self.machine
        machine.outbox = []
        while fuel > 0 and self.runnable:
            if not self.state.ready:
                self._take(self.pending.pop(0))
            machine.hold = (self.hold or self.terms.get("on_failure") == "pause") and not self.let_fail
            try:
                left = machine.run(1 if self.stepping else fuel)
            except Held as held:
                drafts, defines = self._drafts(machine.outbox)
                return [*drafts, marks.held(held.error, self.state.steps, self.newest_taken)], defines
            fuel = fuel - 1 if self.stepping else min(left, fuel - 1)
            if any(isinstance(a, (Define, Ended)) for a in machine.outbox):
                break
            if self.stepping and (over := stepping.is_over(self)) is not None:
                drafts, defines = self._drafts(machine.outbox)
                return [*drafts, stepping.paused(over, self.newest_taken)], defines
        return self._drafts(machine.outbox)

    def transition(self) -> bool:
        """One transition of the machine, and no more; false when there is nothing to compute. What it asks for is not looked at."""
        while self.runnable:
            if not self.state.ready:
                self._take(self.pending.pop(0))
            elif self.machine.run(1) == 0:
                return True
        return False

    @property
    def newest_taken(self) -> int:
        """The last arrival that was taken, as far as the rows tell before it is executed again."""
        return max(self.old, self.last_taken)

    def _take(self, draft: Draft) -> None:
        """Gives an arrival to the machine."""
        kind, f = draft.kind, draft.facts
        if kind == kinds.CANCEL_REQUESTED:
            self.machine.cancel(f.get("reason"))
            self.taken(draft)
        elif kind == kinds.FLOW_FORKED:
            self.machine.origin.taken = self.terms["taken"] = self.machine.origin.taken + 1
        elif kind == kinds.DEFINED and draft.error is None:
            self.machine.defined(f["number"], f["version"], f["ns"], f["name"])
        else:
            key: Any = draft.step
            if kind == kinds.AWAIT_SETTLED:
                key = (f["flow"], f["promise"])
            elif kind == kinds.DEFINED:
                key = f"d{f['number']}"
            if self.machine.settle(key, draft.values.get("result"), draft.error):
                self.taken(draft)

    def _admit(self, request: Request) -> None:
        """A request whose arguments cannot be stored is refused in the program, at the call."""
        request.digest = request_hash(request.op, request.target, Vector.of(request.args), self.flow_id)
        if len(request.options):
            codec.encode_value(request.options, self.flow_id, 0)

    def _supplied(self, request: Request) -> Any:
        recorded = self.steps_recorded.get(request.step)
        if recorded is None or recorded.facts.get("op") != request.op:
            return self.supply(self, request)
        if request.op == "callback":
            secret = recorded.values["secret"]
            return secret.nth(0), secret.nth(1)
        if request.op in ("start", "call"):
            return recorded.facts["child"]
        return recorded.values.get("result")

    # What the machine asked for, as rows

    def _drafts(self, outbox: list[Action]) -> tuple[list[Draft], list[Define]]:
        drafts: list[Draft] = []
        defines: list[Define] = []
        asked: set[int] = set()
        for action in outbox:
            if isinstance(action, Request):
                draft = self._request(action)
                if draft is not None:
                    asked.add(action.step)
                    drafts.append(draft)
            elif isinstance(action, Withdraw) and not action.child:
                withdrawal = self.withdrawal(action.step, action.reason)
                if withdrawal is None and action.step in asked:
                    withdrawal = Draft(kinds.EFFECT_CANCELLED, action.step, None, {"reason": action.reason})
                drafts += [withdrawal] if withdrawal is not None else []
            elif isinstance(action, Define):
                defines += [action] if action.number not in self.defines_recorded else []
            else:
                drafts += [d for d in self._marks(action) if self.marks_recorded.is_new(d)]
        return marks.merge_output(drafts), defines

    def _marks(self, action: Action) -> list[Draft]:
        if isinstance(action, Mark) and action.kind == "output":
            rows, self.output = marks.printed(action.data, action.fiber, self.output)
            return rows
        return [marks.mark(action, self.state, self.cancel_asked)]

    def _request(self, r: Request) -> Draft | None:
        """The row of a request; None where it is in the log already."""
        recorded = self.steps_recorded.pop(r.step, None)
        if recorded is not None:
            self._compare(recorded, r)
            return None
        facts: dict[str, Any] = {"op": r.op, "target": r.target, "hash": r.digest, **marks.place(r.span), "function": r.function}
        draft = Draft(kinds.VALUE_RECORDED if r.instant else kinds.EFFECT_REQUESTED, r.step, r.fiber, facts, {"args": Vector.of(r.args)})
        if len(r.options):
            draft.values["options"] = r.options
        if r.child is not None:
            facts.update({"child": r.child, "definitions": r.pin})
            if r.options.get(kw("with-parent")):
                facts["with_parent"] = True
        if r.op == "callback":
            draft.key = r.key
            draft.values["secret"] = Vector.of(list(r.supplied))
        elif r.instant:
            draft.values["result"] = FlowHandle(r.child, r.target) if r.op == "start" and r.child else r.supplied
        return draft

    def _compare(self, recorded: Draft, r: Request) -> None:
        f = recorded.facts
        if f.get("hash") != r.digest or f.get("op") != r.op:
            raise mismatch(self.flow_id, recorded, asks(recorded, r))


def asks(recorded: Draft, r: Request) -> str:
    """What a program asks for now, and where; and how, where nothing but the arguments differs from what is recorded."""
    now = f"now asks for {f'{r.op} {r.target}'.strip()} at {r.span}"
    if (recorded.facts.get("op"), recorded.facts.get("target")) != (r.op, r.target):
        return now
    was, are = (pr_str(args)[:ARGUMENTS_LIMIT] for args in (recorded.values["args"], Vector.of(r.args)))
    return f"{now}: the arguments were {was}, and are {are}"


def mismatch(flow_id: str, recorded: Draft, but: str) -> LispError:
    """The error of a flow that does not do again what its log says: it names both places."""
    f = recorded.facts
    was = f"{f.get('op')} {f.get('target', '')}".strip()
    place = f"line {f.get('line')}" if f.get("source") is None else f"{f['source']}:{f.get('line')}:{f.get('column')}"
    data = Map.of([(kw("flow"), flow_id), (kw("step"), recorded.step)])
    return LispError(f"step {recorded.step} of {flow_id} is recorded as {was} at {place}, but {but}", type="replay/mismatch", data=data)


def upgraded_to(drafts: Sequence[Draft]) -> int | None:
    """The version of the definitions to which a run with these rows was upgraded last."""
    return next((draft.facts["version"] for draft in reversed(drafts) if draft.kind == kinds.FLOW_UPGRADED), None)


def loader(definitions: Definitions) -> codec.CodeLoader:
    """Compiles the roots of stored code."""
    return lambda root: load_root(definitions.line(root.pin), root)


def find_program(definitions: Definitions, name: str, version: int) -> FlowProgram:
    """The program that `defflow` defined under `name` or `ns/name`; raises LispError where there is none."""
    ns, _, bare = name.rpartition("/")
    binding = definitions.line(version).lookup(ns or "user", bare, version)
    if binding is None or not isinstance(binding.value, FlowProgram):
        raise LispError(f"there is no flow {name} in version {version} of the definitions", type="value")
    return binding.value
