"""Foreign calls that wait for somebody to answer them: the desk at which they are offered, and workers ask.

In: open `foreign` steps, after their commit; workers that ask for work. Out: leases. A waiting call holds no task
and no thread. The one rule: a host that restarts offers every open call again, under the same idempotency key.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError, StoreError
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.plain import to_plain
from flowmetal.lang.secrets import Secret, replaced
from flowmetal.lang.values import ErrorValue, Instant, kw
from flowmetal.runtime.control import beginning
from flowmetal.runtime.leases import Lease, Leases, Step, Task, failed
from flowmetal.runtime.queues import asked_queue
from flowmetal.runtime.retries import NO_RETRY, parse_retry, seconds
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine


@dataclass(slots=True, eq=False)
class Poller:
    """A worker that waits for work."""

    functions: frozenset[str]
    queues: frozenset[str] | None
    event: asyncio.Event = field(default_factory=asyncio.Event)

    def wants(self, task: Task) -> bool:
        """Whether it may be given this task."""
        return task.name in self.functions and (self.queues is None or task.queue in self.queues)


class Tasks(Leases):
    """The open foreign calls of an engine: a desk at which workers ask."""

    ops = frozenset({"foreign"})

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.ready: dict[str, dict[Step, Task]] = {}
        """What may be leased now, by function, the oldest first."""
        self.pollers: list[Poller] = []
        self.asked: dict[str, float] = {}
        """When a worker asked for calls of a function last, by the loop's clock."""
        self._orders = itertools.count()

    @property
    def busy(self) -> bool:
        """Whether somebody is at work on a call, or about to be: virtual time then stands still."""
        return bool(self.leases) or any(p.event.is_set() for p in self.pollers)

    # From the engine

    def take(self, flow_id: str, run: str, draft: Draft, attempts: Sequence[Draft]) -> None:
        """Offers a call that is on disk; `attempts` are those on record."""
        assert draft.step is not None
        step = draft.step
        if (flow_id, step) in self.open:
            return
        last = attempts[-1] if attempts else None
        begun = last is not None and last.kind == kinds.ATTEMPT_STARTED
        attempt = 1 if last is None else last.facts["attempt"] + (0 if begun else 1)
        there = self.offers.stands((flow_id, step), attempt)
        if begun and (there is None or there.holder is None):
            self.fail_step(flow_id, step, draft.facts["target"], attempt)
            return
        try:
            task = self.task(flow_id, run, draft, attempt)
        except LispError as e:
            self.put(flow_id, step, failed(step, ErrorValue(kw(e.type), e.message, e.data), 0))
            return
        self.open[flow_id, step] = task
        if there is not None:
            self.offers.out[flow_id, step] = task
            if there.lease is None:
                self._offer_now(task)
        elif last is not None:
            self.offer(task, Instant.parse(last.facts["next_at"]).micros)
        else:
            self._offer_now(task)

    def task(self, flow_id: str, run: str, draft: Draft, attempt: int) -> Task:
        """The call that a row asks for. Raises LispError where its options are wrong."""
        options: Map = draft.values.get("options") or EMPTY_MAP
        limit = options.get(kw("attempt-timeout"))
        seconds(options.get(kw("timeout")), ":timeout", 0.0)
        key = options.get(kw("idempotency-key"))
        queue, priority = asked_queue(draft)
        due = draft.facts.get("due_at")
        step = draft.step or 0
        return Task(
            flow_id, step, draft.facts["target"], draft.values["args"], f"{run}/{step}" if key is None else str(to_plain(key)[0]),
            queue, parse_retry(options.get(kw("retry")), NO_RETRY),
            None if limit is None else seconds(limit, ":attempt-timeout", 0.0), bool(options.get(kw("at-most-once"))),
            None if due is None else Instant.parse(due).micros, attempt, next(self._orders), priority,
            run=run, seq=draft.seq,
        )  # fmt: skip

    def drop(self, flow_id: str, step: int, *, withdrawn: bool = False) -> None:
        """The step has its outcome, or is `withdrawn`: it is offered to nobody any more."""
        task = self.open.pop((flow_id, step), None)
        if task is None:
            self.offers.forget((flow_id, step))
            return
        self.unready(task)
        self.engine.timers.discard(flow_id, -step)
        self.offers.drop((flow_id, step))
        lease = task.lease or self.offers.guests.get((flow_id, step))
        if lease is not None and withdrawn:
            lease.withdrawn = True
        elif lease is not None and not lease.answered:
            self.end(lease)

    def call_off(self, flow_id: str, step: int, was_sent: bool) -> bool | None:
        """A call is not to be made any more: None while a worker has it, whose answer is awaited; else whether one had it once."""
        task = self.open.get((flow_id, step))
        if task is None:
            return False
        task.called_off = True
        task.lapsed |= was_sent
        if task.lease is not None:
            return None
        if (flow_id, step) in self.offers.out:
            self.engine.insist(lambda: self.offers.call_off(task))
            return None
        self.unready(task)
        self.engine.timers.discard(flow_id, -step)
        return task.lapsed

    def back(self, flow_id: str, step: int) -> None:
        """The time to wait after a failed attempt is over."""
        task = self.open.get((flow_id, step))
        if task is not None and task.lease is None:
            self._offer_now(task)

    def told(self, flow_id: str, draft: Draft) -> None:
        """What a worker of another interpreter has not done of a call: it may be had again."""
        task = self.offers.out.get((flow_id, draft.step or 0))
        if task is None:
            return
        if draft.kind == kinds.LEASE_EXPIRED:
            task.lapsed = True
            if task.called_off:
                self.engine.insist(lambda: self.offers.call_off(task))
        elif draft.facts["attempt"] >= task.attempt:
            self.offers.forget((flow_id, task.step))
            task.attempt = draft.facts["attempt"] + 1
            if task.called_off and draft.error is not None:
                self.put(flow_id, task.step, failed(task.step, draft.error, task.attempt - 1))
            else:
                self.offer(task, Instant.parse(draft.facts["next_at"]).micros)

    def forget(self, task: Task) -> None:
        """Nothing of an open call is known here any more: it is to be taken up again, or is another interpreter's."""
        key = task.flow_id, task.step
        self.offers.forget(key)
        self.open.pop(key, None)
        self.unready(task)
        self.engine.timers.discard(task.flow_id, -task.step)

    def close(self) -> None:
        """The engine ends: who waits for work is answered that there is none."""
        for lease in list(self.leases.values()):
            self.end(lease)
        for poller in self.pollers:
            poller.event.set()

    # Offering

    def _offer_now(self, task: Task) -> None:
        self.ready.setdefault(task.name, {})[task.flow_id, task.step] = task
        self.offers.waits(task)
        for poller in self.pollers:
            if not poller.event.is_set() and poller.wants(task):
                poller.event.set()
                return

    def offer(self, task: Task, when: int) -> None:
        """Offers a call from a time on."""
        if when <= self.engine.clock.now():
            self._offer_now(task)
        else:
            self.engine.timers.add(when, task.flow_id, -task.step)

    def is_ready(self, task: Task) -> bool:
        """Whether a call waits for a worker here."""
        return self.ready.get(task.name, {}).get((task.flow_id, task.step)) is task

    def all_ready(self) -> list[Task]:
        """The calls that wait for a worker here."""
        return [task for waiting in self.ready.values() for task in waiting.values()]

    def ready_again(self, task: Task) -> None:
        """A call that others could have had may be had here."""
        if not self.is_ready(task):
            self._offer_now(task)

    def unready(self, task: Task) -> None:
        """A call is not to be had here any more."""
        waiting = self.ready.get(task.name)
        if waiting is not None and waiting.pop((task.flow_id, task.step), None) is not None and not waiting:
            del self.ready[task.name]

    # Workers

    async def lease(
        self, functions: Collection[str], *, queues: Collection[str] | None = None, most: int = 1, wait: float = 0.0, lease: float = 60.0
    ) -> list[dict[str, Any]]:
        """Up to `most` calls of these functions, each leased for `lease` seconds; waits up to `wait` seconds for the first."""
        if self.engine.closing:
            raise StoreError("the store is being closed", type="store/closed")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        poller = Poller(frozenset(functions), None if queues is None else frozenset(queues))
        self.pollers.append(poller)
        self.asked.update(dict.fromkeys(functions, loop.time()))
        try:
            while not self.engine.closing:
                poller.event.clear()
                leased = await self._lease_ready(poller, most, lease) or await self._written(await self.offers.claim(poller, most, lease))
                if leased:
                    return [self._described(each) for each in leased]
                try:
                    async with asyncio.timeout_at(deadline):
                        await poller.event.wait()
                except TimeoutError:
                    return []
            return []
        finally:
            self.pollers.remove(poller)
            self.asked.update(dict.fromkeys(functions, loop.time()))
            self._pass_on(poller)

    def is_forsaken(self, flow_id: str, step: int, seconds: float) -> bool:
        """Whether a call waits for a worker, and none has asked for its function for so long."""
        task = self.open.get((flow_id, step))
        if task is None or task.lease is not None or any(task.name in poller.functions for poller in self.pollers):
            return False
        if (flow_id, step) in self.offers.out and not self.is_ready(task):
            return False
        last = self.asked.get(task.name)
        return last is None or asyncio.get_running_loop().time() - last >= seconds

    def _pass_on(self, poller: Poller) -> None:
        """What this worker was woken for, and did not take, goes to another."""
        if poller.event.is_set():
            for name in poller.functions:
                for task in list(self.ready.get(name, {}).values()):
                    self._offer_now(task)
        if self.engine.clock.virtual:
            self.engine.timers.arm()

    async def _lease_ready(self, poller: Poller, most: int, seconds: float) -> list[Lease]:
        waiting = [[t for t in self.ready.get(name, {}).values() if poller.wants(t)] for name in poller.functions]
        if any(t.queue is not None for each in waiting for t in each):
            waiting = [sorted(each, key=self._rank) for each in waiting]
        leases: list[Lease] = []
        full: set[str | None] = set()
        try:
            for task in heapq.merge(*waiting, key=self._rank):
                if len(leases) == most:
                    break
                if task.queue in full or not self.is_ready(task):
                    continue
                if await self._has_turn(task):
                    leases.append(self.begin(task, seconds))
                elif self.is_ready(task):
                    full.add(task.queue)
        except BaseException:
            for each in leases:
                self._give_back(each)
            raise
        taken = await self._taken_back(leases)
        if leases and not taken:  # workers elsewhere were first
            await self.offers.compare_all()
            return await self._lease_ready(poller, most, seconds)
        return await self._written(taken)

    async def _taken_back(self, leases: list[Lease]) -> list[Lease]:
        """Those of some new leases whose calls no worker of another interpreter has."""
        try:
            back = await self.offers.take_back([lease.task for lease in leases])
        except BaseException:
            for lease in leases:
                self._give_back(lease)
            raise
        for lease in leases:
            if (lease.task.flow_id, lease.task.step) not in back:
                self.end(lease)
        return [lease for lease in leases if lease.id in self.leases]

    async def _has_turn(self, task: Task) -> bool:
        """Takes a call from the desk, if its queue has a place for it, and no worker of another interpreter has it."""
        queues, key, entered, mine = self.engine.queues, (task.flow_id, task.step), False, True
        if task.queue is not None and queues.is_shut(task.queue):
            return False
        self.unready(task)
        if task.queue is None:
            return True
        try:
            mine = key in await self.offers.take_back([task])
            entered = mine and await queues.enter(task.queue, key)
        finally:
            wanted = self.open.get(key) is task and not task.called_off
            if wanted and mine and not entered:
                self.ready.setdefault(task.name, {})[key] = task
                self.offers.waits(task)
        if entered and not wanted:
            queues.leave(task.queue, key)
        return entered and wanted

    async def _written(self, leases: list[Lease]) -> list[Lease]:
        """Those of some new leases that may be given out. Raises what went wrong where it went wrong with all."""
        queues, written = self.engine.queues, False
        try:
            for name in {each.task.queue for each in leases if each.task.queue is not None}:
                await self.engine.until_done(lambda name=name: queues.keep(name))  # type: ignore[misc]
            written = True
            sent = await asyncio.gather(*(self._started(each) for each in leases), return_exceptions=True)
        except BaseException:  # the worker has gone: what was not sent yet is for others
            for each in leases:
                if not (written and each.task.once):
                    self._give_back(each)
            raise
        failed = [each for each in sent if isinstance(each, BaseException)]
        given = [each for each, still in zip(leases, sent, strict=True) if still is True]
        if failed and not given:
            raise failed[0]
        return given

    def _give_back(self, lease: Lease) -> None:
        """A call that was leased and not sent is for whoever asks next."""
        task = lease.task
        if lease.id in self.leases:
            self.end(lease, again=True)
            if self.open.get((task.flow_id, task.step)) is task:
                self._offer_now(task)

    def _rank(self, task: Task) -> tuple[int, int, int]:
        """What comes first: by the priority of its queue, its own there, its age."""
        return -self.engine.queues.priority(task.queue), -task.priority, task.order

    def room_in(self, queue: str) -> None:
        """A queue has room again: who waits for work looks whether there is some."""
        for poller in self.pollers:
            if poller.queues is None or queue in poller.queues:
                poller.event.set()

    async def _started(self, lease: Lease) -> bool:
        """Whether the call may be sent now: of one at most once, the row that says so is on disk first."""
        task = lease.task
        if not task.once:
            return True
        make, made = beginning(task.step, {"attempt": task.attempt, "task": lease.id})
        try:
            await self.engine.deliver(task.flow_id, make)
        except BaseException:
            self._give_back(lease)
            raise
        if task.guest and not made():
            self.end(lease)
        return made() and lease.id in self.leases

    def _described(self, lease: Lease) -> dict[str, Any]:
        task = lease.task
        ends = [] if task.deadline is None else [task.deadline]
        if task.attempt_seconds is not None:
            ends.append(self.engine.clock.now() + int(task.attempt_seconds * 1e6))
        return {
            "id": lease.id, "function": task.name, "args": [to_plain(replaced(arg, _named))[0] for arg in task.args], "attempt": task.attempt,
            "idempotency_key": task.key, "deadline": Instant(min(ends)).format() if ends else None, "flow_id": task.flow_id, "step": task.step,
        }  # fmt: skip


def _named(secret: Secret) -> str:
    """What a worker is told of a secret."""
    return secret.name or secret.to_plain()
