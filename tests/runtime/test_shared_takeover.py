"""What one interpreter takes over from another: calls that are called off while a worker elsewhere has them, answers that come meanwhile, crashes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from postgres_server import Server
from test_shared_workers import flow_of, killed, kinds_of, lease, offers, run, two, until

from flowmetal.errors import LeaseLost, StoreError
from flowmetal.runtime import recovery
from flowmetal.runtime.connector import Call, Outcome
from flowmetal.runtime.engine import Engine
from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.sharing import share_of
from flowmetal.testing import World

UNDONE = """
(defforeign charge [n] {:timeout #dur "1h"})
(defforeign refund [n what])
(defflow trip [n] (saga (undoable (charge n) (fn [r] (refund n r))) (receive)))
"""
SPINS = """(defflow spins [n] (http/post "http://x.test/a" {:json 1}) (loop [i 0] (recur (+ i 1))))"""


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    """A store."""
    url = postgres.store()
    yield url
    postgres.give_back(url)


async def called_off(a: Engine, b: Engine) -> tuple[str, dict[str, Any]]:
    """A flow of `a` that is cancelled while a worker at `b` has its call; and what the worker was given."""
    await a.load(UNDONE, file="undone.flow")
    flow = await flow_of(a, "trip")
    task = await lease(b)
    await b.control(flow, "cancel")
    await until(lambda: any(each.called_off for each in a.foreign.open.values()))
    await until(lambda: not a.foreign.ready.get("charge"))
    return flow, task


async def undone(engine: Engine, flow: str) -> Any:
    """What the rollback was told of the call; it is done, and the flow over."""
    task = await lease(engine, "refund")
    await engine.foreign.complete(task["id"], None)
    assert (await engine.result(flow, 10) or {})["status"] == "cancelled"
    return task["args"][1]


def nothing_left(*engines: Engine) -> bool:
    """Whether nothing of any call is in memory."""
    return not any(desk for e in engines for desk in (e.foreign.open, e.foreign.ready, e.foreign.leases, e.foreign.offers.out, e.foreign.offers.known,
                                                      e.foreign.offers.guests))  # fmt: skip


@pytest.mark.parametrize("answer", ["done", "failed", "lease ran out", "died"])
def test_a_call_that_a_worker_elsewhere_has_is_called_off(url: str, answer: str) -> None:
    """Its outcome is awaited and undone, and nobody else is given the call."""

    async def body(a: Engine, b: Engine) -> None:
        flow, task = await called_off(a, b)
        assert await a.foreign.lease(["charge"], wait=0.1) == []
        if answer == "done":
            await b.foreign.complete(task["id"], "paid")
        elif answer == "failed":
            await b.foreign.fail(task["id"], {"type": "x/full", "message": "full"})
        elif answer == "lease ran out":
            next_one = asyncio.create_task(b.foreign.lease(["charge"], wait=3))
            await until(lambda: b.foreign.pollers)
            b.foreign._ran_out(b.foreign.leases[task["id"]])
        else:
            await killed(b)
        told = await undone(a, flow)
        expected = {"done": {"value": "paid"}, "failed": {"error": {"type": "x/full", "message": "full"}}}.get(answer)
        assert set(told) == {"unknown"} if expected is None else told == expected or told["error"]["message"] == "full"
        assert await a.foreign.lease(["charge"], wait=0.1) == []
        if answer == "lease ran out":
            assert await next_one == []
            with pytest.raises(LeaseLost):
                await b.foreign.complete(task["id"], "late")
        alive = [a] if answer == "died" else [a, b]
        await until(lambda: nothing_left(*alive))

    run(url, body)


@pytest.mark.parametrize("answer", ["done", "lease ran out"])
def test_a_call_that_was_called_off_is_so_for_whoever_takes_the_flow_over(url: str, answer: str) -> None:
    async def main() -> None:
        async with two(url) as (a, b):
            flow, task = await called_off(a, b)
            await killed(a)
            await until(lambda: len(b.sharing.mine) == 64)
            if answer == "done":
                await b.foreign.complete(task["id"], "paid")
            else:
                b.foreign._ran_out(b.foreign.leases[task["id"]])
            assert await undone(b, flow) in ({"value": "paid"}, {"unknown": task["idempotency_key"]})
            assert await b.foreign.lease(["charge"], wait=0.1) == []
            await until(lambda: nothing_left(b) and not offers(url))

    asyncio.run(main())


def test_an_answer_that_comes_while_a_flow_is_taken_over_leaves_nothing_behind(url: str) -> None:
    """The request was open when it was read, and is not when its turn comes: it is neither offered again nor kept."""

    async def body(a: Engine, b: Engine) -> None:
        flow = await flow_of(a, "buy")
        task = await lease(b)
        shares = frozenset({share_of(flow)})
        a.foreign.forget(a.foreign.open[flow, 1])  # as it is where the flow has just been taken
        _, rows = await a.writer.call(recovery._open, a.store, frozenset(a.dispatcher.desks), shares)
        await a.foreign.offers.read(shares, {(row.flow_id, row.step or 0) for row in rows})
        assert len(rows) == 1 and a.foreign.offers.known
        await b.foreign.complete(task["id"], "paid")
        assert await a.result(flow, 10) == {"status": "completed", "result": "paid"}
        recovery.take_up(a, rows)
        while a.tasks:
            await asyncio.wait(list(a.tasks))
        assert nothing_left(a, b)
        assert await b.foreign.lease(["charge"], wait=0.1) == []

    run(url, body)


class Silent(World):
    """An outside that never answers."""

    async def perform(self, call: Call) -> Outcome:
        """Waits."""
        await asyncio.Event().wait()
        raise AssertionError


def test_a_takeover_that_fails_half_way_counts_one_crash(url: str) -> None:
    """What it took up before it failed may be computing when it is done again: that is the same crash."""

    async def main() -> None:
        first, last = (Engine(PostgresStore(url), connectors=(world,), retry_seconds=0.05) for world in (Silent(), World()))
        for engine in (first, last):
            await engine.open()
        await until(lambda: len(first.sharing.mine) == len(last.sharing.mine) == 32)
        await first.load(SPINS, file="spins.flow")
        flow = await flow_of(first, "spins")
        while "effect-requested" not in await kinds_of(first, flow):
            await asyncio.sleep(0.01)
        failed = [0]
        orphans = last.store.orphans

        def failing() -> list[tuple[str, str]]:
            computing = last.crashes._on_disk.get(flow, -1) >= 0
            if last.crashes.watched and (not computing or failed[0] < 4):
                failed[0] += computing
                raise StoreError("not now")
            return orphans()

        last.store.orphans = failing  # type: ignore[method-assign]
        await killed(first)
        await until(lambda: failed[0] == 4 and not last.sharing._fresh)
        place = f"crashes/{share_of(flow)}"
        assert last.crashes.watched == {flow: 1} == json.loads(await last.writer.call(last.store.get_meta, place))
        assert (await last.flow(flow))["status"] == "running"
        await last.control(flow, "terminate")
        await last.close()
        last.store.close()

    asyncio.run(main())
