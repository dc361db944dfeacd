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
from collections.abc import Callable, Iterable
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
    """Leases calls of its functions and performs them until it is stopped. Used on one asyncio loop: best on that of the engine.

    `async def` functions run on the loop (`at_home` says which), others on a bounded pool of threads.
    """

    client: Client
    concurrency: int = CONCURRENCY
    queues: list[str] | None = None
    lease: float = LEASE
    functions: dict[str, Function] = field(default_factory=dict)
    _stopped: bool = False
    _looking: bool = False
    _polls: dict[asyncio.Task[list[Row]], int] = field(default_factory=dict)
    """Requests for work under way, with the number of functions that each names: one of an earlier time may lack some."""
    _calls: dict[asyncio.Task[None], asyncio.TimerHandle] = field(default_factory=dict)
    """Calls under way, with the time at which each extends its lease."""
    _beats: set[asyncio.Task[None]] = field(default_factory=set)
    _pool: ThreadPoolExecutor | None = None

    async def provide(self, name: str, function: Function) -> None:
        """Answers calls of `name` from now on with `function`; the worker begins with its first one."""
        self.functions[name] = function
        self._ask()

    async def stop(self, grace: float = 5.0) -> bool:
        """Takes no more work; what is under way has `grace` seconds to end. What has not is done again elsewhere, under its key: then false."""
        self._stopped = True
        await _cancelled(self._polls)
        left: set[asyncio.Task[None]] = set()
        if self._calls:
            _, left = await asyncio.wait(self._calls, timeout=grace)
        await _cancelled(self._calls)
        await _cancelled(self._beats)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        return not left

    # Work

    def _ask(self) -> None:
        """Asks for as many calls as there is room for."""
        free = self.concurrency - len(self._calls)
        if free > 0 and not self._stopped:
            poll = asyncio.get_running_loop().create_task(self._poll(free))
            self._polls[poll] = len(self.functions)
            poll.add_done_callback(self._polled)

    async def _poll(self, most: int) -> list[Row]:
        try:
            return await self.client.lease_tasks(list(self.functions), queues=self.queues, most=most, wait=WAIT, lease=self.lease)
        except FlowmetalError as error:
            log.log(logging.INFO if error.type == "store/closed" else logging.WARNING, "cannot lease: %s", error.message)
            await asyncio.sleep(PAUSE)
            return []

    def _polled(self, poll: asyncio.Task[list[Row]]) -> None:
        del self._polls[poll]
        if not poll.cancelled():
            for task in poll.result():
                self._begin(task)
            self._look_for_more()

    def _look_for_more(self) -> None:
        """Asks again, once for all the calls that end at about the same time, unless it is asking for all functions already."""
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if len(self.functions) not in self._polls.values():
            self._ask()

    def _begin(self, task: Row) -> None:
        loop = asyncio.get_running_loop()
        call = loop.create_task(self._answer(task))
        self._calls[call] = loop.call_later(self.lease / 3, self._beat, call, task)
        call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.pop(call).cancel()
        self._look_for_more()
        if not call.cancelled() and call.exception() is not None:
            log.error("a call was not answered: %s", call.exception())

    def _beat(self, call: asyncio.Task[None], task: Row) -> None:
        beat = asyncio.get_running_loop().create_task(self._extend(call, task))
        self._beats.add(beat)
        beat.add_done_callback(self._beats.discard)

    async def _extend(self, call: asyncio.Task[None], task: Row) -> None:
        """Extends the lease of a call; abandons the call when the lease is lost."""
        try:
            await self.client.heartbeat_task(task["id"])
        except StoreError as error:
            log.warning("cannot extend a lease: %s", error.message)
        except LeaseLost:
            if call in self._calls:
                log.warning("%s: the lease was lost; the call goes on elsewhere, or is wanted no more", task["function"])
                call.cancel()
            return
        if call in self._calls:
            self._calls[call] = asyncio.get_running_loop().call_later(self.lease / 3, self._beat, call, task)

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
        if _is_async(function):
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


def at_home(function: Function, home: asyncio.AbstractEventLoop) -> Function:
    """An `async def` that runs on the loop to which it belongs, wherever its worker is; any other function is itself.

    A call made after that loop has ended is abandoned, as when its program had: it is made elsewhere when its lease runs out.
    """
    if not _is_async(function):
        return function

    async def call(*args: Any) -> Any:
        if asyncio.get_running_loop() is home:
            return await function(*args)
        if home.is_closed():
            raise asyncio.CancelledError
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(function(*args), home))

    return call


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks, and returns when they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


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
