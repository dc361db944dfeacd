"""Queues of a store that two interpreters have at once: the limits hold over both of them, whatever becomes of one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from postgres_server import Server

from flowmetal.runtime.engine import Engine
from flowmetal.store import kinds
from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.sharing import SHARES, Limits, share_of

SOURCE = """
(defforeign work [n] {:queue :calls})
(defflow quick [n] (sleep #dur "5ms") n)
(defflow waits [n] (receive))
(defflow asks [n] (work n))
(defflow leans [other] @(start-with {:queue :q :id other} waits 1))
"""
SECONDS = 60.0


class Both:
    """Two engines on one store."""

    def __init__(self, reader: psycopg.Connection, engines: list[Engine]) -> None:
        self.reader, self.engines = reader, engines
        self.a, self.b = engines

    async def declare(self, name: str, limits: str) -> None:
        """Gives a queue limits, and waits until both know."""
        before = [self._limits(engine, name) for engine in self.engines]
        await self.a.result(await self.a.eval(f"(queue {name} {limits})"))
        await until(lambda: all(self._limits(engine, name) != was for engine, was in zip(self.engines, before, strict=True)))

    def _limits(self, engine: Engine, name: str) -> Any:
        return getattr(engine.queues.queues.get(name.removeprefix(":")), "limits", None)

    def ids(self, engine: Engine, count: int) -> list[str]:
        """Ids of flows that this engine computes."""
        return [f for f in (f"f{n}" for n in range(10_000)) if engine.sharing.owns(f)][:count]

    async def start(self, name: str, flows: list[str], queue: str | None = "q") -> None:
        """Begins flows, now here and now there."""
        options = {} if queue is None else {"queue": queue}
        await asyncio.gather(*(self.engines[n % 2].start_flow(name, [n], flow_id=flow_id, options=options) for n, flow_id in enumerate(flows)))

    def lives(self, flows: list[str]) -> list[tuple[int, int, int | None]]:
        """Of the flows that have begun: when, and where in the log they have begun and ended."""
        sql = """SELECT b.at_us, b.pos, e.pos FROM fm.log b LEFT JOIN fm.log e ON e.flow_id = b.flow_id AND e.kind = ANY(%s)
            WHERE b.flow_id = ANY(%s) AND b.kind = %s AND b.step = 0 ORDER BY b.pos"""
        return self.reader.execute(sql, (sorted(kinds.ENDING), flows, kinds.EFFECT_COMPLETED)).fetchall()

    def most(self, flows: list[str]) -> int:
        """How many were inside at once, at most, as the log has it."""
        steps = sorted(step for _, begun, ended in self.lives(flows) for step in ((begun, 1), (ended, -1)) if step[0] is not None)
        inside, most = 0, 0
        for _, change in steps:
            inside += change
            most = max(most, inside)
        return most

    def slots(self) -> list[tuple[str, int]]:
        """Who has a place, as the store has it."""
        return self.reader.execute("SELECT flow_id, step FROM fm.slots ORDER BY flow_id, step").fetchall()

    async def kill(self, engine: Engine) -> None:
        """An engine ends as a crash does: its connections are cut, and it says nothing."""
        await engine.abandon()
        store: Any = engine.store
        store._session.connection.close()
        store.close()
        self.engines.remove(engine)


async def until(so: Callable[[], bool]) -> None:
    """Waits for something that happens soon."""
    async with asyncio.timeout(20):
        while not so():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def both(url: str) -> AsyncIterator[Both]:
    engines = [Engine(PostgresStore(url)), Engine(PostgresStore(url))]
    reader = psycopg.connect(url, autocommit=True)
    there = Both(reader, engines)
    try:
        for engine in engines:
            await engine.open()
        await until(lambda: all(len(engine.sharing.mine) == 32 for engine in engines))
        await there.a.load(SOURCE, file="shared.fm")
        yield there
    finally:
        for engine in list(engines):
            await engine.close()
            engine.store.close()
        reader.close()


Scene = Callable[[Both], Awaitable[None]]


@pytest.fixture
def play(postgres: Server) -> Any:
    """Runs a scene with two engines on an empty store."""
    urls = []

    def run(scene: Scene) -> None:
        urls.append(postgres.store())

        async def on_stage() -> None:
            async with asyncio.timeout(SECONDS), both(urls[-1]) as there:
                await scene(there)

        asyncio.run(on_stage())

    yield run
    for url in urls:
        postgres.give_back(url)


def flow_ids(count: int) -> list[str]:
    return [f"f{n}" for n in range(count)]


def test_no_more_flows_are_inside_than_the_queue_allows(play: Any) -> None:
    async def scene(there: Both) -> None:
        await there.declare(":q", "{:concurrency 3}")
        flows = flow_ids(40)
        await there.start("quick", flows)
        results = await asyncio.gather(*(there.engines[n % 2].result(flow_id) for n, flow_id in enumerate(flows)))
        assert [r and r["result"] for r in results] == list(range(40))
        assert there.most(flows) == 3
        await until(lambda: not there.slots())

    play(scene)


def test_no_more_calls_are_in_flight_than_the_queue_allows(play: Any) -> None:
    async def scene(there: Both) -> None:
        await there.declare(":calls", "{:concurrency 2}")
        flows = flow_ids(24)
        await there.start("asks", flows, None)
        inside = most = 0

        async def worker(engine: Engine) -> None:
            nonlocal inside, most
            while True:
                for task in await engine.foreign.lease(["work"], wait=5, most=2):
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0.005)
                    inside -= 1
                    await engine.foreign.complete(task["id"], task["args"][0])

        workers = [asyncio.ensure_future(worker(engine)) for engine in there.engines for _ in range(3)]
        results = await asyncio.gather(*(there.a.result(flow_id) for flow_id in flows))
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert [r and r["result"] for r in results] == list(range(24))
        assert most == 2
        await until(lambda: not there.slots())

    play(scene)


def test_a_rate_is_held_over_both(play: Any) -> None:
    async def scene(there: Both) -> None:
        await there.declare(":q", '{:rate [3 #dur "500ms"]}')
        flows = flow_ids(8)
        await there.start("quick", flows)
        await asyncio.gather(*(there.a.result(flow_id) for flow_id in flows))
        begun = [at for at, _, _ in there.lives(flows)]
        assert len(begun) == 8
        assert all(later - sooner > 400_000 for sooner, later in zip(begun, begun[3:], strict=False)), begun

    play(scene)


def test_a_paused_flow_gives_its_place_to_one_of_the_other_interpreter(play: Any) -> None:
    async def scene(there: Both) -> None:
        await there.declare(":q", "{:concurrency 1}")
        (mine,), (other, third) = there.ids(there.a, 1), there.ids(there.b, 2)
        await there.start("waits", [mine])
        await until(lambda: len(there.lives([mine])) == 1)
        await there.start("waits", [other])
        await there.b.control(mine, "pause")
        await until(lambda: len(there.lives([other])) == 1)
        assert there.slots() == [(other, 0)]
        await there.start("waits", [third])
        await there.b.control(mine, "resume")
        await until(lambda: there.slots() == sorted([(mine, 0), (other, 0)]))  # at once, even beyond the limit
        await there.a.send(other, 1)
        await there.a.result(other)
        await until(lambda: there.slots() == [(mine, 0)])
        assert not there.lives([third])
        await there.a.send(mine, 1)
        await until(lambda: there.slots() == [(third, 0)])

    play(scene)


def test_who_has_much_to_do_leaves_turns_to_the_other(play: Any) -> None:
    async def scene(there: Both) -> None:
        await there.declare(":q", "{:concurrency 1}")
        many, few = there.ids(there.a, 30), there.ids(there.b, 3)
        await there.start("quick", many)
        await there.start("quick", few)
        await asyncio.gather(*(there.a.result(flow_id) for flow_id in few + many))
        order = [pos for _, pos, _ in there.lives(few + many)]
        assert max(order.index(pos) for _, pos, _ in there.lives(few)) < 20

    play(scene)


def test_one_that_is_killed_keeps_the_places_of_its_flows_and_leaks_none(play: Any) -> None:
    async def scene(there: Both) -> None:
        await there.declare(":q", "{:concurrency 4}")
        flows = [flow_id for pair in zip(there.ids(there.a, 5), there.ids(there.b, 5), strict=True) for flow_id in pair]
        await there.start("waits", flows)
        await until(lambda: len(there.lives(flows)) == 4)
        first = there.slots()
        await there.kill(there.b)
        await until(lambda: len(there.a.sharing.mine) == 64)
        assert there.slots() == first
        await asyncio.gather(*(there.a.send(flow_id, 1) for flow_id in flows))
        await asyncio.gather(*(there.a.result(flow_id) for flow_id in flows))
        assert there.most(flows) == 4
        await until(lambda: not there.slots())

    play(scene)


def test_the_places_of_calls_end_with_their_interpreter(play: Any) -> None:
    async def scene(there: Both) -> None:
        await there.declare(":calls", "{:concurrency 1}")
        (flow_id,), (other,) = there.ids(there.b, 1), there.ids(there.a, 1)
        await there.start("asks", [flow_id], None)
        leased = await there.b.foreign.lease(["work"], wait=5)
        assert len(leased) == 1
        await there.start("asks", [other], None)
        await until(lambda: bool(there.a.foreign.open))
        assert await there.a.foreign.lease(["work"], wait=0.2) == []
        await there.kill(there.b)
        for _ in range(2):
            (task,) = await there.a.foreign.lease(["work"], wait=20)
            assert there.slots() == [(task["flow_id"], task["step"])]
            await there.a.foreign.complete(task["id"], 5)
        for each in (flow_id, other):
            assert (await there.a.result(each) or {})["result"] == 5
        await until(lambda: not there.slots())

    play(scene)


def test_a_limit_that_is_declared_later_counts_who_is_inside_already(play: Any) -> None:
    async def scene(there: Both) -> None:
        flows = there.ids(there.a, 2) + there.ids(there.b, 2)
        await there.start("waits", flows)
        await until(lambda: len(there.lives(flows)) == 4)
        assert there.slots() == []
        await there.declare(":q", "{:concurrency 4}")
        await until(lambda: there.slots() == sorted((flow_id, 0) for flow_id in flows))
        (late,) = there.ids(there.b, 3)[2:]
        await there.start("waits", [late])
        await there.a.control(flows[3], "cancel")
        await until(lambda: (late, 0) in there.slots())

    play(scene)


def test_who_waits_for_a_place_that_the_other_interpreter_holds_is_not_stuck(play: Any) -> None:
    async def scene(there: Both) -> None:
        await there.declare(":q", "{:concurrency 2}")
        (held,), (leans, waits) = there.ids(there.a, 1), there.ids(there.b, 2)
        await there.start("waits", [held])
        await there.b.start_flow("leans", [waits], flow_id=leans, options={"queue": "q"})
        await until(lambda: (waits, 0) in there.b.queues.entries)
        assert await there.b.stuck(0) == []
        await there.a.send(held, 1)
        await until(lambda: there.slots() == sorted([(leans, 0), (waits, 0)]))

    play(scene)


# At the store


@pytest.fixture
def stores(postgres: Server) -> Any:
    """Two interpreters' stores, in one empty database."""
    url = postgres.store()
    there = [PostgresStore(url), PostgresStore(url)]
    yield there
    for store in there:
        store.close()
    postgres.give_back(url)


ONE = Limits(concurrency=1)


def test_who_was_refused_is_next_as_long_as_it_asks(stores: Any) -> None:
    first, second = stores
    assert first.enter("q", [("f", 1), ("f", 2)], ONE, 0) == (1, None)
    assert second.enter("q", [("g", 1)], ONE, 0) == (0, None)
    first.settle("q", [], [("f", 1)])
    assert first.enter("q", [("f", 2)], ONE, 0) == (1, None)  # it has asked before the other
    first.settle("q", [], [("f", 2)])
    assert first.enter("q", [("f", 3)], ONE, 0) == (0, None)
    assert second.enter("q", [("g", 1)], ONE, 0) == (1, None)
    second.settle("q", [], [("g", 1)])
    assert second.enter("q", [("g", 2)], ONE, 0) == (0, None)
    assert first.enter("q", [("f", 3)], ONE, 0) == (1, None)


def test_two_that_enter_at_the_same_time_are_never_more_than_allowed(stores: Any) -> None:
    inside: set[tuple[str, int]] = set()
    most: list[int] = []

    def come_and_go(name: str, store: PostgresStore) -> None:
        for n in range(1, 200):
            entered, _ = store.enter("q", [(name, n), (name, -n)], Limits(concurrency=3), 0)
            here = [(name, n), (name, -n)][:entered]
            inside.update(here)
            most.append(len(inside))
            inside.difference_update(here)
            store.settle("q", [], here)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(come_and_go, ("f", "g"), stores))
    assert 2 <= max(most) <= 3


def test_a_rate_says_when_the_next_may_enter(stores: Any) -> None:
    first, second = stores
    rate = Limits(rate=(2, 100))
    assert first.enter("q", [("f", 1)], rate, 1_000) == (1, None)
    assert second.enter("q", [("g", 1), ("g", 2)], rate, 1_050) == (1, 1_100)
    assert first.enter("q", [("f", 2)], rate, 1_099) == (0, 1_100)
    assert second.enter("q", [("g", 2), ("g", 3)], rate, 1_100) == (1, 1_150)


def test_asked_again_it_says_what_it_has(stores: Any) -> None:
    first, second = stores
    both = Limits(concurrency=2, rate=(2, 100))
    keys = [("f", 1), ("f", 2), ("f", 3)]
    assert first.enter("q", keys, both, 1_000) == (2, None)
    assert second.enter("q", [("g", 1)], both, 1_000) == (0, None)
    assert first.enter("q", keys, both, 1_000) == (2, None)
    assert sorted(second.inside("q")) == [("f", 1), ("f", 2)]


def test_a_call_that_two_want_has_a_place_for_each_until_one_gives_up(stores: Any) -> None:
    first, second = stores
    two = Limits(concurrency=2)
    assert first.enter("q", [("f", 1)], two, 0) == second.enter("q", [("f", 1)], two, 0) == (1, None)
    second.settle("q", [], [("f", 1)])
    assert second.inside("q") == [("f", 1)]
    assert second.enter("q", [("g", 1), ("g", 2)], two, 0) == (1, None)


def test_places_of_flows_are_their_interpreters_alone(stores: Any) -> None:
    first, second = stores
    mine = first.balance().mine
    flow_id = next(f for f in flow_ids(1_000) if share_of(f) in mine)
    place = flow_id, 0
    assert second.enter("q", [place], ONE, 0) == (0, None)
    assert first.enter("q", [place], ONE, 0) == (1, None)
    second.settle("q", [], [place])
    second.reclaim(range(SHARES), [])
    assert second.inside("q") == [place]
    first.reclaim(mine, [("q", flow_id)])
    assert second.inside("q") == [place]
    first.reclaim(mine, [("other", flow_id)])
    assert second.inside("q") == []
