"""Flows that were computing when their engine crashed: how often in a row, and when that is enough.

In: which flows compute, from engines that may die at any moment. Out: for the next engine, how many
crashes in a row each was computing at. The one rule: what a crash is counted by is on disk before the
flow computes. It costs nothing while there are no crashes: only flows that were running at one are
watched, until they have come safely through their next arrival.

Many compute at about the same time, and all of them are counted at a crash. So that none is paused for another's doing, or because
somebody kills engines, those that were computing at all crashes but the last that it takes have their turns one at a time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from flowmetal.errors import StoreError
from flowmetal.store.sharing import share_of

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

ENOUGH = 3
"""A flow that was computing at so many crashes in a row opens paused."""
_STATE, _COUNTS = "engine", "crashes"
"""The store's settings: how the engine ended; the counts, where several engines may have the store those of each share."""
_IDLE = -1
"""In place of a count: the flow is watched, and is not computing."""


class CrashWatch:
    """The flows that were running at the last crash."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.watched: dict[str, int] = {}
        """The flows, and the crashes in a row at which each was computing."""
        self._on_disk: dict[str, int] = {}
        self._counting: dict[str, int] = {}
        """Flows that are being taken up, with the crash that is counted: what comes after may fail, and is then done again."""
        self._changed: set[str] = set()
        """Where counts are to be written."""
        self._alone = asyncio.Lock()
        self._suspect: str | None = None
        """The flow that has its last chance now, alone."""
        self._current: asyncio.Task[StoreError | None] | None = None
        self._next: asyncio.Task[StoreError | None] | None = None
        """Writes of the counts: the one under way, and the one after it."""

    async def open(self, running: Sequence[str], shares: Collection[int], lost: Collection[int]) -> list[str]:
        """Called with the flows of some shares that are running as they are taken up; gives those that are to be paused. `lost` are
        the shares whose engine is known to have crashed; where only one can have the store, it says so itself."""
        store, call = self.engine.store, self.engine.writer.call
        if self.engine.sharing.store is not None:
            running = [flow_id for flow_id in running if share_of(flow_id) in lost]
        elif await call(store.get_meta, _STATE) != "open":
            await call(store.set_meta, _STATE, "open")
            return []
        enough: list[str] = []
        places: dict[str, list[str]] = {}
        for flow_id in running:
            places.setdefault(self._place(flow_id), []).append(flow_id)
        for place, flows in places.items():
            known: str | None = await call(store.get_meta, place)
            enough += await self._count(place, flows, json.loads(known or "{}"))
        return enough

    async def _count(self, place: str, flows: Sequence[str], before: dict[str, int]) -> list[str]:
        """Counts the crash for flows of one place; gives those that are to be paused. It is on disk soon after what was counted before was
        read: an engine that dies in between has the same crash counted twice."""
        counts = {flow_id: self._counting.setdefault(flow_id, before.get(flow_id, 0) + 1) for flow_id in flows}  # one not watched may have been computing
        watched = {flow_id: count for flow_id, count in counts.items() if count < ENOUGH}
        self.watched |= watched
        self._on_disk |= dict.fromkeys(watched, _IDLE)
        self._changed.add(place)
        await self._save()
        return [flow_id for flow_id in flows if flow_id not in watched]

    def opened(self) -> None:
        """All of these flows are taken up."""
        self._counting.clear()

    def _place(self, flow_id: str) -> str:
        return _COUNTS if self.engine.sharing.store is None else f"{_COUNTS}/{share_of(flow_id)}"

    async def computing(self, flow_id: str) -> None:
        """A watched flow is about to compute; returns when that is on disk, and it may."""
        count = self.watched.get(flow_id)
        if count is None:
            return
        if count == ENOUGH - 1:
            await self._alone.acquire()
            self._suspect = flow_id
        if self._on_disk.get(flow_id) != count:
            await self._note(flow_id, count)

    def turned(self, flow_id: str) -> None:
        """A flow's turn is over, whatever came of it."""
        if self._suspect == flow_id:
            self._suspect = None
            self._alone.release()

    async def resting(self, flow_id: str, safe: bool) -> None:
        """A watched flow has computed and waits. It is `safe` when it has taken an arrival, or waits for the outside: no longer watched."""
        if flow_id in self.watched:
            if safe:
                del self.watched[flow_id]
                self._on_disk.pop(flow_id, None)
                self._changed.add(self._place(flow_id))
                await self._save()
            elif self._on_disk.get(flow_id) != _IDLE:
                await self._note(flow_id, _IDLE)

    async def close(self) -> None:
        """The engine ends in order: the next one need not watch anything."""
        if self.engine.sharing.store is not None:  # its shares are given up, and not lost
            return
        await self.engine.writer.call(self.engine.store.set_meta, _STATE, "closed")
        await self.engine.writer.call(self.engine.store.set_meta, _COUNTS, "{}")

    async def _note(self, flow_id: str, count: int) -> None:
        self._on_disk[flow_id] = count
        self._changed.add(self._place(flow_id))
        await self._save()

    async def _save(self) -> None:
        """Writes all counts; whoever comes while one write is under way shares the next."""
        if self._next is None:
            self._next = self.engine.spawn(self._write(self._current))
        failure = await asyncio.shield(self._next)
        if failure is not None:
            raise failure

    async def _write(self, before: asyncio.Task[StoreError | None] | None) -> StoreError | None:
        if before is not None:
            await asyncio.wait({before})
        self._current, self._next = self._next, None
        while self._changed:
            place = self._changed.pop()
            counts = {flow_id: count for flow_id, count in self._on_disk.items() if self._place(flow_id) == place}
            try:
                await self.engine.writer.call(self.engine.store.set_meta, place, json.dumps(counts))
            except StoreError as e:
                self._changed.add(place)
                return e
        return None
