"""A thousand flows that wait cost the host that opens their store next to nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from stores import Stores

from flowmetal.client.host import Host, HostOptions
from flowmetal.client.host_file import StoreLock
from flowmetal.client.listening import Listen
from flowmetal.client.loop_thread import wait_for
from flowmetal.client.store_url import StoreUrl
from flowmetal.store import kinds

MANY = 1_000
WAITING = frozenset({kinds.FLOW_WAITING})
PROGRAM = "(defflow hook [n] (let [c (callback)] (set-info! {:token (:token c)}) [n (await c)]))"


def hosting(store: StoreUrl) -> Host:
    lock = StoreLock(store)
    assert lock.acquire()
    return Host(store, lock, HostOptions(listen=Listen(port=0))).start()


def ask(host: Host, question: Coroutine[Any, Any, Any]) -> Any:
    return wait_for(question, host.loop)


async def tasks() -> int:
    return len(asyncio.all_tasks())


async def start(host: Host, many: int) -> None:
    await host.engine.load(PROGRAM, file="hook.flow")
    await asyncio.gather(*(host.engine.start_flow("hook", [n], flow_id=f"hook-{n}") for n in range(many)))


async def until_it_waits(host: Host, flow_id: str) -> None:
    async for row in host.engine.watch(flow_id, WAITING):
        if row is not None or await host.engine.writer.call(host.engine.store.rows, flow_id, 0, None, WAITING):
            return


async def until_all_wait(host: Host) -> None:
    await asyncio.gather(*(until_it_waits(host, f"hook-{n}") for n in range(MANY)))


def test_a_thousand_waiting_flows_take_no_thread_and_no_task(stores: Stores, tmp_path: Path) -> None:
    store = stores.at(tmp_path / "x.duckdb")
    host = hosting(store)
    threads, idle = threading.active_count(), ask(host, tasks())
    ask(host, start(host, MANY))
    ask(host, until_all_wait(host))
    host.stop()

    began = time.monotonic()
    host = hosting(store)
    took = time.monotonic() - began
    try:
        assert threading.active_count() <= threads
        assert ask(host, tasks()) == idle
        assert not host.engine.actors
        assert took < 5, f"opening took {took:.1f} s"
        row = ask(host, host.engine.flow("hook-7"))
        assert row["status"] == "waiting"
        assert ask(host, host.engine.settle_callback(row["info"]["token"], {"paid": True}))[0] == "accepted"
        assert ask(host, host.engine.result("hook-7", 30))["result"] == [7, {"paid": True}]
    finally:
        host.stop()
