"""The past of a flow, from its rows: events, outcomes, and the state at any step."""

from __future__ import annotations

import json
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang import codec
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.frames import Fiber, Frame
from flowmetal.lang.machine import StopAt
from flowmetal.lang.plain import to_plain
from flowmetal.lang.requests import Request
from flowmetal.lang.times import Instant
from flowmetal.lang.values import ErrorValue, kw
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row, Store

FUEL = 100_000


def event(row: Row) -> dict[str, Any]:
    """A row of the view `events`."""
    return {
        "pos": row.pos, "flow_id": row.flow_id, "seq": row.seq, "at": Instant(row.at).format(), "kind": row.kind, "step": row.step, "fiber": row.fiber,
        "data": json.loads(row.data),
    }  # fmt: skip


def result_row(store: Store, flow_id: str) -> Row | None:
    """The row that holds a flow's result: its end, or a cell's result before it."""
    found = None
    for row in store.rows(flow_id):
        if row.kind == kinds.CELL_RESULT:
            return row
        if row.kind in kinds.ENDING:
            found = row
    return found


def outcome_row(store: Store, flow_id: str, step: int) -> Row | None:
    """The row that settled a step."""
    closing = (kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED, kinds.EFFECT_CANCELLED)
    return next((r for r in store.rows(flow_id) if r.step == step and r.kind in closing), None)


def outcome_of(rows: list[Row], promise: Any, load: codec.CodeLoader) -> tuple[Any, ErrorValue | None] | None:
    """(value, error) of a promise of a flow with these rows; None while it is open."""
    for row in rows:
        mine = (
            (row.kind in kinds.ENDING and promise == "result")
            or (row.kind in (kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED) and row.step == promise)
            or (row.kind == kinds.PROMISE_SETTLED and json.loads(row.data)["promise"] == promise)
        )
        if mine:
            draft = to_draft(row, load)
            return draft.values.get("result"), draft.error
    if rows and rows[-1].kind in kinds.ENDING:
        return None, ErrorValue(kw("flow/ended"), "the flow has ended, and this promise was never settled")
    return None


def _no_supply(process: Process, request: Request) -> Any:
    raise StopAt


def state_at(definitions: Definitions, flow_id: str, rows: list[Row], step: int | None) -> dict[str, Any]:
    """The flow as it was when it asked for `step` (None: as it is now): its stack, locals and what it waited for."""
    drafts = [to_draft(row, loader(definitions)) for row in rows]
    process = Process(definitions, flow_id, _no_supply)
    asked = _asked(drafts)
    if step is not None and step not in asked:
        known = f"it has steps 1 to {max(asked)}" if asked else "it has no steps"
        raise LispError(f"flow {flow_id} has no step {step}: {known}", type="value")
    seq = asked[step].seq if step is not None else len(drafts)
    status = "running"
    for draft in drafts[:seq]:
        status = kinds.STATUS.get(draft.kind, status)
    if step is not None:
        status = "waiting" if asked[step].kind == kinds.EFFECT_REQUESTED else "running"
    process.record([d for d in drafts if d.kind not in kinds.ENDING and d.kind not in (kinds.FLOW_PAUSED, kinds.FLOW_RESUMED)])
    process.begin(drafts[0])
    process.machine.stop_at = step
    try:
        while process.runnable:
            process.run(FUEL)
    except StopAt:
        # Where it was to stop, or at something that is not in the log yet.
        process.pending.clear()
    described = _describe(process, step, status)
    if step is not None:
        f = asked[step].facts
        own = {"fiber": asked[step].fiber, "step": step, "op": f["op"], "target": f.get("target"), "line": f.get("line"), "due_at": f.get("due_at")}
        described["waiting_for"].insert(0, own)
    return described


def _asked(drafts: list[Draft]) -> dict[int, Draft]:
    return {d.step: d for d in drafts if d.step is not None and d.kind in (kinds.EFFECT_REQUESTED, kinds.VALUE_RECORDED)}


def _describe(process: Process, step: int | None, status: str) -> dict[str, Any]:
    state = process.state
    current = process.machine.fiber
    fibers = sorted(state.fibers.values(), key=lambda f: (step is None or f is not current, f.id))
    waiting = []
    for fiber in fibers:
        if fiber.wait is not None:
            waiting += [{"fiber": fiber.id, "promise": str(p.id), "op": p.op or "promise", "flow": p.flow} for p in fiber.wait.promises]
    stacks = [{"fiber": f.id, "stack": [_frame(x) for x in reversed(f.frames)]} for f in fibers]
    return {
        "step": step if step is not None else state.steps, "status": status, "stack": stacks[0]["stack"] if stacks else [], "fibers": stacks,
        "waiting_for": waiting,
    }  # fmt: skip


def _frame(frame: Frame) -> dict[str, Any]:
    code = frame.arity.code
    span = frame.span
    line = span.source.line(span.line).strip() if span is not None else None
    return {
        "function": code.name or "fn", "line": span.line if span is not None else None, "column": span.column if span is not None else None,
        "file": span.source.name if span is not None else None, "source": line, "locals": _locals(frame),
    }  # fmt: skip


def _locals(frame: Frame) -> dict[str, Any]:
    at = frame.pc - 1
    named = {}
    for slot, name, start, end in sorted(frame.arity.names):
        if start <= at < end and not name.endswith("__auto"):
            named[name] = to_plain(frame.locals[slot], truncate=True)[0]
    return named


__all__ = ["Fiber", "event", "outcome_of", "outcome_row", "result_row", "state_at"]
