"""The due times of every open timer, in memory: one heap, one wake-up.

In: (due, flow, step). Out: calls of `fire` when the time has come. Nothing here is the truth: the
heap is made again from the log when an engine opens.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from flowmetal.runtime.clock import Clock, VirtualClock

LONGEST_WAIT = 3600.0
"""Seconds after which the clock is looked at again, whatever the next due time: clocks are set."""

SLACK = 1000
"""So many discarded entries may stay in the heap before it is made anew."""


class Timers:
    """Due times of steps. `idle` says whether the engine has nothing else to do: then a virtual clock jumps."""

    def __init__(self, clock: Clock, fire: Callable[[str, int], None], idle: Callable[[], bool]) -> None:
        self.clock = clock
        self.fire = fire
        self.idle = idle
        self._heap: list[tuple[int, str, int]] = []
        self._due_at: dict[tuple[str, int], int] = {}
        """What is truly open: an entry of the heap that does not stand here was discarded."""
        self._handle: asyncio.Handle | None = None

    def add(self, due: int, flow_id: str, step: int) -> None:
        """Adds a due time, in microseconds since the epoch."""
        self._due_at[flow_id, step] = due
        heapq.heappush(self._heap, (due, flow_id, step))
        if self._handle is None or self._heap[0][0] == due:
            self.arm()

    def discard(self, flow_id: str, step: int) -> None:
        """Forgets the due time of a step that is not open any more, if it has one."""
        if self._due_at.pop((flow_id, step), None) is not None and len(self._heap) > 2 * len(self._due_at) + SLACK:
            self._heap = [(due, flow, n) for (flow, n), due in self._due_at.items()]
            heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._due_at)

    def next_due(self) -> int | None:
        """The next due time, if there is one."""
        self._drop_discarded()
        return self._heap[0][0] if self._heap else None

    def arm(self) -> None:
        """Sees to it that the next due time is met."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._drop_discarded()
        if not self._heap:
            return
        loop = asyncio.get_running_loop()
        if self.clock.virtual:
            if self.idle():
                self._handle = loop.call_soon(self._jump)
            return
        wait = max(0.0, (self._heap[0][0] - self.clock.now()) / 1e6)
        self._handle = loop.call_later(min(wait, LONGEST_WAIT), self._due)

    def _drop_discarded(self) -> None:
        while self._heap and self._due_at.get(self._heap[0][1:]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _jump(self) -> None:
        self._handle = None
        self._drop_discarded()
        if self._heap and self.idle() and isinstance(self.clock, VirtualClock):
            self.clock.advance_to(self._heap[0][0])
            self._due()

    def _due(self) -> None:
        self._handle = None
        now = self.clock.now()
        while self._heap and self._heap[0][0] <= now:
            due, flow_id, step = heapq.heappop(self._heap)
            if self._due_at.get((flow_id, step)) == due:
                del self._due_at[flow_id, step]
                self.fire(flow_id, step)
        self.arm()

    def close(self) -> None:
        """Stops."""
        if self._handle is not None:
            self._handle.cancel()
        self._heap.clear()
        self._due_at.clear()
