"""Foreign calls that wait for somebody to answer them: offered, leased, answered.

In: open `foreign` steps, after their commit; workers that ask for work. Out: rows of their flows. A
waiting call holds no task and no thread. Leases are coordination and live in memory only: a host that
restarts offers every open call again, under the same idempotency key. The one rule: only who holds the
lease can answer, and is told that it did when the row is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LeaseLost, LispError
from flowmetal.lang.persistent import EMPTY_MAP, Map, Vector
from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.lang.secrets import Secret, replaced
from flowmetal.lang.values import ErrorValue, Instant, kw
from flowmetal.runtime.process import Process
from flowmetal.runtime.queues import asked_queue
from flowmetal.runtime.retries import NO_RETRY, RetryPolicy, parse_retry, seconds
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


@dataclass(slots=True, eq=False)
class Poller:
    """A worker that waits for work."""

    functions: frozenset[str]
    queues: frozenset[str] | None
    event: asyncio.Event = field(default_factory=asyncio.Event)

    def wants(self, task: Task) -> bool:
        """Whether it may be given this task."""
        return task.name in self.functions and (self.queues is None or task.queue in self.queues)


class Tasks:
    """The open foreign calls of an engine: a desk at which workers ask."""

    ops = frozenset({"foreign"})

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.open: dict[Step, Task] = {}
        self.ready: dict[str, dict[Step, Task]] = {}
        """What may be leased now, by function, the oldest first."""
        self.leases: dict[str, Lease] = {}
        self.pollers: list[Poller] = []
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
        if last is not None and last.kind == kinds.ATTEMPT_STARTED:
            self._fail_step(flow_id, step, draft.facts["target"], last.facts["attempt"])
            return
        try:
            task = self._task(flow_id, run, draft, last.facts["attempt"] + 1 if last else 1)
        except LispError as e:
            self._put(flow_id, step, _failed(step, ErrorValue(kw(e.type), e.message, e.data), 0))
            return
        self.open[flow_id, step] = task
        if last is not None:
            self._offer_at(task, Instant.parse(last.facts["next_at"]).micros)
        else:
            self._offer(task)

    def _task(self, flow_id: str, run: str, draft: Draft, attempt: int) -> Task:
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
        )  # fmt: skip

    def drop(self, flow_id: str, step: int, *, withdrawn: bool = False) -> None:
        """The step has its outcome, or is `withdrawn`: it is offered to nobody any more."""
        task = self.open.pop((flow_id, step), None)
        if task is None:
            return
        self._unready(task)
        self.engine.timers.discard(flow_id, -step)
        lease = task.lease
        if lease is not None and withdrawn:
            lease.withdrawn = True
        elif lease is not None and not lease.answered:
            self._end(lease)

    def back(self, flow_id: str, step: int) -> None:
        """The time to wait after a failed attempt is over."""
        task = self.open.get((flow_id, step))
        if task is not None and task.lease is None:
            self._offer(task)

    def close(self) -> None:
        """The engine ends: who waits for work is answered that there is none."""
        for lease in list(self.leases.values()):
            self._end(lease)
        for poller in self.pollers:
            poller.event.set()

    # Offering

    def _offer(self, task: Task) -> None:
        self.ready.setdefault(task.name, {})[task.flow_id, task.step] = task
        for poller in self.pollers:
            if not poller.event.is_set() and poller.wants(task):
                poller.event.set()
                return

    def _offer_at(self, task: Task, when: int) -> None:
        if when <= self.engine.clock.now():
            self._offer(task)
        else:
            self.engine.timers.add(when, task.flow_id, -task.step)

    def _unready(self, task: Task) -> None:
        waiting = self.ready.get(task.name)
        if waiting is not None and waiting.pop((task.flow_id, task.step), None) is not None and not waiting:
            del self.ready[task.name]

    # Workers

    async def lease(
        self, functions: Collection[str], *, queues: Collection[str] | None = None, most: int = 1, wait: float = 0.0, lease: float = 60.0
    ) -> list[dict[str, Any]]:
        """Up to `most` calls of these functions, each leased for `lease` seconds; waits up to `wait` seconds for the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        poller = Poller(frozenset(functions), None if queues is None else frozenset(queues))
        self.pollers.append(poller)
        try:
            while not self.engine.closing:
                poller.event.clear()
                leased = await self._lease_ready(poller, most, lease)
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
            self._pass_on(poller)

    def _pass_on(self, poller: Poller) -> None:
        """What this worker was woken for, and did not take, goes to another."""
        if poller.event.is_set():
            for name in poller.functions:
                for task in list(self.ready.get(name, {}).values()):
                    self._offer(task)
        if self.engine.clock.virtual:
            self.engine.timers.arm()

    async def _lease_ready(self, poller: Poller, most: int, seconds: float) -> list[Lease]:
        queues = self.engine.queues
        waiting = [[t for t in self.ready.get(name, {}).values() if poller.wants(t)] for name in poller.functions]
        if any(t.queue is not None for each in waiting for t in each):
            waiting = [sorted(each, key=self._rank) for each in waiting]
        leases: list[Lease] = []
        for task in heapq.merge(*waiting, key=self._rank):
            if len(leases) == most:
                break
            if task.queue is None or queues.enter(task.queue, (task.flow_id, task.step)):
                leases.append(self._begin(task, seconds))
        for name in {each.task.queue for each in leases if each.task.queue is not None}:
            await self.engine.until_done(lambda name=name: queues.keep(name))  # type: ignore[misc]
        sent = await asyncio.gather(*(self._started(each) for each in leases))
        return [each for each, still in zip(leases, sent, strict=True) if still]

    def _rank(self, task: Task) -> tuple[int, int, int]:
        """What comes first: by the priority of its queue, its own there, its age."""
        return -self.engine.queues.priority(task.queue), -task.priority, task.order

    def room_in(self, queue: str) -> None:
        """A queue has room again: who waits for work looks whether there is some."""
        for poller in self.pollers:
            if poller.queues is None or queue in poller.queues:
                poller.event.set()

    def _begin(self, task: Task, seconds: float) -> Lease:
        self._unready(task)
        loop = asyncio.get_running_loop()
        ends = None if task.attempt_seconds is None else loop.time() + task.attempt_seconds
        lease = Lease(f"{task.flow_id}~{task.step}~{self.engine.chance.uuid().hex[:16]}", task, seconds, ends)
        task.lease = self.leases[lease.id] = lease
        self._renew(lease)
        return lease

    async def _started(self, lease: Lease) -> bool:
        """Whether the call may be sent now: of one at most once, the row that says so is on disk first."""
        task = lease.task
        if not task.once:
            return True
        there: list[bool] = []

        def make(process: Process) -> Draft | None:
            there.append(_is_open(process, task.step))
            return Draft(kinds.ATTEMPT_STARTED, task.step, None, {"attempt": task.attempt, "task": lease.id}) if there[0] else None

        try:
            await self.engine.deliver(task.flow_id, make)
        except BaseException:
            self._end(lease)
            if (task.flow_id, task.step) in self.open:
                self._offer(task)
            raise
        return bool(there and there[0]) and lease.id in self.leases

    def _renew(self, lease: Lease) -> None:
        if lease.timer is not None:
            lease.timer.cancel()
        loop = asyncio.get_running_loop()
        until = loop.time() + lease.seconds
        lease.timer = loop.call_at(until if lease.attempt_ends is None else min(until, lease.attempt_ends), self._ran_out, lease)

    def _end(self, lease: Lease) -> None:
        self.leases.pop(lease.id, None)
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
        self._end(lease)
        if (task.flow_id, task.step) not in self.open:
            return
        if lease.attempt_ends is not None and asyncio.get_running_loop().time() >= lease.attempt_ends:
            error = ErrorValue(TIMEOUT, f"{task.name} gave no answer within {task.attempt_seconds:g} s")
            self.engine.insist(lambda: self._out_of_time(lease, error))
        elif task.once:
            self._fail_step(task.flow_id, task.step, task.name, task.attempt)
        else:
            self._offer(task)

    async def _out_of_time(self, lease: Lease, error: ErrorValue) -> None:
        with contextlib.suppress(LeaseLost):  # the step is over for another reason
            await self._fail(lease, error, None, None)

    def _described(self, lease: Lease) -> dict[str, Any]:
        task = lease.task
        ends = [] if task.deadline is None else [task.deadline]
        if task.attempt_seconds is not None:
            ends.append(self.engine.clock.now() + int(task.attempt_seconds * 1e6))
        return {
            "id": lease.id, "function": task.name, "args": [to_plain(replaced(arg, _named))[0] for arg in task.args], "attempt": task.attempt,
            "idempotency_key": task.key, "deadline": Instant(min(ends)).format() if ends else None, "flow_id": task.flow_id, "step": task.step,
        }  # fmt: skip

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
                    self._end(lease)
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
        if lease.withdrawn or not _may_retry(task, error, retry):
            await self._deliver(lease, _failed(task.step, error, task.attempt, task_id))
            return
        next_at = self.engine.clock.now() + int(task.policy.delay(task.attempt) * 1e6)
        facts = {"attempt": task.attempt, "next_at": Instant(next_at).format(), "task": task_id}
        await self._deliver(lease, Draft(kinds.ATTEMPT_FAILED, task.step, None, facts, {"error": error}))
        if (task.flow_id, task.step) in self.open:
            task.attempt += 1
            task.lease = None
            self._offer_at(task, next_at)

    async def _deliver(self, lease: Lease, draft: Draft) -> None:
        """Writes an answer down: late for a call that was withdrawn it is recorded; for one that is over for another reason it is lost."""
        step, over = lease.task.step, []

        def make(process: Process) -> Draft | None:
            if _is_open(process, step) or (lease.withdrawn and not process.ended):
                return draft
            over.append(True)
            return None

        if lease.withdrawn:
            draft.facts["late"] = True
        await self.engine.deliver(lease.task.flow_id, make)
        if over:
            self._end(lease)
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

    def _fail_step(self, flow_id: str, step: int, name: str, attempt: int) -> None:
        message = f"{name} was sent to a worker, and no answer came: it may have happened, or may yet"
        self._put(flow_id, step, _failed(step, ErrorValue(INTERRUPTED, message), attempt))

    def _put(self, flow_id: str, step: int, draft: Draft) -> None:
        self.engine.put(flow_id, lambda process: draft if _is_open(process, step) else None)


def _is_open(process: Process, step: int) -> bool:
    return step in process.open and not process.ended


def _named(secret: Secret) -> str:
    """What a worker is told of a secret."""
    return secret.name or secret.to_plain()


def _may_retry(task: Task, error: ErrorValue, retry: bool | None) -> bool:
    """Whether a failed attempt is made again. One at most once only when the worker says that nothing has happened."""
    if retry is False or (task.once and retry is not True) or task.attempt >= task.policy.max_attempts:
        return False
    return task.policy.on is None or error.type.text.lstrip(":") in task.policy.on


def _failed(step: int, error: ErrorValue, attempts: int, task_id: str | None = None) -> Draft:
    facts: dict[str, Any] = {"attempts": attempts} if task_id is None else {"attempts": attempts, "task": task_id}
    return Draft(kinds.EFFECT_FAILED, step, None, facts, {"error": error})


def _lost(task_id: str) -> LeaseLost:
    return LeaseLost(f"the lease of task {task_id} was lost: the call was answered, withdrawn, or given to another")
