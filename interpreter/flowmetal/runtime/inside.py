"""Steps that the engine itself performs: messages, control of other flows, questions about flows.

In: a committed request. Out: its value, or the error that the program gets. The one rule: performed
twice (the outcome of the first time was lost) it does the same once: what it writes has a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowEnded
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.plain import from_plain
from flowmetal.lang.values import Keyword, kw
from flowmetal.runtime import history, shared_atoms
from flowmetal.runtime.control import WRITES
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

OPS = shared_atoms.OPS | frozenset({
    "send", "publish", "subscribe", "topic", "pause", "resume", "cancel", "terminate", "retry", "step", "status", "history", "flows", "state-at",
    "state-diff", "promise-status", "fork", "upgrade", "queue", "schedule", "unschedule", "defsource",
})  # fmt: skip


async def perform(engine: Engine, sender: str, key: str, draft: Draft) -> Any:
    """The value of one such step. Raises FlowmetalError: StoreError when it is to be tried again, others for the program."""
    op, target, args = draft.facts["op"], draft.facts["target"], list(draft.values["args"])
    if op == "flows":
        return await _flows(engine, args[0] if args and args[0] is not None else EMPTY_MAP)
    if op == "publish":
        return (await engine.topics.publish(target, args[0], key=key, source="flow", by=sender))[0]
    if op == "subscribe":
        return await engine.topics.position(target, args[0].get(kw("from")))
    if op in shared_atoms.OPS:
        return await shared_atoms.perform(engine, op, target, args, key, sender)
    if op == "queue":
        return await engine.queues.declare(target, args[0], key, sender)
    if op == "schedule":
        return await engine.schedules.declare(target, args[0], args[1], args[2], key, sender)
    if op == "unschedule":
        return await engine.schedules.remove(target, key, sender)
    if op == "defsource":
        return await engine.sources.declare(target, args[0], key, sender)
    if op == "topic":
        return await engine.topics.declare(target, args[0], key, sender)
    target = await engine.resolve(target)
    if op == "send":
        return await _send(engine, target, args[0], key, sender)
    if op == "fork":
        return await engine.forks.perform(target, args[0], key, sender)
    if op == "upgrade":
        return await engine.upgrades.perform(target, args[0], key, sender)
    if op in WRITES:
        return await _control(engine, target, op, args, key, sender)
    if op == "status":
        return kw((await engine.flow(target))["status"])
    if op == "history":
        return from_plain(await engine.events(target))
    if op == "state-at":
        options = args[1] if len(args) > 1 and args[1] is not None else EMPTY_MAP
        return from_plain(await engine.state(target, args[0], options.get(kw("transition"))))
    if op == "state-diff":
        return from_plain(await engine.diff(target, args[0], args[1]))
    return await _promise_status(engine, target, args[0])


async def _send(engine: Engine, target: str, message: Any, key: str, sender: str) -> None:
    row_key = f"{target}/{key}"
    if await engine.writer.call(engine.store.find, kinds.MESSAGE_RECEIVED, row_key) is not None:
        return

    def make(process: Process) -> Draft:
        if process.ended:
            raise FlowEnded(f"flow {target} has ended")
        facts = {"message_id": key, "from": sender, "source": "flow"}
        return Draft(kinds.MESSAGE_RECEIVED, None, None, facts, {"message": message}, key=row_key)

    await engine.deliver(target, make)


async def _control(engine: Engine, target: str, action: str, args: list[Any], key: str, sender: str) -> None:
    if action in ("cancel", "terminate") and await engine.links.refers(sender, target):
        return  # it belongs to the flow that this one was forked from
    row_key = f"{target}/{key}"
    if await engine.writer.call(engine.store.find, WRITES[action], row_key) is None:
        reason = args[0] if args and isinstance(args[0], str) else None
        await engine.act(target, action, reason, sender, row_key)


async def _flows(engine: Engine, options: Map) -> Any:
    status, limit = options.get(kw("status")), options.get(kw("limit"), 100)
    name = status.name if isinstance(status, Keyword) else status
    return from_plain((await engine.flows(name, options.get(kw("name")), limit))["items"])


async def _promise_status(engine: Engine, flow_id: str, promise: Any) -> Keyword:
    rows = await engine.writer.call(engine.store.rows, flow_id, 0, None, history.SETTLING)
    found = history.outcome_of(rows, promise, loader(engine.definitions.registry))
    return kw("open" if found is None else "done" if found[1] is None else "failed")
