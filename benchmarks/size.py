"""What happens when there is much of something: steps behind a flow, sleepers, events in the log."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
from measure import Figure, Place, resident_kb
from world import Work, engine_on, start_waiting

from flowmetal.runtime.engine import Engine

CHUNK = 1_000


def resume(place: Place) -> Iterator[Figure]:
    """Waking a flow with a long past, from the message to its next step, against one with a short one."""
    long, short = place.size(10_000, 50), 10
    path = place.directory / "resume.duckdb"

    async def fill() -> list[str]:
        async with engine_on(path) as engine:
            return await start_waiting(engine, "waiter", [[long], *[[short]] * 9])

    async def wake(flow_id: str) -> float:
        work = Work()
        async with engine_on(path, work) as engine:
            await engine.flows(limit=1)
            begun = time.perf_counter()
            await engine.send(flow_id, {"go": True})
            await work.called.wait()
            return time.perf_counter() - begun

    first, *others = asyncio.run(fill())
    before = statistics.median(asyncio.run(wake(flow)) for flow in others)
    after = asyncio.run(wake(first))
    yield Figure(f"waking a flow with {short} steps behind it", before * 1e3, "ms")
    yield Figure(f"waking a flow with {long} steps behind it", after * 1e3, "ms")
    yield Figure(f"{long} steps behind it against {short}", after / before, "x", 2.0)


def sleepers(place: Place) -> Iterator[Figure]:
    """Memory and processor time of flows that wait: half for a callback, half for a timer."""
    count = place.size(100_000, 20)
    path = place.directory / "sleepers.duckdb"

    async def fill() -> tuple[float, float, float]:
        async with engine_on(path) as engine:
            await start_waiting(engine, "parked", [[]] * min(count, 500))
            before = _settled_kb()
            begun = time.perf_counter()
            for n in range(0, count, CHUNK):
                name = "parked" if n // CHUNK % 2 else "sleeper"
                await start_waiting(engine, name, [[]] * min(CHUNK, count - n))
            seconds = time.perf_counter() - begun
            grown = _settled_kb() - before
            used = time.process_time()
            idle = 2.0 if not place.quick else 0.1
            await asyncio.sleep(idle)
            return seconds, grown / count, (time.process_time() - used) / idle

    async def open_again() -> tuple[float, float]:
        empty = place.directory / "empty.duckdb"
        async with engine_on(empty):
            before = _settled_kb()
        begun = time.perf_counter()
        async with engine_on(path) as engine:
            seconds = time.perf_counter() - begun
            await engine.writer.call(engine.store.find, "effect-requested", "no such token")
            return seconds, (_settled_kb() - before) / count

    seconds, grown, idle = asyncio.run(fill())
    opened, again = asyncio.run(open_again())
    yield Figure(f"starting {count} flows that wait", count / seconds, "flows/s")
    yield Figure(f"memory of one of {count} that wait, where they were started", grown, "KB", 1.0)
    yield Figure("the same in a process that opens their store", again, "KB", 1.0)
    yield Figure("processor cores in use while all wait", idle, "cores")
    yield Figure(f"opening a store with {count} waiting flows", opened, "s")


def _settled_kb() -> float:
    gc.collect()
    return resident_kb()


QUESTIONS = {
    "flows by status": "SELECT status, count(*) FROM flows GROUP BY ALL",
    "the latest failures": "SELECT flow_id, name, error, finished_at FROM flows WHERE status = 'failed' ORDER BY finished_at DESC LIMIT 20",
    "how long flows of each name take": "SELECT name, count(*), avg(finished_at - created_at) FROM flows GROUP BY name",
    "the slowest operations": "SELECT op, target, count(*), avg(duration_ms), max(duration_ms) FROM effects GROUP BY ALL ORDER BY 4 DESC LIMIT 10",
    "what is being waited for": "SELECT op, target, count(*) FROM effects WHERE status = 'requested' GROUP BY ALL",
    "the next timers": "SELECT * FROM timers WHERE fired_at IS NULL ORDER BY due_at LIMIT 20",
    "the latest events": "SELECT * FROM events ORDER BY pos DESC LIMIT 100",
    "events an hour": "SELECT date_trunc('hour', \"at\") AS hour, count(*) FROM events GROUP BY ALL ORDER BY hour",
}
"""What people ask of the views."""


def events(place: Place) -> Iterator[Figure]:
    """Questions to a store with a million events: what `ps` and `show` ask, one flow's history, SQL."""
    flows = place.size(50_000, 50)
    path = place.directory / "events.duckdb"

    async def prepare() -> None:
        async with engine_on(path):
            pass

    asyncio.run(prepare())
    count = _write_log(path, flows)

    async def ask() -> list[Figure]:
        out = []
        async with engine_on(path) as engine:
            one = f"flow-{flows // 2}"
            for what, question in _calls(engine, one).items():
                out.append(Figure(f"{count} events: {what}", await _timed(question) * 1e3, "ms", 1_000))
            for what, sql in QUESTIONS.items():
                out.append(Figure(f"{count} events, SQL: {what}", await _timed(_query(engine, sql)) * 1e3, "ms", 1_000))
        return out

    yield from asyncio.run(ask())


