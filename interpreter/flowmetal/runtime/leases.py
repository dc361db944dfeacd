"""Leases of foreign calls: who may answer one, until when, and what becomes of the answer.

In: tasks, given to workers; their answers. Out: rows of the flows. Leases are coordination and live in memory only. The one rule: only
who holds the lease can answer, and is told that it did when the row is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LeaseLost
from flowmetal.lang.persistent import Vector
from flowmetal.lang.plain import from_plain
from flowmetal.lang.values import ErrorValue, Instant, kw
from flowmetal.runtime.control import if_open, is_open
from flowmetal.runtime.offers import Offers
from flowmetal.runtime.process import Process
from flowmetal.runtime.retries import RetryPolicy
from flowmetal.runtime.rows import Draft, error_from_plain
from flowmetal.store import kinds

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

INTERRUPTED = kw("effect/interrupted")
TIMEOUT = kw("flow/timeout")
COMPLETED = frozenset({kinds.EFFECT_COMPLETED})
FAILED = frozenset({kinds.EFFECT_FAILED, kinds.ATTEMPT_FAILED})
"""Kinds by which a worker's answer is known again."""

Step = tuple[str, int]
"""A flow and its step."""


@dataclass(slots=True, eq=False)
class Task:
    """One open foreign call."""

    flow_id: str
    step: int
    name: str
    args: Vector
    key: str
    queue: str | None
    policy: RetryPolicy
    attempt_seconds: float | None
    once: bool
    deadline: int | None
    """When the step fails by itself, in microseconds since the epoch."""
    attempt: int
    order: int
    priority: int = 0
    lease: Lease | None = None
    lapsed: bool = False
    """A lease of it ran out: it may have happened."""
    called_off: bool = False
    """It is made no more, and its outcome is awaited only because it is to be undone."""
    run: str = ""
    seq: int = 0
    """Where its request stands in the log of its flow."""
    guest: bool = False
    """Its flow is another interpreter's, which offered it to all."""


@dataclass(slots=True, eq=False)
class Lease:
    """Who may answer a task, and until when (by the loop's own clock)."""

    id: str
    task: Task
    seconds: float
    attempt_ends: float | None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    timer: asyncio.TimerHandle | None = None
    answered: bool = False
    withdrawn: bool = False
    """Nobody waits for the answer any more: it is recorded, and changes nothing."""


