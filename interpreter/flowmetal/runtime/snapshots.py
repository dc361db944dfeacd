"""When a snapshot is worth its cost, and reading one back.

A snapshot is a cache: the log can make it again. The rule: snapshots' total work stays within a
constant factor of the run's own, and waking a flow costs what its state costs, not its history.
"""

from __future__ import annotations

import json

from flowmetal.runtime.process import SNAPSHOT_FORMAT, Process
from flowmetal.store.protocol import Row, Snapshot, Store

EVERY = 24
"""Rows after which a small state is worth a snapshot."""
BYTES_A_ROW = 400
"""A state of this many bytes more must wait for a row more."""


def worth(process: Process) -> bool:
    """Whether to take a snapshot with this commit."""
    return not process.ended and process.rows_since_snapshot >= EVERY + process.snapshot_size / BYTES_A_ROW


def read(store: Store, flow_id: str) -> tuple[Snapshot | None, list[Row]]:
    """The newest usable snapshot and the rows after it; without one, all rows."""
    snapshot = store.snapshot(flow_id)
    if snapshot is not None and usable(snapshot):
        return snapshot, store.rows(flow_id, snapshot.seq)
    return None, store.rows(flow_id)


def usable(snapshot: Snapshot) -> bool:
    """Whether this program can read a snapshot; one that is damaged or of another format is not missed."""
    if snapshot.format != SNAPSHOT_FORMAT:
        return False
    try:
        book, state = json.loads(snapshot.body)
        return bool(isinstance(state, str) and book["seq"] == snapshot.seq)
    except (ValueError, KeyError, TypeError):
        return False
