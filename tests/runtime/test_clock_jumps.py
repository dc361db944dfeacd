"""A machine's clock that is set back or forth: a flow's own time never goes back, and what is due comes once."""

from __future__ import annotations

from typing import Any

import pytest
from lives import HandClock, life, play, settle
from stores import Stores

from flowmetal.runtime.engine import Engine

PROGRAM = """
(defflow naps [] (let [a (now)] (sleep #dur "10m") (let [b (now)] (sleep #dur "10m") [(<= a b) (<= b (now))])))
(defflow tick [due] due)
(defflow daily [] (schedule "daily" #dur "1d" tick :schedule/due))
"""
HOUR = 3600.0


async def begun(engine: Engine, name: str) -> str:
    await engine.load(PROGRAM, file="p.flow")
    flow_id, _ = await engine.start_flow(name, [])
    await settle(engine)
    return flow_id


async def times(engine: Engine, flow_id: str) -> list[Any]:
    return [event["at"] for event in await engine.events(flow_id)]


@pytest.mark.parametrize("restart", [False, True])
def test_set_back_a_flow_waits_for_its_due_time_and_its_own_time_never_goes_back(stores: Stores, restart: bool) -> None:
    store, clock = stores.quick(), HandClock()

    async def scene() -> None:
        async with life(store, clock) as engine:
            flow_id = await begun(engine, "naps")
            await settle(engine, 5 * 60)
            clock.move(-HOUR)
            if not restart:
                await rest(engine, flow_id)
        if restart:
            async with life(store, clock) as engine:
                await rest(engine, flow_id)

    async def rest(engine: Engine, flow_id: str) -> None:
        await settle(engine, HOUR)
        assert (await engine.flow(flow_id))["status"] == "waiting", "the time that was written down with the request has not come"
        await settle(engine, 5 * 60)
        clock.move(-HOUR)
        await settle(engine, HOUR + 10 * 60)
        assert (await engine.flow(flow_id))["result"] == [True, True]
        assert await times(engine, flow_id) == sorted(await times(engine, flow_id))

    play(scene)


def test_set_forward_what_is_due_meanwhile_comes_at_once_and_once(stores: Stores) -> None:
    store, clock = stores.quick(), HandClock()

    async def scene() -> None:
        async with life(store, clock) as engine:
            flow_id = await begun(engine, "naps")
            await settle(engine, 24 * HOUR)
            await settle(engine, 24 * HOUR)
            assert (await engine.flow(flow_id))["result"] == [True, True]
            assert len(await engine.events(flow_id)) == len({event["seq"] for event in await engine.events(flow_id)})

    play(scene)


def test_a_schedule_begins_no_time_twice_when_the_clock_is_set_back(stores: Stores) -> None:
    store, clock = stores.quick(), HandClock()

    async def scene() -> None:
        async with life(store, clock) as engine:
            await begun(engine, "daily")
            await settle(engine, 25 * HOUR)
            clock.move(-3 * HOUR)
            await settle(engine, 4 * HOUR)
        async with life(store, clock) as engine:
            await settle(engine)
            assert len((await engine.flows(name="tick"))["items"]) == 1

    play(scene)


def test_the_clock_is_looked_at_again_every_minute_whatever_is_due() -> None:
    from flowmetal.runtime.timers import LONGEST_WAIT

    assert LONGEST_WAIT <= 60, "while a machine sleeps its timers stand still: what fell due meanwhile comes this much late, at most"
