"""Deleting a flow that is over, with the flows that belong to it.

In: a flow's id, and who asks. Out: the ids that are gone, and one row that says so, in the same commit. The one rule: nothing that
is open, or that something open still needs, is deleted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowConflict
from flowmetal.runtime import history
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Row, Store, StoreConflict

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine


async def delete(engine: Engine, flow_id: str, *, by: str = "", reason: str | None = None, request_id: str | None = None) -> list[str]:
    """Deletes a flow and its children; their ids, its own first. The same request id again changes nothing.

    Raises FlowNotFound; FlowConflict where one of them is open, or an open flow needs one.
    """
    call, store = engine.writer.call, engine.store
    done = None if request_id is None else await call(store.find, kinds.FLOW_DELETED, request_id)
    if done is not None:
        return list(json.loads(done.data)["flows"])
    flow_id = await engine.resolve(flow_id)
    family = await call(_family, store, flow_id)
    for rows in family.values():
        await _check(engine, flow_id, rows)
    ids, seqs = list(family), {member: rows[-1].seq for member, rows in family.items()}
    row = Row(kinds.REMOVED_STREAM, kinds.FLOW_DELETED, json.dumps(_facts(ids, by, reason)), engine.clock.now(), key=request_id)
    try:
        await engine.commit(Commit([row], dict(seqs), unique=None if request_id is None else (kinds.FLOW_DELETED, request_id), remove=seqs))
    except StoreConflict:
        raise FlowConflict(f"flow {flow_id} has just changed", hint="ask again") from None
    for member in ids:
        engine.forget(member)
    return ids


def _facts(ids: list[str], by: str, reason: str | None) -> dict[str, Any]:
    return {"flows": ids, "by": by or None, "reason": reason}


def _family(store: Store, flow_id: str) -> dict[str, list[Row]]:
    """The rows of a flow, and of the flows that belong to it."""
    family: dict[str, list[Row]] = {}
    generation = [flow_id]
    while generation:
        found = store.rows_of(dict.fromkeys(generation, 0))
        family.update((member, found[member]) for member in generation if member in found)
        children = [child for rows in found.values() for child in history.children_of(rows)]
        generation = [child for child in dict.fromkeys(children) if child not in family]
    return family


async def _check(engine: Engine, flow_id: str, rows: list[Row]) -> None:
    """Raises FlowConflict where a flow of the family may not be deleted."""
    member, status, parent = rows[0].flow_id, history.status_of(rows), json.loads(rows[0].data).get("parent")
    who = f"flow {flow_id}" if member == flow_id else f"flow {member}, which belongs to {flow_id},"
    if status not in kinds.ENDED:
        raise FlowConflict(f"{who} is open: it is {status}", hint="cancel or terminate it first")
    waiting = sorted({waiter for flows in engine.awaited.waiting.get(member, {}).values() for waiter in flows})
    if waiting:
        raise FlowConflict(f"{who} is needed: flow {waiting[0]} waits for it")
    if member == flow_id and parent is not None:
        above = await engine.writer.call(engine.store.rows, parent, 0, None, frozenset(kinds.STATUS))
        stands = history.status_of(above) if above else None
        if stands is not None and stands not in kinds.ENDED:
            raise FlowConflict(f"{who} is needed: it belongs to flow {parent}, which is {stands}")
