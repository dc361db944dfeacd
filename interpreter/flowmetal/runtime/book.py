"""What a flow's rows say of it, apart from its machine: what is open, what came, where it stands.

In: the rows of the log, in order, as drafts. Out: questions of the engine answered. The one rule:
nothing here is computed by the program, so it is right before a single step was executed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flowmetal.lang.persistent import Map
from flowmetal.lang.values import kw
from flowmetal.runtime.matching import matches
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds

TAKEN = frozenset({kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED, kinds.AWAIT_SETTLED, kinds.CANCEL_REQUESTED, kinds.DEFINED, kinds.FLOW_FORKED})
"""Kinds that the machine takes, one by one, when all of its fibers wait."""
OUTCOMES = frozenset({kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED, kinds.EFFECT_CANCELLED})
BEGIN = 0
"""The number under which the beginning of a flow that was started for later is open, before its first step."""


@dataclass(slots=True)
class OpenStep:
    """A step without an outcome: what was asked for."""

    op: str
    target: str
    due_at: str | None = None
    child: str | None = None
    """The flow that ends with this step; not one that belongs to the flow that this one was forked from."""
    linked: bool = False
    """It was asked by the flow that this one was forked from, whose outcome is this one's too."""


@dataclass(slots=True)
class Message:
    """A message of the mailbox: its id, its place in the log, and what it says."""

    id: str
    seq: int
    value: Any
    ask: Any = None
    """Who waits for a reply to it: a flow and its step, true for somebody outside; None where it is no question."""


