"""A worker: Python functions that answer the foreign calls of flows.

In: functions by name, and a client. Out: answers, through the client's lease calls: in this process or
another, the same. The one rule: a call is answered once per lease; a worker that lost its lease says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from flowmetal.client.client import Client, Row
from flowmetal.client.plain_python import to_json
from flowmetal.errors import FlowmetalError, LeaseLost, StoreError

Function = Callable[..., Any]

CONCURRENCY = 32
"""Calls that one worker performs at the same time, unless told otherwise; so many threads it has at most."""
LEASE = 30.0
"""Seconds after which the calls of a worker that died are given to another."""
WAIT = 25.0
"""Seconds that the worker waits for work in one request."""
PAUSE = 1.0
"""Seconds to wait after the store could not be reached."""
MAX_TRACE = 20

log = logging.getLogger("flowmetal.worker")


@dataclass(frozen=True, slots=True)
class ForeignCall:
    """The call that a function answers: `key` is the same for every attempt; `deadline` is an ISO 8601 text or None."""

    function: str
    key: str
    attempt: int
    deadline: str | None
    flow_id: str


_current: contextvars.ContextVar[ForeignCall] = contextvars.ContextVar("flowmetal_call")


def current_call() -> ForeignCall:
    """Inside a foreign function: the call that it answers, with its idempotency key and the number of the attempt."""
    try:
        return _current.get()
    except LookupError:
        raise FlowmetalError("there is no foreign call here: current_call() is for functions that flows call", type="value") from None


@dataclass(slots=True, eq=False)
class Worker:
    """Leases calls of its functions and performs them until it is stopped. Used on one asyncio loop.

    `async def` functions run on the loop, others on a bounded pool of threads.
    """

    client: Client
    concurrency: int = CONCURRENCY
    queues: list[str] | None = None
    lease: float = LEASE
    functions: dict[str, Function] = field(default_factory=dict)
    _running: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _polls: set[asyncio.Task[list[Row]]] = field(default_factory=set)
    _calls: set[asyncio.Task[None]] = field(default_factory=set)
    _pool: ThreadPoolExecutor | None = None

    async def provide(self, name: str, function: Function) -> None:
        """Answers calls of `name` from now on with `function`; the worker begins with its first one."""
        self.functions[name] = function
        self._changed.set()
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def stop(self, grace: float = 5.0) -> None:
        """Takes no more work; what is under way has `grace` seconds to end. What has not is done again elsewhere, under its key."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        for poll in self._polls:
            poll.cancel()
        await asyncio.gather(*self._polls, return_exceptions=True)
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    # Work

    async def _run(self) -> None:
        changed: asyncio.Task[Any] = asyncio.ensure_future(self._changed.wait())
        try:
            while True:
                free = self.concurrency - len(self._calls)
                if free > 0 and (self._changed.is_set() or not self._polls):
                    self._changed.clear()
                    self._polls.add(asyncio.ensure_future(self._poll(free)))
                if changed.done():
                    changed = asyncio.ensure_future(self._changed.wait())
                done, _ = await asyncio.wait({changed, *self._polls, *self._calls}, return_when=asyncio.FIRST_COMPLETED)
                for poll in done & self._polls:
                    self._polls.discard(poll)
                    for task in poll.result():
                        self._begin(task)
        finally:
            changed.cancel()

    async def _poll(self, most: int) -> list[Row]:
        try:
            return await self.client.lease_tasks(list(self.functions), queues=self.queues, most=most, wait=WAIT, lease=self.lease)
        except FlowmetalError as error:
            log.warning("cannot lease: %s", error.message)
            await asyncio.sleep(PAUSE)
            return []

    def _begin(self, task: Row) -> None:
        call = asyncio.get_running_loop().create_task(self._perform(task))
        self._calls.add(call)
        call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and call.exception() is not None:
            log.error("a call was not answered: %s", call.exception())

    async def _perform(self, task: Row) -> None:
        work = asyncio.ensure_future(self._answer(task))
        beat = asyncio.ensure_future(self._beat(task["id"]))
        try:
            await asyncio.wait({work, beat}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                log.warning("%s: the lease was lost; the call goes on elsewhere, or is wanted no more", task["function"])
        finally:
            for each in (work, beat):
                each.cancel()
            await asyncio.gather(work, beat, return_exceptions=True)

    async def _beat(self, task_id: str) -> None:
        """Extends the lease for as long as it can; returns when it is lost."""
        while True:
            await asyncio.sleep(self.lease / 3)
            try:
                await self.client.heartbeat_task(task_id)
            except StoreError as error:
                log.warning("cannot extend a lease: %s", error.message)
            except LeaseLost:
                return

    async def _answer(self, task: Row) -> None:
        try:
            result = to_json(await self._call(self.functions[task["function"]], task))
        except Exception as error:  # noqa: BLE001  whatever the function raises is its answer
            failure = error_of(error)
            await self._insist(lambda: self.client.fail_task(task["id"], failure))
        else:
            await self._insist(lambda: self.client.complete_task(task["id"], result))

    async def _call(self, function: Function, task: Row) -> Any:
        _current.set(ForeignCall(task["function"], task["idempotency_key"], task["attempt"], task["deadline"], task["flow_id"]))
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            return await function(*task["args"])
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="flowmetal-function")
        run = functools.partial(contextvars.copy_context().run, function, *task["args"])
        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    async def _insist(self, answer: Callable[[], Any]) -> None:
        """Gives an answer, again while the store cannot be reached: the lease says how long that makes sense."""
        with contextlib.suppress(LeaseLost):
            while True:
                try:
                    await answer()
                    return
                except StoreError as error:
                    log.warning("cannot answer: %s", error.message)
                    await asyncio.sleep(PAUSE)


def error_of(error: Exception) -> Row:
    """An exception as the error that a program catches: a `FlowmetalError` by its own type, any other by its class (`:python/ValueError`)."""
    if isinstance(error, FlowmetalError):
        return {"type": error.type, "message": error.message, "data": _data(error.data)}
    frames = traceback.extract_tb(error.__traceback__)[-MAX_TRACE:]
    stack = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in frames if "flowmetal/client/worker" not in frame.filename]
    return {"type": f"python/{type(error).__qualname__}", "message": str(error), "data": {"stack": stack}}


def _data(data: Any) -> Any:
    try:
        plain = to_json(data)
    except FlowmetalError:
        return None
    return plain if isinstance(plain, dict) else None
