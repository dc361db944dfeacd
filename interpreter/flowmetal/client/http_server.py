"""The HTTP server: uvicorn's, which ends as soon as it is told to, and sleeps while nobody asks it for anything.

In: uvicorn's configuration. Out: a server. The one rule: a module of its own, since uvicorn is loaded only when somebody connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn

TICKS_PER_SECOND = 10
"""In these uvicorn counts; with each whole second it makes its headers anew, which say the time."""

CLOSING_TURNS = 3
"""In so many turns of the loop a connection that was closed is gone."""


class Server(uvicorn.Server):
    """Looks up once a second, not ten times, and when it is told to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def end(self) -> None:
        """Ends it once what is under way has been answered."""
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        """See `uvicorn.Server`."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += TICKS_PER_SECOND
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`. Waits only for whoever has no answer yet."""
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
