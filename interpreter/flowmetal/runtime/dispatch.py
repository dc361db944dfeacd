"""What happens after a commit: requests go out, their outcomes come back as arrivals.

In: the rows of a turn that is on disk. Out: calls of connectors, timers, children, messages to
other flows. All of it can be made again from the log: `recover` does so when an engine opens.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowEnded, FlowmetalError, LispError
from flowmetal.lang.machine import error_value
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.plain import from_plain
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, kw
from flowmetal.runtime import history
from flowmetal.runtime.actor import Item, Make, Turn
from flowmetal.runtime.connector import Call, Completed, Connector, Failed
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, plain_error, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

WAITING_OPS = frozenset({"timer", "sleep", "callback", "receive", "call"})
"""Steps that are settled by time, by the outside or by other flows: nothing is sent for them."""
INTERNAL_OPS = frozenset({"send", "pause", "resume", "cancel", "terminate", "status", "history", "flows", "state-at"})
"""Steps that the engine itself performs."""

Outcome = tuple[Any, ErrorValue | None]


class Dispatcher:
    """Sends what flows ask for, and brings the outcomes in."""

    def __init__(self, engine: Engine, connectors: Sequence[Connector]) -> None:
        self.engine = engine
        self.connectors = {op: c for c in connectors for op in c.ops}
        self.calls: dict[tuple[str, int], asyncio.Task[Any]] = {}
        self.awaiters: dict[tuple[str, Any], set[str]] = {}
        """(flow, promise) → flows that wait for it."""

    def connector(self, op: str) -> Connector | None:
        """Who performs an operation: `http/get` and its like are all `http/request`."""
        return self.connectors.get(op) or self.connectors.get(f"{op.split('/')[0]}/request")

    def is_busy(self, op: str) -> bool:
        """Whether this engine is at work on steps of this kind, rather than waiting."""
        return op in INTERNAL_OPS or (op not in WAITING_OPS and self.connector(op) is not None)

    async def close(self) -> None:
        """Closes the connectors."""
        for connector in {id(c): c for c in self.connectors.values()}.values():
            await connector.close()

    # After a commit

    def after(self, process: Process, turn: Turn) -> None:
        """Does what the rows of a turn ask for."""
        flow_id = process.flow_id
        cancelled = {d.step for d in turn.drafts if d.kind == kinds.EFFECT_CANCELLED}
        for draft in turn.drafts:
            kind = draft.kind
            if kind == kinds.EFFECT_REQUESTED and draft.step not in cancelled and draft.step in process.open:
                self.begin(flow_id, process.state.run, draft)
            elif kind == kinds.AWAIT:
                self.subscribe(flow_id, draft.facts["flow"], draft.facts["promise"])
            elif kind in (kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED) and draft.step is not None:
                self.settled(flow_id, draft.step, draft.values.get("result"), draft.error)
            elif kind == kinds.PROMISE_SETTLED:
                self.settled(flow_id, draft.facts["promise"], draft.values.get("result"), draft.error)
            elif kind == kinds.EFFECT_CANCELLED and draft.step is not None:
                self.withdraw(flow_id, draft.step)
            elif kind == kinds.FLOW_RESUMED:
                self._resume_timers(process)
            elif kind in kinds.ENDING:
                self._ended(process, draft)
        for action in turn.others:
            child = process.open.get(getattr(action, "step", -1))
            if child is not None and child.child is not None:
                self.engine.actor(child.child).put(Item(self.control(child.child, "cancel", "its caller was cancelled", flow_id)))

    def begin(self, flow_id: str, run: str, draft: Draft, failed: list[Draft] | None = None) -> None:
        """Sends one request that is on disk, unless it only waits."""
        op, step = draft.facts["op"], draft.step
        assert step is not None
        due = draft.facts.get("due_at")
        if due is not None:
            self.engine.timers.add(Instant.parse(due).micros, flow_id, step)
        elif op in INTERNAL_OPS:
            self._call(flow_id, step, self._internal(flow_id, run, draft))
        elif op not in WAITING_OPS and self.connector(op) is not None:
            self._call(flow_id, step, self._external(flow_id, run, draft, failed or []))

    def _call(self, flow_id: str, step: int, work: Any) -> None:
        task = self.engine.spawn(work)
        self.calls[flow_id, step] = task
        task.add_done_callback(lambda _: self.calls.pop((flow_id, step), None))

    def withdraw(self, flow_id: str, step: int) -> None:
        """Nobody waits for a step any more: it is not sent again."""
        task = self.calls.pop((flow_id, step), None)
        if task is not None:
            task.cancel()

    # Performing

    async def _external(self, flow_id: str, run: str, draft: Draft, failed: list[Draft]) -> None:
        step = draft.step
        assert step is not None
        op = draft.facts["op"]
        connector = self.connector(op)
        assert connector is not None

        async def attempt_failed(attempt: int, error: Failed, next_at: int) -> None:
            value = ErrorValue(kw(error.type), error.message, error.data)
            facts = {"attempt": attempt, "next_at": Instant(next_at).format()}
            await self._deliver_open(flow_id, step, Draft(kinds.ATTEMPT_FAILED, step, None, facts, {"error": value}))

        async def attempt_started(attempt: int) -> None:
            await self._deliver_open(flow_id, step, Draft(kinds.ATTEMPT_STARTED, step, None, {"attempt": attempt}))

        last = failed[-1] if failed else None
        call = Call(
            op, draft.facts["target"], tuple(draft.values["args"]), draft.values.get("options") or EMPTY_MAP, flow_id, run, step, f"{run}/{step}",
            attempt=last.facts["attempt"] + 1 if last else 1, not_before=Instant.parse(last.facts["next_at"]).micros if last else None,
            attempt_started=attempt_started, attempt_failed=attempt_failed,
        )  # fmt: skip
        try:
            outcome = await connector.perform(call)
        except Exception as e:  # a connector's bug must not lose the flow: it becomes the step's failure
            outcome = Failed("value", f"{op} failed: {type(e).__name__}: {e}")
        facts = {"attempts": outcome.attempts}
        if isinstance(outcome, Completed):
            done = Draft(kinds.EFFECT_COMPLETED, step, None, facts, {"result": outcome.value})
        else:
            done = Draft(kinds.EFFECT_FAILED, step, None, facts, {"error": ErrorValue(kw(outcome.type), outcome.message, outcome.data)})
        self._put_open(flow_id, step, done)

    def _put_open(self, flow_id: str, step: int, draft: Draft) -> None:
        self.engine.actor(flow_id).put(Item(_if_open(step, draft)))

    async def _deliver_open(self, flow_id: str, step: int, draft: Draft) -> None:
        await self.engine.deliver(flow_id, _if_open(step, draft))

    async def _internal(self, flow_id: str, run: str, draft: Draft) -> None:
        step = draft.step
        assert step is not None
        try:
            value = await self._perform(flow_id, f"{run}/{step}", draft)
            done = Draft(kinds.EFFECT_COMPLETED, step, None, {"attempts": 1}, {"result": value})
        except FlowmetalError as e:
            done = Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 1}, {"error": error_value(e)})
        self._put_open(flow_id, step, done)

    async def _perform(self, flow_id: str, key: str, draft: Draft) -> Any:
        engine, op, target = self.engine, draft.facts["op"], draft.facts["target"]
        args = list(draft.values["args"])
        if op == "send":
            return await self._send(target, args[0], key, flow_id)
        if op in ("pause", "resume", "cancel", "terminate"):
            reason = args[0] if args and isinstance(args[0], str) else None
            target = await engine.resolve(target)
            await engine.deliver(target, self.control(target, op, reason, flow_id))
            return None
        if op == "status":
            return kw((await engine.flow(target))["status"])
        if op == "history":
            return from_plain(await engine.events(target))
        if op == "state-at":
            return from_plain(await engine.state(target, args[0]))
        return await self._flows(args[0] if args else EMPTY_MAP)

    async def _flows(self, options: Map) -> Any:
        status, limit = options.get(kw("status")), options.get(kw("limit"), 100)
        name = status.name if isinstance(status, Keyword) else status
        return from_plain((await self.engine.flows(name, options.get(kw("name")), limit))["items"])

    async def _send(self, target: str, message: Any, key: str, sender: str) -> None:
        target = await self.engine.resolve(target)
        found = await self.engine.writer.call(self.engine.store.find, kinds.MESSAGE_RECEIVED, f"{target}/{key}")
        if found is not None:
            return

        def make(process: Process) -> Draft:
            if process.ended:
                raise FlowEnded(f"flow {target} has ended")
            facts = {"message_id": key, "from": sender, "source": "flow"}
            return Draft(kinds.MESSAGE_RECEIVED, None, None, facts, {"message": message}, key=f"{target}/{key}")

        await self.engine.deliver(target, make)

    # Time

    def due(self, draft: Draft) -> int | None:
        """When a step is due by itself, in microseconds since the epoch."""
        op, args = draft.facts["op"], draft.values["args"]
        if op in ("timer", "sleep"):
            when = args.nth(0)
        elif op == "receive" and len(args) and isinstance(args.nth(0), Map):
            when = args.nth(0).get(kw("timeout"))
        else:
            return None
        if isinstance(when, Duration):
            return draft.at + max(0, when.micros)
        return when.micros if isinstance(when, Instant) else None

    def timer_outcome(self, process: Process, step: int) -> Draft | None:
        """The outcome of a step whose time has come."""
        there = process.open.get(step)
        if there is None or process.paused or process.ended:
            return None
        if there.op != "receive":
            return Draft(kinds.EFFECT_COMPLETED, step, None, {}, {"result": None})
        options = process.receives[step]
        if kw("else") in options:
            return Draft(kinds.EFFECT_COMPLETED, step, None, {}, {"result": options.get(kw("else"))})
        error = ErrorValue(kw("flow/timeout"), "no message came in time", Map.of([(kw("timeout"), options.get(kw("timeout")))]))
        return Draft(kinds.EFFECT_FAILED, step, None, {}, {"error": error})

    def _resume_timers(self, process: Process) -> None:
        for step, there in process.open.items():
            if there.due_at is not None:
                self.engine.timers.add(Instant.parse(there.due_at).micros, process.flow_id, step)

    # Other flows

    def child(self, process: Process, child: str, request: Draft) -> Draft:
        """The first row of a flow that another begins."""
        call = request.facts["op"] == "call"
        options = request.values.get("options") or EMPTY_MAP
        related = call or options.get(kw("with-parent"))
        facts = {"parent": process.flow_id if related else None, "parent_step": request.step if call else None, "by": process.flow_id}
        started = self.engine.started(request.facts["target"], "child" if call else "flow", request.values["args"], process.state.pin, **facts)
        tags = options.get(kw("tags"))
        if tags is not None:
            from flowmetal.lang.plain import to_plain

            started.facts["tags"] = to_plain(tags)[0]
        return started

    def subscribe(self, flow_id: str, source: str, promise: Any) -> None:
        """`flow_id` waits for a promise of `source`; where it is settled already, the outcome comes at once."""
        self.awaiters.setdefault((source, promise), set()).add(flow_id)
        self.engine.spawn(self._look(source, promise))

    async def _look(self, source: str, promise: Any) -> None:
        rows = await self.engine.writer.call(self.engine.store.rows, source)
        found = history.outcome_of(rows, promise, loader(self.engine.definitions.registry))
        if found is not None:
            self.settled(source, promise, *found)

    def settled(self, source: str, promise: Any, value: Any, error: ErrorValue | None) -> None:
        """A promise is settled: who waits for it in other flows is told."""
        for flow_id in self.awaiters.pop((source, promise), ()):
            values = {"result": value} if error is None else {"error": foreign_error(source, error)}
            draft = Draft(kinds.AWAIT_SETTLED, None, None, {"flow": source, "promise": promise}, values)
            self.engine.actor(flow_id).put(Item(_unless_ended(draft)))

    def _ended(self, process: Process, draft: Draft) -> None:
        flow_id, error = process.flow_id, draft.error
        value = draft.values.get("result")
        for step in list(process.open):
            self.withdraw(flow_id, step)
            there = process.open[step]
            if there.child is not None and there.op == "call":
                self.engine.actor(there.child).put(Item(self.control(there.child, "cancel", "its caller has ended", flow_id)))
        for source, promise in [k for k in self.awaiters if k[0] == flow_id]:
            if promise != "result":
                self.engine.spawn(self._look(source, promise))
        self.settled(flow_id, "result", value, error)
        if process.parent_call is not None:
            parent, step = process.parent_call
            self._put_open(parent, step, outcome_draft(step, flow_id, value, error))

    def control(self, flow_id: str, action: str, reason: str | None, by: str) -> Make:
        """What pause, resume, cancel and terminate write; raises FlowEnded for a flow that is over."""
        facts = {"reason": reason, "by": by or None}

        def make(process: Process) -> Draft | list[Draft] | None:
            if process.ended:
                raise FlowEnded(f"flow {flow_id} has ended: it is {process.status}")
            if action == "pause":
                return None if process.paused else Draft(kinds.FLOW_PAUSED, None, None, facts)
            resumed = [Draft(kinds.FLOW_RESUMED, None, None, facts)] if process.paused else []
            if action == "resume":
                return resumed
            if action == "cancel":
                return [] if process.cancel_asked else [*resumed, Draft(kinds.CANCEL_REQUESTED, None, None, facts)]
            if action == "terminate":
                error = ErrorValue(kw("flow/terminated"), reason or "the flow was terminated")
                return Draft(kinds.FLOW_CANCELLED, None, None, {**facts, "rendered": error.message, "stack": []}, {"error": error})
            raise LispError(f"unknown control {action}", type="value")

        return make

    # After a restart

    async def recover(self) -> None:
        """Takes up every open request of the store, and every flow that was computing."""
        engine = self.engine
        rows: list[Row] = await engine.writer.call(engine.store.open_requests)
        load = loader(engine.definitions.registry)
        for row in rows:
            data = json.loads(row.data)
            if row.kind == kinds.AWAIT:
                self.subscribe(row.flow_id, data["flow"], data["promise"])
            elif "due_at" in data and row.step is not None:
                engine.timers.add(Instant.parse(data["due_at"]).micros, row.flow_id, row.step)
            elif data["op"] == "call":
                engine.spawn(self._look_at_child(row.flow_id, row.step or 0, data["child"]))
            elif self.is_busy(data["op"]):
                engine.spawn(self._again(row.flow_id, to_draft(row, load)))
        for flow_id in await engine.writer.call(running_flows, engine.store):
            self.take_up(flow_id)

    async def _again(self, flow_id: str, draft: Draft) -> None:
        """Sends a request that was open when the engine ended, under the same key."""
        rows = await self.engine.writer.call(self.engine.store.rows, flow_id)
        run = json.loads(rows[0].data)["run"]
        load = loader(self.engine.definitions.registry)
        failed = [to_draft(r, load) for r in rows if r.kind == kinds.ATTEMPT_FAILED and r.step == draft.step]
        self.begin(flow_id, run, draft, failed)

    async def _look_at_child(self, parent: str, step: int, child: str) -> None:
        rows = await self.engine.writer.call(self.engine.store.rows, child)
        found = history.outcome_of(rows, "result", loader(self.engine.definitions.registry))
        if found is not None:
            self._put_open(parent, step, outcome_draft(step, child, *found))

    def take_up(self, flow_id: str) -> None:
        """Gives a flow a turn, reading it from the store."""
        if not self.engine.closing:
            self.engine.spawn(self._take_up(flow_id))

    async def _take_up(self, flow_id: str) -> None:
        actor = self.engine.actor(flow_id)
        process = await actor.load()
        if not process.ended:
            for step, there in list(process.open.items()):
                if (flow_id, step) not in self.calls and self.is_busy(there.op):
                    rows = await self.engine.writer.call(self.engine.store.rows, flow_id)
                    load = loader(self.engine.definitions.registry)
                    for row in rows:
                        if row.kind == kinds.EFFECT_REQUESTED and row.step == step:
                            await self._again(flow_id, to_draft(row, load))
            actor.poke()


def running_flows(store: Any) -> list[str]:
    """Flows that were computing, or had something sent, when the store was last closed."""
    found: list[str] = []
    after = None
    while True:
        page = store.flow_rows("running", None, 500, after)
        found += [row["flow_id"] for row in page]
        if len(page) < 500:
            return found
        after = page[-1]["flow_id"]


def _if_open(step: int, draft: Draft) -> Make:
    return lambda process: draft if step in process.open and not process.ended else None


def _unless_ended(draft: Draft) -> Make:
    return lambda process: None if process.ended else draft


def foreign_error(flow_id: str, error: ErrorValue) -> ErrorValue:
    """Another flow's error as this one sees it: being cancelled is not catching."""
    if error.type in (kw("flow/cancelled"), kw("flow/terminated")):
        data = Map.of([(kw("flow"), flow_id), (kw("cause"), error.type)])
        return ErrorValue(kw("flow/failed"), f"flow {flow_id} was cancelled: {error.message}", data)
    return ErrorValue(error.type, error.message, error.data, error.cause, error.span)


def outcome_draft(step: int, child: str, value: Any, error: ErrorValue | None) -> Draft:
    """A child's end as the outcome of its caller's step."""
    if error is None:
        return Draft(kinds.EFFECT_COMPLETED, step, None, {"attempts": 1}, {"result": value})
    return Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 1}, {"error": foreign_error(child, error)})


__all__ = ["Dispatcher", "plain_error"]
