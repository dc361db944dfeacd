"""Flows that wait for something that cannot arrive, or that nobody seems to bring; and what to do about each.

In: what is open in the store, who asks for work, the queues. Out: findings, as data. The one rule: a flow is named only
where nothing that is open for it can bring it on, so a timer, a callback, or a call that somebody is at work on clears it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowmetal.lang.values import Instant
from flowmetal.runtime import inside
from flowmetal.runtime.dispatch import WAITING_OPS
from flowmetal.store import kinds
from flowmetal.store.protocol import Row, Store

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

AFTER = 60.0
"""Seconds that a call waits for somebody to ask for it before it counts as stuck."""
PAUSES = frozenset({kinds.FLOW_PAUSED})
OTHERS = frozenset({"call", "ask"})
"""Steps that another flow settles."""


@dataclass(slots=True)
class Wait:
    """One open request, or wait for a promise, of a flow."""

    flow_id: str
    step: int | None
    op: str
    target: str
    at: int
    due: bool
    queue: str | None = None


@dataclass(slots=True)
class Standing:
    """The open flows of a store: what they wait for, why they are paused."""

    waiting: set[str] = field(default_factory=set)
    paused: dict[str, Row] = field(default_factory=dict)
    waits: dict[str, list[Wait]] = field(default_factory=dict)
    inside: dict[str | None, list[str]] = field(default_factory=dict)
    """Who holds the places of the queues that are waited for."""


async def stuck(engine: Engine, after: float = AFTER) -> list[dict[str, Any]]:
    """Every flow that is stuck: `flow_id name what step since detail do`."""
    standing: Standing = await engine.writer.call(_read, engine.store)
    for queue in {wait.queue for waits in standing.waits.values() for wait in waits if wait.queue is not None}:
        standing.inside[queue] = await engine.queues.holders(queue)
    asked = await _unmatched(engine)
    now = engine.clock.now()
    found = [
        *_paused(standing), *_unanswered(engine, standing, now, after), *_circles(standing), *_unread(standing, asked),
    ]  # fmt: skip
    first = await engine.writer.call(engine.store.rows_of, dict.fromkeys((f["flow_id"] for f in found), 0), frozenset({kinds.FLOW_STARTED}))
    named = [{**f, "name": json.loads(first[f["flow_id"]][0].data).get("name")} for f in found]
    return sorted(named, key=lambda finding: finding["since"] or "")


def _read(store: Store) -> Standing:
    """On the writer's thread: what is open."""
    standing = Standing()
    standing.waiting = set(store.open_flows("waiting"))
    paused = store.open_flows("paused")
    for flow_id, rows in store.rows_of(dict.fromkeys(paused, 0), PAUSES).items():
        standing.paused[flow_id] = rows[-1]
    for row in store.each_open_request():
        standing.waits.setdefault(row.flow_id, []).append(_wait(row))
    return standing


def _wait(row: Row) -> Wait:
    f = json.loads(row.data)
    if row.kind == kinds.AWAIT:
        return Wait(row.flow_id, None, "await", str(f["flow"]), row.at, False)
    op = str(f["op"])
    return Wait(row.flow_id, row.step, op, str(f["child"] if op == "call" else f.get("target", "")), row.at, f.get("due_at") is not None, f.get("queue"))


def _finding(flow_id: str, what: str, detail: str, do: str, *, step: int | None = None, since: int | None = None) -> dict[str, Any]:
    at = None if since is None else Instant(since).format()
    return {"flow_id": flow_id, "name": None, "what": what, "step": step, "since": at, "detail": detail, "do": do}


# Paused by the engine


def _paused(standing: Standing) -> Iterator[dict[str, Any]]:
    """Flows that the engine paused: where they failed, because of crashes, or because they do not do again what their log says."""
    for flow_id, row in standing.paused.items():
        f = json.loads(row.data)
        if f.get("by") != "engine" or ("step" in f and not f.get("failed")):
            continue
        what = "failed" if f.get("failed") else "paused"
        do = f"flowmetal show {flow_id} says where; flowmetal retry {flow_id} asks the failed step anew, flowmetal resume {flow_id} lets it fail"
        if what == "paused":
            do = f"when the cause is gone: flowmetal resume {flow_id}"
            if "is recorded as" in str(f.get("reason")):
                do = f"its program has changed under it: flowmetal upgrade --dry-run {flow_id} says what differs"
        yield _finding(flow_id, what, str(f.get("reason")), do, since=row.at)


