"""Exhaustive crash simulation: a program is run once calmly, then again for every point of failure.

For each commit of the calm run the process is "killed" just before it and just after it (between
commit and dispatch), and a new engine takes up the same store; or the commit fails and the process
lives. Besides, the program runs with fuel for one transition at a time, with its state encoded and
decoded at each, and with every flow dropped from memory after each turn. What is compared: how every
flow ended, what each step came to, what each idempotency key asked for; and the log itself is audited.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowmetal.errors import FlowmetalError, StoreError
from flowmetal.runtime import snapshots
from flowmetal.runtime.clock import Chance, VirtualClock
from flowmetal.runtime.engine import FUEL, Engine
from flowmetal.runtime.process import Process
from flowmetal.store import kinds
from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Store
from flowmetal.testing.audit import audit
from flowmetal.testing.faults import AFTER, BEFORE, Crash, Faults
from flowmetal.testing.world import World

MAX_LIVES = 20
FLOW = "simulated"
"""The id of the flow that a simulation starts."""
UNLIKE = frozenset({
    "publish", "next-event", "now", "rand", "rand-int", "random-uuid", "shuffle", "callback", "start", "history", "flows", "state-at", "fork", "upgrade",
})  # fmt: skip
"""Operations whose values another run may draw differently: they are recorded, and not compared between runs."""

_TOKEN = re.compile("[0-9a-f]{62,}")

Driver = Callable[[Engine, str], Any]


@dataclass(slots=True)
class Program:
    """A program to simulate: source text, the flow to start and its arguments.

    `drive(engine, flow_id)`, when given, is the outside: it is begun anew in each life and must be
    idempotent (it posts callbacks, sends messages under keys). `answer(call)` is what effects give.
    """

    source: str
    main: str = "main"
    args: Sequence[Any] = ()
    drive: Driver | None = None
    answer: Callable[[Any], Any] | None = None


@dataclass(slots=True)
class Conditions:
    """How a run is made hard, besides its faults."""

    fuel: int = FUEL
    renew: bool = False
    """The machine's state is made anew from its encoding after each slice."""
    forget: bool = False
    """Every flow is dropped from memory after each turn that it waits after."""
    snapshots: str = "worth"
    """When snapshots are taken: `worth` it, `always`, `never`."""
    drop: bool = False
    """Snapshots and all else that is derived are lost with each life."""


Hardship = tuple[str, Faults, Conditions]
"""What a run is disturbed by: in words, as faults, as conditions."""


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    ending: dict[str, Any]
    flows: dict[str, Any]
    commits: int
    lives: int
    world: World = field(repr=False, default_factory=World)


async def run(
    program: Program, faults: Faults | None = None, conditions: Conditions | None = None, *, make_store: Callable[[Faults], Store] | None = None
) -> Outcome:
    """Runs a program to its end, through as many lives as its faults take.

    The store is in memory and outlives them, unless `make_store` opens it anew for each.
    """
    asyncio.get_running_loop().set_exception_handler(_ignore_crashes)
    faults, conditions = faults or Faults(), conditions or Conditions()
    kept = MemoryStore(faults=faults) if make_store is None else None
    world = World(program.answer, dead=lambda: faults.dead)
    clock = _Clock(faults)
    for life in range(1, MAX_LIVES + 1):
        faults.reborn()
        store = kept if kept is not None else make_store(faults)  # type: ignore[misc]
        world.store = kept
        try:
            if conditions.drop:
                store.drop_derived()
            engine = _engine(store, world, clock, Chance(life), conditions)
            ending = await _live(engine, program, faults)
            if ending is not None:
                audit(store, engine.definitions.registry)
                return Outcome(ending, _endings(store), faults.commits, life, world)
        finally:
            if kept is None:
                store.close()
    raise AssertionError(f"the program did not end in {MAX_LIVES} lives")


class _Clock(VirtualClock):
    """A clock that outlives engines; a dead one cannot move it."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults = faults

    def advance_to(self, moment: int) -> None:
        """Moves the clock; never back."""
        if not self.faults.dead:
            super().advance_to(moment)


def _engine(store: Store, world: World, clock: VirtualClock, chance: Chance, c: Conditions) -> Engine:
    keep = {"worth": snapshots.worth, "always": lambda process: not process.ended, "never": lambda process: False}[c.snapshots]
    options: dict[str, Any] = {"resident": 0} if c.forget else {}
    return Engine(
        store, connectors=[world], clock=clock, chance=chance, fuel=c.fuel, after_slice=_renew if c.renew else None, keep_snapshot=keep,
        retry_seconds=0.0, **options,
    )  # fmt: skip


async def _live(engine: Engine, program: Program, faults: Faults) -> dict[str, Any] | None:
    """One life of the process: the flow's ending, or None when it was killed."""
    work = asyncio.ensure_future(_work(engine, program))
    death = asyncio.ensure_future(faults.died.wait())
    await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    killed = faults.dead
    ended = work.done() and not killed
    faults.dead = not ended
    for task in (work, death):
        task.cancel()
    await asyncio.gather(work, death, return_exceptions=True)
    await engine.abandon()
    faults.dead = False
    if ended:
        return _without_rendering(work.result())
    if not killed:
        raise AssertionError("the program stands still")
    return None


