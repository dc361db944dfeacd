"""What the rows of a flow tell without running it: events, results, outcomes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from flowmetal.lang import codec
from flowmetal.lang.functions import CANCELLED
from flowmetal.lang.times import Instant
from flowmetal.lang.values import ErrorValue, kw
from flowmetal.runtime import retried
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row, Store

RESULT = kinds.ENDING | {kinds.CELL_RESULT}
"""Kinds that hold a result."""
SETTLING = RESULT | kinds.CLOSING_STEP | {kinds.PROMISE_SETTLED, kinds.FLOW_RETRIED}
"""Kinds that settle a promise."""
_Line = TypeVar("_Line", Row, Draft)


def event(row: Row) -> dict[str, Any]:
    """A row of the view `events`."""
    return {
        "pos": row.pos, "flow_id": row.flow_id, "seq": row.seq, "at": Instant(row.at).format(), "kind": row.kind, "step": row.step, "fiber": row.fiber,
        "data": json.loads(row.data),
    }  # fmt: skip


def life_row(rows: Sequence[_Line]) -> _Line:
    """The row that says how a flow with these rows stands."""
    return next(row for row in reversed(rows) if row.kind in kinds.STATUS)


def status_of(rows: Sequence[Row]) -> str:
    """The status of the flow of these rows."""
    return kinds.STATUS[life_row(rows).kind]


def says_failed(row: Row) -> bool:
    """Whether a row says that its flow has failed: it has ended so, or is paused where it failed."""
    return row.kind == kinds.FLOW_FAILED or (row.kind == kinds.FLOW_PAUSED and bool(json.loads(row.data).get("failed")))


def run_of(rows: Sequence[Row], row: Row) -> str:
    """The run of a flow that a row belongs to: its idempotency keys begin with it."""
    begun = [r for r in rows if r.kind in (kinds.FLOW_STARTED, kinds.FLOW_CONTINUED) and r.seq < row.seq]
    return str(json.loads(begun[-1].data)["run"])


def children_of(rows: Sequence[Row]) -> list[str]:
    """The flows that belong to the flow of these rows."""
    asked = [json.loads(row.data) for row in rows if row.kind in kinds.ASKING and '"child"' in row.data]
    return [data["child"] for data in asked if "linked" not in data and (data["op"] == "call" or data.get("with_parent"))]


def has_ended(store: Store, flow_id: str) -> bool:
    """Whether a flow is over."""
    rows = store.rows(flow_id, of=kinds.ENDING | {kinds.FLOW_RETRIED})
    return bool(rows) and rows[-1].kind in kinds.ENDING


def result_row(store: Store, flow_id: str) -> Row | None:
    """The row that holds a flow's result: its end, or a cell's result before it."""
    found = retried.live(store.rows(flow_id, of=RESULT | {kinds.FLOW_RETRIED}))
    found = [row for row in found if row.kind != kinds.FLOW_RETRIED]
    return next((row for row in found if row.kind == kinds.CELL_RESULT), found[-1] if found else None)


def result(row: Row) -> dict[str, Any]:
    """What clients are told of a flow's end, or of a cell's result."""
    data = json.loads(row.data)
    status = kinds.STATUS.get(row.kind) or _status_of(data.get("error"))
    answer = {"status": status, "result": data.get("result"), **{k: data[k] for k in ("printed", "handle", "ns") if k in data}}
    if "error" in data:
        del answer["result"]
        answer["error"] = {**data["error"], "rendered": data.get("rendered")}
    return answer


def _status_of(error: dict[str, Any] | None) -> str:
    if error is None:
        return "completed"
    return "cancelled" if error["type"] == CANCELLED.text else "failed"


def outcome_row(store: Store, flow_id: str, step: int) -> Row | None:
    """The row that settled a step."""
    rows = retried.live(store.rows(flow_id, of=kinds.CLOSING_STEP | {kinds.FLOW_RETRIED}))
    return next((row for row in rows if row.step == step and row.kind in kinds.CLOSING_STEP), None)


def outcome_of(rows: list[Row], promise: Any, load: codec.CodeLoader) -> tuple[Any, ErrorValue | None] | None:
    """(value, error) of a promise of a flow with these rows; None while it is open."""
    rows = retried.live(rows)
    for row in rows:
        mine = (
            (row.kind in RESULT and promise == "result")
            or (row.kind in kinds.CLOSING_STEP and row.step == promise)
            or (row.kind == kinds.PROMISE_SETTLED and json.loads(row.data)["promise"] == promise)
        )
        if mine and row.kind == kinds.EFFECT_CANCELLED:
            data = json.loads(row.data)
            if not data.get("ended"):
                return None, ErrorValue(CANCELLED, data["reason"])
        elif mine:
            draft = to_draft(row, load)
            return draft.values.get("result"), draft.error
    if rows and rows[-1].kind in kinds.ENDING:
        return None, ErrorValue(kw("flow/ended"), "the flow has ended, and this promise was never settled")
    return None
