"""One flow in memory: its machine, and what its rows say that the machine does not know.

`Process` is pure: arrivals go in as drafts in the order of the log, drafts of what the flow asked
for come out. The same code runs a flow live and rebuilds it from its rows: then what it asks for
is compared with what is recorded, and only what is new comes out.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowmetal.errors import FlowmetalError, LispError
from flowmetal.lang import codec
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.evaluate import raised
from flowmetal.lang.frames import Program, State
from flowmetal.lang.functions import CANCELLED, FlowHandle, Promise
from flowmetal.lang.library import engine_version, load_root
from flowmetal.lang.machine import Machine
from flowmetal.lang.persistent import Map, Vector
from flowmetal.lang.printer import pr_str
from flowmetal.lang.requests import Action, CellResult, Define, Ended, FiberEnded, Mark, Request, Subscribe, Withdraw
from flowmetal.lang.session import Cell
from flowmetal.lang.spans import Span
from flowmetal.lang.values import ErrorValue, kw
from flowmetal.runtime.matching import matches
from flowmetal.runtime.rows import Draft, request_hash
from flowmetal.store import kinds

ARRIVALS = frozenset({
    kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED, kinds.AWAIT_SETTLED, kinds.CANCEL_REQUESTED, kinds.DEFINED,
})  # fmt: skip
"""Kinds that the machine takes, one by one, when all of its fibers wait."""
OUTCOMES = frozenset({kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED, kinds.EFFECT_CANCELLED})
UNNUMBERED = frozenset({
    kinds.OUTPUT, kinds.LOG, kinds.CHECKPOINT, kinds.INFO, kinds.AWAIT, kinds.PROMISE_SETTLED, kinds.CELL_RESULT,
}) | kinds.ENDING  # fmt: skip
PRINTED_LIMIT = 100_000
SNAPSHOT_FORMAT = f"1-{codec.FORMAT}-{engine_version()}"

Supply = Callable[["Process", Request], Any]


@dataclass(slots=True)
class OpenStep:
    """A step without an outcome: what was asked for."""

    op: str
    target: str
    at: int
    due_at: str | None = None
    child: str | None = None
    key: str | None = None


class Process:
    """A flow that is being run, or rebuilt."""

    def __init__(self, definitions: Definitions, flow_id: str, supply: Supply) -> None:
        self.definitions = definitions
        self.flow_id = flow_id
        self.supply = supply
        self.state: State
        self.machine: Machine
        self.seq = 0
        """The last row that this process knows of."""
        self.at = 0
        """The time of the newest row: the flow's own time never goes back."""
        self.status = "running"
        self.paused = False
        self.ended = False
        self.began = False
        self.open: dict[int, OpenStep] = {}
        self.receives: dict[int, Any] = {}
        self.mailbox: dict[str, Any] = {}
        self.pending: deque[Draft] = deque()
        """Arrivals that are in the log and not yet taken."""
        self.steps_recorded: dict[int, Draft] = {}
        self.marks_recorded: Counter[str] = Counter()
        self.defines_recorded: set[int] = set()
        self.parent_call: tuple[str, int] | None = None
        """The flow that called this one, and its step."""
        self.cancel_asked = False
        self.rows_since_snapshot = 0
        self.snapshot_size = 0

    # From the log

    def begin(self, started: Draft) -> None:
        """Makes the state of a flow from its first row."""
        facts = started.facts
        values = started.values
        program = Program(
            name=facts["name"], args=list(values.get("args") or ()), source=facts.get("source"), ns=facts.get("ns", "user"), file=facts.get("file", "")
        )
        pin = facts["definitions"]
        self.state = State(self.flow_id, facts["run"], facts["kind"], pin, program, facts.get("parent"))
        call = facts.get("parent_step")
        self.parent_call = (facts["parent"], call) if call is not None else None
        if program.source is None:
            program.body = self._body(facts["name"], pin)
        self._attach()
        self.machine.begin()
        self.began = True

    def _body(self, name: str, pin: int) -> Any:
        program = find_program(self.definitions, name, pin)
        if program is None:
            raise LispError(f"there is no flow {name} in definitions version {pin}", type="value")
        return program.body

    def _attach(self) -> None:
        cell = Cell(self.definitions) if self.state.program.source is not None else None
        self.machine = Machine(self.definitions, self.state, lambda request: self._supplied(request), cell, self._admit)

    def note(self, draft: Draft) -> None:
        """Takes one row of the log, in order: what it says of the flow's steps, mailbox and status."""
        self.seq = draft.seq or self.seq
        self.at = max(self.at, draft.at)
        self.rows_since_snapshot += 1
        kind = draft.kind
        if kind in kinds.STATUS:
            self.status = kinds.STATUS[kind]
            self.paused = kind == kinds.FLOW_PAUSED
            self.ended = kind in kinds.ENDING
        if kind == kinds.EFFECT_REQUESTED and draft.step is not None:
            self._open(draft.step, draft)
        elif kind in OUTCOMES and draft.step is not None:
            self.open.pop(draft.step, None)
            self.receives.pop(draft.step, None)
            self.mailbox.pop(draft.facts.get("message_id", ""), None)
        elif kind == kinds.MESSAGE_RECEIVED:
            self.mailbox[draft.facts["message_id"]] = draft.values["message"]
        elif kind == kinds.CANCEL_REQUESTED:
            self.cancel_asked = True
            self.paused = False
        if kind in ARRIVALS:
            self.pending.append(draft)

    def _open(self, step: int, draft: Draft) -> None:
        f = draft.facts
        self.open[step] = OpenStep(f["op"], f.get("target", ""), draft.at, f.get("due_at"), f.get("child"), draft.key)
        if f["op"] == "receive":
            args = draft.values["args"]
            self.receives[step] = args.nth(0) if len(args) else None

    def record(self, drafts: list[Draft]) -> None:
        """Rows to rebuild from: steps by number, others by their count, then as `note` takes them."""
        for draft in drafts:
            if draft.kind in (kinds.EFFECT_REQUESTED, kinds.VALUE_RECORDED) and draft.step is not None:
                self.steps_recorded[draft.step] = draft
            elif draft.kind == kinds.DEFINED:
                self.defines_recorded.add(draft.facts["number"])
            elif draft.kind in UNNUMBERED:
                self.marks_recorded[draft.kind] += len(draft.facts["text"]) if draft.kind == kinds.OUTPUT else 1
            self.note(draft)

    # Running

    @property
    def runnable(self) -> bool:
        """Whether there is something to compute."""
        if self.ended or self.paused or not self.began:
            return False
        return bool(self.state.ready) or bool(self.pending)

    def run(self, fuel: int) -> tuple[list[Draft], list[Action]]:
        """Computes for at most `fuel` transitions: rows to write, and what to do that is no row."""
        self.machine.outbox = []
        while fuel > 0 and self.runnable:
            if not self.state.ready:
                self._take(self.pending.popleft())
            before = fuel
            fuel = self.machine.run(fuel)
            if before == fuel:
                fuel -= 1
            if any(isinstance(a, (Define, Ended)) for a in self.machine.outbox):
                break
        self.machine.end_if_idle()
        return self._drafts(self.machine.outbox)

    def _take(self, draft: Draft) -> None:
        """Gives an arrival to the machine."""
        kind = draft.kind
        if kind == kinds.CANCEL_REQUESTED:
            self.machine.cancel(draft.facts.get("reason"))
        elif kind == kinds.DEFINED:
            f = draft.facts
            if draft.error is not None:
                self.machine.settle(f"d{f['number']}", None, draft.error)
            else:
                self.machine.defined(f["number"], f["version"], f["ns"], f["name"])
        else:
            key: Any = draft.step
            if kind == kinds.AWAIT_SETTLED:
                promise = draft.facts["promise"]
                key = (draft.facts["flow"], promise)
            self.machine.settle(key, draft.values.get("result"), draft.error)

    def _admit(self, request: Request) -> None:
        """A request whose arguments cannot be stored is refused in the program, at the call."""
        request.digest = request_hash(request.op, request.target, Vector.of(request.args), self.flow_id)

    def _supplied(self, request: Request) -> Any:
        recorded = self.steps_recorded.get(request.step)
        if recorded is None:
            return self.supply(self, request)
        if request.op == "callback":
            secret = recorded.values["secret"]
            return secret.nth(0), secret.nth(1)
        if request.op in ("start", "call"):
            return recorded.facts["child"]
        return recorded.values.get("result")

    # What the machine asked for, as rows

    def _drafts(self, outbox: list[Action]) -> tuple[list[Draft], list[Action]]:
        drafts: list[Draft] = []
        others: list[Action] = []
        for action in outbox:
            if isinstance(action, Request):
                self._request(action, drafts)
            elif isinstance(action, Withdraw) and not action.child:
                if action.step in self.open or action.step in {d.step for d in drafts}:
                    drafts.append(Draft(kinds.EFFECT_CANCELLED, action.step, None, {"reason": action.reason}))
            elif isinstance(action, Define):
                if action.number not in self.defines_recorded:
                    others.append(action)
            elif isinstance(action, Withdraw):
                others.append(action)
            else:
                draft = self._mark(action)
                if self._is_new(draft):
                    drafts.append(draft)
        return _merge_output(drafts), others

    def _is_new(self, draft: Draft) -> bool:
        """Whether a mark is not in the log yet. Prints are merged into rows, so they are counted by characters."""
        recorded = self.marks_recorded[draft.kind]
        if recorded == 0:
            return True
        size = len(draft.facts["text"]) if draft.kind == kinds.OUTPUT else 1
        self.marks_recorded[draft.kind] = max(0, recorded - size)
        if recorded >= size:
            return False
        draft.facts["text"] = draft.facts["text"][recorded:]
        return True

    def _request(self, r: Request, drafts: list[Draft]) -> None:
        args = Vector.of(r.args)
        digest = r.digest
        recorded = self.steps_recorded.pop(r.step, None)
        if recorded is not None:
            self._compare(recorded, r, digest)
            return
        facts: dict[str, Any] = {"op": r.op, "target": r.target, "hash": digest, **_place(r.span), "function": r.function}
        draft = Draft(kinds.VALUE_RECORDED if r.instant else kinds.EFFECT_REQUESTED, r.step, r.fiber, facts, {"args": args})
        if len(r.options):
            draft.values["options"] = r.options
        if r.child is not None:
            facts["child"] = r.child
        if r.op == "callback":
            draft.key = r.key
            draft.values["secret"] = Vector.of(list(r.supplied))
        elif r.instant:
            draft.values["result"] = FlowHandle(r.child, r.target) if r.op == "start" and r.child else r.supplied
        drafts.append(draft)

    def _compare(self, recorded: Draft, r: Request, digest: str) -> None:
        if recorded.facts.get("hash") != digest or recorded.facts.get("op") != r.op:
            was = f"{recorded.facts.get('op')} {recorded.facts.get('target', '')}".strip()
            raise LispError(
                f"step {r.step} of {self.flow_id} is recorded as {was} at line {recorded.facts.get('line')}, "
                f"but now asks for {r.op} {r.target} at {r.span}",
                type="replay/mismatch",
            )

    def _mark(self, action: Action) -> Draft:
        if isinstance(action, Mark):
            return _mark_draft(action)
        if isinstance(action, Subscribe):
            return Draft(kinds.AWAIT, None, action.fiber, {"flow": action.flow, "promise": action.promise})
        if isinstance(action, FiberEnded):
            return Draft(kinds.PROMISE_SETTLED, None, action.fiber, {"promise": action.promise}, _outcome(action.value, action.error))
        if isinstance(action, CellResult):
            return self._ending(kinds.CELL_RESULT, action.value, action.error)
        assert isinstance(action, Ended)
        kind = kinds.FLOW_COMPLETED
        if action.error is not None:
            kind = kinds.FLOW_CANCELLED if action.error.type is CANCELLED and self.cancel_asked else kinds.FLOW_FAILED
        return self._ending(kind, action.value, action.error)

    def _ending(self, kind: str, value: Any, error: ErrorValue | None) -> Draft:
        draft = Draft(kind, None, None, {}, _outcome(value, error))
        if error is not None:
            draft.facts["rendered"] = render(error)
            draft.facts["stack"] = [{"function": str(name), **_place(span)} for name, span in error.trace]
        elif self.state.kind == "cell":
            draft.facts["printed"] = pr_str(value)[:PRINTED_LIMIT]
            draft.facts["handle"] = value.flow if isinstance(value, FlowHandle) else None
        if self.state.kind == "cell":
            draft.facts["ns"] = self.state.program.ns
        return draft

    # Mailbox

    def match(self) -> list[Draft]:
        """Outcomes for receives that a message in the mailbox answers: messages in order of arrival, receivers of asking."""
        out: list[Draft] = []
        taken: set[int] = set()
        for message_id, message in list(self.mailbox.items()):
            for step, options in self.receives.items():
                if step not in taken and matches(options.get(kw("match")) if isinstance(options, Map) else None, message):
                    taken.add(step)
                    del self.mailbox[message_id]
                    out.append(Draft(kinds.EFFECT_COMPLETED, step, None, {"message_id": message_id}, {"result": message}))
                    break
        for step in taken:
            self.receives.pop(step)
        return out

    # Snapshots

    def snapshot(self) -> bytes | None:
        """The whole process as bytes; None while arrivals wait to be taken or an older part is still being rebuilt."""
        if self.pending or self.state.ready or self.steps_recorded:
            return None
        book = {
            "seq": self.seq, "at": self.at, "status": self.status, "paused": self.paused, "cancel": self.cancel_asked,
            "parent_call": self.parent_call,
            "open": {s: [o.op, o.target, o.at, o.due_at, o.child, o.key] for s, o in self.open.items()},
            "receives": {s: codec.encode_value(r, self.flow_id, self.state.pin) for s, r in self.receives.items()},
            "mailbox": {m: codec.encode_value(v, self.flow_id, self.state.pin) for m, v in self.mailbox.items()},
        }  # fmt: skip
        return json.dumps([book, codec.encode_state(self.state)], separators=(",", ":")).encode()

    def restore(self, body: bytes) -> None:
        """Takes a snapshot; raises FlowmetalError when it is damaged."""
        book, state = json.loads(body)
        load = loader(self.definitions)
        self.state = codec.decode(state, load)
        self.seq, self.at, self.status, self.paused, self.cancel_asked = (book[k] for k in ("seq", "at", "status", "paused", "cancel"))
        self.parent_call = tuple(book["parent_call"]) if book["parent_call"] else None
        self.open = {int(s): OpenStep(*o) for s, o in book["open"].items()}
        self.receives = {int(s): codec.decode(r, load) for s, r in book["receives"].items()}
        self.mailbox = {m: codec.decode(v, load) for m, v in book["mailbox"].items()}
        self.snapshot_size = len(body)
        self._attach()
        self.began = True

    def renew(self) -> None:
        """Makes the state anew from its encoding, as a restart would; for simulations."""
        self.state = codec.decode(codec.encode_state(self.state), loader(self.definitions))
        outbox = self.machine.outbox
        self._attach()
        self.machine.outbox = outbox

    def waiting_for(self) -> list[dict[str, Any]]:
        """What the flow waits for, as data."""
        return [{"step": s, "op": o.op, "target": o.target, "due_at": o.due_at} for s, o in self.open.items()]


