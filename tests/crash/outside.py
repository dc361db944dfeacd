"""The outside world of flows that are killed: an HTTP server that remembers all, and hosts that come and go.

In: requests of flows, each with its `Idempotency-Key`; it answers them, and where they name a callback delivers it, over
and over until it is acknowledged. Out: what arrived, in order, and which deliveries were acknowledged.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posts import Posts
from processes import store_at

from flowmetal.client.host_file import token_of
from flowmetal.client.store_url import StoreUrl
from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.protocol import Row, Store


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a flow."""

    key: str
    path: str
    body: str


class Outside(Posts):
    """The server. `on_arrival` is called with the number of requests so far, before each is answered."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.acknowledged: list[str] = []
        """Tokens of callbacks whose delivery was answered 2xx."""
        self.on_arrival: Callable[[int], None] = lambda count: None
        super().__init__(deliverers=1, pause=0.02)

    def answer(self, key: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Notes a request; its answer is the same for each attempt."""
        with self._lock:
            self.arrivals.append(Arrival(key, path, body.decode()))
            count = len(self.arrivals)
        sent = json.loads(body)
        if sent.get("notify"):
            self._deliveries.put((sent["notify"], json.dumps({"paid": sent["n"]}).encode()))
        self.on_arrival(count)
        return 200, json.dumps({"n": sent["n"]}).encode()

    def deliver(self, url: str, body: bytes) -> bool:
        """Whether the delivery was acknowledged; a refused or broken connection is not."""
        try:
            self.post(url, body)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{url} answered {error.code}: {error.read().decode()}") from error
        except OSError:
            return False
        self.acknowledged.append(url.rsplit("/", 1)[1])
        return True


class Served:
    """`flowmetal serve` on a store, again and again."""

    def __init__(self, folder: Path, store: StoreUrl | None = None, port: int = 0) -> None:
        self.folder = folder
        self.store = store or store_at(folder / "flowmetal.duckdb")
        self.port = port
        self.url = ""
        self.pid = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts a host, and waits until it answers."""
        command = [sys.executable, "-m", "flowmetal", "serve", "--store", self.store.url, "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=self.folder)
        self.pid = self._process.pid
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.fullmatch(r"listening on (\S+)\n", line)
        assert found, line
        self.url = found[1]

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Ends it in the middle of whatever it does."""
        strike(self.pid)
        self.reap()

    def reap(self) -> None:
        """Waits for the end of a host that is killed."""
        assert self._process is not None
        self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def stop(self) -> None:
        """Ends it in order."""
        assert self._process is not None
        self._process.terminate()
        self.reap()
        assert self._process.returncode == 0

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request with the store's token: status and answer."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Authorization": f"Bearer {token_of(self.store)}"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def follow(self, flow_id: str) -> Iterator[Any]:
        """The flow's events, live."""
        headers = {"Authorization": f"Bearer {token_of(self.store)}", "Accept": "text/event-stream"}
        request = urllib.request.Request(f"{self.url}/v1/flows/{flow_id}/events", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def log(self, number: int) -> list[Row]:
        """The whole log as it is on disk; a file is read from a copy, so that the next host finds what the killed one left."""
        if self.store.kind == "postgresql":
            from flowmetal.store.postgres_store import PostgresStore

            return _log(PostgresStore(self.store.url))
        copy = self.folder / f"copy-{number}"
        copy.mkdir()
        for file in self.folder.glob("flowmetal.duckdb*"):
            if file.suffix in (".duckdb", ".wal"):
                shutil.copy(file, copy / file.name)
        try:
            return _log(DuckDBStore(copy / "flowmetal.duckdb"))
        finally:
            shutil.rmtree(copy)


def _log(store: Store) -> list[Row]:
    try:
        ids = [row[0] for row in store.query("SELECT DISTINCT flow_id FROM events").rows]
        return sorted((row for flow_id in ids for row in store.rows(flow_id)), key=lambda row: row.pos)
    finally:
        store.close()


def strike(pid: int) -> None:
    """`kill -9` without waiting: from within the request that the process has under way."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return
