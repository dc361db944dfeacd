"""The programs that are measured, and an engine to run them in this process.

The foreign function `work` is answered at once, in this process, or after a while: what is measured is the engine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from flowmetal.lang.plain import from_plain
from flowmetal.runtime.connector import Call, Completed
from flowmetal.runtime.engine import Engine
from flowmetal.store.duckdb_store import DuckDBStore

SOURCE = """
(defforeign work "One step." [n])
(defflow steps "n steps, one after the other." [n] (loop [i 0] (if (< i n) (do (work i) (recur (inc i))) i)))
(defflow parked "Waits for a callback." [] (:v @(callback)))
(defflow sleeper "Sleeps." [] (sleep #dur "1d"))
(defflow waiter "n steps, then a message, then one step more." [n] (loop [i 0] (if (< i n) (do (work i) (recur (inc i))) (work (receive)))))
(defflow caller "Gives a callback's address away, waits for it, and makes a request." [url]
  (let [answer (callback)]
    (http/post url {:json {:notify (:url answer)}})
    (http/post url {:json {:got @answer}})))
"""


class Work:
    """Answers `work`: after `seconds`, with a line appended to `log` for each call that was made."""

    ops = frozenset({"foreign"})

    def __init__(self, seconds: float = 0.0, log: Path | None = None) -> None:
        self.seconds = seconds
        self.log = log
        self.called = asyncio.Event()
        """Set at each call."""
        self._answer = from_plain({"ok": True})

    async def perform(self, call: Call) -> Completed:
        """Does the work."""
        self.called.set()
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.log is not None:
            fd = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(fd, f"{call.idempotency_key}\n".encode())
            os.close(fd)
        return Completed(self._answer)

    async def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def engine_on(path: Path, work: Work | None = None) -> AsyncIterator[Engine]:
    """An engine on a DuckDB file, with the programs above."""
    store = DuckDBStore(path)
    engine = Engine(store, connectors=[work or Work()])
    try:
        await engine.open()
        await engine.load(SOURCE, file="benchmark.flow")
        yield engine
    finally:
        await engine.close()
        store.close()


async def run_flows(engine: Engine, name: str, args: Sequence[Sequence[object]]) -> None:
    """Starts flows, all at once, and waits until they have ended."""
    started = await asyncio.gather(*[engine.start_flow(name, given) for given in args])
    for answer in await asyncio.gather(*[engine.result(flow_id) for flow_id, _ in started]):
        assert answer is not None and answer["status"] == "completed", answer


async def start_waiting(engine: Engine, name: str, args: Sequence[Sequence[object]]) -> list[str]:
    """Starts flows, all at once, and returns when all only wait; their ids."""
    started = await asyncio.gather(*[engine.start_flow(name, given) for given in args])
    while engine.busy or engine.dispatcher.calls:
        await asyncio.sleep(0.001)
    return [flow_id for flow_id, _ in started]
