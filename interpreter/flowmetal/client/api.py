"""The synchronous face for Python programs: `with flowmetal.open(path) as fm`.

In and out: as in `aio`, which does the work. The one rule: a call here is the same call there, run on another
thread's loop (the host's own, or one for an attached client) and waited for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any, Literal, TypeVar, Unpack

from flowmetal.client.aio import ASK_ANEW, AsyncFlow, AsyncFlowmetal, lisp_name
from flowmetal.client.client import Row, StartOptions
from flowmetal.client.discovery import connect
from flowmetal.client.loop_thread import LoopThread
from flowmetal.client.relation import Relation

T = TypeVar("T")


class Flow:
    """A handle on one flow: its id, and what can be asked of it or done to it."""

    is_flow = True

    def __init__(self, flow: AsyncFlow, thread: LoopThread) -> None:
        self._async_flow = flow
        self._thread = thread

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._thread.run(coroutine)

    @property
    def id(self) -> str:
        """The flow's id."""
        return self._async_flow.id

    @property
    def status(self) -> str:
        """`running`, `waiting`, `paused`, `completed`, `failed`, `cancelled` or `moved`."""
        return self._run(self._async_flow.status())

    def result(self, timeout: float | None = None) -> Any:
        """The flow's value. Raises `FlowFailed`, `FlowCancelled`, or `FlowTimeout` when it has not ended in time."""
        return _face(self._run(self._async_flow.result(timeout)), self._thread)

    def row(self) -> Row:
        """The flow's row of the view `flows`."""
        return self._run(self._async_flow.row())

    def events(self, after: int = 0) -> list[Row]:
        """The flow's history: rows of the view `events`."""
        return self._run(self._async_flow.events(after))

    def follow(self, after: int = 0) -> Iterator[Row]:
        """The flow's history, going on live until it ends."""
        rows = self._async_flow.follow(after)
        try:
            while (row := self._run(_next(rows))) is not None:
                yield row
        finally:
            self._run(_close(rows))

    def state(self, step: int | None = None, transition: int | None = None) -> Row:
        """Stack, locals and what is waited for: now (of a flow that has failed: where it failed), when the flow waited for `step`, or so
        many transitions of its machine later; `transitions` says how many there are until the next step."""
        return self._run(self._async_flow.state(step, transition))

    def diff(self, old: int, new: int | None = None) -> Row:
        """What changed from one step to another, or to now: frames `left` and `entered`, locals, promises `opened` and `settled`."""
        return self._run(self._async_flow.diff(old, new))

    def pause(self, reason: str | None = None) -> None:
        """The flow goes on recording what arrives, and does nothing with it until `resume`."""
        self._run(self._async_flow.pause(reason))

    def resume(self, reason: str | None = None) -> None:
        """A paused flow goes on."""
        self._run(self._async_flow.resume(reason))

    def step(self) -> None:
        """A paused flow goes on to its next step, and is paused again."""
        self._run(self._async_flow.step())

    def retry(self, reason: str | None = None) -> None:
        """The step that a flow failed of is asked anew, under the same idempotency key, and the flow goes on there."""
        self._run(self._async_flow.retry(reason))

    def cancel(self, reason: str | None = None) -> None:
        """Cancels at the flow's next wait; its `finally` blocks and rollbacks run."""
        self._run(self._async_flow.cancel(reason))

    def terminate(self, reason: str | None = None) -> None:
        """Ends the flow at once, without running any of it."""
        self._run(self._async_flow.terminate(reason))

    def delete(self) -> list[str]:
        """Deletes the flow, which must be over, and what belongs to it: their ids."""
        return self._run(self._async_flow.delete())

    def export(self, path: str | os.PathLike[str]) -> Row:
        """Writes the flow, with its children, into a new file; an open one has moved then. See `Flowmetal.export`."""
        return self._run(self._async_flow.export(path))

    def fork(self, at: int, *, with_: Any = ASK_ANEW, upgrade: bool = False, adopt_rollbacks: bool = False, reason: str | None = None) -> Flow:
        """A new flow that shares this one's history before step `at`. `with_` is that step's outcome; without it the step is asked anew, with
        `upgrade` under the current definitions. What is shared is never sent again."""
        made = self._async_flow.fork(at, with_=with_, upgrade=upgrade, adopt_rollbacks=adopt_rollbacks, reason=reason)
        return Flow(self._run(made), self._thread)

    def fork_plan(self, at: int, *, with_: Any = ASK_ANEW, upgrade: bool = False) -> Row:
        """What such a fork would share, what it would wait for together with this flow, and what it may do again; nothing is made."""
        return self._run(self._async_flow.fork_plan(at, with_=with_, upgrade=upgrade))

    def upgrade(self, *, dry_run: bool = False, reason: str | None = None) -> Row:
        """Moves the flow to the current definitions: `{"flow_id", "from", "to", "steps", "upgraded"}`; with `dry_run` only says so. Raises
        `FlowmetalError` of type `replay/mismatch` where they would have asked for something else."""
        return self._run(self._async_flow.upgrade(dry_run=dry_run, reason=reason))

    def send(self, message: Any, *, key: str | None = None) -> str:
        """Puts a message into the flow's mailbox; the same `key` twice is one message."""
        return self._run(self._async_flow.send(message, key=key))

    def __repr__(self) -> str:
        return repr(self._async_flow)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Flow) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


