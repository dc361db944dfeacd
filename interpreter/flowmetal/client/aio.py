"""The asynchronous face for Python programs: `async with flowmetal.open_async(path) as fm`.

In: Python values, which become the flow's JSON. Out: plain Python data, and `AsyncFlow` handles. The one rule:
all the work is here; the synchronous face in `api` only waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Unpack

from flowmetal.client.client import Client, Row, StartOptions
from flowmetal.client.moving import export_to, import_from
from flowmetal.client.plain_python import to_json
from flowmetal.client.problems import failure_of
from flowmetal.client.relation import Relation
from flowmetal.client.requires import load_requires, load_with_requires
from flowmetal.client.worker import Worker, at_home
from flowmetal.errors import FlowTimeout, SourceError, StoreError

ASK_ANEW: Any = type("AskAnew", (), {"__repr__": lambda self: "ASK_ANEW"})()
"""In place of the outcome of a step that a fork is to ask anew."""
CONCURRENCY = 128
"""Foreign calls that a program answers at the same time, and threads at most on which its `def`s run; they begin as needed."""


class AsyncFlow:
    """A handle on one flow: its id, and what can be asked of it or done to it."""

    is_flow = True

    def __init__(self, client: Client, flow_id: str) -> None:
        self._client = client
        self.id = flow_id

    async def result(self, timeout: float | None = None) -> Any:
        """The flow's value. Raises `FlowFailed`, `FlowCancelled`, or `FlowTimeout` when it has not ended in time."""
        outcome = await self._client.result(self.id, timeout)
        if outcome is None and timeout is None:
            raise StoreError(f"the store was closed while flow {self.id} ran", hint="the flow goes on when it is open")
        if outcome is None:
            raise FlowTimeout(f"flow {self.id} has not ended within {timeout:g} s", hint="it goes on; ask again later")
        return value_of(self._client, outcome, self.id)

    async def status(self) -> str:
        """`running`, `waiting`, `paused`, `completed`, `failed`, `cancelled` or `moved`."""
        return str((await self._client.flow(self.id))["status"])

    async def row(self) -> Row:
        """The flow's row of the view `flows`."""
        return await self._client.flow(self.id)

    async def events(self, after: int = 0) -> list[Row]:
        """The flow's history: rows of the view `events`."""
        return await self._client.events(self.id, after)

    def follow(self, after: int = 0) -> AsyncIterator[Row]:
        """The flow's history, going on live until it ends."""
        return self._client.follow(self.id, after)

    async def state(self, step: int | None = None, transition: int | None = None) -> Row:
        """Stack, locals and what is waited for: now (of a flow that has failed: where it failed), when the flow waited for `step`, or so
        many transitions of its machine later; `transitions` says how many there are until the next step."""
        return await self._client.state(self.id, step, transition)

    async def diff(self, old: int, new: int | None = None) -> Row:
        """What changed from one step to another, or to now: frames `left` and `entered`, locals, promises `opened` and `settled`."""
        return await self._client.diff(self.id, old, new)

    async def pause(self, reason: str | None = None) -> None:
        """The flow goes on recording what arrives, and does nothing with it until `resume`."""
        await self._client.control(self.id, "pause", reason=reason)

    async def resume(self, reason: str | None = None) -> None:
        """A paused flow goes on."""
        await self._client.control(self.id, "resume", reason=reason)

    async def step(self) -> None:
        """A paused flow goes on to its next step, and is paused again."""
        await self._client.control(self.id, "step")

    async def retry(self, reason: str | None = None) -> None:
        """The step that a flow failed of is asked anew, under the same idempotency key, and the flow goes on there."""
        await self._client.control(self.id, "retry", reason=reason)

    async def cancel(self, reason: str | None = None) -> None:
        """Cancels at the flow's next wait; its `finally` blocks and rollbacks run."""
        await self._client.control(self.id, "cancel", reason=reason)

    async def terminate(self, reason: str | None = None) -> None:
        """Ends the flow at once, without running any of it."""
        await self._client.control(self.id, "terminate", reason=reason)

    async def delete(self) -> list[str]:
        """Deletes the flow, which must be over, and what belongs to it: their ids."""
        return await self._client.delete(self.id)

    async def export(self, path: str | os.PathLike[str]) -> Row:
        """Writes the flow, with its children, into a new file; an open one has moved then. See `AsyncFlowmetal.export`."""
        return await export_to(self._client, [self.id], path)

    async def fork(self, at: int, *, with_: Any = ASK_ANEW, upgrade: bool = False, adopt_rollbacks: bool = False, reason: str | None = None) -> AsyncFlow:
        """A new flow that shares this one's history before step `at`. `with_` is that step's outcome; without it the step is asked anew, with
        `upgrade` under the current definitions. What is shared is never sent again."""
        made = await self._client.fork(self.id, at, outcome=_outcome(with_), upgrade=upgrade, adopt_rollbacks=adopt_rollbacks, reason=reason)
        return AsyncFlow(self._client, str(made["flow_id"]))

    async def fork_plan(self, at: int, *, with_: Any = ASK_ANEW, upgrade: bool = False) -> Row:
        """What such a fork would share, what it would wait for together with this flow, and what it may do again; nothing is made."""
        return await self._client.fork(self.id, at, outcome=_outcome(with_), upgrade=upgrade, dry_run=True)

    async def upgrade(self, *, dry_run: bool = False, reason: str | None = None) -> Row:
        """Moves the flow to the current definitions: `{"flow_id", "from", "to", "steps", "upgraded"}`; with `dry_run` only says so. Raises
        `FlowmetalError` of type `replay/mismatch` where they would have asked for something else."""
        return await self._client.upgrade(self.id, dry_run=dry_run, reason=reason)

    async def send(self, message: Any, *, key: str | None = None) -> str:
        """Puts a message into the flow's mailbox; the same `key` twice is one message."""
        return await self._client.send(self.id, to_json(message), key=key)

    def __repr__(self) -> str:
        return f"<flow {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncFlow) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


