"""Who watches flows, and how they are told of new rows; and how flows ended of late, for who asks a moment too late to be told.

In: rows that were committed. Out: ticks, and endings. The one rule: from the first tick on, no commit is missed;
several between two looks are one tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Row

ENDINGS = 256
"""How many endings are remembered."""
ENDING_BYTES = 4096
"""Longer ones are not."""


@dataclass(slots=True, eq=False)
class Watcher:
    """Who waits for rows of a flow, of these kinds."""

    kinds: frozenset[str] | None
    event: asyncio.Event = field(default_factory=asyncio.Event)
    row: Row | None = None
    """The first that came since it last looked."""


class Watchers:
    """The watchers of an engine's flows."""

    def __init__(self) -> None:
        self._of: dict[str, set[Watcher]] = {}
        self._closed = False

    def notify(self, rows: Sequence[Row]) -> None:
        """Rows are on disk."""
        if self._of:
            for row in rows:
                for watcher in self._of.get(row.flow_id, ()):
                    if (watcher.kinds is None or row.kind in watcher.kinds) and not watcher.event.is_set():
                        watcher.row = row
                        watcher.event.set()

    def wake(self, flow_id: str) -> None:
        """There may be rows of a flow that were not noticed."""
        for watcher in self._of.get(flow_id, ()):
            watcher.row = None
            watcher.event.set()

    def close(self) -> None:
        """Ends every watch."""
        self._closed = True
        for watchers in self._of.values():
            for watcher in watchers:
                watcher.event.set()

    async def watch(self, flow_id: str, of: frozenset[str] | None = None) -> AsyncGenerator[Row | None, None]:
        """Ticks at once (with None), and then after each commit that has rows of the flow (of the kinds `of`), with the first
        of them; or with None when there may be rows that were not noticed."""
        watcher = Watcher(of)
        self._of.setdefault(flow_id, set()).add(watcher)
        try:
            while True:
                yield watcher.row
                await watcher.event.wait()
                watcher.event.clear()
                if self._closed:
                    return
        finally:
            self._of[flow_id].discard(watcher)
            if not self._of[flow_id]:
                del self._of[flow_id]


class Endings:
    """The last rows of flows that have ended lately: most results are asked for at about that time, and asking the store takes as long as a step.

    Cells are not among them, whose result may stand in an earlier row. For a store of which nobody else writes.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def note(self, commit: Commit, rows: Sequence[Row]) -> None:
        """A commit is on disk: what ended with it is remembered, what goes on or was removed is not."""
        for flow_id in commit.remove:
            self._rows.pop(flow_id, None)
        for row in rows:
            self._rows.pop(row.flow_id, None)
            if row.kind in kinds.ENDING and len(row.data) <= ENDING_BYTES and '"ns":' not in row.data:  # which every cell's has
                self._rows[row.flow_id] = row
        while len(self._rows) > ENDINGS:
            del self._rows[next(iter(self._rows))]

    def of(self, flow_id: str) -> Row | None:
        """The row with which the flow ended, if that was lately, and nothing came after it."""
        return self._rows.get(flow_id)
