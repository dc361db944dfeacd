"""Short ways to write rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flowmetal.store.protocol import Commit, CommitResult, Row, Store

T0 = 1_700_000_000_000_000

MakeStore = Callable[..., Store]


def row(flow_id: str, kind: str, data: Any = None, at: int = T0, **more: Any) -> Row:
    """A row whose data is given as a value."""
    return Row(flow_id, kind, json.dumps({} if data is None else data), at, **more)


def commit(store: Store, *rows: Row, **more: Any) -> list[Row]:
    """One commit that must succeed; its rows."""
    (outcome,) = store.commit_group([Commit(list(rows), **more)])
    assert isinstance(outcome, CommitResult), outcome
    return outcome.rows


def started(flow_id: str, name: str = "f", at: int = T0, **data: Any) -> Row:
    """The first row of a flow."""
    return row(flow_id, "flow-started", {"name": name, "kind": "flow", "args": [], "definitions": 1, **data}, at)
