"""An engine on a bench: a store, an outside world, and a clock that the test moves.

`@scene` makes a test of an async function that takes a `Bench`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from lives import HandClock
from stores import Stores

from flowmetal.errors import LispError
from flowmetal.lang.values import Duration
from flowmetal.runtime.clock import Chance
from flowmetal.runtime.engine import Engine
from flowmetal.store import kinds
from flowmetal.store.protocol import Store
from flowmetal.store.writer import InlineWriter
from flowmetal.testing import World

SECONDS = 30.0
"""How long a scene may take on a real clock."""
OUTCOMES = frozenset({kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED, kinds.EFFECT_CANCELLED})


class Bench:
    """One store, and the engine that has it at the moment."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.store: Store = stores.quick()
        self.clock = HandClock()
        self.world = World(store=self.store)
        self.options: dict[str, Any] = {"retry_seconds": 0.0}
        self.engine: Engine
        self.reports: list[dict[str, Any]] = []
        self.lives = 0

    async def open(self) -> None:
        """A new engine opens the store."""
        self.lives += 1
        self.engine = Engine(self.store, connectors=[self.world], clock=self.clock, chance=Chance(self.lives), **self.options)
        self.engine.writer = InlineWriter(self.store)  # as with a store in memory: nothing is under way on another thread when `settle` looks
        await self.engine.open()

    async def restart(self) -> None:
        """The process crashes, and another one opens the store."""
        await self.engine.abandon()
        await self.open()

    async def load(self, source: str) -> None:
        """Adds definitions."""
        await self.engine.load(source, file="test.flow")

    async def start(self, name: str, *args: Any, **more: Any) -> str:
        """Begins a flow, and lets it run until it waits."""
        flow_id, _ = await self.engine.start_flow(name, args, **more)
        await self.settle()
        return flow_id

    async def run(self, source: str, *args: Any) -> Any:
        """The result of the flow `main` of a program; raises LispError when it failed."""
        await self.load(source)
        return await self.result(await self.start("main", *args))

    async def cell(self, source: str) -> str:
        """Begins a cell, and lets it run until it waits."""
        flow_id = await self.engine.eval(source)
        await self.settle()
        return flow_id

    async def result(self, flow_id: str) -> Any:
        """A flow's result; raises LispError when it failed. Time runs until then."""
        answer = await self.ending(flow_id)
        if "error" in answer:
            error = answer["error"]
            raise LispError(error["message"], type=error["type"], data=error.get("data"))
        return answer["result"]

    async def ending(self, flow_id: str) -> dict[str, Any]:
        """How a flow ends. Time runs until then."""
        waiting = asyncio.ensure_future(self.engine.result(flow_id))
        await self.settle()
        while not waiting.done():
            due = self.engine.timers.next_due()
            assert due is not None, f"{flow_id} waits for ever: {self.kinds(flow_id)}"
            await self._move(max(self.clock.time, due or 0))
        answer = await waiting
        assert answer is not None
        return answer

    async def settle(self) -> None:
        """Returns when nothing is under way, nor has been for some rounds of the loop."""
        quiet = 0
        while quiet < 8:
            await asyncio.sleep(0)
            quiet = 0 if self.engine.tasks else quiet + 1

    async def advance(self, text: str) -> None:
        """Moves the clock by a duration, through all that falls due on the way."""
        await self.settle()
        until = self.clock.time + Duration.parse(text).micros
        while (due := self.engine.timers.next_due()) is not None and due <= until:
            await self._move(due)
        self.clock.time = until

    async def _move(self, moment: int) -> None:
        self.clock.time = moment
        self.engine.timers.arm()
        await self.settle()

    # What the log says

    def rows(self, flow_id: str, *kinds_: str) -> list[dict[str, Any]]:
        """Rows of a flow, of some kinds: their data, with kind, seq and step."""
        return [
            {**json.loads(row.data), "kind": row.kind, "seq": row.seq, "step": row.step, "at": row.at}
            for row in self.store.rows(flow_id)
            if not kinds_ or row.kind in kinds_
        ]

    def kinds(self, flow_id: str) -> list[str]:
        """The kinds of a flow's rows, in order."""
        return [row.kind for row in self.store.rows(flow_id)]

    def ops(self, flow_id: str) -> list[str]:
        """What a flow asked for, step by step."""
        return [row["op"] for row in self.rows(flow_id, *kinds.ASKING)]

    def status(self, flow_id: str) -> str:
        """A flow's status."""
        row = self.store.flow_row(flow_id)
        assert row is not None
        return str(row["status"])

    def child(self, flow_id: str, step: int) -> str:
        """The flow that a step of another began."""
        return next(str(row["child"]) for row in self.rows(flow_id, *kinds.ASKING) if row["step"] == step)

    def token(self, flow_id: str, step: int) -> str:
        """The token of a callback."""
        return next(row.key for row in self.store.rows(flow_id) if row.step == step and row.key is not None)


def scene(play: Callable[[Bench], Awaitable[None]]) -> Callable[[Stores], None]:
    """A test of an async function on a bench of its own. The clock stands still unless the test moves it."""

    async def on_a_bench(stores: Stores) -> None:
        bench = Bench(stores)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: bench.reports.append(context))
        async with asyncio.timeout(SECONDS):
            await bench.open()
            try:
                await play(bench)
            finally:
                await bench.engine.close()
        assert not bench.reports, bench.reports

    def test(stores: Stores) -> None:
        asyncio.run(on_a_bench(stores))

    test.__name__ = play.__name__
    test.__doc__ = play.__doc__
    test.__module__ = play.__module__
    return test