def _calls(engine: Engine, flow_id: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "ps, a page": lambda: engine.flows(),
        "ps, those that wait": lambda: engine.flows("waiting"),
        "ps, by name": lambda: engine.flows(None, "order"),
        "one flow": lambda: engine.flow(flow_id),
        "one flow's history": lambda: engine.events(flow_id),
        "starting a flow": lambda: engine.start_flow("parked", []),
    }


def _query(engine: Engine, sql: str) -> Callable[[], Awaitable[Any]]:
    return lambda: engine.sql(sql)


async def _timed(question: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        await question()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _write_log(path: Path, flows: int) -> int:
    """Flows of twenty rows each, as they would stand in the log: start, nine steps with outcomes, an end (or a wait); the number of rows."""
    connection = duckdb.connect(str(path))
    (first,) = connection.execute("SELECT max(pos) FROM fm.log").fetchone() or (0,)
    connection.execute(
        """INSERT INTO fm.log SELECT $1 + row_number() OVER (ORDER BY f, n), 'flow-' || f,
            row_number() OVER (PARTITION BY f ORDER BY n), 1767225600000000 + (f * 20 + n) * 60000,
            CASE WHEN n = 1 THEN 'flow-started' WHEN n % 2 = 0 AND n < 20 THEN 'effect-requested' WHEN n < 20 THEN 'effect-completed'
                WHEN f % 10 = 0 THEN 'flow-waiting' WHEN f % 25 = 1 THEN 'flow-failed' ELSE 'flow-completed' END,
            CASE WHEN n BETWEEN 2 AND 19 AND (n < 19 OR f % 10 <> 0) THEN n // 2 END, NULL,
            CASE WHEN n = 1 THEN '{"name":"' || CASE WHEN f % 3 = 0 THEN 'order' ELSE 'invoice' END
                    || '","kind":"flow","definitions":1,"run":"' || uuid() || '","args":[{"id":' || f || ',"total":4200}]}'
                WHEN n % 2 = 0 AND n < 20 THEN '{"op":"' || CASE WHEN n = 18 THEN 'sleep' ELSE 'http/post' END
                    || '","target":"https://example.org/' || n || '","hash":"' || md5(f || '/' || n)[:16]
                    || '","line":3,"column":10,"source":"orders.flow","function":"fulfil","args":[{"json":{"order":' || f || '}}]'
                    || CASE WHEN n = 18 THEN ',"due_at":"2099-07-01T00:00:00Z"' ELSE '' END || '}'
                WHEN n < 20 THEN '{"attempts":1,"result":{"status":200,"json":{"ok":true,"n":' || n || '}}}'
                WHEN f % 10 = 0 THEN '{"for":[{"step":9,"op":"sleep","target":"","due_at":"2099-07-01T00:00:00Z"}]}'
                WHEN f % 25 = 1 THEN '{"error":{"type":"http/status","message":"500","data":{}},"rendered":"500","stack":[]}'
                ELSE '{"result":{"shipped":true}}' END,
            NULL, NULL
        FROM range($2) flows(f), range(1, 21) rows(n) WHERE NOT (f % 10 = 0 AND n = 19) ORDER BY f, n""",
        [first, flows],
    )
    (count,) = connection.execute("SELECT count(*) FROM fm.log").fetchone() or (0,)
    connection.close()
    return int(count)
