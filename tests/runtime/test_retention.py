"""Flows that are over go to the archive, streams lose what nobody asks for any more, and all go on as before."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from lives import HandClock

from flowmetal.errors import FlowConflict, LispError, StoreError
from flowmetal.runtime.clock import Chance
from flowmetal.runtime.engine import Engine
from flowmetal.runtime.retention import BATCH
from flowmetal.store import kinds
from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.memory import MemoryStore
from flowmetal.testing import World

DAY = 86_400_000_000
pytestmark = pytest.mark.one_store("an archive is of a DuckDB file")

PROGRAM = """
(defflow leaf [n] (log "x") (* 2 n))
(defflow top [n] [(leaf n) (str (random-uuid))])
(defflow waits [h] (receive) @h)
(defflow hooks [] (await (callback)))
(defflow runs [n] (log n) (if (zero? n) :done (continue-as (dec n))))
(defflow talks [] (topic "t" {:retain #dur "2d"}) (publish "t" 1))
"""


class House:
    """A store in a file and its engine, which may be opened again."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self.lives = path, HandClock(), 0
        self.engine: Engine

    async def __aenter__(self) -> House:
        await self.open()
        await self.engine.load(PROGRAM, file="p.flow")
        return self

    async def open(self) -> None:
        self.lives += 1
        self.store = DuckDBStore(self.path)
        self.engine = Engine(self.store, connectors=[World()], clock=self.clock, chance=Chance(self.lives))
        await self.engine.open()

    async def __aexit__(self, *exc: object) -> None:
        await self.engine.close()
        self.store.close()

    async def again(self) -> None:
        await self.__aexit__()
        await self.open()

    async def run(self, name: str, *args: Any, flow_id: str | None = None) -> str:
        flow, _ = await self.engine.start_flow(name, args, flow_id=flow_id, request_id=f"r-{flow_id or name}-{args}")
        assert await self.engine.result(flow, 20) is not None
        return flow

    async def in_log(self, flow_id: str) -> bool:
        return await self.engine.writer.call(self.store.is_in_log, flow_id)


def live(tmp_path: Path, play: Any) -> None:
    async def body() -> None:
        async with asyncio.timeout(60), House(tmp_path / "s.duckdb") as house:
            await play(house)

    asyncio.run(body())


def test_an_archived_flow_is_asked_as_before(tmp_path: Path) -> None:
    async def play(house: House) -> None:
        top = await house.run("top", 4, flow_id="mine")
        runs = await house.run("runs", 2)
        hook, _ = await house.engine.start_flow("hooks", [])
        while not (token := next((r.key for r in await house.engine.writer.call(house.store.rows, hook) if r.key), None)):
            await asyncio.sleep(0.01)
        assert (await house.engine.settle_callback(token, 1))[0] == "accepted"
        await house.engine.result(hook, 20)

        async def told() -> list[Any]:
            e = house.engine
            state = [await e.state(top, 1), await e.state(top, 2), await e.state(runs)]
            return [await e.result(top, 5), await e.flow(top), await e.events(top), state, await e.result(runs, 5), await e.events(runs), await e.flows()]

        before = await told()
        assert (await house.engine.keeping.archive())["archived"] == 4
        assert not await house.in_log(top) and not await house.in_log(runs)
        assert await told() == before
        assert await house.engine.start_flow("top", [4], flow_id="mine") == ("mine", False)
        with pytest.raises(FlowConflict):
            await house.engine.start_flow("top", [5], flow_id="mine")
        assert (await house.engine.settle_callback(token, 1))[0] == "again"
        assert (await house.engine.settle_callback(token, 2))[0] == "conflict"
        await house.again()
        assert await told() == before
        assert (await house.engine.keeping.archive())["archived"] == 0

    live(tmp_path, play)


def test_an_open_flow_stays_and_gets_what_an_archived_one_gave(tmp_path: Path) -> None:
    async def play(house: House) -> None:
        cell = await house.engine.eval('(def l (start leaf 21)) @l (start-with {:id "w"} waits l)')
        await house.engine.result(cell, 20)
        await house.engine.keeping.archive()
        assert await house.in_log("w")
        await house.again()
        await house.engine.send("w", 1)
        ended = await house.engine.result("w", 20)
        assert ended is not None and ended["result"] == 42

    live(tmp_path, play)


def test_age_condition_and_more_than_a_batch(tmp_path: Path) -> None:
    async def play(house: House) -> None:
        old = [await house.run("leaf", n, flow_id=f"old-{n}") for n in range(3)]
        house.clock.time += 2 * DAY
        new = await house.run("leaf", 9)
        assert (await house.engine.keeping.archive(older_than="3d"))["archived"] == 0
        assert (await house.engine.keeping.archive(older_than="1d", where="flow_id = 'old-1'"))["archived"] == 1
        assert [await house.in_log(flow) for flow in [*old, new]] == [True, False, True, True]
        assert (await house.engine.keeping.archive(older_than="1d"))["archived"] == 2
        assert await house.in_log(new)
        for bad in ("soon", "-1d", ""):
            with pytest.raises(LispError):
                await house.engine.keeping.archive(older_than=bad)

    assert BATCH > 3
    live(tmp_path, play)


def test_a_setting_of_the_store_is_seen_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowmetal.runtime.retention.EVERY", 0.1)

    async def play(house: House) -> None:
        flow = await house.run("leaf", 1)
        assert (await house.engine.keeping.archive(keep="1d")) == {"archived": 0, "keep": "1d"}
        house.clock.time += 2 * DAY
        while await house.in_log(flow):
            await asyncio.sleep(0.02)
        await house.again()
        later = await house.run("leaf", 2)
        house.clock.time += 2 * DAY
        while await house.in_log(later):
            await asyncio.sleep(0.02)
        assert (await house.engine.keeping.archive(keep="forever"))["keep"] is None

    live(tmp_path, play)


def test_streams_lose_their_older_part_and_their_numbers_go_on(tmp_path: Path) -> None:
    async def play(house: House) -> None:
        await house.run("talks")
        await house.run("leaf", 1)
        for n in range(5):
            await house.engine.topics.publish("t", n)
        house.clock.time += 8 * DAY
        await house.engine.topics.publish("t", "new")
        position = await house.engine.topics.position("t", None)
        await house.engine.keeping.archive(older_than="1d")
        call, store = house.engine.writer.call, house.store
        assert [json.loads(row.data)["message"] for row in await call(store.rows, "$topic/t")] == ["new"]
        for stream in (kinds.REQUESTS_STREAM, "$topic/$flows"):
            assert len(await call(store.rows, stream)) == 1, "its last row says how far it is"
        await house.again()
        await house.engine.topics.publish("t", "newest")
        assert await house.engine.topics.position("t", None) == position + 1
        removed = await house.engine.writer.call(house.store.rows, kinds.REMOVED_STREAM)
        said = [json.loads(row.data)["stream"] for row in removed if row.kind == kinds.EVENTS_PRUNED]
        assert sorted(said) == ["$requests", "$topic/$flows", "$topic/t"]

    live(tmp_path, play)


def test_a_flow_in_the_archive_may_be_deleted_exported_and_come_back(tmp_path: Path) -> None:
    async def play(house: House) -> None:
        top = await house.run("top", 1)
        events = await house.engine.events(top)
        await house.engine.keeping.archive()
        data = await house.engine.keeping.export([top])
        assert len(await house.engine.keeping.delete(top)) == 2
        assert (await house.engine.keeping.import_flows(data))["new"]
        assert [(e["seq"], e["kind"], e["data"]) for e in await house.engine.events(top)] == [(e["seq"], e["kind"], e["data"]) for e in events]

    live(tmp_path, play)


def test_a_store_in_memory_has_no_archive() -> None:
    async def body() -> None:
        engine = Engine(MemoryStore())
        await engine.open()
        for more in ({}, {"keep": "1d"}):
            with pytest.raises(StoreError, match="no archive"):
                await engine.keeping.archive(**more)
        await engine.close()

    asyncio.run(body())


def test_runs_that_are_over_go_while_the_flow_goes_on(tmp_path: Path) -> None:
    program = """(defflow turns [n] (log n)
        (receive {:match {:turn n}})
        (if (= n 4) [n (receive) (count (str (random-uuid)))] (continue-as (inc n))))"""

    async def play(house: House) -> None:
        await house.engine.load(program, file="t.flow")
        flow, _ = await house.engine.start_flow("turns", [0], flow_id="t")
        await house.engine.send(flow, "kept since the first run")

        async def turn(n: int) -> None:
            async with asyncio.timeout(20):
                await house.engine.send(flow, {"turn": n})
                async for _ in house.engine.watch(flow):
                    if len([e for e in await house.engine.events(flow) if e["kind"] == kinds.FLOW_CONTINUED]) > n:
                        return

        for n in range(3):
            await turn(n)
        events = await house.engine.events(flow)
        count = "SELECT count(*) FROM fm.log WHERE flow_id = 't'"
        (before,) = (await house.engine.writer.call(house.store._run, count))[0]
        await house.engine.keeping.archive()
        (after,) = (await house.engine.writer.call(house.store._run, count))[0]
        assert after < before / 2
        assert (await house.engine.events(flow))[: len(events)] == events
        assert (await house.engine.events(flow, 3))[: len(events) - 3] == events[3:]
        assert (await house.engine.flow(flow))["status"] == "waiting"
        await house.again()
        await turn(3)
        await house.engine.keeping.archive()
        house.store.drop_derived()
        await house.again()
        await house.engine.send(flow, {"turn": 4})
        ended = await house.engine.result(flow, 20)
        assert ended is not None and ended["result"] == [4, "kept since the first run", 36]
        rows = await house.engine.events(flow)
        assert [e["seq"] for e in rows] == list(range(1, len(rows) + 1)) and rows[: len(events)] == events
        assert (await house.engine.keeping.archive())["archived"] == 1
        assert await house.engine.events(flow) == rows
        assert not await house.in_log(flow)

    live(tmp_path, play)


def test_a_look_that_fails_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowmetal.runtime.retention.EVERY", 0.1)

    async def play(house: House) -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
        flow, give_back = await house.run("leaf", 1), house.store.give_back

        def fails() -> None:
            monkeypatch.setattr(house.store, "give_back", give_back)
            raise OSError("no space left on device")

        await house.engine.keeping.archive(keep="1d")
        monkeypatch.setattr(house.store, "give_back", fails)
        while not reports:
            await asyncio.sleep(0.01)
        assert isinstance(reports[0]["exception"], OSError)
        house.clock.time += 2 * DAY
        while await house.in_log(flow):
            await asyncio.sleep(0.02)

    live(tmp_path, play)


def test_a_setting_made_while_the_store_is_seen_to_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowmetal.runtime.retention.EVERY", 0.02)

    async def play(house: House) -> None:
        retention, gate, looks = house.engine.keeping.retention, asyncio.Event(), []

        async def archive(**_: Any) -> int:
            looks.append(gate.is_set())
            await gate.wait()
            return 0

        monkeypatch.setattr(retention, "archive", archive)
        await retention.set_keep(DAY)
        while not looks:
            await asyncio.sleep(0.001)
        await retention.set_keep(2 * DAY)
        while len(looks) < 2:
            await asyncio.sleep(0.001)
        gate.set()
        while True not in looks:
            await asyncio.sleep(0.001)
        retention.close()
        seen = len(looks)
        await asyncio.sleep(0.1)
        assert len(looks) == seen

    live(tmp_path, play)
