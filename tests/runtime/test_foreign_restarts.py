"""Leases across the end of a process: what a worker may still say, and what is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from lives import HandClock, settle
from stores import Stores, both

from flowmetal.errors import LeaseLost, StoreError
from flowmetal.runtime.control import Make
from flowmetal.runtime.engine import Engine
from flowmetal.store.protocol import Store

PROGRAM = """
(defforeign charge [n] {:retry {:max-attempts 3 :initial #dur "400ms"}})
(defflow buy [n] (charge n))
(defflow once [n] (try (call "charge" [n] {:at-most-once true}) (catch :effect/interrupted e :unknown)))
"""


@asynccontextmanager
async def life(store: Store, **options: Any) -> AsyncIterator[Engine]:
    """An engine over the store that ends as a crash does."""
    engine = Engine(store, **options)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.abandon()


async def begun(engine: Engine, name: str) -> tuple[str, dict[str, Any]]:
    """A flow whose call is leased."""
    await engine.load(PROGRAM, file="test.flow")
    flow, _ = await engine.start_flow(name, [1])
    (task,) = await engine.foreign.lease(["charge"], wait=5)
    return flow, task


@both
def test_an_open_call_is_offered_again_under_its_key_and_the_old_lease_is_lost(stores: Stores) -> None:
    async def main() -> None:
        store = stores.quick()
        async with life(store) as engine:
            flow, task = await begun(engine, "buy")
        async with life(store) as engine:
            with pytest.raises(LeaseLost):
                await engine.foreign.complete(task["id"], "from before")
            (again,) = await engine.foreign.lease(["charge"], wait=5)
            assert (again["idempotency_key"], again["attempt"]) == (task["idempotency_key"], 1)
            await engine.foreign.complete(again["id"], "paid")
            assert (await engine.result(flow, 5)) == {"status": "completed", "result": "paid"}

    asyncio.run(main())


def test_an_answer_that_was_taken_is_known_after_a_restart(stores: Stores) -> None:
    async def main() -> None:
        store = stores.quick()
        async with life(store) as engine:
            flow, task = await begun(engine, "buy")
            await engine.foreign.complete(task["id"], "paid")
        async with life(store) as engine:
            await engine.foreign.complete(task["id"], "paid")
            with pytest.raises(LeaseLost):
                await engine.foreign.fail(task["id"], {"message": "no"})
            assert (await engine.result(flow, 5)) == {"status": "completed", "result": "paid"}

    asyncio.run(main())


@both
def test_a_failed_attempt_and_its_wait_survive_a_restart(stores: Stores) -> None:
    async def main() -> None:
        store, clock = stores.quick(), HandClock()
        async with life(store, clock=clock) as engine:
            _, task = await begun(engine, "buy")
            await engine.foreign.fail(task["id"], {"type": "x/busy", "message": "busy"})
        async with life(store, clock=clock) as engine:
            await engine.foreign.fail(task["id"], {"type": "x/busy", "message": "busy"})
            await settle(engine, 0.1)
            assert await engine.foreign.lease(["charge"]) == [], "it is not time yet"
            await settle(engine, 0.4)
            (again,) = await engine.foreign.lease(["charge"])
            assert again["attempt"] == 2

    asyncio.run(main())


def test_a_call_at_most_once_that_was_leased_is_interrupted_by_a_restart(stores: Stores) -> None:
    async def main() -> None:
        store = stores.quick()
        async with life(store) as engine:
            flow, task = await begun(engine, "once")
        async with life(store) as engine:
            assert (await engine.result(flow, 5)) == {"status": "completed", "result": "unknown"}
            assert await engine.foreign.lease(["charge"]) == []
            with pytest.raises(LeaseLost):
                await engine.foreign.complete(task["id"], "late")

    asyncio.run(main())


def test_a_call_at_most_once_that_nobody_leased_is_offered_again(stores: Stores) -> None:
    async def main() -> None:
        store = stores.quick()
        async with life(store) as engine:
            await engine.load(PROGRAM, file="test.flow")
            flow, _ = await engine.start_flow("once", [1])
        async with life(store) as engine:
            (task,) = await engine.foreign.lease(["charge"], wait=5)
            await engine.foreign.complete(task["id"], "paid")
            assert (await engine.result(flow, 5)) == {"status": "completed", "result": "paid"}

    asyncio.run(main())


def test_many_waiting_calls_hold_no_task(stores: Stores) -> None:
    async def main() -> None:
        engine = Engine(stores.quick())
        await engine.open()
        await engine.load(PROGRAM, file="test.flow")
        for n in range(50):
            await engine.start_flow("buy", [n])
        while len(engine.foreign.open) < 50 or engine.tasks:
            await asyncio.sleep(0)
        assert len(await engine.foreign.lease(["charge"], most=100)) == 50
        await engine.close()

    asyncio.run(main())


class Troubled:
    """What an engine meets when it writes down that a call of one flow is about to be sent."""

    def __init__(self, engine: Engine, flow_id: str, trouble: Callable[[], Awaitable[None]]) -> None:
        self.real, self.flow_id, self.trouble = engine.deliver, flow_id, trouble
        engine.deliver = self.deliver  # type: ignore[method-assign]

    async def deliver(self, flow_id: str, make: Make) -> None:
        """Hands an arrival to a flow."""
        if flow_id == self.flow_id:
            await self.trouble()
        await self.real(flow_id, make)


def test_of_several_leases_those_that_are_on_disk_are_given_out_although_one_is_not(stores: Stores) -> None:
    async def full() -> None:
        raise StoreError("disk full")

    async def main() -> None:
        async with life(stores.quick()) as engine:
            await engine.load(PROGRAM, file="test.flow")
            one, other = [(await engine.start_flow("once", [n]))[0] for n in (1, 2)]
            while len(engine.foreign.open) < 2:
                await asyncio.sleep(0)
            store = Troubled(engine, other, full)
            (task,) = await engine.foreign.lease(["charge"], most=5)
            assert task["flow_id"] == one
            with pytest.raises(StoreError):
                await engine.foreign.lease(["charge"], most=5)
            engine.deliver = store.real  # type: ignore[method-assign]
            (task,) = await engine.foreign.lease(["charge"], most=5)
            assert task["flow_id"] == other

    asyncio.run(main())


def test_a_worker_that_goes_while_its_leases_are_written_down_leaves_them_to_others(stores: Stores) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def hangs() -> None:
            begun.set()
            await asyncio.Event().wait()

        async with life(stores.quick()) as engine:
            await engine.load(PROGRAM, file="test.flow")
            flows = {(await engine.start_flow(name, [n]))[0] for n, name in enumerate(("buy", "once"))}
            while len(engine.foreign.open) < 2:
                await asyncio.sleep(0)
            once = next(task.flow_id for task in engine.foreign.open.values() if task.once)
            store = Troubled(engine, once, hangs)
            poll = asyncio.ensure_future(engine.foreign.lease(["charge"], most=5))
            await begun.wait()
            poll.cancel()
            await asyncio.wait([poll])
            engine.deliver = store.real  # type: ignore[method-assign]
            assert {task["flow_id"] for task in await engine.foreign.lease(["charge"], most=5)} == flows

    asyncio.run(main())
