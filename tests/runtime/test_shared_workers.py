"""Foreign calls of a store that two interpreters have: workers attached to either answer those of both, each once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from postgres_server import Server

from flowmetal.errors import LeaseLost
from flowmetal.lang.persistent import Map
from flowmetal.lang.values import kw
from flowmetal.runtime.engine import Engine
from flowmetal.store.postgres_store import PostgresStore

PROGRAM = """
(defforeign charge [n] {:retry {:max-attempts 3 :initial #dur "50ms"}})
(defforeign ship [n])
(defflow buy [n] (charge n))
(defflow once [n] (try (call "charge" [n] {:at-most-once true}) (catch :effect/interrupted e :unknown)))
(defflow hasty [n] (try (call "charge" [n] {:timeout #dur "300ms"}) (catch :flow/timeout e :late)))
(defflow queued [n] (call "charge" [n] {:queue "till"}))
(defflow many [n] (loop [i 0 sum 0] (if (< i n) (recur (+ i 1) (+ sum (ship i))) sum)))
"""


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    """A store."""
    url = postgres.store()
    yield url
    postgres.give_back(url)


async def until(what: Callable[[], Any], seconds: float = 15.0) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Engine, Engine]]:
    """Two engines that have the store, each half of it."""
    engines = [Engine(PostgresStore(url)) for _ in range(2)]
    for engine in engines:
        await engine.open()
    try:
        await until(lambda: all(len(engine.sharing.mine) == 32 for engine in engines))
        await engines[0].load(PROGRAM, file="test.flow")
        yield engines[0], engines[1]
    finally:
        for engine in engines:
            if not engine.closing:
                await engine.close()
                engine.store.close()


async def flow_of(owner: Engine, name: str, n: Any = 1) -> str:
    """A flow that this engine computes."""
    while True:
        flow_id = owner.new_id()
        if owner.sharing.owns(flow_id):
            break
    await owner.start_flow(name, [n], flow_id=flow_id)
    return flow_id


async def lease(engine: Engine, name: str = "charge", **options: Any) -> dict[str, Any]:
    """The call that a worker attached here is given."""
    (task,) = await engine.foreign.lease([name], wait=15, **options)
    return task


async def kinds_of(engine: Engine, flow_id: str) -> list[str]:
    """What the log says of the steps of a flow."""
    return [row.kind for row in await engine.writer.call(engine.store.rows, flow_id) if row.step is not None]


def offers(url: str) -> int:
    """How many calls stand in the table."""
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT count(*) FROM fm.offers").fetchone()[0]  # type: ignore[index]


async def killed(engine: Engine) -> None:
    """The engine ends as a process does that is killed."""
    await engine.abandon()
    engine.store._session.connection.close()  # type: ignore[attr-defined]
    engine.store.close()


def run(url: str, body: Callable[[Engine, Engine], Awaitable[None]]) -> None:
    """Runs a test on two engines."""

    async def main() -> None:
        async with two(url) as (a, b):
            await body(a, b)
            await until(lambda: not offers(url))

    asyncio.run(main())


def test_one_worker_answers_the_calls_of_both_each_once(url: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        flows = [await flow_of(a if n % 2 else b, "buy", n) for n in range(40)]
        answered: list[tuple[str, int]] = []
        async with asyncio.timeout(30):
            while len(answered) < 40:
                for task in await b.foreign.lease(["charge"], wait=5, most=3):
                    answered.append((task["flow_id"], task["args"][0]))
                    await b.foreign.complete(task["id"], task["args"][0] * 2)
        assert sorted(answered) == sorted((flow, n) for n, flow in enumerate(flows)), "each call, once"
        for n, flow in enumerate(flows):
            assert await a.result(flow, 10) == {"status": "completed", "result": 2 * n}
        assert await a.foreign.lease(["charge"]) == await b.foreign.lease(["charge"]) == []

    run(url, body)


def test_workers_of_both_share_what_one_asks_for(url: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        flows = [await flow_of(a, "many", 5) for _ in range(6)]
        sums = asyncio.gather(*(a.result(flow, 30) for flow in flows))
        given: list[str] = []

        async def work(engine: Engine) -> None:
            while True:
                for task in await engine.foreign.lease(["ship"], wait=5, most=2):
                    given.append(task["idempotency_key"])
                    await engine.foreign.complete(task["id"], task["args"][0])

        workers = [asyncio.create_task(work(engine)) for engine in (a, b, b)]
        assert [each["result"] for each in await sums] == [10] * 6
        for worker in workers:
            worker.cancel()
        assert len(given) == len(set(given)) == 30

    run(url, body)


def test_a_failed_attempt_is_made_again_by_whichever_worker(url: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        flow = await flow_of(a, "buy")
        first = await lease(b)
        await b.foreign.fail(first["id"], {"type": "x/busy", "message": "busy"})
        second = await lease(b)
        assert (second["attempt"], second["idempotency_key"]) == (2, first["idempotency_key"])
        await b.foreign.fail(second["id"], {"type": "x/busy", "message": "busy"})
        third = await lease(a)
        assert third["attempt"] == 3
        await a.foreign.complete(third["id"], "paid")
        assert await b.result(flow, 10) == {"status": "completed", "result": "paid"}
        assert await kinds_of(a, flow) == ["effect-requested", "attempt-failed", "attempt-failed", "effect-completed"]

    run(url, body)


def test_a_lease_that_runs_out_elsewhere_is_for_anybody(url: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        flow = await flow_of(a, "buy")
        first = await lease(b, lease=0.2)
        again = await lease(a)
        assert (again["attempt"], again["idempotency_key"]) == (1, first["idempotency_key"])
        with pytest.raises(LeaseLost):
            await b.foreign.complete(first["id"], "late")
        await a.foreign.complete(again["id"], "paid")
        assert await b.result(flow, 10) == {"status": "completed", "result": "paid"}

    run(url, body)


def test_the_limit_of_a_queue_holds_over_the_workers_of_both(url: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        await a.queues.declare("till", Map.of([(kw("concurrency"), 2)]), "k", "test")
        flows = [await flow_of(a, "queued", n) for n in range(6)]
        at_work, most, together = 0, 0, asyncio.Event()

        async def work(engine: Engine) -> None:
            nonlocal at_work, most
            while True:
                for task in await engine.foreign.lease(["charge"], wait=5):
                    at_work += 1
                    most = max(most, at_work)
                    if at_work == 2:
                        together.set()
                    await asyncio.wait_for(together.wait(), 10)
                    await asyncio.sleep(0.02)
                    at_work -= 1
                    await engine.foreign.complete(task["id"], "paid")

        workers = [asyncio.create_task(work(engine)) for engine in (a, b, b, b)]
        for flow in flows:
            assert await b.result(flow, 20) == {"status": "completed", "result": "paid"}
        for worker in workers:
            worker.cancel()
        assert most == 2

    run(url, body)


def test_where_the_table_and_the_log_differ_the_log_is_right(url: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        flow = await flow_of(a, "buy")
        await until(lambda: a.foreign.offers.out)
        await until(lambda: offers(url))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DELETE FROM fm.offers")
        await a.foreign.offers.compare_all()
        task = await lease(b)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE fm.offers SET lease_id = 'x', holder = (SELECT holder FROM fm.offers)")
        b.foreign.end(b.foreign.leases[task["id"]])
        for _ in range(2):  # held under a lease that its holder does not know: the answer to a claim was lost
            await b.foreign.offers._compare_all(b.store.offers)  # type: ignore[attr-defined]
        task = await lease(b)
        await b.foreign.complete(task["id"], "paid")
        assert await a.result(flow, 10) == {"status": "completed", "result": "paid"}

    run(url, body)


def test_an_answer_is_known_again_at_either(url: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        await flow_of(a, "buy")
        task = await lease(b)
        with pytest.raises(LeaseLost):
            await a.foreign.complete(task["id"], "paid")
        await b.foreign.heartbeat(task["id"])
        await b.foreign.complete(task["id"], "paid")
        for engine in (a, b):
            await engine.foreign.complete(task["id"], "paid")
            with pytest.raises(LeaseLost):
                await engine.foreign.fail(task["id"], {"message": "no"})

    run(url, body)


def test_a_call_at_most_once_says_that_it_was_sent_before_a_worker_elsewhere_has_it(url: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        flow = await flow_of(a, "once")
        task = await lease(b)
        started = [json.loads(row.data) for row in await a.writer.call(a.store.rows, flow) if row.kind == "attempt-started"]
        assert [each["task"] for each in started] == [task["id"]]
        await b.foreign.complete(task["id"], "paid")
        assert await a.result(flow, 10) == {"status": "completed", "result": "paid"}

    run(url, body)


@pytest.mark.parametrize(("name", "outcome"), [("buy", "paid"), ("once", "unknown")])
def test_what_an_interpreter_had_that_died_is_offered_again_or_interrupted(url: str, name: str, outcome: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        flow = await flow_of(a, name)
        task = await lease(b)
        await killed(b)
        if name == "buy":
            again = await lease(a)
            assert (again["attempt"], again["idempotency_key"]) == (1, task["idempotency_key"])
            await a.foreign.complete(again["id"], "paid")
        assert await a.result(flow, 20) == {"status": "completed", "result": outcome}

    run(url, body)


def test_a_lease_elsewhere_stays_when_the_flows_own_interpreter_dies(url: str) -> None:
    async def main() -> None:
        async with two(url) as (a, b):
            flows = {name: await flow_of(a, name) for name in ("buy", "once")}
            tasks = [await lease(b), await lease(b)]
            await killed(a)
            await until(lambda: len(b.sharing.mine) == 64)
            assert await b.foreign.lease(["charge"], wait=0.3) == []
            for task in tasks:
                await b.foreign.complete(task["id"], "paid")
            for flow in flows.values():
                assert await b.result(flow, 10) == {"status": "completed", "result": "paid"}
            await until(lambda: not offers(url))

    asyncio.run(main())


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_worker_elsewhere_is_told_that_a_call_is_wanted_no_more(url: str, how: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        flow = await flow_of(a, "hasty" if how == "timeout" else "buy")
        task = await lease(b)
        if how == "cancel":
            await b.control(flow, "cancel")
        await a.result(flow, 10)

        async def beat() -> None:
            while True:
                await b.foreign.heartbeat(task["id"])
                await asyncio.sleep(0.05)

        with pytest.raises(LeaseLost):
            await asyncio.wait_for(beat(), 10)
        with pytest.raises(LeaseLost):
            await b.foreign.complete(task["id"], "paid")
        assert "effect-completed" not in await kinds_of(a, flow) or how == "cancel"

    run(url, body)


def test_a_call_that_nobody_took_is_withdrawn_from_all(url: str) -> None:
    async def body(a: Engine, b: Engine) -> None:
        flow = await flow_of(a, "hasty")
        await until(lambda: a.foreign.offers.out)
        assert await a.result(flow, 10) == {"status": "completed", "result": "late"}
        await until(lambda: not offers(url))
        assert await b.foreign.lease(["charge"], wait=0.1) == []

    run(url, body)


def test_one_interpreter_alone_offers_nothing(url: str) -> None:
    async def main() -> None:
        engine = Engine(PostgresStore(url))
        await engine.open()
        await engine.load(PROGRAM, file="test.flow")
        flow = await flow_of(engine, "buy")
        await asyncio.sleep(0.1)
        assert not engine.foreign.offers.out
        assert not offers(url)
        task = await lease(engine)
        await engine.foreign.complete(task["id"], 1)
        assert await engine.result(flow, 10) == {"status": "completed", "result": 1}
        await engine.close()
        engine.store.close()

    asyncio.run(main())
