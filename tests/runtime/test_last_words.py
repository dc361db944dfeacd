"""A flow that replies and ends at once: who asked hears the reply, never that there was none."""

from __future__ import annotations

import asyncio
from pathlib import Path

from stores import Stores

from flowmetal.runtime.engine import Engine

PROGRAM = """
(defflow clerk [] (let [m (receive)] (reply m (:q m))))
(defflow main [n] (mapv (fn [q] (ask (start clerk) {:q q})) (range n)))
"""


def test_a_reply_is_heard_though_its_flow_ends_with_it(stores: Stores, tmp_path: Path) -> None:
    async def scene() -> None:
        engine = Engine(stores.open(tmp_path / "s.duckdb"))
        await engine.open()
        try:
            await engine.load(PROGRAM, file="p.flow")
            flows = [(await engine.start_flow("main", [10]))[0] for _ in range(3)]
            assert [(await engine.result(flow, 20) or {}).get("result") for flow in flows] == [list(range(10))] * 3
        finally:
            await engine.close()
            engine.store.close()

    asyncio.run(scene())