class Leases(ABC):
    """The open foreign calls of an engine that are at work somewhere."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.open: dict[Step, Task] = {}
        """Every open call, leased or not."""
        self.leases: dict[str, Lease] = {}
        self.offers = Offers(engine)
        self._mine = ""
        """What tells the leases of this engine from those of one before it."""
        self._numbers = itertools.count(1)

    @abstractmethod
    def offer(self, task: Task, when: int) -> None:
        """A call may be leased again, from a time on."""

    # Leases

    def new_name(self) -> str:
        """What tells a lease from every other of its call."""
        if not self._mine:
            self._mine = self.engine.chance.uuid().hex[:16]
        return f"{self._mine}-{next(self._numbers)}"

    def begin(self, task: Task, seconds: float, lease_id: str | None = None) -> Lease:
        """Gives a call to a worker, for a time."""
        loop = asyncio.get_running_loop()
        ends = None if task.attempt_seconds is None else loop.time() + task.attempt_seconds
        lease = Lease(lease_id or f"{task.flow_id}~{task.step}~{self.new_name()}", task, seconds, ends)
        task.lease = self.leases[lease.id] = lease
        self._renew(lease)
        return lease

    def _renew(self, lease: Lease) -> None:
        if lease.timer is not None:
            lease.timer.cancel()
        loop = asyncio.get_running_loop()
        until = loop.time() + lease.seconds
        lease.timer = loop.call_at(until if lease.attempt_ends is None else min(until, lease.attempt_ends), self._ran_out, lease)

    def end(self, lease: Lease, *, again: bool = False) -> None:
        """A lease is over; `again`: the call is for whoever asks next."""
        if self.leases.pop(lease.id, None) is None:
            return
        if lease.task.guest:
            self.offers.ended(lease, again)
        if lease.timer is not None:
            lease.timer.cancel()
        if lease.task.lease is lease:
            lease.task.lease = None
        if lease.task.queue is not None:
            self.engine.queues.leave(lease.task.queue, (lease.task.flow_id, lease.task.step))
        if self.engine.clock.virtual and not self.engine.closing:
            self.engine.timers.arm()

    def _ran_out(self, lease: Lease) -> None:
        """No answer came: of a call at most once nothing more is known; any other is offered again, as the same attempt."""
        task = lease.task
        if lease.lock.locked():  # its answer is being written
            lease.attempt_ends = None
            self._renew(lease)
            return
        in_time = lease.attempt_ends is None or asyncio.get_running_loop().time() < lease.attempt_ends
        again = in_time and not (task.once or task.called_off or lease.withdrawn)
        self.end(lease, again=again)
        if lease.withdrawn or not self._is_held(task):
            return
        if not in_time:
            error = ErrorValue(TIMEOUT, f"{task.name} gave no answer within {task.attempt_seconds:g} s")
            self.engine.insist(lambda: self._out_of_time(lease, error))
        elif not again:
            self.fail_step(task.flow_id, task.step, task.name, task.attempt)
        else:
            self.put(task.flow_id, task.step, Draft(kinds.LEASE_EXPIRED, task.step, None, {"attempt": task.attempt, "task": lease.id}))
            task.lapsed = True
            if not task.guest:
                self.offer(task, 0)

    def _is_held(self, task: Task) -> bool:
        """Whether a call that was leased here is still to be answered, as far as is known here."""
        return task.guest or self.open.get((task.flow_id, task.step)) is task

    async def _out_of_time(self, lease: Lease, error: ErrorValue) -> None:
        with contextlib.suppress(LeaseLost):  # the step is over for another reason
            await self._fail(lease, error, None, None)

    # Answers

    async def heartbeat(self, task_id: str) -> None:
        """Extends a lease by its length from now. Raises LeaseLost."""
        lease = self.leases.get(task_id)
        if lease is None or lease.withdrawn:
            raise _lost(task_id)
        self._renew(lease)

    async def complete(self, task_id: str, result: Any) -> None:
        """Answers a call with plain data; on disk when this returns. The same again changes nothing. Raises LeaseLost."""
        await self._answer(task_id, COMPLETED, lambda lease: self._complete(lease, from_plain(result)))

    async def fail(self, task_id: str, error: Any, retry: bool | None = None) -> None:
        """An attempt has failed with a plain error: it is made again if `:retry` of the call, and `retry`, allow it. Raises LeaseLost."""
        value = error_from_plain(error)
        await self._answer(task_id, FAILED, lambda lease: self._fail(lease, value, retry, lease.id))

    async def _answer(self, task_id: str, kinds_: frozenset[str], answer: Callable[[Lease], Awaitable[None]]) -> None:
        lease = self.leases.get(task_id)
        if lease is not None:
            async with lease.lock:
                if not lease.answered:
                    await answer(lease)
                    lease.answered = True
                    self.end(lease)
                    if lease.withdrawn:
                        raise _lost(task_id)
                    return
        if not await self._is_recorded(task_id, kinds_):
            raise _lost(task_id)

    async def _complete(self, lease: Lease, value: Any) -> None:
        task = lease.task
        facts = {"attempts": task.attempt, "task": lease.id}
        await self._deliver(lease, Draft(kinds.EFFECT_COMPLETED, task.step, None, facts, {"result": value}))

    async def _fail(self, lease: Lease, error: ErrorValue, retry: bool | None, task_id: str | None) -> None:
        """`task_id` is None where no worker has said so."""
        task = lease.task
        if lease.withdrawn or task.called_off or not _may_retry(task, error, retry):
            await self._deliver(lease, failed(task.step, error, task.attempt, task_id))
            return
        wait = int(task.policy.delay(task.attempt) * 1e6)  # before the clock is looked at: the first one in a process loads a library
        next_at = self.engine.clock.now() + wait
        facts = {"attempt": task.attempt, "next_at": Instant(next_at).format(), "task": task_id}
        await self._deliver(lease, Draft(kinds.ATTEMPT_FAILED, task.step, None, facts, {"error": error}))
        if self.open.get((task.flow_id, task.step)) is task:
            task.attempt += 1
            task.lease = None
            self.offer(task, next_at)

    async def _deliver(self, lease: Lease, draft: Draft) -> None:
        """Writes an answer down: late for a call that was withdrawn it is recorded; for one that is over for another reason it is lost."""
        step, over = lease.task.step, []

        def make(process: Process) -> Draft | None:
            if is_open(process, step) or (lease.withdrawn and not process.ended):
                return draft
            over.append(True)
            return None

        if lease.withdrawn:
            draft.facts["late"] = True
        await self.engine.deliver(lease.task.flow_id, make)
        if over:
            self.end(lease)
            if not await self._is_recorded(lease.id, frozenset({draft.kind})):
                raise _lost(lease.id)

    async def _is_recorded(self, task_id: str, kinds_: frozenset[str]) -> bool:
        """Whether the log holds the answer that was given under this id: whoever gave it may not have heard so."""
        flow_id, _, rest = task_id.partition("~")
        number = rest.partition("~")[0]
        if not number.isdecimal():
            return False
        rows = await self.engine.writer.call(self.engine.store.rows, flow_id, 0, None, kinds_)
        return any(row.step == int(number) and f'"task":"{task_id}"' in row.data and '"late":true' not in row.data for row in rows)

    def fail_step(self, flow_id: str, step: int, name: str, attempt: int) -> None:
        """A call at most once was sent, and nothing more is known of it."""
        message = f"{name} was sent to a worker, and no answer came: it may have happened, or may yet"
        self.put(flow_id, step, failed(step, ErrorValue(INTERRUPTED, message), attempt))

    def put(self, flow_id: str, step: int, draft: Draft) -> None:
        """Writes a row of a step, if it is still open."""
        self.engine.put(flow_id, if_open(step, draft))


def _may_retry(task: Task, error: ErrorValue, retry: bool | None) -> bool:
    """Whether a failed attempt is made again. One at most once only when the worker says that nothing has happened."""
    if retry is False or (task.once and retry is not True) or task.attempt >= task.policy.max_attempts:
        return False
    return task.policy.on is None or error.type.text.lstrip(":") in task.policy.on


def failed(step: int, error: ErrorValue, attempts: int, task_id: str | None = None) -> Draft:
    """The row of a call that has failed."""
    facts: dict[str, Any] = {"attempts": attempts} if task_id is None else {"attempts": attempts, "task": task_id}
    return Draft(kinds.EFFECT_FAILED, step, None, facts, {"error": error})


def _lost(task_id: str) -> LeaseLost:
    return LeaseLost(f"the lease of task {task_id} was lost: the call was answered, withdrawn, or given to another")
