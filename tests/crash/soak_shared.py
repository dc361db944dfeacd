"""A soak of several interpreters on one PostgreSQL store: each second one is killed or stopped for a while, and the server itself restarted.

    python tests/crash/soak_shared.py [--seconds 600] [--seed 1] [--interpreters 4]

In and out: as `soak`. One that was killed starts again while others are killed. Each call goes to whichever interpreter chance
says; who was stopped for longer than its lease finds that the others have its flows, and ends. At the end the store is opened
here, and its log audited.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent))
from outside import Served
from postgres_server import Server, binaries
from processes import free_port
from soak import Soak

from flowmetal.client.host_file import token_of
from flowmetal.client.store_url import resolve
from flowmetal.store.postgres_schema import LEASE_SECONDS
from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.protocol import Store


@dataclass(slots=True, kw_only=True)
class SharedSoak(Soak):
    """One run, on a new database of a server."""

    server: Server
    database: str = ""
    interpreters: int = 4
    members: list[Served] = field(default_factory=list)
    chance: random.Random = field(default_factory=random.Random)
    stops: int = 0
    server_restarts: int = 0
    starts: dict[int, Future[None]] = field(default_factory=dict)
    """Interpreters that were started again, by their place among `members`, each with when it is there."""
    starting: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)

    def address(self) -> str:
        return self.chance.choice(self.members).url

    def opened(self) -> Store:
        return PostgresStore(self.database)

    def _make(self) -> None:
        self.database = self.server.new()
        self.chance.seed(self.seed)
        self.members = [Served(self.folder, resolve(self.database, environ={}), free_port()) for _ in range(self.interpreters)]
        self.served = self.members[0]

    def _start(self) -> None:
        for member in self.members:
            self._begin(member)
        self.token = token_of(self.served.store)

    def _begin(self, member: Served) -> None:
        begun = time.monotonic()
        member.start()
        self.restarts.append(time.monotonic() - begun)

    def _kill_until(self, end: float) -> None:
        chance = random.Random(self.seed)
        next_restart = time.monotonic() + (end - time.monotonic()) / 3
        while time.monotonic() < end and not self.failures:
            self.over.wait(min(1.0, max(0.1, end - time.monotonic())))
            there = self._there()
            if time.monotonic() > next_restart:
                self._all_there()
                self.server.stop(chance.choice(["fast", "immediate"]))
                self.server.start()
                self.server_restarts += 1
                next_restart = end if self.server_restarts == 2 else time.monotonic() + (end - time.monotonic()) / 2
            elif not there:
                continue
            elif chance.random() < 0.1:
                self._hold(chance.choice(there), chance.choice([0.5, 2.0, LEASE_SECONDS + 3.0]))
            else:
                place = chance.choice(there)
                self.members[place].kill()
                self.kills += 1
                self.starts[place] = self.starting.submit(self._begin, self.members[place])
        self._all_there()

    def _all_there(self) -> None:
        """Waits until those that were started again are up."""
        for start in self.starts.values():
            start.result()

    def _there(self) -> list[int]:
        """The places of interpreters that are up."""
        up = [place for place in range(self.interpreters) if place not in self.starts or self.starts[place].done()]
        for place in up:
            if place in self.starts:
                self.starts.pop(place).result()
        return up

    def _hold(self, place: int, seconds: float) -> None:
        """Stops an interpreter for a while. For longer than its lease, it finds that the others have its flows, and ends by itself; but where
        all of them were on their way up, nobody has taken them, and it goes on."""
        member = self.members[place]
        os.kill(member.pid, signal.SIGSTOP)
        self.stops += 1
        self.over.wait(seconds)
        os.kill(member.pid, signal.SIGCONT)
        if seconds > LEASE_SECONDS:
            with contextlib.suppress(psutil.TimeoutExpired):
                psutil.Process(member.pid).wait(10)
            if member.running:
                assert self._is_member(member.pid), "it was taken over, and goes on"
                return
            member.reap()
            self.starts[place] = self.starting.submit(self._begin, member)

    def _is_member(self, pid: int) -> bool:
        """Whether the process has shares of the store, as the store sees it."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            return any(who.split()[2] == str(pid) for (who,) in connection.execute("SELECT process FROM fm.interpreters").fetchall())

    def _calm(self) -> None:
        self.over.wait(self.calm)

    def _end(self) -> None:
        for member in self.members:
            member.stop()
        print(f"{self.stops} stops, {self.server_restarts} restarts of the server", flush=True)

    def _kill_all(self) -> None:
        self.starting.shutdown()
        for member in self.members:
            if member.pid and psutil.pid_exists(member.pid):
                os.kill(member.pid, signal.SIGCONT)
                member.kill()


def soak_shared(folder: Path, server: Server, *, seconds: float, seed: int, clients: int, interpreters: int) -> SharedSoak:
    """Runs one; raises AssertionError for whatever it finds."""
    run = SharedSoak(folder, seconds, seed, clients, seconds / 8, server=server, interpreters=interpreters)
    run.run()
    return run


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--interpreters", type=int, default=4)
    options = parser.parse_args()
    found = binaries()
    assert found is not None, "PostgreSQL is not installed"
    server = Server(found)
    try:
        with tempfile.TemporaryDirectory(prefix="flowmetal-soak-") as folder:
            soak_shared(Path(folder), server, seconds=options.seconds, seed=options.seed, clients=options.clients, interpreters=options.interpreters)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
