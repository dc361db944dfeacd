"""Steps that the engine itself performs: messages, control of other flows, questions about flows.

In: a committed request. Out: its value, or the error that the program gets. The one rule: performed
twice (the outcome of the first time was lost) it does the same once: what it writes has a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowEnded
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Set, Vector
from flowmetal.lang.plain import from_plain
from flowmetal.lang.values import Keyword, kw
from flowmetal.runtime import history, shared_atoms
from flowmetal.runtime.control import WRITES
from flowmetal.runtime.matching import matches
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

OPS = shared_atoms.OPS | frozenset({
    "send", "publish", "subscribe", "topic", "pause", "resume", "cancel", "terminate", "retry", "step", "status", "history", "flows", "state-at",
    "state-diff", "promise-status", "fork", "upgrade", "queue", "schedule", "unschedule", "defsource",
})  # fmt: skip

PAGE = 200
"""Flows that are looked at together, where not all of them fit."""
MANY = 2**31
"""More events than a flow has."""


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
        return await _history(engine, target, args[0] if args and args[0] is not None else EMPTY_MAP)
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

    await engine.deliver(target, make, once=(kinds.MESSAGE_RECEIVED, row_key))


async def _control(engine: Engine, target: str, action: str, args: list[Any], key: str, sender: str) -> None:
    if action in ("cancel", "terminate") and await engine.links.refers(sender, target):
        return  # it belongs to the flow that this one was forked from
    row_key = f"{target}/{key}"
    if await engine.writer.call(engine.store.find, WRITES[action], row_key) is None:
        reason = args[0] if args and isinstance(args[0], str) else None
        await engine.act(target, action, reason, sender, row_key)


async def _flows(engine: Engine, options: Map) -> Any:
    """Flows, page by page, until there are as many as are wanted of those that fit."""
    status, limit, after = _name(options.get(kw("status"))), options.get(kw("limit"), 100), None
    wanted = {name: value for name, value in (("kind", _name(options.get(kw("kind")))), ("parent_id", options.get(kw("parent")))) if value is not None}
    found: list[Any] = []
    while len(found) < limit:
        page = await engine.flows(status, options.get(kw("name")), max(limit, PAGE) if wanted or kw("tags") in options else limit, after)
        rows = [row for row in page["items"] if all(row[name] == value for name, value in wanted.items())]
        found += [row for row in rows if matches(options.get(kw("tags")), from_plain(row["tags"]))]
        after = page["next"]
        if after is None:
            break
    return from_plain(found[:limit])


async def _history(engine: Engine, flow_id: str, options: Map) -> Any:
    """The events of a flow that were asked for; no others are read."""
    kind, of = options.get(kw("kind")), None
    after, limit = (min(options.get(kw(name), default), MANY) for name, default in (("after", 0), ("limit", MANY)))
    if kind is not None:
        names = [_name(each) for each in (kind if isinstance(kind, (Vector, List, Set)) else [kind])]
        of = kinds.ALL.intersection(name for name in names if isinstance(name, str))
    rows = [] if of == frozenset() else await engine.writer.call(engine.store.rows, flow_id, after, limit, of)
    return from_plain([history.event(row) for row in rows])


def _name(x: Any) -> Any:
    return x.name if isinstance(x, Keyword) else x


async def _promise_status(engine: Engine, flow_id: str, promise: Any) -> Keyword:
    rows = await engine.writer.call(engine.store.rows, flow_id, 0, None, history.SETTLING)
    found = history.outcome_of(rows, promise, loader(engine.definitions.registry))
    return kw("open" if found is None else "done" if found[1] is None else "failed")
