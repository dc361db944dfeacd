"""Finding the host of a store, starting one, or being it.

In: a store. Out: a `Client`. The one rule: who holds the lock hosts; everybody else attaches, and waits for
nobody in silence for longer than `SILENCE` seconds (a host that says it is starting or stopping gets `GRACE`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Literal

from flowmetal.client.client import SILENCE, Client
from flowmetal.client.host_file import HostInfo, StoreLock, lock_holder
from flowmetal.client.store_url import StoreUrl, resolve
from flowmetal.errors import OtherClock, StoreError

if TYPE_CHECKING:  # who hosts a store itself needs no HTTP client, and that takes a while to load
    import httpx

    from flowmetal.client.remote import Endpoint, RemoteClient

GRACE = 30.0
"""Seconds that a process which holds the lock may take to begin, or to end, hosting."""

STARTS = 3
"""How often one search starts a background host before it gives up."""


async def connect(
    store: str | os.PathLike[str] | StoreUrl | None = None, *, host_here: bool = False, by: str = "", clock: Literal["real", "virtual"] | None = None
) -> Client:
    """A client of the store's engine.

    `host_here` false: attach, and start a background host where there is none (kernel, command line).
    True: be the host where nobody is (Python programs, `flowmetal run`).
    `clock` is the one that the store must live by; a new one does from then on.
    """
    where = store if isinstance(store, StoreUrl) else resolve(store)
    if where.kind == "http":
        from flowmetal.client.remote import Endpoint, RemoteClient

        return RemoteClient(where, Endpoint(where.url, os.environ.get("FLOWMETAL_TOKEN", "")))
    if where.kind == "memory":
        return await _host(where, None, by, clock)
    client = await (_host_or_attach(where, by, clock) if host_here else attach(where))
    if clock is not None:
        await _check_clock(client, clock)
    return client


async def _check_clock(client: Client, clock: str) -> None:
    known = (await client.host())["clock"]
    if known != clock:
        await client.aclose()
        raise OtherClock(f"this store lives in {known} time, and cannot be opened with a {clock} clock")


async def attach(store: StoreUrl) -> Client:
    """A client of whoever hosts the store; starts a background host where nobody does."""
    info = await find_host(store)
    return _attached(store, info)


async def find_host(store: StoreUrl) -> HostInfo:
    """The host of the store, started if need be."""
    for _ in range(STARTS):
        info = await look_for_host(store)
        if info is not None:
            return info
        await start_background(store)
    info = await look_for_host(store)
    if info is None:
        raise StoreError(f"{store}: a host was started {STARTS} times, and ended at once", hint="see `flowmetal doctor`")
    return info


async def look_for_host(store: StoreUrl) -> HostInfo | None:
    """The host that answers for the store, or None where nobody holds its lock. Starts nothing."""
    holder = lock_holder(store)
    if holder is None:
        return None
    import httpx

    from flowmetal.client.remote import silent_host

    since = time.monotonic()
    pause = 0.01
    async with httpx.AsyncClient(timeout=SILENCE, trust_env=False, verify=False) as http:  # plain HTTP: no certificates to read
        while holder is not None:
            info = HostInfo.read(store)
            known = info is not None and info.pid == holder
            if info is not None and known and await _answers(http, store, info):
                return info
            if time.monotonic() - since > (SILENCE if known else GRACE):
                raise silent_host(store, holder)
            await asyncio.sleep(pause)
            pause = min(0.2, pause * 1.5)
            holder = lock_holder(store)
    return None


async def _answers(http: httpx.AsyncClient, store: StoreUrl, info: HostInfo) -> bool:
    import httpx

    from flowmetal.client.remote import silent_host

    try:
        answer = await http.get(info.url + "/v1/host", headers={"Authorization": f"Bearer {info.token}"})
    except httpx.TimeoutException as error:
        if lock_holder(store) == info.pid:
            raise silent_host(store, info.pid) from error
        return False
    except httpx.TransportError:
        return False
    return answer.status_code == 200


async def start_background(store: StoreUrl) -> None:
    """Runs `flowmetal serve --background`, which returns when a host answers."""
    named = ["--store", str(store.file)] if store.kind == "duckdb" else []  # a URL may hold a password, and arguments everybody may read
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-P", "-m", "flowmetal", "serve", *named, "--background"],
        env={**os.environ, "FLOWMETAL_STORE": store.url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        text = said.decode("utf-8", "replace").strip().removeprefix("error: ")
        message, _, hint = text.partition("\n")
        raise StoreError(message or f"no interpreter could be started for {store}", hint=hint or None)


def _attached(store: StoreUrl, info: HostInfo) -> RemoteClient:
    from flowmetal.client.remote import RemoteClient

    async def relocate() -> Endpoint:
        return _endpoint(await find_host(store))

    return RemoteClient(store, _endpoint(info), relocate)


def _endpoint(info: HostInfo) -> Endpoint:
    from flowmetal.client.remote import Endpoint

    return Endpoint(info.url, info.token, info.pid)


async def _host_or_attach(store: StoreUrl, by: str, clock: Literal["real", "virtual"] | None) -> Client:
    while True:
        lock = StoreLock(store)
        if lock.acquire():
            return await _host(store, lock, by, clock)
        info = await look_for_host(store)
        if info is not None:
            return _attached(store, info)


async def _host(store: StoreUrl, lock: StoreLock | None, by: str, clock: Literal["real", "virtual"] | None) -> Client:
    from flowmetal.client.host import Host, HostOptions
    from flowmetal.client.listening import Listen, public_url
    from flowmetal.client.local import LocalClient

    listen = None if store.kind == "memory" else Listen(port=0, public_url=public_url(None))
    host = Host(store, lock, HostOptions(listen=listen, clock=clock))
    await asyncio.wrap_future(host.launch())
    return LocalClient(host, by=by)