# Calls that nobody answers


def _unanswered(engine: Engine, standing: Standing, now: int, after: float) -> Iterator[dict[str, Any]]:
    desks = engine.dispatcher.desks
    for waits in standing.waits.values():
        for wait in waits:
            if now - wait.at < after * 1e6:
                continue
            if wait.op == "foreign" and "foreign" in desks and engine.foreign.is_forsaken(wait.flow_id, wait.step or 0, after):
                detail = f"it waits for {wait.target}, and nobody asks for calls of that function"
                do = f"provide it: flowmetal worker MODULE, or @fm.function({wait.target!r}) in a program that has the store open"
                yield _finding(wait.flow_id, "unanswered", detail, do, step=wait.step, since=wait.at)
            elif _nobody_performs(engine, wait.op):
                detail = f"it waits for {wait.op} {wait.target}, and nothing here performs {wait.op}"
                do = f"open the store with a host that does: flowmetal stop, then flowmetal serve; or flowmetal cancel {wait.flow_id}"
                yield _finding(wait.flow_id, "unanswered", detail, do, step=wait.step, since=wait.at)


def _nobody_performs(engine: Engine, op: str) -> bool:
    known = WAITING_OPS | inside.OPS | engine.dispatcher.desks.keys() | {"await"}
    return op not in known and engine.dispatcher.connector(op) is None


# Flows that wait for one another


def _circles(standing: Standing) -> Iterator[dict[str, Any]]:
    """The flows of which each waits only for others of them."""
    among = {flow_id for flow_id in standing.waiting if all(_is_for_others(wait) for wait in standing.waits.get(flow_id, ()))}
    while True:
        going = {flow_id for flow_id in among if any(_may_end(standing, wait, among) for wait in standing.waits.get(flow_id, ()))}
        if not going:
            break
        among -= going
    for flow_id in sorted(among):
        waits = standing.waits.get(flow_id, [])
        if not waits:
            yield _finding(flow_id, "deadlock", "its fibers wait for one another, and for nothing that can arrive", _end(flow_id))
            continue
        for_whom = ", ".join(_whom(standing, wait) for wait in waits)
        detail = f"it waits for {for_whom}, which cannot go on before it, or wait for ever themselves"
        yield _finding(flow_id, "deadlock", detail, _end(flow_id), step=waits[0].step, since=waits[0].at)


def _is_for_others(wait: Wait) -> bool:
    return not wait.due and (wait.op == "await" or wait.op in OTHERS or (wait.op == "begin" and wait.queue is not None))


def _may_end(standing: Standing, wait: Wait, among: Collection[str]) -> bool:
    """Whether a wait may end by itself, when these flows stand still."""
    if wait.op != "begin":
        return wait.target not in among
    inside = standing.inside.get(wait.queue, [])
    return not inside or any(flow_id not in among for flow_id in inside)


def _whom(standing: Standing, wait: Wait) -> str:
    if wait.op == "begin":
        return f"its turn in the queue {wait.queue}, which is held by {', '.join(standing.inside.get(wait.queue, [])[:3])}"
    return f"flow {wait.target}"


def _end(flow_id: str) -> str:
    return f"end one of them: flowmetal cancel {flow_id}"


# Mail that is not what was asked for


async def _unmatched(engine: Engine) -> dict[str, int]:
    """How many messages of open flows nobody has consumed."""
    sql = "SELECT flow_id, count(*) FROM messages JOIN flows USING (flow_id) WHERE consumed_at IS NULL AND finished_at IS NULL GROUP BY flow_id"
    answer = await asyncio.shield(engine.sql(sql))
    return {str(flow_id): int(count) for flow_id, count in answer.rows}


def _unread(standing: Standing, unread: dict[str, int]) -> Iterator[dict[str, Any]]:
    for flow_id in sorted(standing.waiting & unread.keys()):
        waits = standing.waits.get(flow_id, [])
        if waits and all(wait.op == "receive" and not wait.due for wait in waits):
            count = unread[flow_id]
            detail = f"it waits for a message, and {count} in its mailbox {'is' if count == 1 else 'are'} not what its receive asks for"
            do = f"send what it asks for: flowmetal send {flow_id} JSON; flowmetal show {flow_id} says what that is"
            yield _finding(flow_id, "unmatched", detail, do, step=waits[0].step, since=waits[0].at)
