"""After a restart: every open request of the store is taken up, and every flow that was computing.

In: the store. Out: timers, calls and waits as they were. The one rule: it is the log that says what
is open. The same is done for one flow when a commit of it failed, since whether it is on disk is not
known then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowNotFound
from flowmetal.lang.values import Instant
from flowmetal.runtime import history
from flowmetal.runtime.control import Make, if_open
from flowmetal.runtime.crashes import ENOUGH
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.promises import outcome_draft
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row, Store
from flowmetal.store.sharing import share_of
from flowmetal.store.unanswered import unanswered

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine


WAITS_FOR_OTHERS = frozenset({"callback", "receive"})
"""Operations for which nothing is done until something arrives, unless they have a due time."""


async def recover(engine: Engine, shares: frozenset[int], lost: frozenset[int]) -> None:
    """Takes up what was open in these shares when they had no interpreter; `lost` are those whose last one crashed."""
    call, store = engine.writer.call, engine.store
    running = [flow_id for flow_id in await call(store.open_flows, "running") if share_of(flow_id) in shares]
    poisoned = await engine.crashes.open(running, shares, lost)  # counted once, however often what follows has to be done again
    await engine.queues.recover(shares)
    timers, rows = await call(_open, store, frozenset(engine.dispatcher.desks), shares)
    for due, flow_id, step in timers:
        engine.timers.add(due, flow_id, step)
    await engine.foreign.offers.read(shares, {(row.flow_id, row.step) for row in rows if row.step is not None})
    take_up(engine, rows)
    await end_orphans(engine)
    for flow_id in running:
        if flow_id in poisoned:
            engine.put(flow_id, _pause_for_crashes())
        else:
            engine.actor(flow_id).poke()
    engine.crashes.opened()


def take_up(engine: Engine, rows: Iterable[Row]) -> None:
    """Goes on with open requests and waits."""
    for row in rows:
        data, flow_id = json.loads(row.data), row.flow_id
        if not engine.sharing.owns(flow_id):
            continue
        if row.kind == kinds.AWAIT:
            engine.awaited.subscribe(flow_id, data["flow"], data["promise"])
            continue
        step = row.step
        assert step is not None
        desk = engine.dispatcher.desks.get(data["op"])
        if "linked" in data:
            engine.links.take(flow_id, step, data)
        elif data.get("due_at") is not None and desk is None:
            engine.timers.add(Instant.parse(data["due_at"]).micros, flow_id, step)
        elif data["op"] == "call":
            engine.insist(child_of(engine, flow_id, step, data["child"]))
        elif (desk is not None or engine.dispatcher.is_busy(data["op"])) and not engine.dispatcher.has(flow_id, step):
            engine.insist(_again(engine, row))


def _again(engine: Engine, row: Row) -> Any:
    """Sends a request that was open, under the same key."""

    async def again() -> None:
        rows = await engine.writer.ask(engine.wakes.sendings, row.flow_id) or []
        load = loader(engine.definitions.registry)
        made = [to_draft(r, load) for r in rows if r.step == row.step and r.seq > row.seq]
        attempts = [draft for draft in made if draft.kind != kinds.EFFECT_CANCELLING]
        if await _is_over(engine, row):
            engine.dispatcher.let_go(row.flow_id, row.step or 0)
            return
        if not engine.sharing.owns(row.flow_id):  # given up meanwhile: whoever has it now begins it
            return
        if row.step is not None and not engine.dispatcher.has(row.flow_id, row.step):
            engine.dispatcher.begin(row.flow_id, history.run_of(rows, row), to_draft(row, load), attempts)
            if len(attempts) < len(made):
                engine.dispatcher.call_off(row.flow_id, row.step, was_sent=True)

    return again


async def _is_over(engine: Engine, row: Row) -> bool:
    """Whether another interpreter, whose worker had the call, has written its outcome since the request was read. What it writes from
    now on is news, and comes after what is begun now."""
    if engine.sharing.store is None:
        return False
    outcomes = await engine.writer.ask(engine.wakes.outcomes, (row.flow_id, row.seq)) or []
    return any(each.step == row.step for each in outcomes)


def child_of(engine: Engine, parent: str, step: int, child: str) -> Any:
    """Looks whether a flow that was called has ended, or was to be asked to."""

    async def look() -> None:
        call, store = engine.writer.call, engine.store
        found = history.outcome_of(await call(store.rows, child, 0, None, history.RESULT), "result", loader(engine.definitions.registry))
        if found is not None:
            engine.put(parent, if_open(step, outcome_draft(step, child, *found)))
            return
        asked = await call(store.rows, parent, 0, None, frozenset({kinds.EFFECT_CANCELLING}))
        reasons = [json.loads(row.data)["reason"] for row in asked if row.step == step]
        if reasons:
            engine.dispatcher.end_child(child, reasons[0], parent)

    return look


async def end_orphans(engine: Engine) -> None:
    """Flows that belong to a flow that has ended are asked to end."""
    for child, parent in await engine.writer.call(engine.store.orphans):
        engine.dispatcher.end_child(child, "its caller has ended", parent)


async def recover_flow(engine: Engine, flow_id: str, since: int) -> None:
    """Takes one flow up again after a commit that may be on disk or not; `since` is the last row that was known to be."""
    await engine.catch_up()
    if not engine.sharing.owns(flow_id):
        return
    try:
        await engine.deliver(flow_id, lambda process: None)  # what has arrived meanwhile is taken first
    except FlowNotFound:
        return
    rows: list[Row] = await engine.writer.call(engine.store.rows, flow_id)
    for row in rows[since:]:
        child = json.loads(row.data).get("child")
        if child is not None:
            await recover_flow(engine, child, 0)
    rows = await engine.writer.call(engine.store.rows, flow_id)  # the flow may have gone on meanwhile
    engine.watchers.wake(flow_id)
    engine.awaited.look_again(flow_id)
    engine.links.look_again(flow_id)
    engine.queues.look_again(flow_id, history.life_row(rows).kind)
    if rows[-1].kind not in kinds.ENDING:
        take_up(engine, unanswered(rows))
        return
    data = json.loads(rows[0].data)
    if data.get("parent_step") is not None:
        engine.insist(child_of(engine, data["parent"], data["parent_step"], flow_id))
    await end_orphans(engine)


def _pause_for_crashes() -> Make:
    reason = f"the engine crashed {ENOUGH} times in a row while this flow was computing; resume it when that was not its doing"

    def make(process: Process) -> Draft | None:
        return None if process.ended or process.paused else Draft(kinds.FLOW_PAUSED, None, None, {"reason": reason, "by": "engine"})

    return make


def _open(store: Store, desks: frozenset[str], shares: frozenset[int]) -> tuple[list[tuple[int, str, int]], list[Row]]:
    """What is open: the due times of what only waits for time, and the rows of what something is to be done for."""
    timers: list[tuple[int, str, int]] = []
    rows: list[Row] = []
    for row in store.each_open_request(WAITS_FOR_OTHERS):
        if share_of(row.flow_id) not in shares:
            continue
        data = json.loads(row.data) if row.kind == kinds.EFFECT_REQUESTED else {}
        if row.step is not None and data.get("due_at") is not None and data["op"] not in desks:
            timers.append((Instant.parse(data["due_at"]).micros, row.flow_id, row.step))
        else:
            rows.append(row)
    return timers, rows