class AsyncFlowmetal:
    """An open store: hosted here or attached to, the same object."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._worker: Worker | None = None
        self._providing: set[asyncio.Task[None]] = set()

    @property
    def client(self) -> Client:
        """The client below."""
        return self._client

    @property
    def store(self) -> str:
        """The store's name: an absolute path, `:memory:` or a URL."""
        return self._client.store.url

    async def eval(self, source: str, *, ns: str = "user", file: str = "eval") -> Any:
        """Evaluates source text; the last form's value as plain Python data, a flow's handle as `AsyncFlow`."""
        await load_requires(self._client, source, file)
        flow_id = await self._client.eval(source, ns=ns, file=file)
        return await AsyncFlow(self._client, flow_id).result()

    async def load(self, path: str | os.PathLike[str]) -> int:
        """Adds a file's definitions to the store; the new definitions version."""
        return int((await load_with_requires(self._client, read_source(path), os.fspath(path)))["version"])

    async def start(self, name: str, *args: Any, id: str | None = None, **options: Unpack[StartOptions]) -> AsyncFlow:
        """Begins a flow of that program. The same `id` and arguments twice is the same flow. Options: `queue` and `priority` in it, `at` (a
        time, or seconds from now), `tags`, `timeout` (seconds from its beginning), `on_failure="pause"`."""
        given = {key: to_json(value) for key, value in options.items() if value is not None}
        flow_id, _ = await self._client.start_flow(name, [to_json(arg) for arg in args], flow_id=id, options=given)
        return AsyncFlow(self._client, flow_id)

    async def flow(self, id: str) -> AsyncFlow:
        """The handle of a flow, by its id or an unambiguous prefix of it."""
        return AsyncFlow(self._client, str((await self._client.flow(id))["flow_id"]))

    async def flows(self, *, status: str | None = None, name: str | None = None, limit: int | None = None) -> list[Row]:
        """Rows of the view `flows`, newest first; all of them unless `limit` says otherwise."""
        rows: list[Row] = []
        after: str | None = None
        while limit is None or len(rows) < limit:
            page = await self._client.flows(status, name, min(1000, limit - len(rows)) if limit else 1000, after)
            rows.extend(page["items"])
            after = page.get("next")
            if not after:
                break
        return rows

    async def result(self, flow_id: str, timeout: float | None = None) -> Any:
        """The value of the flow with that id; see `AsyncFlow.result`."""
        return await AsyncFlow(self._client, flow_id).result(timeout)

    async def stuck(self, after: float = 60.0) -> list[Row]:
        """Flows that wait for what cannot arrive, or for a call that nobody has asked for in `after` seconds: `flow_id name what step since
        detail`, and what to `do`."""
        return await self._client.stuck(after)

    async def status(self, flow_id: str) -> str:
        """The status of the flow with that id."""
        return await AsyncFlow(self._client, flow_id).status()

    async def events(self, flow_id: str, after: int = 0) -> list[Row]:
        """The history of the flow with that id."""
        return await self._client.events(flow_id, after)

    async def state(self, flow_id: str, step: int | None = None, transition: int | None = None) -> Row:
        """Stack and locals of the flow with that id; see `AsyncFlow.state`."""
        return await self._client.state(flow_id, step, transition)

    async def diff(self, flow_id: str, old: int, new: int | None = None) -> Row:
        """What changed in the flow with that id; see `AsyncFlow.diff`."""
        return await self._client.diff(flow_id, old, new)

    async def step(self, flow_id: str) -> None:
        """Lets the paused flow with that id go on by one step."""
        await self._client.control(flow_id, "step")

    async def retry(self, flow_id: str, reason: str | None = None) -> None:
        """Asks the step anew that the flow with that id failed of."""
        await self._client.control(flow_id, "retry", reason=reason)

    async def pause(self, flow_id: str, reason: str | None = None) -> None:
        """Pauses the flow with that id."""
        await self._client.control(flow_id, "pause", reason=reason)

    async def resume(self, flow_id: str, reason: str | None = None) -> None:
        """Resumes the flow with that id."""
        await self._client.control(flow_id, "resume", reason=reason)

    async def cancel(self, flow_id: str, reason: str | None = None) -> None:
        """Cancels the flow with that id."""
        await self._client.control(flow_id, "cancel", reason=reason)

    async def terminate(self, flow_id: str, reason: str | None = None) -> None:
        """Terminates the flow with that id."""
        await self._client.control(flow_id, "terminate", reason=reason)

    async def delete(self, flow_id: str) -> list[str]:
        """Deletes the flow with that id, which must be over, and what belongs to it: their ids."""
        return await self._client.delete(flow_id)

    async def export(self, path: str | os.PathLike[str], *flow_ids: str) -> Row:
        """Writes flows, with their children and the definitions that they need, into a new file; those that are open have moved then.

        Gives `{"path", "flows": [ids], "moved": [ids]}`. The file is as secret as the store's token: whoever has it can go on with the flows.
        """
        return await export_to(self._client, flow_ids, path)

    async def archive(self, *, older_than: str | None = None, where: str | None = None, keep: str | None = None) -> int:
        """Moves flows that are over into Parquet files beside the store, where they answer as before; how many.

        `older_than` is a duration such as `"30d"`; `where` an SQL condition over the view `flows`. `keep` makes an age the store's setting, which is
        seen to from now on; `"forever"` ends that.
        """
        return int((await self._client.archive(older_than=older_than, where=where, keep=keep))["archived"])

    async def import_flows(self, path: str | os.PathLike[str]) -> list[str]:
        """Takes the flows of a file that `export` wrote: they go on here. Their ids."""
        return list((await import_from(self._client, path))["flows"])

    async def backup(self, directory: str | os.PathLike[str]) -> str:
        """Copies the store, as it stands at this moment, into a folder; the path of the copy, which opens as a store."""
        return await self._client.backup(os.path.realpath(directory))

    async def send(self, flow_id: str, message: Any, *, key: str | None = None) -> str:
        """Puts a message into the mailbox of the flow with that id."""
        return await self._client.send(flow_id, to_json(message), key=key)

    async def publish(self, topic: str, data: Any, *, key: str | None = None) -> str:
        """Publishes an event to a topic; its message id. The same `key` twice is one event."""
        return await self._client.publish(topic, to_json(data), key=key)

    async def provide(self, name: str, function: Callable[..., Any]) -> None:
        """Answers calls of the foreign function `name` with `function`, until this object is closed."""
        if self._worker is None:
            self._worker = Worker(self._client, concurrency=CONCURRENCY)
        await self._client.near(self._worker.provide(name, at_home(function, asyncio.get_running_loop())))

    def function(self, name: str | Callable[..., Any] | None = None) -> Any:
        """Provides a foreign function: `@fm.function("charge-card")` over a `def` or an `async def`.

        Without a name, it is the function's own, with `-` for `_`. Arguments come, and results go, as plain Python data. An
        exception is the call's error: of type `:python/ValueError`, or the `type` of a `FlowmetalError`.
        """

        def register(function: Callable[..., Any], given: str | None) -> Callable[..., Any]:
            task = asyncio.get_running_loop().create_task(self.provide(given or lisp_name(function), function))
            self._providing.add(task)
            task.add_done_callback(self._providing.discard)
            return function

        if callable(name):
            return register(name, None)
        return lambda function: register(function, name)

    async def sql(self, sql: str, params: list[Any] | None = None) -> Relation:
        """One SELECT over the store's views: `.fetchall()`, `.df()`, `.arrow()`."""
        return await self._client.sql(sql, None if params is None else [to_json(each) for each in params])

    async def advance(self, by: timedelta | float | str) -> str:
        """Moves a store's virtual clock (by seconds, or `"1h30m"`), through all that falls due; the time then, in ISO 8601."""
        return await self._client.advance(to_json(by))

    async def close(self) -> None:
        """Lets go of the store; ends its host if it is this program. Foreign functions under way have a few seconds to end."""
        if self._worker is not None:
            with contextlib.suppress(StoreError):  # the host has ended already, and the worker with it
                await self._client.near(self._worker.stop())
        await self._client.aclose()