@dataclass(slots=True, eq=False)
class Book:
    """The state of a flow as its rows tell it."""

    seq: int = 0
    """The last row that is known here."""
    at: int = 0
    """The time of the newest row: the flow's own time never goes back."""
    status: str = "running"
    paused: bool = False
    ended: bool = False
    cancel_asked: bool = False
    begun: bool = True
    """False while a flow that was started for later waits for its time."""
    open: dict[int, OpenStep] = field(default_factory=dict)
    receives: dict[int, Any] = field(default_factory=dict)
    """Options of the open receives, in the order in which they were asked."""
    mailbox: dict[str, Message] = field(default_factory=dict)
    delivered: dict[int, Message] = field(default_factory=dict)
    """Messages whose receive has its outcome in the log, while the program has not taken it."""
    asked: dict[str, Message] = field(default_factory=dict)
    """Questions that were received and have no reply yet."""
    awaits: set[tuple[str, Any]] = field(default_factory=set)
    """Promises of other flows that are waited for: (flow, promise)."""
    children: set[str] = field(default_factory=set)
    """Flows that were started to end with this one."""
    pending: list[Draft] = field(default_factory=list)
    """Arrivals that are in the log and not yet taken by the machine."""
    parent_call: tuple[str, int] | None = None
    """The flow that called this one, and its step."""
    failed: bool = False
    """It is paused because it has failed."""
    let_fail: bool = False
    """It has failed, was paused for that, and goes on to its end."""
    terms: dict[str, Any] = field(default_factory=dict)
    """What was said of the whole flow at its start: `timeout` (microseconds), `on_failure`; of a fork, its `forks` and how many are `taken`."""
    stepping: bool = False
    """It goes on for one step, and is paused again."""
    old: int = 0
    """Arrivals up to this row were taken before it was paused last."""
    rows_since_snapshot: int = 0
    snapshot_size: int = 0

    def note(self, draft: Draft) -> None:
        """Takes one row of the log, in order."""
        self.seq = draft.seq or self.seq
        self.at = max(self.at, draft.at)
        self.rows_since_snapshot += 1
        kind = draft.kind
        if kind in kinds.STATUS:
            self.status = kinds.STATUS[kind]
            self.paused = kind == kinds.FLOW_PAUSED
            self.ended = kind in kinds.ENDING
        rule = _RULES.get(kind)
        if rule is not None:
            rule(self, draft)
        if kind in TAKEN:
            self.pending.append(draft)

    def _started(self, draft: Draft) -> None:
        step = draft.facts.get("parent_step")
        self.parent_call = (draft.facts["parent"], step) if step is not None else None

        self.terms = {name: draft.facts[name] for name in ("timeout", "on_failure", "forks") if name in draft.facts}

    def _continued(self, draft: Draft) -> None:
        """A new run: what the old one had not taken is over, but for a cancel. Rows before this one gave back messages that it had not taken."""
        self.pending = [d for d in self.pending if d.kind == kinds.CANCEL_REQUESTED]
        self.delivered.clear()

    def _requested(self, draft: Draft) -> None:
        assert draft.step is not None
        if draft.step == BEGIN:
            self.begun = False
        f = draft.facts
        linked = "linked" in f
        self.open[draft.step] = OpenStep(f["op"], f.get("target", ""), f.get("due_at"), None if linked else f.get("child"), linked)
        if f["op"] == "receive":
            args = draft.values["args"]
            self.receives[draft.step] = args.nth(0) if len(args) else None

    def _recorded(self, draft: Draft) -> None:
        if draft.facts.get("with_parent"):
            self.children.add(draft.facts["child"])

    def _paused(self, draft: Draft) -> None:
        self.failed = bool(draft.facts.get("failed"))
        self.stepping, self.old = False, draft.facts.get("taken", draft.seq)

    def _stepped(self, draft: Draft) -> None:
        self._resumed(draft)
        self.stepping = True

    def _resumed(self, draft: Draft) -> None:
        self.stepping = False
        if self.failed:
            self.let_fail = True

    def _retried(self, draft: Draft) -> None:
        self.failed = self.let_fail = False

    def _outcome(self, draft: Draft) -> None:
        assert draft.step is not None
        self.open.pop(draft.step, None)
        if draft.step == BEGIN:
            self.begun = True
        if draft.step in self.receives:
            del self.receives[draft.step]
            message = self.mailbox.pop(draft.facts.get("message_id", ""), None)
            if message is not None:
                self.delivered[draft.step] = message
                if message.ask is not None:
                    self.asked[message.id] = message
        self.asked.pop(draft.facts.get("reply_to", ""), None)

    def _cancelled(self, draft: Draft) -> None:
        assert draft.step is not None
        self.open.pop(draft.step, None)
        self.receives.pop(draft.step, None)
        message = self.delivered.pop(draft.step, None)
        if message is not None:
            self.mailbox[message.id] = message
            self.asked.pop(message.id, None)

    def _message(self, draft: Draft) -> None:
        message_id = draft.facts["message_id"]
        self.mailbox[message_id] = Message(message_id, draft.seq, draft.values["message"], draft.facts.get("ask"))

    def _await(self, draft: Draft) -> None:
        self.awaits.add((draft.facts["flow"], draft.facts["promise"]))

    def _await_settled(self, draft: Draft) -> None:
        self.awaits.discard((draft.facts["flow"], draft.facts["promise"]))

    def _cancel(self, draft: Draft) -> None:
        self.cancel_asked = True

    def taken(self, draft: Draft) -> None:
        """The machine has taken an arrival: a message is consumed now."""
        if draft.step is not None:
            self.delivered.pop(draft.step, None)

    def match(self) -> list[Draft]:
        """Outcomes for receives that a message in the mailbox answers: messages in order of arrival, receivers of asking."""
        if self.paused or self.ended or not self.receives or not self.mailbox:
            return []
        out: list[Draft] = []
        waiting = dict(self.receives)
        for message in sorted(self.mailbox.values(), key=lambda m: m.seq):
            step = next((s for s, o in waiting.items() if matches(o.get(kw("match")) if isinstance(o, Map) else None, message.value)), None)
            if step is not None:
                del waiting[step]
                out.append(Draft(kinds.EFFECT_COMPLETED, step, None, {"message_id": message.id}, {"result": message.value}))
                if not waiting:
                    break
        return out

    def withdrawal(self, step: int, reason: str) -> Draft | None:
        """The row that withdraws a step: an open one is not sent again, a message that was not taken goes back."""
        message = self.delivered.get(step)
        if message is not None:
            return Draft(kinds.EFFECT_CANCELLED, step, None, {"reason": reason, "message_id": message.id})
        return Draft(kinds.EFFECT_CANCELLED, step, None, {"reason": reason}) if step in self.open else None

    def waiting_for(self) -> list[dict[str, Any]]:
        """What the flow waits for, as data."""
        return [{"step": s, "op": o.op, "target": o.target, "due_at": o.due_at} for s, o in self.open.items()]


_RULES = {
    kinds.FLOW_PAUSED: Book._paused, kinds.FLOW_RESUMED: Book._resumed, kinds.FLOW_RETRIED: Book._retried, kinds.FLOW_STEPPED: Book._stepped,
    kinds.FLOW_STARTED: Book._started, kinds.FLOW_CONTINUED: Book._continued,
    kinds.EFFECT_REQUESTED: Book._requested, kinds.VALUE_RECORDED: Book._recorded,
    kinds.EFFECT_COMPLETED: Book._outcome, kinds.EFFECT_FAILED: Book._outcome, kinds.EFFECT_CANCELLED: Book._cancelled,
    kinds.AWAIT: Book._await, kinds.AWAIT_SETTLED: Book._await_settled, kinds.MESSAGE_RECEIVED: Book._message, kinds.CANCEL_REQUESTED: Book._cancel,
}  # fmt: skip
