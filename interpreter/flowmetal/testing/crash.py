"""Exhaustive crash simulation: a program is run once calmly, then again for every point of failure.

For each commit of the calm run the process is "killed" just before it and just after it (between
commit and dispatch); a new engine takes up the same store. What is compared: every flow's ending,
what each idempotency key asked for, and that no recorded outcome is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowmetal.errors import StoreError
from flowmetal.runtime.clock import Chance, VirtualClock
from flowmetal.runtime.engine import FUEL, Engine
from flowmetal.runtime.process import Process
from flowmetal.store import kinds
from flowmetal.store.memory import MemoryStore
from flowmetal.testing.world import World

MAX_LIVES = 20
Driver = Callable[[Engine, str], Any]


class Crash(Exception):
    """The simulated process is dead: nothing that it does counts any more."""


@dataclass(slots=True)
class Faults:
    """Kills at the n-th commit, before or after it; then every later commit of that life fails too."""

    at: int | None = None
    when: str = "commit:before"
    commits: int = 0
    dead: bool = False
    died: asyncio.Event | None = None

    def __call__(self, point: str) -> None:
        """A failure point."""
        if self.dead:
            raise Crash
        if point == "commit:before":
            self.commits += 1
        if self.at == self.commits and self.when == point:
            self.dead = True
            if self.died is not None:
                self.died.set()
            raise Crash


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    ending: dict[str, Any]
    flows: dict[str, Any]
    commits: int
    lives: int
    world: World = field(repr=False, default_factory=World)
    rows: list[Any] = field(repr=False, default_factory=list)


@dataclass(slots=True)
class Program:
    """A program to simulate: source text, the flow to start and its arguments.

    `drive(engine, flow_id)`, when given, is the outside: it is begun anew in each life and must be
    idempotent (it posts callbacks, sends messages under keys).
    """

    source: str
    main: str = "main"
    args: Sequence[Any] = ()
    drive: Driver | None = None
    answer: Callable[[Any], Any] | None = None


async def run(program: Program, faults: Faults | None = None, *, fuel: int = FUEL, renew: bool = False) -> Outcome:
    """Runs a program to its end, through as many lives as its faults take."""
    asyncio.get_running_loop().set_exception_handler(_ignore_crashes)
    faults = faults or Faults()
    store = MemoryStore(faults=faults)
    world = World(program.answer)
    clock = VirtualClock()
    ending: dict[str, Any] | None = None
    life = 0
    while ending is None:
        life += 1
        if life > MAX_LIVES:
            raise AssertionError(f"the program did not end in {MAX_LIVES} lives")
        faults.dead, faults.died = False, asyncio.Event()
        engine = Engine(store, connectors=[world], clock=clock, chance=Chance(life), fuel=fuel, after_slice=_renew if renew else None)
        ending = await _live(engine, program, faults)
    return Outcome(ending, _endings(store), faults.commits, life, world, store.rows(FLOW))


FLOW = "simulated"


async def _live(engine: Engine, program: Program, faults: Faults) -> dict[str, Any] | None:
    """One life of the process: the flow's ending, or None when it was killed."""
    assert faults.died is not None
    work = asyncio.ensure_future(_work(engine, program))
    death = asyncio.ensure_future(faults.died.wait())
    await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    killed = faults.dead
    faults.dead = True
    ended = work.done() and not killed
    for task in (work, death):
        task.cancel()
    await asyncio.gather(work, death, return_exceptions=True)
    await engine.close()
    if ended:
        return work.result()
    if not killed:
        raise AssertionError("the program stands still")
    return None


async def _work(engine: Engine, program: Program) -> dict[str, Any]:
    await engine.open()
    await engine.load(program.source, file="program.flow")
    await engine.start_flow(program.main, program.args, flow_id=FLOW, request_id="start")
    if program.drive is not None:
        engine.spawn(_outside(program.drive, engine))
    result = await engine.result(FLOW)
    assert result is not None
    return result


async def _outside(drive: Driver, engine: Engine) -> None:
    """The outside sees a dead process as a refused call; it calls again in the next life."""
    with contextlib.suppress(StoreError):
        await drive(engine, FLOW)


def _ignore_crashes(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Crash):
        loop.default_exception_handler(context)


def _renew(process: Process) -> None:
    if not process.ended:
        process.renew()


def _endings(store: MemoryStore) -> dict[str, Any]:
    """The ending of every flow of the store, by name and arguments (ids of children depend on the run)."""
    endings: dict[str, Any] = {}
    for row in store.flow_rows(None, None, 10_000, None):
        if row["kind"] != "cell":
            endings[f"{row['name']} {json.dumps(row['args'])}"] = (row["status"], row["result"], row["error"] and row["error"].get("type"))
    return endings


def check(program: Program, *, fuel: int = FUEL) -> list[Outcome]:
    """Simulates a program exhaustively; raises AssertionError where a crash makes a difference."""
    return asyncio.run(_check(program, fuel))


async def _check(program: Program, fuel: int) -> list[Outcome]:
    calm = await run(program)
    outcomes = [calm]
    for other in (await run(program, fuel=1), await run(program, fuel=1, renew=True)):
        compare(calm, other, "fuel of 1")
        outcomes.append(other)
    for when in ("commit:before", "commit:after"):
        for n in range(1, calm.commits + 1):
            crashed = await run(program, Faults(n, when), fuel=fuel)
            compare(calm, crashed, f"{when} of commit {n}")
            outcomes.append(crashed)
    return outcomes


def compare(calm: Outcome, other: Outcome, what: str) -> None:
    """Raises AssertionError where a disturbed run differs from the calm one."""
    assert other.ending == calm.ending, f"{what}: ended as {other.ending}, not {calm.ending}"
    assert other.flows == calm.flows, f"{what}: flows ended as {other.flows}, not {calm.flows}"
    assert not other.world.broken, f"{what}: a key asked for two things: {other.world.broken}"
    keys = {k.partition("/")[2] for k in other.world.sent}
    assert len(other.world.sent) == len(calm.world.sent), f"{what}: {len(keys)} effects instead of {len(calm.world.sent)}"
    again = [k for k, n in other.world.sent.items() if n > other.lives]
    assert not again, f"{what}: sent more often than the process lived: {again}"
    done = [(r.step, r.kind) for r in other.rows if r.kind in (kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED)]
    assert len(done) == len(set(done)), f"{what}: an outcome was recorded twice"
