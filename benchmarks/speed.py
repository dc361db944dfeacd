"""How fast the engine is: steps, group commit, a callback's way, opening a store."""

from __future__ import annotations

import asyncio
import json
import queue
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

from measure import Figure, Place
from world import SOURCE, Work, engine_on, run_flows, start_waiting


async def _seconds(place: Place, name: str, flows: int, steps: int) -> float:
    async with engine_on(place.directory / name) as engine:
        begun = time.perf_counter()
        await run_flows(engine, "steps", [[steps]] * flows)
        return time.perf_counter() - begun


def steps(place: Place) -> Iterator[Figure]:
    """Steps, of many flows at once and of one alone: what a commit costs, shared and not."""
    flows, each, alone = place.size(200, 5), place.size(10, 2), place.size(1_000, 5)
    together = asyncio.run(_seconds(place, "many.duckdb", flows, each)) / (flows * each)
    single = asyncio.run(_seconds(place, "one.duckdb", 1, alone)) / alone
    yield Figure(f"{flows} flows of {each} steps at once", 1 / together, "steps/s")
    yield Figure(f"a step, {flows} flows at once", together * 1e6, "us")
    yield Figure(f"a step, one flow of {alone} steps", single * 1e6, "us")
    yield Figure(f"a step of {flows} flows at once against one alone", together / single, "x", 0.2)


def message(place: Place) -> Iterator[Figure]:
    """From `send` to the flow's next step, in one process: what another engine's signal costs."""

    async def run() -> list[float]:
        times = []
        work = Work()
        async with engine_on(place.directory / "message.duckdb", work) as engine:
            for _ in range(place.size(50, 2)):
                (flow,) = await start_waiting(engine, "waiter", [[0]])
                work.called.clear()
                begun = time.perf_counter()
                await engine.send(flow, {"go": True})
                await work.called.wait()
                times.append(time.perf_counter() - begun)
        return times

    yield Figure("a message to the flow's next step", statistics.median(asyncio.run(run())) * 1e3, "ms")


def callback(place: Place) -> Iterator[Figure]:
    """From the POST of a callback to the request that the flow makes next, over HTTP both ways."""
    import flowmetal

    arrived: queue.Queue[Any] = queue.Queue()
    server = _listen(arrived)
    source = place.directory / "benchmark.flow"
    source.write_text(SOURCE)
    times = []
    with flowmetal.open(str(place.directory / "callback.duckdb")) as fm:
        fm.load(source)
        for _ in range(place.size(50, 2)):
            flow = fm.start("caller", f"http://127.0.0.1:{server.server_port}/")
            url = arrived.get(timeout=60)["notify"]
            while flow.status != "waiting":
                time.sleep(0.01)
            request = urllib.request.Request(url, b'{"n": 1}', {"Content-Type": "application/json"})
            begun = time.perf_counter()
            with urllib.request.urlopen(request):
                arrived.get(timeout=60)
            times.append(time.perf_counter() - begun)
            flow.result()
    server.shutdown()
    server.server_close()
    yield Figure("a callback's POST to the request that the flow makes next", statistics.median(times) * 1e3, "ms")


def _listen(arrived: queue.Queue[Any]) -> HTTPServer:
    """A server on loopback that hands over the bodies it gets."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            arrived.put(json.loads(body))

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def opening(place: Place) -> Iterator[Figure]:
    """Opening a store with flows that wait in it."""
    count = place.size(1_000, 5)
    path = place.directory / "opening.duckdb"

    async def fill() -> None:
        async with engine_on(path) as engine:
            await start_waiting(engine, "parked", [[]] * count)

    async def again() -> float:
        begun = time.perf_counter()
        async with engine_on(path):
            return time.perf_counter() - begun

    asyncio.run(fill())
    yield Figure(f"opening a store with {count} waiting flows", asyncio.run(again()) * 1e3, "ms")
