"""What happens after a commit: requests go out, their outcomes come back as arrivals.

In: the rows of a turn that is on disk. Out: calls of connectors, timers, children, answers to other
flows. All of it can be made again from the log: `recovery` does so when an engine opens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowmetalError
from flowmetal.lang.functions import CANCELLED
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.plain import to_plain
from flowmetal.lang.thrown import error_value
from flowmetal.lang.values import Duration, ErrorValue, Instant, kw
from flowmetal.runtime import inside, topics
from flowmetal.runtime.book import BEGIN
from flowmetal.runtime.connector import Call, Completed, Connector, Desk, Failed, performed
from flowmetal.runtime.control import Make, beginning, control, if_open
from flowmetal.runtime.process import Process
from flowmetal.runtime.promises import leaving, outcome_draft
from flowmetal.runtime.queues import asked_queue, begins_later, call_options, queue_name, shortened
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds

if TYPE_CHECKING:
    from flowmetal.runtime.actor import Turn
    from flowmetal.runtime.engine import Engine

WAITING_OPS = frozenset({"timer", "sleep", "callback", "receive", "call", "begin"})
"""Steps that are settled by time, by the outside or by other flows: nothing is sent for them."""
LEAVING = frozenset({"send", "ask", "reply", "publish", "swap!", "swap-vals!"})
"""Steps whose arguments go to other flows."""
LATEST = Instant.parse("9999-12-31T23:59:59Z").micros
"""The last time that something can be due."""


@dataclass(slots=True)
class Sending:
    """A step that is being performed, until its outcome is on disk."""

    task: asyncio.Task[Any]
    withdrawn: bool = False


class Dispatcher:
    """Sends what flows ask for, and brings the outcomes in."""

    def __init__(self, engine: Engine, connectors: Sequence[Connector]) -> None:
        self.engine = engine
        self.connectors = {op: c for c in connectors for op in c.ops}
        desks: list[Desk] = [engine.foreign, engine.topics, engine.asking, engine.queues]
        self.desks = {op: desk for desk in desks for op in desk.ops if op not in self.connectors}
        self.calls: dict[tuple[str, int], Sending] = {}

    def connector(self, op: str) -> Connector | None:
        """Who performs an operation: `http/get` and its like are all `http/request`."""
        return self.connectors.get(op) or self.connectors.get(f"{op.split('/')[0]}/request")

    def is_busy(self, op: str) -> bool:
        """Whether this engine is at work on steps of this kind, rather than waiting."""
        return op in inside.OPS or (op not in WAITING_OPS and self.connector(op) is not None)

    async def close(self) -> None:
        """Closes the connectors."""
        for connector in {id(c): c for c in self.connectors.values()}.values():
            await connector.close()

    # After a commit

    def after(self, process: Process, turn: Turn) -> None:
        """Does what the rows of a turn ask for."""
        for draft in turn.drafts:
            rule = _AFTER.get(draft.kind)
            if rule is not None:
                rule(self, process, draft)
        for child in turn.orphans:
            self.end_child(child, "its caller has ended", process.flow_id)

    def _requested(self, process: Process, draft: Draft) -> None:
        if draft.step in process.open:
            if draft.facts["op"] in LEAVING:
                draft = replace(draft, values={**draft.values, "args": leaving(process, draft.values["args"])})
            self.begin(process.flow_id, "" if draft.step == BEGIN else process.state.run, draft)

    def _await(self, process: Process, draft: Draft) -> None:
        self.engine.awaited.subscribe(process.flow_id, draft.facts["flow"], draft.facts["promise"])

    def _settled(self, process: Process, draft: Draft) -> None:
        promise = draft.facts["promise"] if draft.kind == kinds.PROMISE_SETTLED else draft.step
        if draft.step is not None:
            self._leave_desk(process.flow_id, draft.step)
            self.engine.links.settled(process.flow_id, draft.step)
        self._tell(process, promise, draft)

    def _tell(self, process: Process, promise: Any, draft: Draft) -> None:
        if process.flow_id in self.engine.awaited.waiting:
            self.engine.awaited.settled(process.flow_id, promise, *_left(process, draft))

    def _cancelled(self, process: Process, draft: Draft) -> None:
        assert draft.step is not None
        self.withdraw(process.flow_id, draft.step)
        self.engine.links.settled(process.flow_id, draft.step)
        if not process.ended:
            self.engine.awaited.settled(process.flow_id, draft.step, None, ErrorValue(CANCELLED, draft.facts["reason"]))

    def _cancelling(self, process: Process, draft: Draft) -> None:
        assert draft.step is not None
        there = process.open.get(draft.step)
        if there is not None and there.linked:
            self.engine.links.cancelling(process.flow_id, draft.step)
        elif there is not None and there.child is not None:
            self.end_child(there.child, draft.facts["reason"], process.flow_id)
        elif there is not None:
            self.call_off(process.flow_id, draft.step)

    def _not_done(self, process: Process, draft: Draft) -> None:
        self.engine.foreign.told(process.flow_id, draft)

    def _resumed(self, process: Process, draft: Draft) -> None:
        for step, there in process.open.items():
            if there.due_at is not None:
                self.engine.timers.add(Instant.parse(there.due_at).micros, process.flow_id, step)
        self.engine.queues.resumed(process)

    def _paused(self, process: Process, draft: Draft) -> None:
        self.engine.queues.paused(process.flow_id)

    def _result(self, process: Process, draft: Draft) -> None:
        self._tell(process, "result", draft)

    def _ended(self, process: Process, draft: Draft) -> None:
        self._tell(process, "result", draft)
        self.engine.awaited.look_again(process.flow_id)
        self.engine.asking.ended(process.flow_id)
        self.engine.queues.ended(process.flow_id)
        self.engine.topics.wake(topics.ENDINGS)
        if process.parent_call is not None:
            parent, step = process.parent_call
            if self.engine.sharing.owns(parent):  # whose it is learns of the end from the log
                self.engine.put(parent, if_open(step, outcome_draft(step, process.flow_id, *_left(process, draft))))

    def end_child(self, child: str, reason: str, by: str) -> None:
        """Asks a flow that belongs to another to end."""
        self.engine.put(child, control(child, "cancel", reason, by))

    # Performing

    def begin(self, flow_id: str, run: str, draft: Draft, attempts: Sequence[Draft] = ()) -> None:
        """Sends one request that is on disk, unless it only waits. `attempts` are those on record."""
        op, step = draft.facts["op"], draft.step
        assert step is not None
        if not self.engine.sharing.owns(flow_id) or (flow_id, step) in self.calls:
            return
        due = draft.facts.get("due_at")
        desk = self.desks.get(op)
        if "linked" in draft.facts:
            self.engine.links.take(flow_id, step, draft.facts)
            return
        if due is not None:
            self.engine.timers.add(Instant.parse(due).micros, flow_id, step)
        if desk is not None:
            desk.take(flow_id, run, draft, attempts)
        elif due is not None:
            return
        elif op in inside.OPS:
            self._call(flow_id, step, self.engine.spawn(self._inside(flow_id, f"{run}/{step}", step, draft)))
        elif op not in WAITING_OPS and self.connector(op) is not None:
            queue, priority = asked_queue(draft)
            if queue is None:
                self._call(flow_id, step, self.engine.spawn(self._outside(flow_id, run, draft, list(attempts))))
            elif (flow_id, step) not in self.calls:
                limit = due_at(call_options(draft).get(kw("timeout")), draft.at)
                if limit is not None:
                    self.engine.timers.add(limit, flow_id, step)
                self.engine.queues.line_up(queue, (flow_id, step), priority, lambda: self._send_in_turn(flow_id, run, draft, attempts, queue))

    def _send_in_turn(self, flow_id: str, run: str, draft: Draft, attempts: Sequence[Draft], queue: str) -> None:
        """A call has its place in a queue, and keeps it until its outcome is on disk."""
        step = draft.step
        assert step is not None
        self.engine.timers.discard(flow_id, step)
        task = self.engine.spawn(self._outside(flow_id, run, shortened(draft, self.engine.clock.now()), list(attempts)))
        self._call(flow_id, step, task)
        task.add_done_callback(lambda _: self.engine.queues.leave(queue, (flow_id, step)))

    def _call(self, flow_id: str, step: int, task: asyncio.Task[Any]) -> None:
        self.calls[flow_id, step] = sending = Sending(task)
        task.add_done_callback(lambda _: self.calls.get((flow_id, step)) is sending and self.calls.pop((flow_id, step)))

    def has(self, flow_id: str, step: int) -> bool:
        """Whether a call is being sent, or waits for its turn to be."""
        return (flow_id, step) in self.calls or self.engine.queues.has(flow_id, step)

    def withdraw(self, flow_id: str, step: int) -> None:
        """Nobody waits for a step any more: it is not sent again."""
        self._leave_desk(flow_id, step, withdrawn=True)
        sending = self.calls.pop((flow_id, step), None)
        if sending is not None:
            sending.withdrawn = True
            sending.task.cancel()

    def let_go(self, flow_id: str, step: int) -> None:
        """The step is another store's now: who is still at work on it has lost it."""
        self._leave_desk(flow_id, step)
        sending = self.calls.pop((flow_id, step), None)
        if sending is not None:
            sending.task.cancel()

    def call_off(self, flow_id: str, step: int, *, was_sent: bool = False) -> None:
        """A call that is to be undone is wanted no more: it is withdrawn if it was not sent yet, else its outcome is awaited."""
        if (flow_id, step) in self.calls:
            return
        lapsed = self.engine.foreign.call_off(flow_id, step, was_sent)
        if lapsed is None:
            return
        self.engine.queues.drop(flow_id, step, withdrawn=True)
        if lapsed or was_sent:
            error = ErrorValue(kw("effect/interrupted"), "the call was wanted no more, and nobody knows what became of it")
        else:
            error = ErrorValue(CANCELLED, "the call was withdrawn before it was sent")
        self.engine.put(flow_id, if_open(step, Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 0}, {"error": error})))

    def _leave_desk(self, flow_id: str, step: int, *, withdrawn: bool = False) -> None:
        self.engine.timers.discard(flow_id, step)
        self.engine.links.drop(flow_id, step)
        for desk in (self.engine.foreign, self.engine.topics, self.engine.asking, self.engine.queues):
            desk.drop(flow_id, step, withdrawn=withdrawn)

    async def _inside(self, flow_id: str, key: str, step: int, draft: Draft) -> None:
        try:
            value = await self.engine.until_done(lambda: inside.perform(self.engine, flow_id, key, draft))
            done = Draft(kinds.EFFECT_COMPLETED, step, None, {"attempts": 1}, {"result": value})
        except FlowmetalError as e:
            done = Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 1}, {"error": error_value(e)})
        await self._record(flow_id, if_open(step, done))

    async def _outside(self, flow_id: str, run: str, draft: Draft, attempts: list[Draft]) -> None:
        step, connector = draft.step, self.connector(draft.facts["op"])
        assert step is not None and connector is not None
        sending = self.calls[flow_id, step]
        refused = self.engine.allowances.refused(draft)
        if attempts and attempts[-1].kind == kinds.ATTEMPT_STARTED:
            outcome: Completed | Failed = _interrupted(draft, attempts[-1])
        elif refused is not None:
            outcome = refused
        else:
            outcome = await performed(connector, self._described(flow_id, run, draft, attempts))
        facts = {"attempts": outcome.attempts}
        if isinstance(outcome, Completed):
            done = Draft(kinds.EFFECT_COMPLETED, step, None, facts, {"result": outcome.value})
        else:
            done = Draft(kinds.EFFECT_FAILED, step, None, facts, {"error": ErrorValue(kw(outcome.type), outcome.message, outcome.data)})
        await self._record(flow_id, self._outcome(sending, step, done))

    def _outcome(self, sending: Sending, step: int, draft: Draft) -> Make:
        """The row of an outcome from outside. Late for a step that was withdrawn meanwhile, it is recorded, and changes nothing."""

        def make(process: Process) -> Draft | None:
            late, sending.withdrawn = sending.withdrawn, False
            return draft if (step in process.open or late) and not process.ended else None

        return make

    def _described(self, flow_id: str, run: str, draft: Draft, attempts: list[Draft]) -> Call:
        """What a connector is told of a request."""
        step = draft.step
        assert step is not None

        async def attempt_failed(attempt: int, error: Failed, next_at: int) -> None:
            value = ErrorValue(kw(error.type), error.message, error.data)
            facts = {"attempt": attempt, "next_at": Instant(next_at).format()}
            await self._record(flow_id, if_open(step, Draft(kinds.ATTEMPT_FAILED, step, None, facts, {"error": value})))

        async def attempt_started(attempt: int) -> None:
            make, made = beginning(step, {"attempt": attempt})
            await self._record(flow_id, make)
            if not made():  # it has its outcome: this call was begun from what was read before that, and is nobody's
                raise asyncio.CancelledError

        last = attempts[-1] if attempts else None
        return Call(
            draft.facts["op"], draft.facts["target"], tuple(draft.values["args"]), draft.values.get("options") or EMPTY_MAP, flow_id, run, step,
            f"{run}/{step}", attempt=last.facts["attempt"] + 1 if last else 1,
            not_before=Instant.parse(last.facts["next_at"]).micros if last else None,
            elapsed=max(0, self.engine.clock.now() - draft.at) / 1e6, attempt_started=attempt_started, attempt_failed=attempt_failed,
        )  # fmt: skip

    async def _record(self, flow_id: str, make: Make) -> None:
        """Writes down what became of a step that is in `calls`, and returns when it is on disk: until then it is not sent again."""
        await self.engine.until_done(lambda: self.engine.deliver(flow_id, make))

    # Time

    def due(self, draft: Draft) -> int | None:
        """When a step is due by itself, in microseconds since the epoch."""
        op, args = draft.facts["op"], draft.values["args"]
        if op in ("timer", "sleep"):
            when = args.nth(0)
        elif op == "receive" and len(args) and isinstance(args.nth(0), Map):
            when = args.nth(0).get(kw("timeout"))
        elif op in ("foreign", "ask") and op in self.desks and "options" in draft.values:
            when = draft.values["options"].get(kw("timeout"))
            if type(when) in (int, float) and when >= 0:
                when = Duration(int(when * 1e6))
        else:
            return None
        return due_at(when, draft.at)

    def timer_outcome(self, process: Process, step: int) -> Draft | None:
        """The outcome of a step whose time has come."""
        there = process.open.get(step)
        if there is None or process.paused or process.ended:
            return None
        if there.op == "begin":
            self.engine.queues.begin(process.flow_id)
            return None
        if self.engine.queues.waits(process.flow_id, step):
            kind = "http/timeout" if there.op.startswith("http/") else "flow/timeout"
            error = ErrorValue(kw(kind), f"{there.op} {there.target} did not have its turn in its queue in time: it was not sent")
            return Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 0}, {"error": error})
        if there.op in self.desks:
            error = ErrorValue(kw("flow/timeout"), f"{there.target} gave no answer in time")
            return Draft(kinds.EFFECT_FAILED, step, None, {}, {"error": error})
        if there.op != "receive":
            return Draft(kinds.EFFECT_COMPLETED, step, None, {}, {"result": None})
        options = process.receives[step]
        if kw("else") in options:
            return Draft(kinds.EFFECT_COMPLETED, step, None, {}, {"result": options.get(kw("else"))})
        data = Map.of([(kw("timeout"), options.get(kw("timeout")))])
        return Draft(kinds.EFFECT_FAILED, step, None, {}, {"error": ErrorValue(kw("flow/timeout"), "no message came in time", data)})

    # Other flows

    def child(self, process: Process, child: str, request: Draft) -> list[Draft]:
        """The first rows of a flow that another begins."""
        f, options = request.facts, request.values.get("options") or EMPTY_MAP
        call = f["op"] == "call"
        related = process.flow_id if call or f.get("with_parent") else None
        facts = {"parent": related, "parent_step": request.step if call else None, "by": process.flow_id, **terms(options)}
        if related is not None and self.engine.queues.flows.get(process.flow_id) == facts["queue"]:
            facts["queue"] = None  # it shares the place of its parent
        args = leaving(process, request.values["args"])
        started = self.engine.started(f["target"], "child" if call else "flow", args, f["definitions"], **facts)
        started.seq = 1
        return [started, *waits_to_begin(started, options)]


