"""Whatever a program does, each of its flows can be forked at each of its steps, and agrees with its own history."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from programs import PROGRAMS
from stores import Stores

from flowmetal.runtime.clock import Chance, VirtualClock
from flowmetal.runtime.engine import Engine
from flowmetal.runtime.fork import Wish
from flowmetal.runtime.process import loader
from flowmetal.runtime.reexecution import Run
from flowmetal.store import kinds
from flowmetal.store.protocol import Row
from flowmetal.testing import Program
from flowmetal.testing.audit import audit
from flowmetal.testing.crash import settle
from flowmetal.testing.world import World


async def played(program: Program, stores: Stores) -> tuple[Engine, World]:
    """An engine in which the program has come to its end."""
    store = stores.quick()
    world = World(program.answer, store if stores.kind == "duckdb" else None)  # what is on disk is looked at on this thread
    engine = Engine(store, connectors=[world], clock=VirtualClock(), chance=Chance(1))
    await engine.open()
    await engine.load(program.source, file="program.flow")
    flow_id, _ = await engine.start_flow(program.main, program.args, flow_id="simulated")
    if program.drive is not None:
        engine.spawn(program.drive(engine, flow_id))
    async with asyncio.timeout(20):
        assert await engine.result(flow_id) is not None
        await settle(engine)
    return engine, world


async def rows_of(engine: Engine, flow_id: str) -> list[Row]:
    """The flow's history."""
    return await engine.writer.call(engine.store.rows, flow_id)


async def last_run(engine: Engine, flow_id: str) -> Run:
    """The flow's last run."""
    return Run(flow_id, await rows_of(engine, flow_id), loader(engine.definitions.registry))


async def flows(engine: Engine) -> list[dict[str, Any]]:
    """All flows."""
    return await engine.writer.call(engine.store.flow_rows, None, None, 1000)


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_flow_can_be_forked_at_each_step(name: str, stores: Stores) -> None:
    async def run() -> None:
        engine, world = await played(PROGRAMS[name], stores)
        for flow_id in [row["flow_id"] for row in await flows(engine)]:
            for step, asked in (await last_run(engine, flow_id)).steps.items():
                if step is None:
                    continue
                sent = dict(world.sent)
                outcome = (await last_run(engine, flow_id)).outcome(step)
                made = [await engine.forks.fork(flow_id, Wish(step))]
                if outcome is not None and outcome.kind == kinds.EFFECT_COMPLETED:
                    made.append(await engine.forks.fork(flow_id, Wish(step, (outcome.values.get("result"),))))
                elif asked.kind == kinds.VALUE_RECORDED and asked.facts["op"] not in ("start", "continue-as"):
                    made.append(await engine.forks.fork(flow_id, Wish(step, (asked.values["result"],))))
                await settle(engine)
                for fork in made:
                    rows = await rows_of(engine, fork)
                    shared = next(row.seq for row in rows if row.kind == kinds.FLOW_FORKED)
                    own = json.loads(rows[0].data)["run"]
                    before = {row.step for row in rows if row.seq < shared and row.kind in kinds.ASKING}
                    again = [key for key in world.sent if key not in sent and key.startswith(own) and int(key.partition("/")[2]) in before]
                    assert not again, f"{flow_id} at {step}: sent again: {again}"
        await engine.writer.call(audit, engine.store, engine.definitions.registry)
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_flow_agrees_with_its_own_history(name: str, stores: Stores) -> None:
    """What an upgrade compares is the same when nothing has changed."""

    async def run() -> None:
        engine, _ = await played(PROGRAMS[name], stores)
        for row in await flows(engine):
            if row["status"] == "completed":
                found = await last_run(engine, row["flow_id"])
                marks = await engine.upgrades._agree(found, found.version)
                printed = sum(len(json.loads(r.data)["text"]) for r in await rows_of(engine, row["flow_id"]) if r.kind == kinds.OUTPUT)
                assert marks.get(kinds.OUTPUT, 0) == printed
        await engine.close()

    asyncio.run(run())