def loader(definitions: Definitions) -> codec.CodeLoader:
    """Compiles the roots of stored code."""
    return lambda root: load_root(definitions, root)


def find_program(definitions: Definitions, name: str, version: int) -> Any:
    """The program that `defflow` defined under `name` or `ns/name`, or None."""
    from flowmetal.lang.functions import FlowProgram

    ns, _, bare = name.rpartition("/")
    binding = definitions.lookup(ns or "user", bare, version)
    return binding.value if binding is not None and isinstance(binding.value, FlowProgram) else None


def _place(span: Span | None) -> dict[str, Any]:
    if span is None:
        return {"line": None, "column": None, "source": None}
    return {"line": span.line, "column": span.column, "source": span.source.name}


def _outcome(value: Any, error: ErrorValue | None) -> dict[str, Any]:
    return {"result": value} if error is None else {"error": error}


def _mark_draft(mark: Mark) -> Draft:
    if mark.kind == "output":
        return Draft(kinds.OUTPUT, None, mark.fiber, {"text": mark.data})
    if mark.kind == "checkpoint":
        return Draft(kinds.CHECKPOINT, None, mark.fiber, {"label": pr_str(mark.data) if not isinstance(mark.data, str) else mark.data})
    return Draft(mark.kind, None, mark.fiber, {}, {"data": mark.data})


def _merge_output(drafts: list[Draft]) -> list[Draft]:
    """Adjacent prints of one slice are one row."""
    out: list[Draft] = []
    for draft in drafts:
        if draft.kind == kinds.OUTPUT and out and out[-1].kind == kinds.OUTPUT and out[-1].fiber == draft.fiber:
            out[-1].facts["text"] += draft.facts["text"]
        else:
            out.append(draft)
    return out


def render(error: ErrorValue) -> str:
    """An error for a person: message, place with a caret, the Lisp stack."""
    e = raised(error)
    text = FlowmetalError(e.message, type=e.type, span=_with_text(error.span)).render()
    frames = [f"  in {name} at {span}" for name, span in error.trace if span is not None]
    return "\n".join([text, *frames]) if len(frames) > 1 else text


def _with_text(span: Span | None) -> Span | None:
    return span


__all__ = ["ARRIVALS", "SNAPSHOT_FORMAT", "OpenStep", "Process", "Promise", "Supply", "find_program", "loader", "render"]
