"""The HTTP face of a host: the shim, loaded when it is wanted.

In: a socket that listens already, and what makes the application. Out: answers. The one rule: nobody who connects is
turned away: until the shim is there (it takes longer to load than a short program to run) the socket holds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
import threading
from collections.abc import Callable
from typing import Any

NEEDED = ("flowmetal.client.http_server", "flowmetal.connect.shim.app", "flowmetal.connect.shim.auth")

IDLE_SECONDS = 75
"""How long a connection stays open with nothing asked: longer than clients and proxies keep theirs, so that it is they who close it, and
no request meets a connection that is just being closed."""


class HttpFace:
    """Serves one socket with the application that `make_app` gives, `around` it what watches it."""

    def __init__(self, listener: socket.socket, make_app: Callable[[], Any], around: Callable[[Any], Any]) -> None:
        self._listener = listener
        self._make_app = make_app
        self._around = around
        self._loaded = False
        self._server: Any = None
        self._app: Any = None
        self.serving: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Loads the shim now, rather than when the first client connects."""
        await _imported(NEEDED)
        self._loaded = True

    def start(self) -> asyncio.Task[None]:
        """Begins; the task ends when the server has."""
        self.serving = asyncio.create_task(self._serve())
        return self.serving

    async def finish(self) -> None:
        """Answers what is under way, and ends."""
        assert self.serving is not None
        if self._server is None:
            self.serving.cancel()
        else:
            self._app.state.context.closing.set()
            self._server.end()
        with contextlib.suppress(asyncio.CancelledError):
            await self.serving

    async def _serve(self) -> None:
        if not self._loaded:
            await _readable(self._listener)
            await self.load()
        import uvicorn

        from flowmetal.client.http_server import Server

        self._app = self._make_app()
        config = uvicorn.Config(
            self._around(self._app),
            http="h11",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=IDLE_SECONDS,
        )
        self._server = Server(config)
        await self._server.serve(sockets=[self._listener])


async def _readable(listener: socket.socket) -> None:
    """Returns when somebody connects."""
    loop = asyncio.get_running_loop()
    somebody: asyncio.Future[None] = loop.create_future()

    def found() -> None:
        loop.remove_reader(listener)
        somebody.set_result(None)

    loop.add_reader(listener, found)
    try:
        await somebody
    finally:
        loop.remove_reader(listener)


async def _imported(modules: tuple[str, ...]) -> None:
    """Loads modules on a thread that the process's end need not wait for."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if loaded.done():
            return
        if error is None:
            loaded.set_result(None)
        else:
            loaded.set_exception(error)

    def load() -> None:
        failure: BaseException | None = None
        try:
            for module in modules:
                importlib.import_module(module)
        except BaseException as error:  # noqa: BLE001  whoever waits is told
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=load, name="flowmetal-imports", daemon=True).start()
    await loaded
