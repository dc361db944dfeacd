"""Group commit: one thread that writes what many flows ask for.

What goes in: commits, and calls to the store, from the event loop. What comes out: futures, completed on the loop once
what they stand for is on disk. The one rule: whatever arrives while a commit is under way goes into the next, whole.

Order: commits are applied in the order in which they were asked for. A call runs after every commit that was asked for
before it, and may see later ones; await a call before asking for what depends on it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from flowmetal.store.protocol import Commit, CommitResult, Outcome, Store, StoreError

K = TypeVar("K")
T = TypeVar("T")

MAX_GROUP = 1_000
"""Commits of one transaction at most, so that the first of a flood does not wait for the last."""


class CommitWriter(Protocol):
    """What the engine writes through."""

    async def commit(self, commit: Commit) -> CommitResult:
        """Write it; returns when it is on disk. Raises StoreConflict, Duplicate or StoreError."""

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function of the store where the store may be used."""

    async def ask(self, many: Callable[[list[K]], Mapping[K, T]], key: K) -> T | None:
        """What `many` gives for a key, or None. It is called once for all the keys that are asked for at the time."""

    def start(self) -> None:
        """Begin; called on the event loop that will await."""

    async def stop(self) -> None:
        """Finish what was asked for, then end. The store stays open."""


class InlineWriter:
    """Writes at once, on the caller's thread, without giving way: simulations stay deterministic."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def commit(self, commit: Commit) -> CommitResult:
        """See `CommitWriter.commit`."""
        (outcome,) = self._store.commit_group([commit])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """See `CommitWriter.call`."""
        return function(*args)

    async def ask(self, many: Callable[[list[K]], Mapping[K, T]], key: K) -> T | None:
        """See `CommitWriter.ask`."""
        return many([key]).get(key)

    def start(self) -> None:
        """See `CommitWriter.start`."""

    async def stop(self) -> None:
        """See `CommitWriter.stop`."""


@dataclass(slots=True)
class _Task:
    future: asyncio.Future[Any]
    commit: Commit | None = None
    call: Callable[[], Any] | None = None
    many: Callable[[list[Any]], Mapping[Any, Any]] | None = None
    key: Any = None


class Writer:
    """Writes on a thread of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._broken: BaseException | None = None

    def start(self) -> None:
        """See `CommitWriter.start`."""
        if self._thread is not None:
            raise StoreError("the writer was started already")
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="flowmetal-writer", daemon=True)
        self._thread.start()

    async def commit(self, commit: Commit) -> CommitResult:
        """See `CommitWriter.commit`."""
        future = self._future()
        self._queue.put(_Task(future, commit=commit))
        result: CommitResult = await future
        return result

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """See `CommitWriter.call`."""
        future = self._future()
        self._queue.put(_Task(future, call=lambda: function(*args)))
        result: T = await future
        return result

    async def ask(self, many: Callable[[list[K]], Mapping[K, T]], key: K) -> T | None:
        """See `CommitWriter.ask`."""
        future = self._future()
        self._queue.put(_Task(future, many=many, key=key))
        result: T | None = await future
        return result

    async def stop(self) -> None:
        """See `CommitWriter.stop`."""
        thread = self._thread
        if thread is None:
            return
        if not self._stopping:
            self._stopping = True
            self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def _future(self) -> asyncio.Future[Any]:
        if self._loop is None:
            raise StoreError("the writer was not started")
        if self._broken is not None:
            raise StoreError(f"the store's writer has failed: {self._broken}")
        if self._stopping:
            raise StoreError("the store is being closed")
        return self._loop.create_future()

    def _run(self) -> None:
        go_on = True
        while go_on:
            tasks, go_on = self._next_batch()
            done: list[tuple[asyncio.Future[Any], Any]] = []
            try:
                self._perform(tasks, done)
            except BaseException as error:  # noqa: BLE001 - each waiter is told
                self._broken = error
                finished = {id(future) for future, _ in done}
                done.extend((task.future, _failure(error)) for task in tasks if id(task.future) not in finished)
            self._deliver(done)

    def _next_batch(self) -> tuple[list[_Task], bool]:
        """What is waiting, at least one; and whether there is more to come after it."""
        tasks: list[_Task] = []
        task = self._queue.get()
        while True:
            if task is None:
                return tasks, False
            tasks.append(task)
            if len(tasks) >= MAX_GROUP:
                return tasks, True
            try:
                task = self._queue.get_nowait()
            except Empty:
                return tasks, True

    def _perform(self, tasks: list[_Task], done: list[tuple[asyncio.Future[Any], Any]]) -> None:
        if self._broken is not None:
            raise self._broken
        commits = [task for task in tasks if task.commit is not None]
        if commits:
            outcomes: list[Outcome] = self._store.commit_group([task.commit for task in commits if task.commit is not None])
            done.extend((task.future, outcome) for task, outcome in zip(commits, outcomes, strict=True))
        asked: dict[Callable[[list[Any]], Mapping[Any, Any]], list[_Task]] = {}
        for task in tasks:
            if task.call is not None:
                done.append((task.future, _answer(task.call)))
            elif task.many is not None:
                asked.setdefault(task.many, []).append(task)
        for many, questions in asked.items():
            keys = list(dict.fromkeys(task.key for task in questions))
            answer = _answer(lambda many=many, keys=keys: many(keys))  # type: ignore[misc]
            done.extend((task.future, _Answer(answer.value.get(task.key)) if isinstance(answer, _Answer) else answer) for task in questions)

    def _deliver(self, done: list[tuple[asyncio.Future[Any], Any]]) -> None:
        assert self._loop is not None
        if done:
            try:
                self._loop.call_soon_threadsafe(_complete, done)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more


@dataclass(slots=True)
class _Answer:
    """What a call gave, which may itself be an exception."""

    value: Any


def _answer(call: Callable[[], Any]) -> _Answer | Exception:
    try:
        return _Answer(call())
    except Exception as error:  # noqa: BLE001 - the caller is told
        return error


def _failure(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    wrapped = StoreError(f"the store's writer has failed: {error!r}")
    wrapped.__cause__ = error
    return wrapped


def _complete(done: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in done:
        if future.done():
            continue
        if isinstance(outcome, _Answer):
            future.set_result(outcome.value)
        elif isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
