"""The HTTP server: uvicorn's, which ends as soon as it is told to, and sleeps while nobody asks it for anything.

In: uvicorn's configuration. Out: a server. The one rule: a module of its own, since uvicorn is loaded only when somebody connects.
"""

from __future__ import annotations

import asyncio
import contextlib

import uvicorn

TICKS_PER_SECOND = 10
"""In these uvicorn counts; with each whole second it makes its headers anew, which say the time."""


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
