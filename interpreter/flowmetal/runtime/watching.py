"""Who watches flows, and how they are told of new rows.

In: rows that were committed. Out: ticks. The one rule: from the first tick on, no commit is missed;
several between two looks are one tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from flowmetal.store.protocol import Row


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
