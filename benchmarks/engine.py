"""The engine's figures, as ratios to this machine's own fdatasync.

    python benchmarks/engine.py [NAME…]

Each workload runs five times, each time on a new store in a new directory; what is printed is the
median, and its ratio to the median of a bare append and fdatasync in the same run.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
from flowmetal.lang.plain import from_plain
from flowmetal.runtime.connector import Call, Completed
from flowmetal.runtime.engine import Engine
from flowmetal.store.duckdb_store import DuckDBStore

REPEATS = 5


class Steps:
    """A connector that answers at once, in this process: what is measured is the engine."""

    ops = frozenset({"foreign"})

    async def perform(self, call: Call) -> Completed:
        """Answers with the first argument."""
        return Completed(from_plain({"ok": True, "n": call.args[0] if call.args else None}))

    async def close(self) -> None:
        """Nothing is held."""


SOURCE = """
(defforeign work "One step." [n])
(defflow steps [n] (loop [i 0] (if (< i n) (do (work i) (recur (inc i))) i)))
(defflow parked [] (:v @(callback)))
"""


def fdatasync_us(directory: Path) -> float:
    """The median of 200 appends of 4 KB with fdatasync."""
    fd = os.open(directory / "sync", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        os.write(fd, b"x" * 4096)
        os.fdatasync(fd)
        times.append(time.perf_counter() - begun)
    os.close(fd)
    return statistics.median(times) * 1e6


async def opened(path: Path) -> Engine:
    """An engine on a DuckDB file, with the programs of the benchmark."""
    engine = Engine(DuckDBStore(path), connectors=[Steps()])
    await engine.open()
    await engine.load(SOURCE, file="bench.flow")
    return engine


async def closed(engine: Engine) -> None:
    """Closes the engine and its store."""
    await engine.close()
    engine.store.close()


async def many_flows(path: Path) -> dict[str, float]:
    """200 flows of 10 steps, all started at once."""
    engine = await opened(path)
    begun = time.perf_counter()
    started = await asyncio.gather(*[engine.start_flow("steps", [10]) for _ in range(200)])
    await asyncio.gather(*[engine.result(flow) for flow, _ in started])
    seconds = time.perf_counter() - begun
    await closed(engine)
    return {"steps a second (200 flows x 10 steps)": 2000 / seconds, "us a step (200 flows x 10 steps)": seconds / 2000 * 1e6}


async def one_flow(path: Path) -> dict[str, float]:
    """One flow of 1,000 steps, one after the other."""
    engine = await opened(path)
    begun = time.perf_counter()
    flow, _ = await engine.start_flow("steps", [1000])
    await engine.result(flow)
    seconds = time.perf_counter() - begun
    await closed(engine)
    return {"us a step (one flow x 1,000 steps)": seconds / 1000 * 1e6}


async def callbacks(path: Path) -> dict[str, float]:
    """From a callback's arrival to the end of the flow that waited for it, 50 times."""
    engine = await opened(path)
    times = []
    for _ in range(50):
        flow, _ = await engine.start_flow("parked", [])
        token = await _token(engine, flow)
        begun = time.perf_counter()
        await engine.settle_callback(token, {"v": 1})
        await engine.result(flow)
        times.append(time.perf_counter() - begun)
    await closed(engine)
    return {"ms from a callback to the flow's next step": statistics.median(times) * 1e3}


async def _token(engine: Engine, flow: str) -> str:
    async for _ in engine.watch(flow):
        for row in await engine.writer.call(engine.store.rows, flow):
            if row.kind == "effect-requested" and row.key:
                return str(row.key)
    raise AssertionError


async def waiting(path: Path) -> dict[str, float]:
    """1,000 flows that wait: what one costs in memory, and opening the store again."""
    engine = await opened(path)
    gc.collect()
    before = psutil.Process().memory_info().rss
    started = await asyncio.gather(*[engine.start_flow("parked", []) for _ in range(1000)])
    await asyncio.gather(*[_token(engine, flow) for flow, _ in started])
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    await closed(engine)
    begun = time.perf_counter()
    engine = Engine(DuckDBStore(path), connectors=[Steps()])
    await engine.open()
    seconds = time.perf_counter() - begun
    await closed(engine)
    return {"KB of memory a waiting flow": grown / 1000 / 1024, "ms to open a store with 1,000 waiting flows": seconds * 1e3}


WORKLOADS: dict[str, Callable[[Path], Awaitable[dict[str, float]]]] = {
    "many": many_flows,
    "one": one_flow,
    "callbacks": callbacks,
    "waiting": waiting,
}


def main(names: list[str]) -> None:
    """Runs the workloads and prints medians."""
    with tempfile.TemporaryDirectory() as directory:
        sync = fdatasync_us(Path(directory))
        print(f"fdatasync: {sync:.0f} us on {os.cpu_count()} cores")
        for name in names or WORKLOADS:
            runs = []
            for n in range(REPEATS):
                runs.append(asyncio.run(WORKLOADS[name](Path(directory) / f"{name}{n}.duckdb")))
            for what in runs[0]:
                median = statistics.median(r[what] for r in runs)
                ratio = f" = {median / sync:.2f} fdatasyncs" if what.startswith("us") else f" = {median * 1e3 / sync:.1f} fdatasyncs" if what.startswith("ms") else ""
                print(f"{what}: {median:.1f}{ratio}")


if __name__ == "__main__":
    main(sys.argv[1:])
