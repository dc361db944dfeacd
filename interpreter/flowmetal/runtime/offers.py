"""Foreign calls between interpreters: what nobody took where its flow is computed is offered to the workers of all of them.

In: calls that wait at this engine's desk; workers here that find nothing there. Out: calls of other interpreters' flows, leased to
workers here ("guests"); calls of our own that went elsewhere. The one rule: the log says what a call is and what became of it, and the
store's table of offers only who may have it now: where the two differ, the flow's own interpreter begins again from the log, as after a
restart.

A call that a worker here takes at once is never in the table, nor is any while one interpreter has the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from flowmetal.errors import FlowmetalError, FlowNotFound, StoreError
from flowmetal.runtime.control import is_open
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import to_draft
from flowmetal.runtime.snapshots import SENDINGS
from flowmetal.store import kinds
from flowmetal.store.protocol import Row
from flowmetal.store.sharing import Offer, OfferTable
from flowmetal.store.unanswered import unanswered

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine
    from flowmetal.runtime.leases import Lease, Step, Task
    from flowmetal.runtime.tasks import Poller

SOON: Final = 0.02
"""Seconds that a call waits for a worker here before it is offered to all."""
POLL: Final = 0.5
"""Seconds after which the table is looked at when no sign came."""
COMPARE: Final = 10.0
"""Seconds between two looks whether the table and this engine agree."""
_WANTED: Final = frozenset({kinds.EFFECT_REQUESTED, kinds.EFFECT_CANCELLING})
"""What says whether a call is wanted."""


class Offers:
    """What of this engine's calls is offered to others, and what it has of theirs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.out: dict[Step, Task] = {}
        """Calls of flows of this engine that stand in the table, had by somebody or not."""
        self.guests: dict[Step, Lease] = {}
        """Calls of others' flows that workers here have."""
        self.known: dict[Step, Offer] = {}
        """What the table says of calls that are about to be taken up."""
        self.sign = asyncio.Event()
        self._fresh: list[Task] = []
        self._putting: dict[Step, Task] = {}
        """Being put into the table."""
        self._withdrawn: set[Step] = set()
        self._ended: set[str] = set()
        self._freed: set[str] = set()
        self._unknown: set[str] = set()
        """Leases that the table gives to this engine, and that it does not know: the answer to a claim was lost."""

    @property
    def _table(self) -> OfferTable | None:
        store = self.engine.sharing.store
        return None if store is None else store.offers

    @property
    def _ours(self) -> list[int]:
        sharing = self.engine.sharing
        return [*sharing.mine, *sharing.leaving]

    @property
    def _shared(self) -> bool:
        return self.engine.sharing.members > 1

    # From the desk

    def waits(self, task: Task) -> None:
        """A call waits for a worker here: when none takes it soon, it is for all."""
        if self._shared:
            if not self._fresh:
                asyncio.get_running_loop().call_later(SOON, self.sign.set)
            self._fresh.append(task)

    def drop(self, key: Step) -> None:
        """A call of this engine is offered to nobody any more."""
        self.known.pop(key, None)
        if self.out.pop(key, None) is not None:
            self._withdrawn.add(key)
            self.sign.set()

    def forget(self, key: Step) -> None:
        """A call is another interpreter's from now on, as the table has it."""
        self.out.pop(key, None)
        self.known.pop(key, None)

    def ended(self, lease: Lease, again: bool) -> None:
        """A lease of a call of another interpreter's flow is over; `again`: anybody may have the call."""
        key = lease.task.flow_id, lease.task.step
        if self.guests.get(key) is lease:
            del self.guests[key]
        (self._freed if again else self._ended).add(lease.id)
        self.sign.set()

    def stands(self, key: Step, attempt: int) -> Offer | None:
        """What the table had of a call that is taken up now, if that is so still."""
        there = self.known.pop(key, None)
        return there if there is not None and there.attempt == attempt and (there.lease is None or there.holder is not None) else None

    async def take_back(self, tasks: Collection[Task]) -> set[Step]:
        """Which of these calls are this engine's workers' alone: those that are not in the table, or that nobody has there."""
        keys = [(task.flow_id, task.step) for task in tasks]
        out = [key for key in keys if key in self.out]
        if not out:
            return set(keys)
        table = self._table
        assert table is not None
        back = await self.engine.writer.call(table.take_back, out)
        for key in back:
            self.out.pop(key, None)
        return back | set(keys).difference(out)

    async def call_off(self, task: Task) -> None:
        """A call that is offered is wanted no more: it is, unless somebody has it, whose answer is awaited."""
        key = task.flow_id, task.step
        if self.out.get(key) is task:
            if key in await self.take_back([task]):
                self.engine.dispatcher.call_off(*key)
            else:
                task.lapsed = True  # if whoever has it says nothing more, it may have happened
                self.engine.foreign.unready(task)

    # Guests

    async def claim(self, poller: Poller, most: int, seconds: float) -> list[Lease]:
        """Calls of other interpreters' flows for a worker here, their leases begun."""
        table = self._table
        if table is None or not self._shared:
            return []
        work = self.engine.spawn(self._claimed(table, poller, most, seconds))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:  # the worker has gone
            work.add_done_callback(self._undo)
            raise

    def _undo(self, work: asyncio.Task[list[Lease]]) -> None:
        if not work.cancelled() and work.exception() is None:
            for lease in work.result():
                self.engine.foreign.end(lease, again=True)

    async def _claimed(self, table: OfferTable, poller: Poller, most: int, seconds: float) -> list[Lease]:
        queues = self.engine.queues
        full = {name for name in queues.queues if queues.is_shut(name)}
        while True:
            lease_name = self.engine.foreign.new_name()
            found = await self.engine.writer.call(table.claim, poller.functions, poller.queues, full, self._ours, lease_name, most)
            before = len(full)
            leases = await self._begun(found, seconds, full)
            if leases or len(full) == before:
                return leases
            await self._flush(table)

    async def _begun(self, found: list[Offer], seconds: float, full: set[str]) -> list[Lease]:
        """Leases of calls that were claimed, of those for which there is a place in their queue; the queues of the others are `full`."""
        desk, left = self.engine.foreign, {each.lease or "" for each in found}
        leases: list[Lease] = []
        try:
            for each in found:
                if each.queue is not None and not await self.engine.queues.enter(each.queue, (each.flow_id, each.step)):
                    full.add(each.queue)
                    continue
                task = await self._guest(each)
                if task is not None:
                    leases.append(desk.begin(task, seconds, each.lease))
                    self.guests[each.flow_id, each.step] = leases[-1]
                left.discard(each.lease or "")
        except BaseException:
            for lease in leases:
                desk.end(lease, again=True)
            raise
        finally:
            if left:
                self._freed |= left
                self.sign.set()
        return leases

    async def _guest(self, offer: Offer) -> Task | None:
        """The call, as the log has it."""
        engine = self.engine
        try:
            await engine.catch_up_all()
            rows: list[Row] = await engine.writer.call(engine.store.rows, offer.flow_id, offer.seq - 1, None, _WANTED)
            called_off = any(row.step == offer.step and row.kind == kinds.EFFECT_CANCELLING for row in rows)
            if rows and rows[0].step == offer.step and not called_off:
                task = engine.foreign.task(offer.flow_id, offer.run, to_draft(rows[0], loader(engine.definitions.registry)), offer.attempt)
                task.guest = True
                return task
            self._ended.add(offer.lease or "")
        except FlowmetalError as e:
            self._freed.add(offer.lease or "")
            if not isinstance(e, StoreError):
                engine.report(e)
        self.sign.set()
        if offer.queue is not None:
            engine.queues.leave(offer.queue, (offer.flow_id, offer.step))
        return None

    def others_wrote(self, rows: Collection[Row]) -> None:
        """Rows of flows of which workers here have calls: what is over is wanted no more, as it is told when they say something next."""
        for row in rows:
            lease = self.guests.get((row.flow_id, row.step or 0))
            if lease is not None and row.kind == kinds.EFFECT_CANCELLED:
                lease.withdrawn = True
            elif lease is not None and row.kind in (kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED) and not lease.lock.locked():
                self.engine.foreign.end(lease)

    # Taking up

    async def read(self, shares: Collection[int], opened: Collection[Step]) -> None:
        """What the table has of the calls of these shares, which this engine takes up; only `opened` are still open."""
        table = self._table
        if table is None:
            return
        found = {(each.flow_id, each.step): each for each in await self.engine.writer.call(table.of_shares, shares)}
        self._withdrawn |= {key for key in found.keys() - self.out.keys() if key not in opened}
        self.known |= {key: each for key, each in found.items() if key in opened and key not in self.out and key not in self.engine.foreign.open}

    # Following the table

    async def keep(self) -> None:
        """Offers, looks for work for who waits here, and compares, from now on."""
        table, loop = self._table, asyncio.get_running_loop()
        assert table is not None
        alone, compared = True, loop.time()
        while True:
            try:
                async with asyncio.timeout(POLL):
                    await self.sign.wait()
            except TimeoutError:
                pass
            self.sign.clear()
            if self._shared and alone:
                self._fresh = self.engine.foreign.all_ready()
            alone = not self._shared
            if not alone or self.out or self._putting or self._withdrawn or self._ended or self._freed:
                await self.engine.until_done(lambda: self._exchange(table))
                if loop.time() - compared >= COMPARE:
                    compared = loop.time()
                    await self.engine.until_done(lambda: self._compare_all(table))

    async def _exchange(self, table: OfferTable) -> None:
        await self._flush(table)
        await self._put(table)
        await self._look(table)

    async def _flush(self, table: OfferTable) -> None:
        call = self.engine.writer.call
        if keys := set(self._withdrawn):
            await call(table.withdraw, keys)
            self._withdrawn -= keys
        for names, do in ((self._ended, table.end), (self._freed, table.free)):
            if now := set(names):
                await call(do, now)
                names -= now

    async def _put(self, table: OfferTable) -> None:
        desk = self.engine.foreign
        fresh, self._fresh = self._fresh, []
        for task in fresh:
            key = task.flow_id, task.step
            if self._shared and key not in self.out and desk.is_ready(task):
                self.out[key] = self._putting[key] = task
        offers = [offered(task, self.engine.queues.priority(task.queue)) for key, task in self._putting.items() if self.out.get(key) is task]
        if offers:
            await self.engine.writer.call(table.put, offers)
        self._putting.clear()

    async def _look(self, table: OfferTable) -> None:
        desk, call = self.engine.foreign, self.engine.writer.call
        names = {name for poller in desk.pollers for name in poller.functions}
        if names and self._shared:
            left = Counter(await call(table.wanted, names, self._ours))
            for poller in desk.pollers:
                for name, queue in [] if poller.event.is_set() else left:
                    if left[name, queue] > 0 and name in poller.functions and (poller.queues is None or queue in poller.queues):
                        left[name, queue] -= 1
                        poller.event.set()
                        break
        elsewhere = [key for key, task in self.out.items() if (task.name in names or task.called_off) and not desk.is_ready(task)]
        await self._compare(table, elsewhere)
        for each in await call(table.lapsed, self.engine.sharing.mine):
            await self._lapsed(table, each)

    async def _lapsed(self, table: OfferTable, offer: Offer) -> None:
        """An interpreter that is gone had a call: what is to become of it is in the log."""
        assert offer.lease is not None
        await self.engine.writer.call(table.end, [offer.lease])
        task = self.out.get((offer.flow_id, offer.step))
        if task is not None:
            self._again(task)

    async def compare_all(self) -> None:
        """Looks which of the calls that are offered somebody has."""
        table = self._table
        if table is not None and self.out:
            await self._compare(table, list(self.out))

    async def _compare_all(self, table: OfferTable) -> None:
        await self.compare_all()
        unknown = await self.engine.writer.call(table.held) - self.engine.foreign.leases.keys() - self._ended
        self._freed |= unknown & self._unknown
        self._unknown = unknown

    async def _compare(self, table: OfferTable, keys: Collection[Step]) -> None:
        before = {key: self.out[key] for key in keys if key not in self._putting}
        if not before:
            return
        there = {(each.flow_id, each.step): each for each in await self.engine.writer.call(table.of, list(before))}
        for key, task in before.items():
            if self.out.get(key) is not task or task.lease is not None:
                continue
            offer = there.get(key)
            if offer is None:
                self._again(task)
            elif offer.lease is not None:
                self.engine.foreign.unready(task)
            elif task.called_off:  # a worker elsewhere had it, and has no more
                await self.call_off(task)
            else:
                self.engine.foreign.ready_again(task)

    def _again(self, task: Task) -> None:
        """Begins with a call anew, from the log."""
        self.out.pop((task.flow_id, task.step), None)
        self.engine.foreign.forget(task)
        self.engine.insist(lambda: self._take_up(task))

    async def _take_up(self, task: Task) -> None:
        engine, step = self.engine, task.step
        rows: list[Row] = await engine.writer.call(engine.store.rows, task.flow_id, task.seq - 1)
        if not any(row.seq == task.seq for row in unanswered(rows)):
            return
        await engine.catch_up_all()
        load = loader(engine.definitions.registry)
        request, *sent = [to_draft(row, load) for row in rows if row.step == step and (row.seq == task.seq or row.kind in SENDINGS)]
        attempts = [draft for draft in sent if draft.kind != kinds.EFFECT_CANCELLING]

        def make(process: Process) -> None:
            if is_open(process, step):
                engine.dispatcher.begin(task.flow_id, task.run, request, attempts)
                if len(attempts) < len(sent):
                    engine.dispatcher.call_off(task.flow_id, step, was_sent=True)

        with contextlib.suppress(FlowNotFound):
            await engine.deliver(task.flow_id, make)


def offered(task: Task, place: int) -> Offer:
    """A call as the table has it; `place` is the priority of its queue."""
    return Offer(task.flow_id, task.step, task.name, task.queue, place, task.priority, task.seq, task.run, task.attempt)
