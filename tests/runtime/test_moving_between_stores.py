"""Flows that move between a DuckDB file and PostgreSQL, both ways: they go on there with what they waited for, and here no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lives import HandClock, life, play, settle
from postgres_server import Server

from flowmetal.errors import FlowConflict, FlowEnded, LeaseLost
from flowmetal.runtime.engine import Engine
from flowmetal.store import kinds
from flowmetal.store.duckdb_store import DuckDBStore

PROGRAM = """
(defforeign charge [n] {:retry {:max-attempts 3 :initial #dur "10s" :jitter false}})
(defn label [x] (str "here:" x))
(defflow over [] {:big (apply str (repeat 70000 "ä")) :odd "a\\u0000b" :exact [:k #{1} 10000000000000000000000000 #dur "1h"]})
(defflow receives [] (label (:n (receive {:match {:k "paid"}}))))
(defflow sleeps [] (sleep #dur "1h") (label "awake"))
(defflow holds [] (label (:n (await (callback)))))
(defflow pays [] (label (charge 7)))
"""
THERE = '(defn label [x] (throw (ex-info "another\'s" {}))) (defflow over [] :another)'
OPEN = ["receives", "sleeps", "holds", "pays"]


@pytest.fixture(params=["from duckdb to postgres", "from postgres to duckdb"])
def pair(request: pytest.FixtureRequest, postgres: Server, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """The store that flows leave, and the one to which they go."""
    from flowmetal.store.postgres_store import PostgresStore

    url = postgres.store()
    two = (DuckDBStore(tmp_path / "store.duckdb"), PostgresStore(url))
    yield two if request.param.startswith("from duckdb") else two[::-1]
    for store in two:
        store.close()
    postgres.give_back(url)


async def begin(engine: Engine, *names: str) -> None:
    """Starts flows of the program, each under its name, and waits until all wait."""
    await engine.load(PROGRAM, file="p.flow")
    for name in names:
        await engine.start_flow(name, [], flow_id=name)
    await settle(engine)


async def moved(engine: Engine, *flows: str) -> bytes:
    """The file of these flows, which have moved then."""
    data = await engine.keeping.export(flows)
    await engine.keeping.mark_moved(json.loads(data.splitlines()[0])["open"])
    return data


async def status(engine: Engine, flow: str) -> str:
    return str((await engine.flow(flow))["status"])


def token_of(store: Any, flow: str) -> str:
    return next(row.key for row in store.rows(flow) if row.key is not None)


def test_flows_go_on_in_the_other_store_with_what_they_waited_for(pair: tuple[Any, Any]) -> None:
    here, there = pair

    async def scene() -> None:
        clock = HandClock()
        async with life(here, clock) as a:
            await begin(a, "over", *OPEN)
            await a.send("receives", {"k": "other"})
            (task,) = await a.foreign.lease(["charge"], wait=5)
            await a.foreign.fail(task["id"], {"type": "x/busy", "message": "busy"})
            await settle(a, 5)
            token, over = token_of(here, "holds"), await a.result("over", 5)
            data = await moved(a, "over", *OPEN)
        async with life(there, clock) as b:
            await b.load(THERE, file="p.flow")
            assert set((await b.keeping.import_flows(data))["flows"]) == {"over", *OPEN}
        async with life(there, clock) as b:
            assert await b.result("over", 5) == over
            await b.send("receives", {"k": "paid", "n": 3})
            assert await b.result("receives", 5) == {"status": "completed", "result": "here:3"}
            assert (await b.settle_callback(token, {"n": 4}))[0] == "accepted"
            assert await b.result("holds", 5) == {"status": "completed", "result": "here:4"}
            assert not await b.foreign.lease(["charge"], wait=0)
            await settle(b, 6)
            (again,) = await b.foreign.lease(["charge"], wait=5)
            assert (again["idempotency_key"], again["attempt"]) == (task["idempotency_key"], 2)
            await b.foreign.complete(again["id"], "paid")
            assert await b.result("pays", 5) == {"status": "completed", "result": "here:paid"}
            await settle(b, 3_580)
            assert await status(b, "sleeps") == "waiting"
            await settle(b, 10)
            assert await b.result("sleeps", 5) == {"status": "completed", "result": "here:awake"}

    play(scene)


def test_the_store_that_they_left_does_not_run_them_further(pair: tuple[Any, Any]) -> None:
    here, _ = pair

    async def scene() -> None:
        clock = HandClock()
        async with life(here, clock) as a:
            await begin(a, *OPEN)
            (task,) = await a.foreign.lease(["charge"], wait=5)
            await moved(a, *OPEN)
            await refuses(a, task["id"])
        async with life(here, clock) as a:
            await refuses(a, task["id"])

    async def refuses(a: Engine, task: str) -> None:
        before = {name: here.last_seq(name) for name in OPEN}
        for call in (a.send("receives", {"k": "paid"}), a.control("sleeps", "resume"), a.control("sleeps", "retry"), a.control("pays", "cancel")):
            with pytest.raises((FlowEnded, FlowConflict)):
                await call
        with pytest.raises((LeaseLost, FlowEnded)):
            await a.foreign.complete(task, "paid")
        assert (await a.settle_callback(token_of(here, "holds"), {"n": 4}))[0] == "ended"
        await settle(a, 7_200)
        assert not await a.foreign.lease(["charge"], wait=0)
        assert {name: here.last_seq(name) for name in OPEN} == before
        assert {await status(a, name) for name in OPEN} == {"moved"}
        assert {(await a.result(name, 5) or {})["error"]["type"] for name in OPEN} == {"flow/moved"}
        assert {here.rows(name)[-1].kind for name in OPEN} == {kinds.FLOW_MOVED}

    play(scene)


def test_there_and_back_again(pair: tuple[Any, Any]) -> None:
    here, there = pair

    async def scene() -> None:
        clock = HandClock()
        async with life(here, clock) as a, life(there, clock) as b:
            await a.load("(defflow main [] [(receive) (receive) (receive)])", file="p.flow")
            await a.start_flow("main", [], flow_id="m")
            for engine, message in ((a, 1), (b, 2), (a, 3)):
                await engine.send("m", message)
                await settle(engine)
                if message < 3:
                    await (b if engine is a else a).keeping.import_flows(await moved(engine, "m"))
            assert await a.result("m", 5) == {"status": "completed", "result": [1, 2, 3]}
            assert await status(b, "m") == "moved"

    play(scene)
