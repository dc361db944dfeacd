"""The host of a store: the one place where store, engine, connectors and HTTP shim are wired together.

In: a store and how to listen. Out: a running engine on one thread with one asyncio loop, which ends in order:
the shim stops answering, the engine closes, the store is released. The one rule: a host is known (host file)
only while it holds the lock and answers.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from flowmetal import __version__
from flowmetal.client.host_file import HostInfo, StoreLock, token_of
from flowmetal.client.http_face import HttpFace
from flowmetal.client.listening import Activity, Listen, bind, choose_port
from flowmetal.client.store_url import StoreUrl
from flowmetal.errors import StoreError
from flowmetal.lang.times import Instant

log = logging.getLogger("flowmetal.host")


@dataclass(frozen=True, slots=True)
class HostOptions:
    """How a host behaves. Without `listen` nobody else can reach it (`:memory:`)."""

    listen: Listen | None = None
    background: bool = False
    idle_seconds: float = 300.0
    """How long a background host stays after its last client, when no flow is open."""
    stoppable: bool = False
    """Whether `flowmetal stop` may end it: a host of its own, and not a guest in somebody's program."""
    clock: Literal["real", "virtual"] | None = None
    """Which clock the store lives by: None is the one that it has, and real time for a new one."""


class Host:
    """An engine and what it needs, on a thread of its own."""

    def __init__(self, store: StoreUrl, lock: StoreLock | None = None, options: HostOptions | None = None) -> None:
        self.store = store
        self.options = options or HostOptions()
        self.loop: asyncio.AbstractEventLoop
        self.engine: Any = None
        self.url: str | None = None
        self.token = ""
        self.warnings: list[str] = []
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._lock = lock
        self._backend: Any = None
        self._secret_of: Any = None
        self._activity = Activity()
        self._ready: Future[None] = Future()
        self.ended: Future[None] = Future()
        """Done when the host has ended; holds why, if it did so by a fault."""
        self._taken = False
        self._stopping = threading.Event()
        self._stop_in_loop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="flowmetal-host", daemon=True)

    def launch(self) -> Future[None]:
        """Begins to start; the future is done when the host answers, or holds why it cannot."""
        self._thread.start()
        atexit.register(self._stop_at_exit)
        return self._ready

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._ready.done() and self._ready.exception() is None

    def start(self) -> Host:
        """Starts, and waits until the host answers."""
        self.launch().result()
        return self

    def ask_to_stop(self) -> Future[None]:
        """Asks the host to end; the future is done when it has. From any thread."""
        self._stopping.set()
        with contextlib.suppress(RuntimeError):  # the loop has ended already: then so has the host
            if self._stop_in_loop is not None:
                self.loop.call_soon_threadsafe(self._stop_in_loop.set)
        return self.ended

    def stop(self) -> None:
        """Ends the host and waits for it."""
        self.ask_to_stop().result()
        self._thread.join()

    def wait(self) -> None:
        """Waits until the host has ended, for whatever reason."""
        self.ended.result()

    async def describe(self) -> dict[str, Any]:
        """What `GET /v1/host` answers."""
        return {
            "pid": os.getpid(),
            "store": str(self.store),
            "version": __version__,
            "url": self.url,
            "public_url": self.engine.public_url if self.url is not None else None,
            "clock": "virtual" if self.engine.clock.virtual else "real",
            "now": Instant(self.engine.clock.now()).format(),
            "started_at": self.started_at,
            "background": self.options.background,
            "flows": await self._count_open_flows(),
        }

    # -- on the host's own thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            with asyncio.Runner() as runner:
                self.loop = runner.get_loop()
                runner.run(self._live())
        except BaseException as error:  # noqa: BLE001  handed to whoever started the host, or waits for its end
            failure = error
        finally:
            if self._lock is not None:
                self._lock.release()
            atexit.unregister(self._stop_at_exit)
            if failure is not None and not self._ready.done():
                self._ready.set_exception(failure)
                failure = None
            if failure is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(failure)

    async def _live(self) -> None:
        self._stop_in_loop = asyncio.Event()
        self.loop.set_exception_handler(_note_fault)
        if self._stopping.is_set():
            self._stop_in_loop.set()
        async with contextlib.AsyncExitStack() as stack:
            listener = await self._open(stack)
            serving = await self._serve(listener, stack) if listener is not None else None
            self._ready.set_result(None)
            await self._until_stopped(serving)

    async def _open(self, stack: contextlib.AsyncExitStack) -> socket.socket | None:
        """Store, engine, connectors; and the socket, bound but not yet answering."""
        make_store = self._store_maker()
        opening = asyncio.get_running_loop().run_in_executor(None, make_store)
        from flowmetal.connect.deferred import connectors  # while the database opens the file
        from flowmetal.connect.secrets import secrets_of
        from flowmetal.runtime.engine import Engine

        self._backend = await opening
        stack.callback(self._backend.close)
        self.token = self._token()
        listener = None
        if self.options.listen is not None:
            listener = self._bind(self.options.listen)
            stack.callback(listener.close)
        self._secret_of = secrets_of(self.store.beside(".secrets") if self.store.kind == "duckdb" else None)
        self.engine = Engine(self._backend, connectors=connectors(self._secret_of), **self._clock())
        if self.url is not None and self.options.listen is not None:
            self.engine.public_url = self.options.listen.public_url or self.url
        await self.engine.open()
        stack.push_async_callback(self.engine.close)
        return listener

    def _store_maker(self) -> Callable[[], Any]:
        """What opens the store, with all that it needs loaded."""
        if self.store.kind == "memory":
            from flowmetal.store.memory import MemoryStore

            return MemoryStore
        if self.store.kind == "postgresql":
            from flowmetal.store.postgres_store import PostgresStore

            return lambda: PostgresStore(self.store.url, on_taken=self._on_taken, leaving=self._stopping)
        from flowmetal.store.duckdb_store import DuckDBStore

        return lambda: DuckDBStore(self.store.file)

    def _token(self) -> str:
        if self.store.kind == "memory":
            return os.environ.get("FLOWMETAL_TOKEN") or os.urandom(24).hex()
        return (self._backend.get_meta("token") if self.store.kind == "postgresql" else None) or token_of(self.store)

    def _clock(self) -> dict[str, Any]:
        if (self.options.clock or self._backend.get_meta("clock")) != "virtual":
            return {}
        from flowmetal.runtime.clock import VirtualClock

        newest = self._backend.query('SELECT max("at") FROM events').rows[0][0]
        return {"clock": VirtualClock() if newest is None else VirtualClock(Instant.from_datetime(newest).micros)}

    def _bind(self, listen: Listen) -> socket.socket:
        recorded = self._backend.get_meta("port")
        port = int(recorded) if recorded and recorded.isdigit() else None
        listener, record = bind(listen, choose_port(listen, port))
        actual: int = listener.getsockname()[1]
        if port is not None and port != actual and self._neighbour_listens_on(port):
            if listen.public_url is None:
                self.warnings.append(
                    f"another interpreter of this store listens on port {port}, this one on {actual}: URLs of callbacks that are given out here answer only "
                    "while this one is there; --public-url gives all of them one address"
                )
        elif port != actual:
            if port is not None:
                self._warn_of_moved_port(listen, port, actual, replaced=record)
            if record:
                self._backend.set_meta("port", str(actual))
        self.url = listen.url_of(actual)
        return listener

    def _neighbour_listens_on(self, port: int) -> bool:
        """Whether the port that the store remembers is that of another interpreter of it, on this machine."""
        if self.store.kind != "postgresql":
            return False
        from flowmetal.client.host_row import members

        return any(member.is_here and member.info.url.endswith(f":{port}") for member in members(self.store))

    def _warn_of_moved_port(self, listen: Listen, old: int, new: int, *, replaced: bool) -> None:
        if not replaced:
            self.warnings.append(f"port {old}, which this store's callbacks name, is taken: listening on {new} this time")
            return
        rows = self._backend.open_requests()
        open_callbacks = sum(1 for row in rows if json.loads(row.data).get("op") == "callback")
        if open_callbacks and listen.public_url is None:
            self.warnings.append(f"{open_callbacks} open callback(s) name port {old}; what is posted there no longer arrives")

    async def _serve(self, listener: socket.socket, stack: contextlib.AsyncExitStack) -> asyncio.Task[None]:
        face = HttpFace(listener, self._app, self._activity.around)
        if self.options.stoppable:
            await face.load()
        serving = face.start()
        stack.push_async_callback(face.finish)
        if self.store.is_hosted and self.url is not None:
            info = HostInfo(os.getpid(), self.url, self.token, __version__, self.started_at)
            if self.store.kind == "postgresql":
                from flowmetal.client.host_row import announcement

                await self.engine.writer.call(self._backend.announce, announcement(info))
                return serving
            info.write(self.store)
            stack.callback(info.remove, self.store)
        return serving

    def _app(self) -> Any:
        from flowmetal.connect.shim.app import create_app
        from flowmetal.connect.shim.auth import LOOPBACK_NAMES
        from flowmetal.connect.shim.context import Limits

        listen = self.options.listen
        return create_app(
            self.engine,
            token=self.token,
            limits=Limits.of(os.environ),
            on_stop=self._stop_soon if self.options.stoppable else None,
            info=self.describe,
            hosts=LOOPBACK_NAMES if listen is not None and listen.is_loopback else None,
            secret_of=self._secret_of,
        )

    async def _until_stopped(self, serving: asyncio.Task[None] | None) -> None:
        assert self._stop_in_loop is not None
        waiting: list[Coroutine[Any, Any, Any]] = [self._stop_in_loop.wait()]
        if self.options.background:
            waiting.append(self._until_idle())
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(each) for each in waiting]
        watched = [*tasks, serving] if serving is not None else tasks
        done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for task in done:
            task.result()
        if self._taken:
            raise StoreError(f"{self.store} has been taken over by another interpreter", type="store/locked", hint="It goes on there: attach to it.")
        if serving is not None and serving in done and not self._stopping.is_set():
            raise StoreError("the HTTP server ended by itself")

    async def _until_idle(self) -> None:
        """Returns once no client has asked anything for a while, and no flow is open."""
        pause = max(0.05, min(5.0, self.options.idle_seconds / 4))
        while True:
            await asyncio.sleep(pause)
            if self._activity.quiet_for() >= self.options.idle_seconds and await self._count_open_flows() == 0:
                return

    async def _count_open_flows(self) -> int:
        return len(await self.engine.writer.call(self._backend.open_flows))

    def _on_taken(self) -> None:
        """Another interpreter has the store: this one ends, and says so. From any thread."""
        self._taken = True
        self.ask_to_stop()

    def _stop_soon(self) -> None:
        """Ends the host after the answer to the request that asked for it."""
        self.loop.call_soon_threadsafe(self.ask_to_stop)

    def _stop_at_exit(self) -> None:
        """When the program ends without closing: as far as a few seconds allow."""
        with contextlib.suppress(Exception):
            self.ask_to_stop().result(timeout=5)


def _note_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A fault of ours on the host's loop: one line in the log, and with `--debug` (or in a background host's log) where it was."""
    error = context.get("exception")
    log.error("%s: %s", context["message"], f"{type(error).__name__}: {error}" if error is not None else context)
    log.debug("the traceback", exc_info=error)
