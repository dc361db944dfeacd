"""Interpreters of one machine: one whose process is over is taken over at once, and one of which that is not certain never is before its time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from postgres_server import Server
from processes import wait_until_ended

from flowmetal.store import own_process
from flowmetal.store.postgres_session import hosts
from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.sharing import SHARES

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")

MEMBER = """
import sys
from flowmetal.store.postgres_store import PostgresStore
store = PostgresStore(sys.argv[1])
store.announce("{}")
store.balance()
print("there", flush=True)
sys.stdin.read()
"""
ALL = frozenset(range(SHARES))


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    """A database with an empty store."""
    made = postgres.store()
    yield made
    postgres.give_back(made)


@pytest.fixture
def member(url: str) -> Iterator[subprocess.Popen[str]]:
    """An interpreter of another process, which has all shares, and a lease for an hour."""
    process = subprocess.Popen([sys.executable, "-c", MEMBER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        change(url, "until = now() + interval '1 hour'")
        yield process
    finally:
        process.kill()
        process.communicate()


def change(url: str, what: str) -> None:
    """Changes what the interpreters' rows say."""
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute(f"UPDATE fm.interpreters SET {what}")  # type: ignore[arg-type]


def until_unconnected(url: str) -> None:
    """Waits until the server knows that the interpreter's connection is gone."""
    with psycopg.connect(url, autocommit=True) as raw:
        while raw.execute("SELECT 1 FROM fm.interpreters i JOIN pg_stat_activity a ON a.pid = i.backend").fetchone():
            raw.execute("SELECT pg_sleep(0.01)")


@pytest.mark.parametrize("reaped", [True, False])
def test_one_that_was_killed_is_taken_over_at_once(url: str, member: subprocess.Popen[str], reaped: bool) -> None:
    """Whether or not its parent has noticed."""
    member.kill()
    if reaped:
        member.wait()
    else:
        wait_until_ended(member.pid)
    until_unconnected(url)
    assert hosts(url) == (False, [("{}", False)])
    store = PostgresStore(url)
    standing = store.balance()
    assert standing.mine == standing.lost == ALL and standing.members == 1
    store.close()


def test_one_that_was_killed_with_the_server_is_taken_over_when_that_is_there_again(postgres: Server, url: str, member: subprocess.Popen[str]) -> None:
    postgres.stop("immediate")
    member.kill()
    member.wait()
    postgres.start()
    store = PostgresStore(url)
    assert store.balance().mine == ALL
    store.close()


def test_one_that_hangs_has_its_time(url: str, member: subprocess.Popen[str]) -> None:
    """Even without its connection."""
    member.send_signal(signal.SIGSTOP)
    store = PostgresStore(url)
    try:
        assert (store.balance().mine, store.balance().members) == (frozenset(), 2)
        with psycopg.connect(url, autocommit=True) as raw:
            raw.execute("SELECT pg_terminate_backend(backend) FROM fm.interpreters WHERE host IS NOT NULL")
            while raw.execute("SELECT 1 FROM fm.interpreters i JOIN pg_stat_activity a ON a.pid = i.backend WHERE i.host IS NOT NULL").fetchone():
                raw.execute("SELECT pg_sleep(0.01)")
        assert (store.balance().mine, store.balance().members) == (frozenset(), 2)
        assert hosts(url)[1] == [("{}", True)]
    finally:
        member.send_signal(signal.SIGCONT)
        store.close()


@pytest.mark.parametrize(
    "unknown",
    [
        "process = NULL",
        "process = ''",
        "process = 'x'",
        "process = replace(process, split_part(process, ' ', 1), '00000000-0000-0000-0000-000000000000')",
        "process = replace(process, ' ' || split_part(process, ' ', 2) || ' ', ' 7 ')",
    ],
    ids=["no identity", "an empty one", "nonsense", "another machine", "another container"],
)
def test_one_that_this_machine_cannot_know_has_its_time(url: str, member: subprocess.Popen[str], unknown: str) -> None:
    change(url, unknown)
    member.kill()
    member.wait()
    until_unconnected(url)
    store = PostgresStore(url)
    assert (store.balance().mine, store.balance().members) == (frozenset(), 2)
    assert hosts(url)[0]
    store.close()


def test_a_number_that_was_given_again_is_no_sign_of_life() -> None:
    me = own_process.identity()
    assert me is not None and not own_process.is_over(me)
    place, number, began = me.rsplit(" ", 2)
    assert int(number) == os.getpid()
    assert own_process.is_over(f"{place} {number} {int(began) - 1}")
    assert not own_process.is_over(f"elsewhere {number} {int(began) - 1}")
    for nonsense in (None, "", "x", f"{place} x {began}", f"{place} {number}"):
        assert not own_process.is_over(nonsense)
