"""The view `flows` in Python, for the store in memory.

What goes in: a flow's rows. What comes out: the dict that the view would give for it, its values plain.
The one rule: it says what the view says; one suite of tests asks both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flowmetal.lang.values import Instant
from flowmetal.store import kinds
from flowmetal.store.protocol import Row


def flow_row(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The flow of these rows; None when they never started one."""
    start = next((row for row in rows if row.kind == kinds.FLOW_STARTED), None)
    if start is None:
        return None
    status = next(row for row in reversed(rows) if row.kind in kinds.STATUS)
    ended = status.kind in kinds.ENDING
    started = json.loads(start.data)
    outcome = json.loads(status.data) if ended else _last(rows, kinds.CELL_RESULT) or {}
    return {
        "flow_id": start.flow_id,
        "name": started.get("name"),
        "kind": started.get("kind") or "flow",
        "status": kinds.STATUS[status.kind],
        "parent_id": started.get("parent"),
        "forked_from": started.get("forked_from"),
        "forked_at": started.get("forked_at"),
        "definitions_version": (_last(rows, kinds.FLOW_UPGRADED) or {}).get("version", started.get("definitions")),
        "created_at": _iso(max((row.at for row in rows if row.kind == kinds.FLOW_FORKED), default=start.at)),
        "updated_at": _iso(max(row.at for row in rows)),
        "finished_at": _iso(status.at) if ended else None,
        "steps": max((row.step for row in rows if row.step is not None), default=0),
        "args": started.get("args"),
        "tags": started.get("tags"),
        "info": (_last(rows, kinds.INFO) or {}).get("data"),
        "result": outcome.get("result"),
        "error": outcome.get("error"),
    }


def last_status(rows: Sequence[Row]) -> str | None:
    """The status of the flow of these rows; None when they never started one."""
    if not any(row.kind == kinds.FLOW_STARTED for row in rows):
        return None
    return kinds.STATUS[next(row.kind for row in reversed(rows) if row.kind in kinds.STATUS)]


def _last(rows: Sequence[Row], kind: str) -> Any:
    found = next((row for row in reversed(rows) if row.kind == kind), None)
    return None if found is None else json.loads(found.data)


def _iso(at: int) -> str:
    return Instant(at).format()