_AFTER = {
    kinds.EFFECT_REQUESTED: Dispatcher._requested, kinds.AWAIT: Dispatcher._await, kinds.EFFECT_COMPLETED: Dispatcher._settled,
    kinds.EFFECT_FAILED: Dispatcher._settled, kinds.PROMISE_SETTLED: Dispatcher._settled, kinds.EFFECT_CANCELLED: Dispatcher._cancelled,
    kinds.EFFECT_CANCELLING: Dispatcher._cancelling, kinds.FLOW_PAUSED: Dispatcher._paused, kinds.FLOW_RESUMED: Dispatcher._resumed,
    kinds.FLOW_RETRIED: Dispatcher._resumed, kinds.FLOW_STEPPED: Dispatcher._resumed,
    kinds.CELL_RESULT: Dispatcher._result, kinds.ATTEMPT_FAILED: Dispatcher._not_done, kinds.LEASE_EXPIRED: Dispatcher._not_done,
    **dict.fromkeys(kinds.ENDING, Dispatcher._ended),
}  # fmt: skip


def terms(options: Map) -> dict[str, Any]:
    """What `start-with` says of a flow as a whole, as facts of its first row."""
    limit, failure = options.get(kw("timeout")), options.get(kw("on-failure"))
    facts: dict[str, Any] = {"tags": to_plain(options.get(kw("tags")))[0], "queue": queue_name(options)}
    if limit is not None:
        facts["timeout"] = limit.micros
    return facts if failure is None else {**facts, "on_failure": failure.name}


def waits_to_begin(started: Draft, options: Map) -> list[Draft]:
    """What a flow that has options of `start-with` waits for before it begins."""
    return begins_later(started, due_at(options.get(kw("at")), started.at), started.facts.get("queue"), options.get(kw("priority"), 0))


def due_at(when: Any, now: int) -> int | None:
    """When a duration from now, or an instant, is."""
    if isinstance(when, Duration):
        return min(LATEST, now + max(0, when.micros))
    return when.micros if isinstance(when, Instant) else None


def _left(process: Process, draft: Draft) -> tuple[Any, ErrorValue | None]:
    """An outcome as other flows see it."""
    error = draft.error
    return (leaving(process, draft.values.get("result")), None) if error is None else (None, leaving(process, error))


def _interrupted(draft: Draft, attempt: Draft) -> Failed:
    message = f"{draft.facts['op']} {draft.facts['target']} was being sent when the engine ended: it may have happened, or may yet"
    return Failed("effect/interrupted", message, None, attempt.facts["attempt"])
