"""Which requests and waits of a flow are open.

In: rows of one flow, in order. Out: those of `OPENING` that no later row of `CLOSING` closes. The one rule: a step is
closed by its number, a wait for another flow's promise by that flow and that promise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flowmetal.store import kinds
from flowmetal.store.protocol import Row


def unanswered(rows: Sequence[Row]) -> list[Row]:
    """The requests and awaits that no later row closes."""
    closed: dict[tuple[Any, ...], int] = {}
    for row in rows:
        if row.kind in kinds.CLOSING:
            closed[_what(row, kinds.CLOSING[row.kind])] = row.seq
    return [row for row in rows if row.kind in kinds.OPENING and closed.get(_what(row, row.kind), 0) < row.seq]


def _what(row: Row, opening: str) -> tuple[Any, ...]:
    if opening != kinds.AWAIT:
        return (opening, row.step)
    data = json.loads(row.data)
    return (opening, data.get("flow"), data.get("promise"))