class Flowmetal:
    """An open store: hosted here or attached to, the same object."""

    def __init__(self, fm: AsyncFlowmetal, thread: LoopThread) -> None:
        self._fm = fm
        self._thread = thread
        self._closed = False

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._thread.run(coroutine)

    @property
    def store(self) -> str:
        """The store's name: an absolute path, `:memory:` or a URL."""
        return self._fm.store

    def eval(self, source: str, *, ns: str = "user", file: str = "eval") -> Any:
        """Evaluates source text; the last form's value as plain Python data, a flow's handle as `Flow`."""
        return _face(self._run(self._fm.eval(source, ns=ns, file=file)), self._thread)

    def load(self, path: str | os.PathLike[str]) -> int:
        """Adds a file's definitions to the store; the new definitions version."""
        return self._run(self._fm.load(path))

    def start(self, name: str, *args: Any, id: str | None = None, **options: Unpack[StartOptions]) -> Flow:
        """Begins a flow of that program. The same `id` and arguments twice is the same flow. Options: `queue` and `priority` in it, `at` (a
        time, or seconds from now), `tags`, `timeout` (seconds from its beginning), `on_failure="pause"`."""
        return Flow(self._run(self._fm.start(name, *args, id=id, **options)), self._thread)

    def flow(self, id: str) -> Flow:
        """The handle of a flow, by its id or an unambiguous prefix of it."""
        return Flow(self._run(self._fm.flow(id)), self._thread)

    def flows(self, *, status: str | None = None, name: str | None = None, limit: int | None = None) -> list[Row]:
        """Rows of the view `flows`, newest first; all of them unless `limit` says otherwise."""
        return self._run(self._fm.flows(status=status, name=name, limit=limit))

    def result(self, flow_id: str, timeout: float | None = None) -> Any:
        """The value of the flow with that id; see `Flow.result`."""
        return _face(self._run(self._fm.result(flow_id, timeout)), self._thread)

    def stuck(self, after: float = 60.0) -> list[Row]:
        """Flows that wait for what cannot arrive, or for a call that nobody has asked for in `after` seconds: `flow_id name what step since
        detail`, and what to `do`."""
        return self._run(self._fm.stuck(after))

    def status(self, flow_id: str) -> str:
        """The status of the flow with that id."""
        return self._run(self._fm.status(flow_id))

    def events(self, flow_id: str, after: int = 0) -> list[Row]:
        """The history of the flow with that id."""
        return self._run(self._fm.events(flow_id, after))

    def state(self, flow_id: str, step: int | None = None, transition: int | None = None) -> Row:
        """Stack and locals of the flow with that id; see `Flow.state`."""
        return self._run(self._fm.state(flow_id, step, transition))

    def diff(self, flow_id: str, old: int, new: int | None = None) -> Row:
        """What changed in the flow with that id; see `Flow.diff`."""
        return self._run(self._fm.diff(flow_id, old, new))

    def step(self, flow_id: str) -> None:
        """Lets the paused flow with that id go on by one step."""
        self._run(self._fm.step(flow_id))

    def retry(self, flow_id: str, reason: str | None = None) -> None:
        """Asks the step anew that the flow with that id failed of."""
        self._run(self._fm.retry(flow_id, reason))

    def pause(self, flow_id: str, reason: str | None = None) -> None:
        """Pauses the flow with that id."""
        self._run(self._fm.pause(flow_id, reason))

    def resume(self, flow_id: str, reason: str | None = None) -> None:
        """Resumes the flow with that id."""
        self._run(self._fm.resume(flow_id, reason))

    def cancel(self, flow_id: str, reason: str | None = None) -> None:
        """Cancels the flow with that id."""
        self._run(self._fm.cancel(flow_id, reason))

    def terminate(self, flow_id: str, reason: str | None = None) -> None:
        """Terminates the flow with that id."""
        self._run(self._fm.terminate(flow_id, reason))

    def delete(self, flow_id: str) -> list[str]:
        """Deletes the flow with that id, which must be over, and what belongs to it: their ids."""
        return self._run(self._fm.delete(flow_id))

    def export(self, path: str | os.PathLike[str], *flow_ids: str) -> Row:
        """Writes flows, with their children and the definitions that they need, into a new file; those that are open have moved then.

        Gives `{"path", "flows": [ids], "moved": [ids]}`. The file is as secret as the store's token: whoever has it can go on with the flows.
        """
        return self._run(self._fm.export(path, *flow_ids))

    def archive(self, *, older_than: str | None = None, where: str | None = None, keep: str | None = None) -> int:
        """Moves flows that are over into Parquet files beside the store, where they answer as before; how many.

        `older_than` is a duration such as `"30d"`; `where` an SQL condition over the view `flows`. `keep` makes an age the store's setting, which is
        seen to from now on; `"forever"` ends that.
        """
        return self._run(self._fm.archive(older_than=older_than, where=where, keep=keep))

    def import_flows(self, path: str | os.PathLike[str]) -> list[str]:
        """Takes the flows of a file that `export` wrote: they go on here. Their ids."""
        return self._run(self._fm.import_flows(path))

    def backup(self, directory: str | os.PathLike[str]) -> str:
        """Copies the store, as it stands at this moment, into a folder; the path of the copy, which opens as a store."""
        return self._run(self._fm.backup(directory))

    def send(self, flow_id: str, message: Any, *, key: str | None = None) -> str:
        """Puts a message into the mailbox of the flow with that id."""
        return self._run(self._fm.send(flow_id, message, key=key))

    def publish(self, topic: str, data: Any, *, key: str | None = None) -> str:
        """Publishes an event to a topic; its message id. The same `key` twice is one event."""
        return self._run(self._fm.publish(topic, data, key=key))

    def function(self, name: str | Callable[..., Any] | None = None) -> Any:
        """Provides a foreign function: `@fm.function("charge-card")` over a `def` or an `async def`.

        Calls of it are answered until this object is closed: a `def` on a bounded pool of threads, an `async def` on the
        loop of this object. See `AsyncFlowmetal.function`.
        """

        def register(function: Callable[..., Any], given: str | None) -> Callable[..., Any]:
            self._run(self._fm.provide(given or lisp_name(function), function))
            return function

        if callable(name):
            return register(name, None)
        return lambda function: register(function, name)

    def sql(self, sql: str, params: list[Any] | None = None) -> Relation:
        """One SELECT over the store's views: `.fetchall()`, `.df()`, `.arrow()`."""
        return self._run(self._fm.sql(sql, params))

    def advance(self, by: timedelta | float | str) -> str:
        """Moves a store's virtual clock (by seconds, or `"1h30m"`), through all that falls due; the time then, in ISO 8601."""
        return self._run(self._fm.advance(by))

    def close(self) -> None:
        """Lets go of the store; ends its host if it is this program."""
        if not self._closed:
            self._closed = True
            try:
                self._run(self._fm.close())
            finally:
                self._thread.close()

    def __enter__(self) -> Flowmetal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<flowmetal {self.store}>"