class OpenAsync:
    """What `flowmetal.open_async` gives: awaited, or used with `async with`."""

    def __init__(self, store: str | os.PathLike[str] | None, clock: Literal["real", "virtual"] | None = None) -> None:
        self._store = store
        self._clock = clock
        self._opened: AsyncFlowmetal | None = None

    async def _open(self) -> AsyncFlowmetal:
        from flowmetal.client.discovery import connect

        return AsyncFlowmetal(await connect(self._store, host_here=True, by="python", clock=self._clock))

    def __await__(self) -> Any:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncFlowmetal:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(self, *exc: object) -> None:
        if self._opened is not None:
            await self._opened.close()


def open_async(store: str | os.PathLike[str] | None = None, *, clock: Literal["real", "virtual"] | None = None) -> OpenAsync:
    """Opens a store for asynchronous programs: `async with flowmetal.open_async(path) as fm`. For `clock` see `open`."""
    return OpenAsync(store, clock)


def lisp_name(function: Callable[..., Any]) -> str:
    """A Python function's name as the language writes it."""
    return str(getattr(function, "__name__", type(function).__name__)).strip("_").replace("_", "-")


def value_of(client: Client, outcome: Row, flow_id: str) -> Any:
    """The value in an outcome; raises the error that it holds instead."""
    if outcome["status"] != "completed" and outcome.get("error") is not None:
        raise failure_of(outcome, flow_id)
    if outcome.get("handle"):
        return AsyncFlow(client, str(outcome["handle"]))
    return outcome.get("result")


def read_source(path: str | os.PathLike[str]) -> str:
    """The text of a source file; `SourceError` says why it cannot be had."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SourceError(f"cannot read {os.fspath(path)}: {error.strerror}", type="value") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{os.fspath(path)} is not UTF-8 text (byte {error.start})", type="reader/syntax") from error


def _outcome(given: Any) -> tuple[Any, ...]:
    """The outcome that a step of a fork is to have, if any."""
    return () if given is ASK_ANEW else (to_json(given),)
