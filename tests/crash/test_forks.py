"""Whatever a program does, each of its flows can be forked at each of its steps, and agrees with its own history."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from programs import PROGRAMS

from flowmetal.runtime.clock import Chance, VirtualClock
from flowmetal.runtime.engine import Engine
from flowmetal.runtime.fork import Wish
from flowmetal.runtime.process import loader
from flowmetal.runtime.reexecution import Run
from flowmetal.store import kinds
from flowmetal.store.memory import MemoryStore
from flowmetal.testing import Program
from flowmetal.testing.audit import audit
from flowmetal.testing.crash import settle
from flowmetal.testing.world import World


async def played(program: Program) -> tuple[Engine, World]:
    """An engine in which the program has come to its end."""
    store = MemoryStore()
    world = World(program.answer, store)
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


def steps(engine: Engine, flow_id: str) -> dict[int, Any]:
    """The steps of a flow's last run, each with what was asked."""
    found = Run(flow_id, engine.store.rows(flow_id), loader(engine.definitions.registry)).steps
    return {step: draft for step, draft in found.items() if step is not None}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_flow_can_be_forked_at_each_step(name: str) -> None:
    async def run() -> None:
        engine, world = await played(PROGRAMS[name])
        flows = [row["flow_id"] for row in engine.store.flow_rows(limit=1000)]
        for flow_id in flows:
            for step, asked in steps(engine, flow_id).items():
                sent = dict(world.sent)
                outcome = Run(flow_id, engine.store.rows(flow_id), loader(engine.definitions.registry)).outcome(step)
                made = [await engine.forks.fork(flow_id, Wish(step))]
                if outcome is not None and outcome.kind == kinds.EFFECT_COMPLETED:
                    made.append(await engine.forks.fork(flow_id, Wish(step, (outcome.values.get("result"),))))
                elif asked.kind == kinds.VALUE_RECORDED and asked.facts["op"] not in ("start", "continue-as"):
                    made.append(await engine.forks.fork(flow_id, Wish(step, (asked.values["result"],))))
                await settle(engine)
                for fork in made:
                    rows = engine.store.rows(fork)
                    shared = next(row.seq for row in rows if row.kind == kinds.FLOW_FORKED)
                    own = json.loads(rows[0].data)["run"]
                    before = {row.step for row in rows if row.seq < shared and row.kind in kinds.ASKING}
                    again = [key for key in world.sent if key not in sent and key.startswith(own) and int(key.partition("/")[2]) in before]
                    assert not again, f"{flow_id} at {step}: sent again: {again}"
        audit(engine.store, engine.definitions.registry)
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_flow_agrees_with_its_own_history(name: str) -> None:
    """What an upgrade compares is the same when nothing has changed."""

    async def run() -> None:
        engine, _ = await played(PROGRAMS[name])
        for row in engine.store.flow_rows(limit=1000):
            if row["status"] == "completed":
                found = Run(row["flow_id"], engine.store.rows(row["flow_id"]), loader(engine.definitions.registry))
                marks = await engine.upgrades._agree(found, found.version)
                printed = sum(len(json.loads(r.data)["text"]) for r in engine.store.rows(row["flow_id"]) if r.kind == kinds.OUTPUT)
                assert marks.get(kinds.OUTPUT, 0) == printed
        await engine.close()

    asyncio.run(run())
