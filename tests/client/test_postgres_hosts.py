"""Hosts of a store in PostgreSQL: who finds whom, what a kill, a restart of the server and a second machine change."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from postgres_server import Server
from processes import kill, wait_until_ended

import flowmetal
from flowmetal.client.discovery import connect, look_for_host
from flowmetal.client.host_file import lock_holder, token_of
from flowmetal.client.local import LocalClient
from flowmetal.client.remote import RemoteClient
from flowmetal.client.store_url import StoreUrl, resolve
from flowmetal.errors import StoreError

PROGRAM = "(defflow add [a b] (+ a b)) (defflow waits [] {:got (receive)})"


@pytest.fixture
def store(postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreUrl]:
    monkeypatch.setenv("FLOWMETAL_HOME", str(tmp_path / "home"))
    url = postgres.store()
    yield resolve(url, environ={})
    pid = lock_holder(resolve(url, environ={}))
    if pid and pid != os.getpid():
        kill(pid)
    postgres.give_back(url)


def test_a_program_hosts_and_another_attaches(store: StoreUrl) -> None:
    with flowmetal.open(store.url) as fm:
        fm.eval(PROGRAM)
        assert isinstance(fm._fm.client, LocalClient)
        with flowmetal.open(store.url) as other:
            assert isinstance(other._fm.client, RemoteClient)
            flow = other.start("waits", id="w")
            flow.send({"x": "é"})
            assert flow.result(timeout=30) == {"got": {"x": "é"}}
            rows = other.sql("SELECT flow_id, result->'got'->>'x' AS x FROM flows WHERE flow_id = $1", ["w"]).fetchall()
            assert rows == fm.sql("SELECT flow_id, result->>'$.got.x' AS x FROM flows WHERE name = 'user/waits' OR name = 'waits'").fetchall() == [("w", "é")]
            assert other.eval("(+ 1 2)") == 3
        assert lock_holder(store) == os.getpid()
    assert lock_holder(store) is None
    with flowmetal.open(store.url) as fm:
        assert fm.eval("(+ 1 1)") == 2
        assert [flow["flow_id"] for flow in fm.flows(name="waits")] == ["w"]


def test_a_background_host_is_started_replaced_and_stopped(store: StoreUrl) -> None:
    async def scene() -> None:
        client = await connect(store)
        await client.load(PROGRAM, file="p.flow")
        flow, _ = await client.start_flow("waits", [])
        first = lock_holder(store)
        assert first
        arguments = subprocess.run(["ps", "-o", "args=", "-p", str(first)], capture_output=True, text=True).stdout if sys.platform != "linux" else (
            Path(f"/proc/{first}/cmdline").read_text()
        )  # fmt: skip
        assert "serve" in arguments and "postgresql" not in arguments
        kill(first)
        await client.send(flow, 1)
        assert (await client.result(flow) or {})["result"] == {"got": 1}
        second = lock_holder(store)
        assert second not in (None, 0, first)
        assert (await client.host())["store"] == str(store)
        await client.stop()
        await client.aclose()
        assert second
        wait_until_ended(second)
        assert await look_for_host(store) is None

    asyncio.run(scene())


def test_a_host_goes_on_through_a_restart_of_the_server(store: StoreUrl, postgres: Server) -> None:
    """It has lost its lock, and takes it again when it is asked something; nobody takes its place."""
    with flowmetal.open(store.url) as fm:
        fm.eval(PROGRAM)
        flow = fm.start("waits")
        postgres.stop("immediate")
        postgres.start()
        with flowmetal.open(store.url) as other:
            assert isinstance(other._fm.client, RemoteClient)
            other.eval("(def later 1)")
        flow.send(7)
        assert flow.result(timeout=30) == {"got": 7}
        assert lock_holder(store) == os.getpid()


def test_a_host_that_only_another_machine_can_reach_is_none_here(store: StoreUrl) -> None:
    """It goes on with its flows there, and one is begun here."""
    said = {"pid": 7, "url": "http://127.0.0.1:9", "token": "t", "version": "1", "started_at": "", "machine": f"not-{socket.gethostname()}"}
    with flowmetal.open(store.url) as fm:
        fm.eval(PROGRAM)
    with psycopg.connect(store.url, autocommit=True) as raw:
        sql = """INSERT INTO fm.interpreters (id, fence, commits, until, backend, backend_start, host)
            SELECT 'x', 1, 0, now() + interval '1 hour', pid, backend_start, %s FROM pg_stat_activity WHERE pid = pg_backend_pid()"""
        raw.execute(sql, (json.dumps(said),))
        assert lock_holder(store) is None
        with flowmetal.open(store.url) as fm:
            assert isinstance(fm._fm.client, LocalClient) and lock_holder(store) == os.getpid()
        raw.execute("DELETE FROM fm.interpreters")


def test_a_host_that_was_taken_for_dead_ends(store: StoreUrl) -> None:
    from flowmetal.store.postgres_store import PostgresStore

    fm = flowmetal.open(store.url)
    fm.eval(PROGRAM)
    client = fm._fm.client
    assert isinstance(client, LocalClient)
    taker = PostgresStore(store.url)
    with psycopg.connect(store.url, autocommit=True) as raw:
        while taker.balance().members > 1:
            raw.execute("UPDATE fm.interpreters SET until = now() - interval '1 second'")
    with pytest.raises(StoreError, match="taken over"):
        client._host.ended.result(timeout=30)
    with pytest.raises(StoreError, match="taken over"):
        fm.close()
    taker.close()


def test_the_token_is_the_stores(store: StoreUrl) -> None:
    known = token_of(store)
    with flowmetal.open(store.url) as fm:
        client = fm._fm.client
        assert isinstance(client, LocalClient) and client._host.token == known == token_of(store)


def test_passwords_are_not_shown(postgres: Server) -> None:
    store = resolve(f"postgresql://me:hunter2@/nowhere?host={postgres.folder}&sslpassword=hunter2", environ={})
    assert str(store) == f"postgresql://me@/nowhere?host={postgres.folder}"
    for here in (True, False):
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            asyncio.run(connect(store, host_here=here))
        assert "hunter2" not in caught.value.render()