def open(store: str | os.PathLike[str] | None = None, *, clock: Literal["real", "virtual"] | None = None) -> Flowmetal:
    """Opens a store: this program hosts it if nobody does, and attaches to its host otherwise.

    With `clock="virtual"` a new store lives in virtual time for good: it jumps to what is due next when nothing else can run. A store that
    lives by another clock than is asked for raises `StoreError`.

    ```python
    with flowmetal.open("flowmetal.duckdb") as fm:
        fm.load("orders.flow")
        print(fm.start("fulfil", {"id": "A-17"}).result(timeout=30))
    ```
    """
    return connected(store, host_here=True, by="python", clock=clock)


def connected(store: str | os.PathLike[str] | None, *, host_here: bool, by: str, clock: Literal["real", "virtual"] | None = None) -> Flowmetal:
    """Opens a store from synchronous code: `host_here` says whether this program may host it."""
    thread = LoopThread()
    try:
        return Flowmetal(AsyncFlowmetal(thread.run(connect(store, host_here=host_here, by=by, clock=clock))), thread)
    except BaseException:
        thread.close()
        raise


def _face(value: Any, thread: LoopThread) -> Any:
    return Flow(value, thread) if isinstance(value, AsyncFlow) else value


async def _next(rows: AsyncIterator[Row]) -> Row | None:
    return await anext(rows, None)


async def _close(rows: AsyncIterator[Row]) -> None:
    close = getattr(rows, "aclose", None)
    if close is not None:
        await asyncio.shield(close())
