"""Clients whose host dies, lies, or falls silent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import end_host, kill_host
from stores import Stores

from flowmetal.client import discovery, remote
from flowmetal.client.client import new_request_id
from flowmetal.client.discovery import connect, find_host, look_for_host
from flowmetal.client.host_file import HostInfo, lock_holder
from flowmetal.client.remote import Endpoint, RemoteClient
from flowmetal.client.store_url import StoreUrl
from flowmetal.errors import StoreError

pytestmark = pytest.mark.slow

PROGRAM = "(defflow waits [] {:got (receive)})\n(defflow add [a b] (+ a b))"

beside = pytest.mark.one_store("the lock and the host's file stand beside a file")


@pytest.fixture
def store(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreUrl]:
    monkeypatch.setenv("FLOWMETAL_HOME", str(tmp_path / "home"))
    store = stores.at(tmp_path / "x.duckdb")
    yield store
    end_host(store)


def test_a_client_outlives_its_hosts(store: StoreUrl) -> None:
    async def scene() -> None:
        client = await connect(store)
        await client.load(PROGRAM, file="p.flow")
        flow, _ = await client.start_flow("waits", [])
        waiting = asyncio.ensure_future(client.result(flow))
        following = asyncio.ensure_future(collect(client, flow))
        first = kill_host(store)
        await client.send(flow, 1)
        assert (await waiting or {})["result"] == {"got": 1}
        kinds = [row["kind"] for row in await following]
        assert kinds[0] == "flow-started"
        assert kinds[-1] == "flow-completed"
        assert len(kinds) == len(await client.events(flow))
        assert lock_holder(store) not in (None, first)
        await client.aclose()

    asyncio.run(scene())


async def collect(client: discovery.Client, flow: str) -> list[dict[str, object]]:
    return [row async for row in client.follow(flow)]


def test_a_call_whose_answer_was_lost_is_carried_out_once(store: StoreUrl) -> None:
    """The host commits the start, and dies before its answer arrives: the client asks the next host."""

    async def scene() -> None:
        info = await find_host(store)
        lost: list[int] = []

        async def lose_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            length = next(int(x[15:]) for x in request.decode().lower().split("\r\n") if x.startswith("content-length:"))
            body = await reader.readexactly(length)
            to, back = await asyncio.open_connection("127.0.0.1", int(info.url.rsplit(":", 1)[1]))
            back.write(request + body)
            answer = await to.readuntil(b"\r\n\r\n")
            lost.append(int(answer.split()[1]))
            back.close()
            kill_host(store)
            writer.close()

        proxy = await asyncio.start_server(lose_answer, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        direct = await connect(store)
        await direct.load(PROGRAM, file="p.flow")

        async def relocate() -> Endpoint:
            found = await find_host(store)
            return Endpoint(found.url, found.token, found.pid)

        client = RemoteClient(store, Endpoint(f"http://127.0.0.1:{port}", info.token), relocate)
        flow, created = await client.start_flow("add", [1, 2])
        assert lost == [201]
        assert not created
        assert [row["flow_id"] for row in (await direct.flows(name="add"))["items"]] == [flow]
        for each in (client, direct):
            await each.aclose()
        proxy.close()
        await proxy.wait_closed()

    asyncio.run(scene())


def test_a_request_id_is_good_for_one_flow_across_hosts(store: StoreUrl) -> None:
    async def scene() -> None:
        client = await connect(store)
        await client.load(PROGRAM, file="p.flow")
        key, cell_key = new_request_id(), new_request_id()
        flow = await client.start_flow("add", [1, 2], request_id=key)
        cell = await client.eval("(+ 1 1)", request_id=cell_key)
        kill_host(store)
        assert await client.start_flow("add", [1, 2], request_id=key) == (flow[0], False)
        assert await client.eval("(+ 1 1)", request_id=cell_key) == cell
        await client.aclose()

    asyncio.run(scene())


@beside
def test_a_stale_host_file_is_seen_through(store: StoreUrl) -> None:
    async def scene() -> None:
        (await connect(store)).store  # noqa: B018
        pid = kill_host(store)
        stale = HostInfo.read(store)
        assert stale is not None
        assert stale.pid == pid
        assert await look_for_host(store) is None
        fresh = await find_host(store)
        assert fresh.pid != pid

    asyncio.run(scene())


@beside
def test_a_host_file_of_another_host_is_not_believed(store: StoreUrl) -> None:
    """The port of a host that died now belongs to somebody else."""

    async def scene() -> None:
        async def teapot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

        other = await asyncio.start_server(teapot, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        HostInfo(os.getpid(), url, "t", "0", "then").write(store)
        assert await look_for_host(store) is None
        client = await connect(store)
        assert (await client.host())["pid"] == lock_holder(store)
        await client.aclose()
        other.close()

    asyncio.run(scene())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (remote, discovery):
        monkeypatch.setattr(module, "SILENCE", 0.4)
    monkeypatch.setattr(discovery, "GRACE", 0.4)


def test_a_silent_host_is_named(store: StoreUrl, hasty: None) -> None:
    async def scene() -> None:
        client = await connect(store)
        pid = lock_holder(store)
        assert pid
        os.kill(pid, signal.SIGSTOP)
        try:
            for attempt in (client.flows(), connect(store)):
                with pytest.raises(StoreError, match=f"process {pid}, which does not answer") as caught:
                    await attempt
                assert f"kill {pid}" in (caught.value.hint or "")
        finally:
            os.kill(pid, signal.SIGCONT)
        await client.aclose()

    asyncio.run(scene())


@beside
def test_a_holder_that_never_hosts_is_named(store: StoreUrl, hasty: None) -> None:
    program = (
        "import sys; from flowmetal.client.host_file import StoreLock; from flowmetal.client.store_url import resolve; "
        "lock = StoreLock(resolve(sys.argv[1])); print(lock.acquire(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program, store.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with pytest.raises(StoreError, match=f"process {holder.pid}"):
            asyncio.run(connect(store))
        with pytest.raises(StoreError, match=f"process {holder.pid}"):
            asyncio.run(connect(store, host_here=True))
        holder.kill()


def test_an_http_store_has_one_address() -> None:
    async def scene() -> None:
        client = await connect("http://127.0.0.1:9")
        with pytest.raises(StoreError, match=r"nothing answers at http://127\.0\.0\.1:9"):
            await client.flows()
        await client.aclose()

    asyncio.run(scene())


def test_programs_race_to_host(store: StoreUrl) -> None:
    program = (
        "import sys, flowmetal\n"
        "with flowmetal.open(sys.argv[1]) as fm:\n"
        "    fm.eval('(defflow f [x] (* 2 x))')\n"
        "    print(fm.eval('@(start f 21)'), flush=True)\n"
        "    sys.stdin.read()\n"
        "    print(fm.eval('@(start f 4)'))\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, store.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        line = racer.stdout.readline()
        assert line == "42\n", (line, racer.communicate(timeout=60))
    hosting = lock_holder(store)
    assert hosting in {racer.pid for racer in racers}
    ordered = sorted(racers, key=lambda racer: racer.pid != hosting)  # the host leaves first: the others go on without it
    for racer in ordered:
        out, err = racer.communicate(timeout=60)
        assert (racer.returncode, out, err) == (0, "8\n", "")


@beside
def test_the_host_file_says_where(store: StoreUrl) -> None:
    async def scene() -> None:
        info = await find_host(store)
        written = json.loads(store.beside(".host").read_text())
        assert written == {
            "pid": lock_holder(store),
            "url": info.url,
            "token": store.beside(".token").read_text().strip(),
            "version": info.version,
            "started_at": info.started_at,
        }

    asyncio.run(scene())
