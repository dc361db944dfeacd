"""Queues' limits over all the interpreters of a store: who is in a queue stands in the store, and every turn is taken there.

In: the queues of an engine whose store others may have too. Out: turns, for flows and calls of this engine. The one rule: what is
in memory of a queue says who is to be in it, and the store is made to say the same (`settle`); but a new one is in it only when the
store has let it in. A queue that has no limit needs no place in the store.

Who waits asks again when another interpreter gives a place back, which is a sign that may be lost, and from time to time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from flowmetal.runtime.book import BEGIN
from flowmetal.store import kinds
from flowmetal.store.sharing import Place, SharedStore, share_of

if TYPE_CHECKING:
    from flowmetal.runtime.queues import Queue, Queues, Waiting

POLL: Final = 1.0
"""Seconds after which a queue that was full is asked again, when there was no sign."""
TOGETHER: Final = 20
"""How many of those who wait ask together."""


class Places:
    """The places of an engine's flows and calls in queues with limits."""

    def __init__(self, queues: Queues, store: SharedStore) -> None:
        self.queues, self.engine, self.store = queues, queues.engine, store

    async def watch(self, room: asyncio.Event) -> None:
        """Asks again for those who wait, when there may be room and from time to time, as long as the engine lives."""
        while True:
            said = True
            try:
                async with asyncio.timeout(POLL):
                    await room.wait()
            except TimeoutError:
                said = False
            room.clear()
            for queue in list(self.queues.queues.values()):
                queue.signs += said
                if queue.shut and (said or queue.opens is None):
                    self.open(queue)

    def open(self, queue: Queue) -> None:
        """There may be room in a queue: who waits is to ask."""
        queue.shut, queue.opens = False, None
        queue.signs += 1
        self.poke(queue)
        self.engine.foreign.room_in(queue.name)

    def poke(self, queue: Queue) -> None:
        """Sees to it that the store says who is in a queue, and that who waits asks for a turn."""
        queue.poked = True
        if not queue.pumping and not self.engine.closing and (queue.waiting or any(queue.unsettled())):
            queue.pumping = True
            self.engine.spawn(self._pump(queue))

    async def _pump(self, queue: Queue) -> None:
        try:
            while queue.poked and not self.engine.closing:
                queue.poked = False
                await self._settle(queue)
                while await self._admit(queue):
                    pass
        finally:
            queue.pumping = False

    async def _settle(self, queue: Queue) -> None:
        """Makes the store say who is in a queue; those who leave it make room."""
        async with queue.lock:
            inside, outside = queue.unsettled()
            if not (inside or outside):
                return
            await self.engine.until_done(lambda: self.engine.writer.call(self.store.settle, queue.name, inside, outside))
            queue.held.update(inside)
            queue.held.difference_update(outside)
        if outside:
            self.open(queue)

    async def _admit(self, queue: Queue) -> bool:
        """Asks for turns for the first who wait; whether there may be more."""
        first: list[Waiting] = []
        while queue.waiting and len(first) < TOGETHER:
            waiting = heapq.heappop(queue.waiting)
            if not waiting[2].gone:
                first.append(waiting)
        entered = 0
        try:
            entered = await self.enter(queue, [entry.key for _, _, entry in first])
        finally:
            for waiting in first[entered:]:
                heapq.heappush(queue.waiting, waiting)
        for _, _, entry in first[:entered]:
            if entry.gone:
                self.queues.leave(queue.name, entry.key)
            else:
                del self.queues.entries[entry.key]
                entry.go()
        return 0 < entered == len(first)

    async def enter(self, queue: Queue, keys: Sequence[Place]) -> int:
        """How many of these, the first of them, are in a queue now."""
        async with queue.lock:
            if not keys or queue.shut:
                return 0
            signs, entered, opens = queue.signs, len(keys), None
            queue.entering.update(keys)
            try:
                if queue.limited:
                    asked = self.store.enter, queue.name, keys, queue.limits, self.engine.clock.now()
                    entered, opens = await self.engine.until_done(lambda: self.engine.writer.call(*asked))
            except BaseException:  # it may have been let in nevertheless
                queue.held.update(keys)
                self.poke(queue)
                raise
            finally:
                queue.entering.difference_update(keys)
            if queue.concurrency is not None:
                queue.held.update(keys[:entered])
            queue.inside.update(keys[:entered])
        if entered < len(keys):
            queue.shut, queue.opens = True, opens
            if signs != queue.signs:
                self.open(queue)
            elif opens is not None:
                self.engine.timers.add(opens, kinds.QUEUES_STREAM, queue.number)
        return entered

    async def recover(self, shares: frozenset[int]) -> None:
        """Shares were taken up: of the places that are taken for their flows, those are freed whose flows are not in the queue any more."""

        def inside() -> list[tuple[str, str]]:
            there = [(queue.name, key) for queue in self.queues.queues.values() for key in (*queue.inside, *queue.entering)]
            return [(name, flow_id) for name, (flow_id, step) in there if step == BEGIN and share_of(flow_id) in shares]

        await self.engine.until_done(lambda: self.engine.writer.call(self.store.reclaim, shares, inside()))
        for queue in self.queues.queues.values():
            self.open(queue)

    async def all_inside(self, queue: Queue) -> list[Place]:
        """Who is in a queue, of whichever interpreter."""
        there: list[Place] = await self.engine.writer.call(self.store.inside, queue.name)
        return there
