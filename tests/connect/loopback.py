"""Real HTTP servers on loopback ports, for tests: uvicorn in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvicorn

from flowmetal.client.http_server import Server

Application = AbstractAsyncContextManager[Any]


@contextlib.asynccontextmanager
async def _just(app: Any) -> AsyncIterator[Any]:
    yield app


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serves an ASGI application while the block runs; gives its base URL.

    In place of an application, an async context manager may be given: it is entered on the
    server's loop before the server starts, and left after it has ended.
    """
    made: Application = app if isinstance(app, AbstractAsyncContextManager) else _just(app)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    servers: list[tuple[Server, asyncio.AbstractEventLoop]] = []
    failures: list[BaseException] = []
    started = threading.Event()

    async def main() -> None:
        async with made as application:
            config = uvicorn.Config(application, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
            server = Server(config)
            servers.append((server, asyncio.get_running_loop()))
            task = asyncio.create_task(server.serve(sockets=[sock]))
            while not server.started and not task.done():
                await asyncio.sleep(0.005)
            started.set()
            await task

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(20), "the test server did not start"
    if failures:
        raise failures[0]
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server, loop = servers[0]
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(server.end)
        thread.join(20)
        sock.close()
    if failures:
        raise failures[0]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
