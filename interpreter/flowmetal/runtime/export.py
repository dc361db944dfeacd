"""Flows into a file, and the mark that they have moved.

In: ids of flows. Out: a file that holds them, with their children and what they need; then, for those that are open, a last row that
says that they go on elsewhere. The one rule: the file is whole and on disk before a flow is marked; if it has gone on meanwhile, it is
not marked, and the file is made again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowmetal import __version__
from flowmetal.errors import FlowConflict, LispError
from flowmetal.lang.definitions import LINE_BITS
from flowmetal.lang.library import engine_version
from flowmetal.lang.renumber import shared_in
from flowmetal.lang.values import ErrorValue, Instant, kw
from flowmetal.runtime import flowlog, history, lines, topics
from flowmetal.runtime.flowlog import FlowLog
from flowmetal.runtime.rows import Draft, to_row
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Row, Store, StoreConflict
from flowmetal.store.unanswered import unanswered

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine


async def export(engine: Engine, flows: Sequence[str]) -> bytes:
    """The file of these flows and their children. Raises FlowNotFound; FlowConflict for flows that cannot leave what they depend on."""
    roots = [await engine.resolve(flow) for flow in flows]
    if not roots:
        raise LispError("name a flow", type="value")
    log = await engine.writer.call(_gathered, engine.store, roots)
    for flow_id in log.open:
        _check(engine, log, flow_id)
    facts = {"exported_at": Instant(engine.clock.now()).format(), "program": __version__, "engine": engine_version()}
    log.facts = {"file": engine.chance.uuid().hex, **facts}  # no two files are the same: one that comes back is never taken for one that was here
    return await asyncio.get_running_loop().run_in_executor(None, flowlog.written, log)


def _gathered(store: Store, roots: list[str]) -> FlowLog:
    """The flows with all that they need, as they stand between two commits."""
    own = store.get_meta("store_id") or ""
    log = FlowLog(own, {0: own})
    waiting = deque(roots)
    while waiting:
        flow_id = waiting.popleft()
        if flow_id not in log.flows:
            rows = log.flows[flow_id] = _until_it_moved(store.rows(flow_id))
            waiting.extend(history.children_of(rows))
    _add_definitions(store, log)
    for row in [row for _, row in log.definitions]:
        for atom in {name for text in _exact(row) for name in shared_in(text)}:
            if last := store.last_seq(kinds.ATOM_STREAM + atom):
                log.atoms[atom] = store.rows(kinds.ATOM_STREAM + atom, last - 1)[-1]
    return log


def _until_it_moved(rows: list[Row]) -> list[Row]:
    """What a flow had when it left: whose file was lost can have it again."""
    left = next((n for n, row in enumerate(rows) if row.kind == kinds.FLOW_MOVED), len(rows))
    return rows[:left]


def _exact(row: Row) -> list[str]:
    return list(json.loads(row.exact).values()) if row.exact is not None else []


def _add_definitions(store: Store, log: FlowLog) -> None:
    """Of each line that is meant, everything up to the newest version that is."""
    known = {0: [(row.seq, row) for row in store.rows(kinds.DEFINITIONS_STREAM)]}
    known.update((number, [(int(json.loads(row.data)["version"]), row) for row in rows]) for number, rows in lines.read(store))
    meant = flowlog.versions_of(row for rows in log.flows.values() for row in rows)
    taken: dict[int, int] = {}
    while True:
        newest = {number: max(v for v in meant if v >> LINE_BITS == number) for number in {v >> LINE_BITS for v in meant}}
        if newest == taken:
            break
        taken = newest
        chosen = [(v, row) for number, upto in taken.items() for v, row in known.get(number, []) if v <= upto and row.kind == kinds.DEFINED]
        meant |= flowlog.versions_of(row for _, row in chosen)
        log.definitions = sorted(chosen, key=lambda pair: pair[0])
    for number in taken:
        if number:
            log.lines[number] = next((json.loads(row.data)["origin"] for _, row in known.get(number, [])), f"{log.store}/{number}")


def _check(engine: Engine, log: FlowLog, flow_id: str) -> None:
    """Raises FlowConflict where an open flow cannot leave without something that is not in the file."""
    rows = log.flows[flow_id]
    first = json.loads(rows[0].data)
    if first["kind"] == "cell":
        raise FlowConflict(f"flow {flow_id} is a cell that is open: it belongs to its notebook", hint="export the flows that it started")
    parent = first.get("parent")
    if parent is not None and parent not in log.flows:
        raise FlowConflict(f"flow {flow_id} belongs to flow {parent}", hint=f"export {parent}: its children go with it")
    for other in _others(engine, rows):
        if other not in log.flows:
            raise FlowConflict(f"flow {flow_id} waits for flow {other}", hint="export both at once")
    waits = {waiter for flows in engine.awaited.waiting.get(flow_id, {}).values() for waiter in flows}
    asks = {asker for asker, _ in engine.asking.asked.get(flow_id, ())}
    for other in sorted(waits | asks):
        if other not in log.flows:
            raise FlowConflict(f"flow {other} waits for flow {flow_id}", hint="export both at once")
    begun = max(row.seq for row in rows if row.kind in (kinds.FLOW_STARTED, kinds.FLOW_CONTINUED))
    for row in rows[begun:]:
        data = json.loads(row.data) if row.kind == kinds.EFFECT_REQUESTED else {}
        if data.get("op") == "subscribe":
            raise FlowConflict(f"flow {flow_id} is subscribed to {data.get('target')}, whose events stay here", hint="let it end, or cancel it")


def _others(engine: Engine, rows: list[Row]) -> list[str]:
    """The flows for which the flow of these rows waits."""
    found = []
    for row in unanswered(rows):
        data = json.loads(row.data)
        if row.kind == kinds.AWAIT:
            found.append(data["flow"])
        elif "linked" in data:
            found.append(data["linked"]["flow"])
        elif data["op"] == "ask":
            found.append(engine.asking.open.get((row.flow_id, row.step or 0), (data["target"], ""))[0])
    return found


# Having moved


async def mark(engine: Engine, open_: dict[str, int], *, by: str = "") -> None:
    """Writes into the logs of flows that they have moved, if none has gone on since its row of that `seq`; else FlowConflict."""
    call, store = engine.writer.call, engine.store
    logs = {flow_id: await call(store.rows, flow_id) for flow_id in open_}
    logs = {flow_id: rows for flow_id, rows in logs.items() if not _has_moved(rows, open_[flow_id])}
    moved = []
    for flow_id, rows in logs.items():
        if not rows or rows[0].kind != kinds.FLOW_STARTED or history.status_of(rows) in kinds.ENDED:
            raise FlowConflict(f"flow {flow_id} is not open any more", hint="export it again")
        moved += _moved(engine, rows, by)
    try:
        await engine.commit(Commit(moved, {flow_id: open_[flow_id] for flow_id in logs}))
    except StoreConflict as e:
        raise FlowConflict(f"flow {e.flow_id} has gone on meanwhile", hint="export it again, or pause it first") from None
    for flow_id, rows in logs.items():
        _let_go(engine, flow_id, rows)
    engine.topics.wake(topics.ENDINGS)


def _has_moved(rows: list[Row], seq: int) -> bool:
    return len(rows) > seq > 0 and rows[seq].kind == kinds.FLOW_MOVED


def _moved(engine: Engine, rows: list[Row], by: str) -> list[Row]:
    flow_id, first = rows[0].flow_id, json.loads(rows[0].data)
    message = f"flow {flow_id} was exported: it goes on where its file was imported"
    draft = Draft(kinds.FLOW_MOVED, None, None, {"by": by or None, "rendered": message, "stack": []}, {"error": ErrorValue(kw("flow/moved"), message)})
    draft.at = max(engine.clock.now(), rows[-1].at)
    ending = engine.topics.told(flow_id, first["name"], first["kind"], kinds.STATUS[draft.kind], first.get("parent"), None, draft.at)
    return [to_row(flow_id, first["definitions"], draft), ending]


def _let_go(engine: Engine, flow_id: str, rows: list[Row]) -> None:
    """Nothing is sent, timed or leased for the flow here any more."""
    for row in unanswered(rows):
        if row.kind == kinds.EFFECT_REQUESTED and row.step is not None:
            engine.dispatcher.let_go(flow_id, row.step)
    engine.queues.ended(flow_id)
    if flow_id not in engine.busy:  # one that is at work finds out when it commits
        engine.forget(flow_id)
