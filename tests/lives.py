"""Engines that live one after the other on one store and one clock: what a restart leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from flowmetal.runtime.clock import Chance
from flowmetal.runtime.connector import Connector
from flowmetal.runtime.engine import Engine


class HandClock:
    """A clock that the test moves by hand."""

    virtual = False

    def __init__(self) -> None:
        self.time = 1_767_225_600_000_000

    def now(self) -> int:
        """The time."""
        return self.time

    def move(self, seconds: float) -> None:
        """Moves it, while no engine is there to notice."""
        self.time += int(seconds * 1e6)


@contextlib.asynccontextmanager
async def life(store: Any, clock: HandClock, connectors: tuple[Connector, ...] = (), **options: Any) -> AsyncIterator[Engine]:
    """An engine on a store, from its opening to its end."""
    engine = Engine(store, clock=clock, chance=Chance(), connectors=connectors, **options)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


async def settle(engine: Engine, seconds: float = 0.0) -> None:
    """Lets time pass, and returns when the engine has nothing to do but wait."""
    assert isinstance(engine.clock, HandClock)
    await _rest(engine)
    engine.clock.move(seconds)
    engine.timers.arm()
    await _rest(engine)


async def _rest(engine: Engine) -> None:
    for _ in range(3):
        await asyncio.sleep(0.001)  # what is due now is a call of the loop
        while engine.tasks:
            await asyncio.wait(list(engine.tasks))


def play(scene: Callable[[], Awaitable[None]]) -> None:
    """Runs a scene on a loop of its own."""
    asyncio.run(asyncio.wait_for(scene(), 30))
