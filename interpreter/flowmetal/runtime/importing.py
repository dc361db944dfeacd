"""Flows out of a file: under the ids, with the histories and under the definitions that they had.

In: the bytes of a file. Out: flows that go on here. The one rule: all of a file is committed at once, or nothing of it.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowConflict
from flowmetal.runtime import flowlog, history, lines, recovery
from flowmetal.runtime.flowlog import FlowLog
from flowmetal.runtime.links import callback_key
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Duplicate, Row, Store, StoreConflict

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine


async def import_flows(engine: Engine, data: bytes, *, by: str = "") -> dict[str, Any]:
    """Takes the flows of a file: `{"flows": [ids], "new": bool}`; a file that was imported here already changes nothing.

    Raises LispError for what is no whole file; FlowConflict where a flow of it is here, unless it was exported from here.
    """
    log = await asyncio.get_running_loop().run_in_executor(None, flowlog.read, data)
    async with engine.defining:
        ids, new = await _write(engine, log, by)
        for _, rows in await engine.writer.call(lambda: list(lines.read(engine.store))):
            lines.bind(engine.definitions, rows)
    open_ = [flow_id for flow_id in log.open if flow_id in ids]
    for flow_id in ids:
        if new:
            engine.forget(flow_id)  # what is in memory of a flow that has come back is of before it went
    await engine.queues.find(open_)
    for flow_id in open_:
        await recovery.recover_flow(engine, flow_id, 0)
    return {"flows": ids, "new": new}


async def _write(engine: Engine, log: FlowLog, by: str) -> tuple[list[str], bool]:
    """Commits what is in a file: its flows, and whether that was done now. The answer to an earlier time may have been lost."""
    commit = await engine.writer.call(_commit, engine.store, log, by, engine.clock.now())
    try:
        await engine.commit(commit)
    except Duplicate as e:
        return list(json.loads(e.row.data)["flows"]), False
    except StoreConflict as e:
        raise FlowConflict(f"{e.flow_id} has just changed", hint="ask again") from None
    return list(log.flows), True


def _commit(store: Store, log: FlowLog, by: str, now: int) -> Commit:
    """All that is written of a file."""
    numbering = lines.Numbering(store, log)
    atoms = [_atom(name, row) for name, row in log.atoms.items() if not store.last_seq(kinds.ATOM_STREAM + name)]
    rows = [row for rows in log.flows.values() for row in rows]
    for row in [*atoms, *rows]:
        numbering.renumber(row)
    facts = {"flows": list(log.flows), "from": log.store, "sha256": log.digest, "by": by or None}
    said = Row(kinds.IMPORTS_STREAM, kinds.FLOWS_IMPORTED, json.dumps(facts), now, key=log.digest)
    if store.find(kinds.FLOWS_IMPORTED, log.digest) is not None:
        return Commit([said], unique=(kinds.FLOWS_IMPORTED, log.digest))
    there = {flow_id: seq for flow_id in log.flows if (seq := store.last_seq(flow_id))}
    same = {flow_id for flow_id in there if _is_here(log.flows[flow_id], store.rows(flow_id))}
    replaced = {flow_id: seq for flow_id, seq in there.items() if flow_id not in same}
    rows = [row for row in rows if row.flow_id not in same]
    _check_tokens(store, rows, replaced)
    expect = {**dict.fromkeys(log.flows, 0), **there, **numbering.seqs, **{row.flow_id: 0 for row in atoms}}
    return Commit([*numbering.new, *atoms, *rows, said], expect, [], (kinds.FLOWS_IMPORTED, log.digest), replaced)


def _is_here(theirs: list[Row], ours: list[Row]) -> bool:
    """Whether a flow that is over is here already, the same; raises FlowConflict for another, or one that is open. One that has moved comes back."""
    status = history.status_of(ours)
    if status == "moved":
        return False
    facts = [[(row.seq, row.kind, row.at, row.step) for row in rows] for rows in (theirs, ours)]
    if status not in kinds.ENDED or facts[0] != facts[1] or json.loads(theirs[0].data)["run"] != json.loads(ours[0].data)["run"]:
        raise FlowConflict(f"flow {ours[0].flow_id} is here already, and is another or open: it is {status}", hint="delete it first, if it is over")
    return True


def _atom(name: str, row: Row) -> Row:
    return Row(kinds.ATOM_STREAM + name, row.kind, row.data, row.at, exact=row.exact, key=row.key)


def _check_tokens(store: Store, rows: list[Row], replaced: dict[str, int]) -> None:
    """Raises FlowConflict where a row would be found by a key that another flow's row here has. A callback's token is shared by
    the flow that made it and its forks."""
    flows: dict[str, list[Row]] = {}
    for row in rows:
        flows.setdefault(row.flow_id, []).append(row)
    tokens = {(row.flow_id, row.step): row.key for row in rows if row.kind == kinds.EFFECT_REQUESTED}
    for row in rows:
        token = tokens.get((row.flow_id, row.step))
        if row.key is None or (row.kind == kinds.EFFECT_COMPLETED and token is not None and row.key == callback_key(token)):
            continue
        there = store.find(row.kind, row.key)
        if there is None or there.flow_id in replaced:
            continue
        makers = {_maker(flows[row.flow_id], row), _maker(store.rows(there.flow_id), there)}
        if row.kind != kinds.EFFECT_REQUESTED or len({run for run, _ in makers}) > 1 or not any(shared for _, shared in makers):
            raise FlowConflict(f"row {row.seq} of flow {row.flow_id} has the key of a row of {there.flow_id}, which is here already")


def _maker(rows: list[Row], row: Row) -> tuple[str, bool]:
    """The run that asked first, which for a step that a fork shares is its original's; and whether it is one that is shared."""
    for point in json.loads(rows[0].data).get("forks", ()):
        if row.step is not None and row.step <= point["steps"]:
            return point["run"], True
    return history.run_of(rows, row), False
