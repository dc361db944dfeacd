"""The due times of every open timer, in memory: one heap, one wake-up.

In: (due, flow, step). Out: calls of `fire` when the time has come. Nothing here is the truth: the
heap is made again from the log when an engine opens.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from flowmetal.errors import LispError
from flowmetal.runtime.clock import Clock, RealClock, VirtualClock
from flowmetal.store import kinds

LONGEST_WAIT = 60.0
"""Seconds after which the clock is looked at again, whatever the next due time: clocks are set, and machines sleep."""

PATIENT = frozenset({kinds.SCHEDULES_STREAM, kinds.SOURCES_STREAM})
"""Whose times never end: they alone move a virtual clock only while somebody waits for something."""

SLACK = 1000
"""So many discarded entries may stay in the heap before it is made anew."""


class Timers:
    """Due times of steps. `idle` says whether the engine has nothing else to do: then a virtual clock jumps.

    It jumps to whatever is due next, as long as a flow waits for its time, or `waited` (somebody waits for a result), or up to `until`.
    """

    def __init__(self, clock: Clock, fire: Callable[[str, int], None], idle: Callable[[], bool]) -> None:
        self.clock = clock
        self.fire = fire
        self.idle = idle
        self._heap: list[tuple[int, str, int]] = []
        self.due_at: dict[tuple[str, int], int] = {}
        """What is truly open: an entry of the heap that does not stand here was discarded."""
        self._handle: asyncio.Handle | None = None
        self._of_flows = 0
        """How many of them a flow waits for."""
        self.waited = 0
        self.until = 0

    def add(self, due: int, flow_id: str, step: int) -> None:
        """Adds a due time, in microseconds since the epoch."""
        if (flow_id, step) not in self.due_at:
            self._of_flows += flow_id not in PATIENT
        self.due_at[flow_id, step] = due
        heapq.heappush(self._heap, (due, flow_id, step))
        if self._handle is None or self._heap[0][0] == due:
            self.arm()

    def discard(self, flow_id: str, step: int) -> None:
        """Forgets the due time of a step that is not open any more, if it has one."""
        if self._pop(flow_id, step) and len(self._heap) > 2 * len(self.due_at) + SLACK:
            self._heap = [(due, flow, n) for (flow, n), due in self.due_at.items()]
            heapq.heapify(self._heap)

    def _pop(self, flow_id: str, step: int) -> bool:
        there = self.due_at.pop((flow_id, step), None) is not None
        self._of_flows -= there and flow_id not in PATIENT
        return there

    def __len__(self) -> int:
        return len(self.due_at)

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
            if self._may_jump():
                self._handle = loop.call_soon(self._jump)
            return
        wait = max(0.0, (self._heap[0][0] - self.clock.now()) / 1e6)
        if isinstance(self.clock, RealClock):  # no other clock goes on while the loop's stands still
            wait = min(wait, LONGEST_WAIT)
        self._handle = loop.call_later(wait, self._due)

    def wait(self, n: int) -> None:
        """Somebody begins (1) or ceases (-1) to wait for a result: a virtual clock is moved for them."""
        self.waited += n
        if n > 0 and self.clock.virtual:
            self.arm()

    async def advance(self, micros: int) -> int:
        """Moves a virtual clock, through all that falls due on the way, until nothing more can run; the time then."""
        if not isinstance(self.clock, VirtualClock):
            raise LispError("this store lives in real time, which nobody can move: only a virtual clock is advanced", type="value")
        until = self.clock.now() + micros
        self.until = max(self.until, until)  # another may move it further
        while True:
            while not self.idle():
                await asyncio.sleep(0.001)
            due = self.next_due()
            if due is None or due > until:
                self.clock.advance_to(until)
                self.arm()
                return self.clock.now()
            self.arm()
            await asyncio.sleep(0)

    def _may_jump(self) -> bool:
        return self.idle() and bool(self._of_flows or self.waited or self._heap[0][0] <= self.until)

    def _drop_discarded(self) -> None:
        while self._heap and self.due_at.get(self._heap[0][1:]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _jump(self) -> None:
        self._handle = None
        self._drop_discarded()
        if self._heap and self._may_jump() and isinstance(self.clock, VirtualClock):
            self.clock.advance_to(self._heap[0][0])
            self._due()

    def _due(self) -> None:
        self._handle = None
        now = self.clock.now()
        while self._heap and self._heap[0][0] <= now:
            due, flow_id, step = heapq.heappop(self._heap)
            if self.due_at.get((flow_id, step)) == due:
                self._pop(flow_id, step)
                self.fire(flow_id, step)
        self.arm()

    def close(self) -> None:
        """Stops."""
        if self._handle is not None:
            self._handle.cancel()
        self._heap.clear()
        self.due_at.clear()
        self._of_flows = 0
