"""Which rows of a flow count, when it was retried.

In: rows of one flow, in order. Out: those of which its state is made. The one rule: a row `flow-retried` names the rows
that it takes back (`back`): the outcome that failed, and what the flow did with it; whatever came from outside
meanwhile stays. So the state is a function of the rows, as that of any flow: of one whose step has no answer yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from flowmetal.store import kinds
from flowmetal.store.protocol import Row

ANEW = "anew"
"""A fact of rows that ask again for what was asked before: re-execution does not come to them."""


def live(rows: Sequence[Row]) -> list[Row]:
    """The rows that count."""
    back = {seq for row in rows if row.kind == kinds.FLOW_RETRIED for seq in _back(row)}
    return [row for row in rows if row.seq not in back] if back else list(rows)


def is_anew(row: Row) -> bool:
    """Whether a row asks again for what was asked before."""
    return f'"{ANEW}":true' in row.data and json.loads(row.data).get(ANEW) is True


def spoilt(rows: Sequence[Row], seq: int) -> bool:
    """Whether a snapshot that holds the rows up to `seq` holds what one of `rows`, which come after it, takes back."""
    return any(row.kind == kinds.FLOW_RETRIED and min(_back(row)) <= seq for row in rows if row.seq > seq)


def _back(row: Row) -> list[int]:
    back: list[int] = json.loads(row.data)["back"]
    return back
