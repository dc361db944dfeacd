"""What an engine does by itself: its tasks, and work that is done until it is done.

In: coroutines. Out: tasks whose failures are reported and whose end is waited for. The one rule: what the store refuses at the
moment is tried again, until the engine ends.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from flowmetal.errors import StoreError


class Errands(ABC):
    """The tasks of an engine."""

    def __init__(self, retry_seconds: float) -> None:
        self.retry_seconds = retry_seconds
        self.tasks: set[asyncio.Task[Any]] = set()
        self.attending: set[asyncio.Task[Any]] = set()
        """Tasks that never end by themselves."""
        self.closing = False

    @abstractmethod
    def errand_done(self) -> None:
        """Called when a task has ended."""

    def spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        """A task of the engine: its failure is the loop's to report, its end the engine's to wait for."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def attend(self, coroutine: Any) -> None:
        """A task that goes on until the engine ends, and is no work of it."""
        task = self.spawn(coroutine)
        self.tasks.discard(task)
        self.attending.add(task)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        self.attending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.report(task.exception(), task)
        self.errand_done()

    def report(self, error: BaseException | None, task: asyncio.Task[Any] | None = None) -> None:
        """Says in the log of this process that something failed that should not have."""
        asyncio.get_running_loop().call_exception_handler({"message": "a task of the engine failed", "exception": error, "task": task})

    def insist(self, work: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """A task that does something until it is done, whatever the store says meanwhile."""
        return self.spawn(self.until_done(work))

    async def until_done(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Does something that the store may refuse at the moment: again, until it is done."""
        while True:
            try:
                return await work()
            except StoreError:
                if self.closing:
                    raise asyncio.CancelledError from None
                await asyncio.sleep(self.retry_seconds)

    async def end_errands(self) -> None:
        """Cancels the tasks, but for the one that asks for it, and waits for their end."""
        tasks = [t for t in (*self.tasks, *self.attending) if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