async def _work(engine: Engine, program: Program) -> dict[str, Any] | None:
    try:
        await engine.open()
    except StoreError:
        return None
    await _again(lambda: engine.load(program.source, file="program.flow"))
    await _again(lambda: engine.start_flow(program.main, program.args, flow_id=FLOW, request_id="start"))
    if program.drive is not None:
        engine.spawn(_outside(program.drive, engine))
    result = await engine.result(FLOW)
    assert result is not None
    await settle(engine)
    return result


def _without_rendering(ending: dict[str, Any] | None) -> dict[str, Any] | None:
    """An ending, without the picture of the source: of a definition that was read from the log that shows less."""
    if ending is not None and "error" in ending:
        ending["error"].pop("rendered", None)
    return ending


async def settle(engine: Engine) -> None:
    """Returns when nothing is under way and no timer is open."""
    while engine.tasks or len(engine.timers):
        await asyncio.sleep(0)


async def _again(call: Callable[[], Any]) -> Any:
    """What a client does whose call failed: the same call, under the same request id."""
    for _ in range(3):
        try:
            return await call()
        except Crash:
            raise
        except StoreError:
            continue
    return await call()


async def _outside(drive: Driver, engine: Engine) -> None:
    """The outside sees a dead process as a refused call; it calls again in the next life."""
    with contextlib.suppress(Crash):
        await _again(lambda: drive(engine, FLOW))


def _ignore_crashes(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Crash):
        loop.default_exception_handler(context)


def _renew(process: Process) -> None:
    if not process.ended:
        snapshots.renew(process)


def _endings(store: Store) -> dict[str, Any]:
    """How every flow of the store ended and what its steps came to, by name and arguments (ids of children depend on the run)."""
    endings: dict[str, Any] = {}
    for row in store.flow_rows(None, None, 10_000, None):
        ending = (row["status"], row["result"], row["error"] and row["error"].get("type"))
        call = _TOKEN.sub("TOKEN", f"{row['name']} {json.dumps(row['args'])}")
        endings.setdefault(call, []).append((ending, _steps(store, row["flow_id"])))
    return {name: sorted(flows, key=repr) for name, flows in endings.items()}


def _steps(store: Store, flow_id: str) -> list[tuple[Any, ...]]:
    asked: dict[Any, str] = {}
    came: dict[Any, tuple[Any, ...]] = {}
    for row in store.rows(flow_id):
        data = json.loads(row.data)
        if row.kind in kinds.ASKING:
            asked[row.step] = data["op"]
        elif row.kind in (kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED, kinds.EFFECT_CANCELLED):
            result = data.get("result") if asked.get(row.step) not in UNLIKE else None
            came[row.step] = (row.kind, json.dumps(result), (data.get("error") or {}).get("type"))
    return [(step, op, came.get(step)) for step, op in sorted(asked.items())]


def check(program: Program, *, make_store: Callable[[Faults], Store] | None = None, of: Callable[[int], Iterable[Hardship]] | None = None) -> list[Outcome]:
    """Simulates a program exhaustively; raises AssertionError where a failure makes a difference.

    The calm run is always in memory; the others are where `make_store` says. `of` gives the hardships, by the number of commits.
    """
    return asyncio.run(_check(program, make_store, of or hardships))


async def _check(program: Program, make_store: Callable[[Faults], Store] | None, of: Callable[[int], Iterable[Hardship]]) -> list[Outcome]:
    calm = await run(program)
    outcomes = [calm]
    for what, faults, conditions in of(calm.commits):
        try:
            other = await run(program, faults, conditions, make_store=make_store)
            compare(calm, other, what)
        except (AssertionError, FlowmetalError) as e:
            raise AssertionError(f"{what}: {e}") from e
        outcomes.append(other)
    return outcomes


def hardships(commits: int) -> Iterator[Hardship]:
    """Every way in which a program of so many commits is disturbed."""
    yield "fuel of 1", Faults(), Conditions(fuel=1)
    yield "fuel of 1, state renewed", Faults(), Conditions(fuel=1, renew=True)
    yield "dropped from memory, no snapshots", Faults(), Conditions(forget=True, snapshots="never")
    yield "dropped from memory, snapshots always", Faults(), Conditions(forget=True, snapshots="always")
    for n in range(1, commits + 1):
        for when in (BEFORE, AFTER):
            yield f"killed {when} {n}", Faults([(n, when)]), Conditions(snapshots="always" if n % 2 else "worth")
            yield f"refused {when} {n}", Faults([(n, when)], kill=False), Conditions(forget=n % 2 == 0)
        yield f"killed after {n}, derived data lost, and again", Faults([(n, AFTER), (n + 2, BEFORE)]), Conditions(snapshots="always", drop=True)


def compare(calm: Outcome, other: Outcome, what: str) -> None:
    """Raises AssertionError where a disturbed run differs from the calm one."""
    assert other.ending == calm.ending, f"{what}: ended as {other.ending}, not {calm.ending}"
    assert other.flows == calm.flows, f"{what}: flows came to {other.flows}, not {calm.flows}"
    assert not other.world.broken, f"{what}: {other.world.broken}"
    keys = {k.partition("/")[2] for k in other.world.sent}
    assert len(other.world.sent) == len(calm.world.sent), f"{what}: {len(keys)} effects instead of {len(calm.world.sent)}"
    tries = (other.lives if other.lives > 1 else 2) + max(calm.world.sent.values(), default=1) - 1
    again = [k for k, n in other.world.sent.items() if n > tries]
    assert not again, f"{what}: sent more often than the process failed: {again}"
