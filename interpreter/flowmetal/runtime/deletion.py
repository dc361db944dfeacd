"""Deleting a flow that is over, with the flows that belong to it.

In: a flow's id, and who asks. Out: the ids that are gone, and one row that says so, in the same commit. The one rule: nothing that
is open, or that something open still needs, is deleted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowConflict, FlowNotFound
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Row, StoreConflict

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

_FAMILY = """WITH RECURSIVE family(flow_id) AS (
    SELECT $1::VARCHAR UNION SELECT f.flow_id FROM flows f JOIN family p ON f.parent_id = p.flow_id)
    SELECT flow_id, status, parent_id FROM flows JOIN family USING (flow_id) ORDER BY created_at"""


async def delete(engine: Engine, flow_id: str, *, by: str = "", reason: str | None = None, request_id: str | None = None) -> list[str]:
    """Deletes a flow and its children; their ids, its own first. The same request id again changes nothing.

    Raises FlowNotFound; FlowConflict where one of them is open, or an open flow needs one.
    """
    call, store = engine.writer.call, engine.store
    done = None if request_id is None else await call(store.find, kinds.FLOW_DELETED, request_id)
    if done is not None:
        return list(json.loads(done.data)["flows"])
    flow_id = await engine.resolve(flow_id)
    found = (await engine.sql(_FAMILY, [flow_id])).rows
    if not found:
        raise FlowNotFound(f"there is no flow {flow_id}")
    ids = [flow_id, *(member for member, _, _ in found if member != flow_id)]
    for member, status, parent in found:
        await _check(engine, flow_id, member, status, parent)
    seqs = {member: await call(store.last_seq, member) for member in ids}
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


async def _check(engine: Engine, flow_id: str, member: str, status: str, parent: str | None) -> None:
    """Raises FlowConflict where a flow may not be deleted."""
    who = f"flow {flow_id}" if member == flow_id else f"flow {member}, which belongs to {flow_id},"
    if status not in kinds.ENDED:
        raise FlowConflict(f"{who} is open: it is {status}", hint="cancel or terminate it first")
    waiting = sorted({waiter for flows in engine.awaited.waiting.get(member, {}).values() for waiter in flows})
    if waiting:
        raise FlowConflict(f"{who} is needed: flow {waiting[0]} waits for it")
    if member == flow_id and parent is not None:
        above = await engine.writer.call(engine.store.flow_row, parent)
        if above is not None and above["status"] not in kinds.ENDED:
            raise FlowConflict(f"{who} is needed: it belongs to flow {parent}, which is {above['status']}")
