"""Where a host listens: the choice of a port, the socket, and how long nobody has asked anything.

In: what the user asked for and the port that the store remembers. Out: a bound socket. The one rule: a store
keeps its port, because URLs that it gave out name it.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from flowmetal.errors import FlowmetalError

DEFAULT_PORT = 8421


@dataclass(frozen=True, slots=True)
class Listen:
    """What the user asked for. `port` is None when nothing was said, 0 for any."""

    host: str = "127.0.0.1"
    port: int | None = 0
    public_url: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def url_of(self, port: int) -> str:
        """The address at which this machine reaches the socket."""
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def public_url(option: str | None) -> str | None:
    """The address to give out, if it is not the one listened on."""
    chosen = option or os.environ.get("FLOWMETAL_PUBLIC_URL")
    return chosen.rstrip("/") if chosen else None


def choose_port(listen: Listen, recorded: int | None) -> list[tuple[int, bool]]:
    """The ports to try in turn, each with whether the store is to remember it."""
    if listen.port:
        return [(listen.port, True)]
    if recorded is not None:
        return [(recorded, True), (0, False)]
    if listen.port is None:
        return [(DEFAULT_PORT, True), (0, True)]
    return [(0, True)]


def bind(listen: Listen, ports: list[tuple[int, bool]]) -> tuple[socket.socket, bool]:
    """A listening socket on the first of the ports that is free, and whether to remember its port."""
    for port, record in ports:
        try:
            return _listen_on(listen.host, port), record
        except OSError as error:
            if error.errno == errno.EADDRINUSE and (port, record) != ports[-1]:
                continue
            raise _cannot_listen(listen.host, port, error) from error
    raise AssertionError("no ports to try")


def _listen_on(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> FlowmetalError:
    reason = "something else listens there" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
    return FlowmetalError(f"cannot listen on {host}:{port}: {reason}", type="value", hint="--port 0 takes any free port")


class Activity:
    """Counts the requests under way, and remembers when the last one ended."""

    def __init__(self) -> None:
        self._open = 0
        self._last = time.monotonic()

    def quiet_for(self) -> float:
        """Seconds since the last request ended; 0 while one is under way."""
        return 0.0 if self._open else time.monotonic() - self._last

    def around(self, app: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The ASGI application, watched."""

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            self._open += 1
            try:
                await app(scope, receive, send)
            finally:
                self._open -= 1
                self._last = time.monotonic()

        return watched
