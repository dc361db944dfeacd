"""Lock, host file and token beside a store."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flowmetal.client.host_file import HostInfo, StoreLock, lock_holder, token_of
from flowmetal.client.store_url import StoreUrl, resolve

HOLD = """
import sys
from flowmetal.client.host_file import StoreLock
from flowmetal.client.store_url import resolve
lock = StoreLock(resolve(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> StoreUrl:
    return resolve(tmp_path / "x.duckdb")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_one_holder_at_a_time(store: StoreUrl) -> None:
    first, second = StoreLock(store), StoreLock(store)
    assert lock_holder(store) is None
    assert first.acquire()
    assert not second.acquire()
    assert lock_holder(store) == os.getpid()
    first.release()
    assert lock_holder(store) is None
    assert second.acquire()
    second.release()


def test_a_killed_holder_holds_nothing(store: StoreUrl) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, store.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert lock_holder(store) == holder.pid
        assert not StoreLock(store).acquire()
        holder.kill()
        holder.wait()
    assert lock_holder(store) is None
    lock = StoreLock(store)
    assert lock.acquire()
    lock.release()


def test_a_forked_child_does_not_keep_the_lock(store: StoreUrl) -> None:
    program = f"""
import os, sys
from flowmetal.client.host_file import StoreLock, lock_holder
from flowmetal.client.store_url import resolve
store = resolve({store.url!r})
lock = StoreLock(store)
assert lock.acquire()
reading, writing = os.pipe()
ready, say_ready = os.pipe()
if os.fork() == 0:
    os.close(writing)
    os.write(say_ready, b"1")
    os.read(reading, 1)      # lives until its parent has looked
    os._exit(0)
os.read(ready, 1)
lock.release()
print(lock_holder(store))
os.close(writing)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def test_host_file_is_private_and_reads_back(store: StoreUrl) -> None:
    info = HostInfo(1234, "http://127.0.0.1:1", "secret", "0.1.0", "2026-01-01T00:00:00+00:00")
    assert HostInfo.read(store) is None
    info.write(store)
    assert HostInfo.read(store) == info
    assert mode(store.beside(".host")) == 0o600
    HostInfo(9, info.url, info.token, info.version, info.started_at).remove(store)
    assert HostInfo.read(store) == info
    info.remove(store)
    assert HostInfo.read(store) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "url": 1}', "null"])
def test_damaged_host_file_counts_as_none(store: StoreUrl, text: str) -> None:
    store.beside(".host").write_text(text)
    assert HostInfo.read(store) is None


def test_token_is_made_once_and_private(store: StoreUrl) -> None:
    token = token_of(store)
    assert len(token) >= 40
    assert token_of(store) == token
    assert mode(store.beside(".token")) == 0o600


def test_token_of_racing_processes_is_one(store: StoreUrl) -> None:
    program = "import sys; from flowmetal.client.host_file import token_of; from flowmetal.client.store_url import resolve; "
    program += "sys.stdin.read(); print(token_of(resolve(sys.argv[1])))"
    racers = [subprocess.Popen([sys.executable, "-c", program, store.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        racer.stdin = None
    tokens = {racer.communicate()[0] for racer in racers}
    assert tokens == {token_of(store) + "\n"}
