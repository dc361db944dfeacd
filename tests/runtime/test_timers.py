"""Due times: fired in order, forgotten when they are withdrawn, and virtual time that moves for what is open only."""

from __future__ import annotations

import asyncio

from stores import Stores

from flowmetal.runtime.clock import Chance, VirtualClock
from flowmetal.runtime.engine import Engine
from flowmetal.runtime.timers import SLACK, Timers
from flowmetal.store import kinds

START = VirtualClock().now()


def test_what_is_due_is_fired_in_order() -> None:
    async def scene() -> list[tuple[str, int]]:
        fired: list[tuple[str, int]] = []
        clock = VirtualClock()
        timers = Timers(clock, lambda flow, step: fired.append((flow, step)), lambda: True)
        for due, flow, step in ((30, "c", 1), (10, "a", 1), (20, "b", 2), (20, "b", 1)):
            timers.add(START + due, flow, step)
        timers.discard("b", 2)
        while len(timers):
            await asyncio.sleep(0)
        assert clock.now() == START + 30
        return fired

    assert asyncio.run(scene()) == [("a", 1), ("b", 1), ("c", 1)]


def test_a_withdrawn_timer_costs_no_memory_for_long() -> None:
    async def scene() -> None:
        timers = Timers(VirtualClock(), lambda flow, step: None, lambda: False)
        for step in range(20 * SLACK):
            timers.add(START + 10**12, "flow", step)
            timers.discard("flow", step)
        assert len(timers) == 0
        assert len(timers._heap) <= 2 * SLACK
        assert timers.next_due() is None
        timers.close()

    asyncio.run(scene())


def test_a_due_time_that_was_moved_counts_as_moved() -> None:
    async def scene() -> None:
        fired: list[int] = []
        clock = VirtualClock()
        timers = Timers(clock, lambda flow, step: fired.append(clock.now() - START), lambda: True)
        timers.add(START + 10, "flow", 1)
        timers.add(START + 50, "flow", 1)
        while len(timers):
            await asyncio.sleep(0)
        assert fired == [50]

    asyncio.run(scene())


def test_virtual_time_does_not_run_after_what_nobody_waits_for(stores: Stores) -> None:
    async def scene() -> None:
        clock = VirtualClock()
        engine = Engine(stores.quick(), clock=clock, chance=Chance(1))
        await engine.open()
        await engine.load('(defflow main [] (with-timeout #dur "14d" (sleep #dur "1s")) (race (sleep #dur "1s") (sleep #dur "9d")) (receive))', file="t")
        flow, _ = await engine.start_flow("main", [])
        while engine.tasks or len(engine.timers):
            await asyncio.sleep(0)
        assert clock.now() - START == 2_000_000
        await engine.send(flow, 1)
        assert (await engine.result(flow)) is not None
        await engine.close()

    asyncio.run(scene())


def test_two_that_move_the_clock_at_once_both_come_to_an_end() -> None:
    async def scene() -> None:
        timers = Timers(VirtualClock(), lambda flow, step: None, lambda: True)
        timers.add(START + 50, kinds.SCHEDULES_STREAM, 1)
        async with asyncio.timeout(5):
            assert await asyncio.gather(timers.advance(100), timers.advance(10)) == [START + 100, START + 10]

    asyncio.run(scene())
