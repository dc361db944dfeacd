"""Begins a flow whose first rows share a commit with rows of something else: of a schedule, of a queue.

In: the flow's first drafts, and the other rows. Out: a flow that runs. The one rule: both are on disk, or neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowmetal.runtime.rows import Draft, to_row
from flowmetal.store.protocol import Commit, Row

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine


async def launch(engine: Engine, flow_id: str, first: list[Draft], with_rows: Sequence[Row] = (), unique: tuple[str, str] | None = None) -> None:
    """Writes the first rows of a flow, and lets it begin. Raises Duplicate, StoreConflict where it exists already, StoreError."""
    rows = [to_row(flow_id, first[0].facts["definitions"], draft) for draft in first]
    await engine.commit(Commit([*rows, *with_rows], {flow_id: 0}, [], unique))
    for seq, draft in enumerate(first, 1):
        draft.seq = seq
    actor = engine.actor(flow_id)
    actor.born(first)
    actor.poke()
