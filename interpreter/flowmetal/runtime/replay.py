"""A process made again: from a snapshot and the rows after it, or from all rows.

In: what the store holds of a flow. Out: a process that stands where the flow stood. The one rule:
the log decides; a snapshot that cannot be read is as if it were not there.
"""

from __future__ import annotations

from flowmetal.errors import FlowNotFound
from flowmetal.lang.definitions import Definitions
from flowmetal.runtime import retried, snapshots
from flowmetal.runtime.process import Process, Supply, loader
from flowmetal.runtime.rows import to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row, Snapshot


def rebuild(definitions: Definitions, flow_id: str, supply: Supply, snapshot: Snapshot | None, rows: list[Row]) -> Process | None:
    """A process; None when the snapshot that it was to begin with cannot be used. Raises FlowNotFound where there is no flow."""
    process = Process(definitions, flow_id, supply)
    load = loader(definitions)
    if snapshot is not None:
        if is_outdated(rows) or retried.spoilt(rows, snapshot.seq) or not snapshots.restore(process, snapshot):
            return None
        process.rebuild([to_draft(row, load) for row in retried.live(rows)], anew=False)
        return process
    if not rows or rows[0].kind != kinds.FLOW_STARTED:
        raise FlowNotFound(f"there is no flow {flow_id}")
    process.rebuild([to_draft(row, load) for row in retried.live(rows)], anew=True)
    return process


def is_outdated(after: list[Row]) -> bool:
    """Whether a snapshot before these rows is of a state that an upgrade has replaced."""
    later = {row.kind for row in after}
    return kinds.FLOW_UPGRADED in later and kinds.FLOW_CONTINUED not in later
