"""A soak: load on `flowmetal serve`, which is killed with -9 every few seconds; then nothing may be missing.

    python tests/crash/soak.py [--seconds 600] [--seed 1] [--clients 4]

In: how long, and a seed. Out: an AssertionError for whatever is lost, done twice, or grows. Clients repeat every call
under its idempotency key until it is acknowledged. In the last part nobody is killed: there the host's memory, threads,
open files and tasks are looked at. At the end the store is opened here, and its log audited.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import random
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from outside import Served
from soak_server import Outside
from soak_shapes import DECLARE, SHAPES, SOURCE

from flowmetal.client.host_file import token_of
from flowmetal.runtime.definitions_log import DefinitionsLog
from flowmetal.store import kinds
from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.protocol import Store
from flowmetal.testing.audit import audit

OPEN = 8
"""So many flows of one client are open at a time."""
PATIENCE = 120.0
"""Seconds in which a call must be acknowledged, kills or no kills."""
GROWTH_KB, GROWTH_THREADS, GROWTH_FILES = 30_000, 3, 12
"""By how much a host may grow between the beginning and the end of the calm part."""


@dataclass(slots=True)
class Soak:
    """One run. What went wrong in a thread is in `failures`."""

    folder: Path
    seconds: float
    seed: int
    clients: int
    calm: float
    outside: Outside = field(init=False)
    served: Served = field(init=False)
    url: str = ""
    token: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    """No more flows are begun."""
    over: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    acknowledged: dict[str, list[str]] = field(default_factory=lambda: {"flows": [], "messages": [], "events": []})
    handed: dict[str, Any] = field(default_factory=dict)
    """Foreign calls whose answer was acknowledged, by key."""
    kills: int = 0
    restarts: list[float] = field(default_factory=list)
    """Seconds from a start to the first answer."""

    def run(self) -> None:
        """Runs it all."""
        self.outside = Outside(self.seed)
        self._make()
        try:
            self._start()
            self._define()
            threads = [threading.Thread(target=self._guarded, args=(self._client, n)) for n in range(self.clients)]
            workers = [threading.Thread(target=self._guarded, args=(self._worker,)) for _ in range(2)]
            for thread in threads + workers:
                thread.start()
            try:
                self._kill_until(time.monotonic() + self.seconds - self.calm)
                self._calm()
            finally:
                self.stop.set()
                for thread in threads:
                    thread.join(PATIENCE * 2)
                self.over.set()
                for thread in workers:
                    thread.join(PATIENCE)
            assert not any(thread.is_alive() for thread in threads + workers), "a client stands still"
            assert not self.failures, self.failures[:3]
            self._end()
        finally:
            self.over.set()
            self._kill_all()
            self.outside.close()
        self._check_log()

    # The host

    def _make(self) -> None:
        self.served = Served(self.folder)

    def address(self) -> str:
        """Where the next call goes."""
        return self.url

    def opened(self) -> Store:
        """The store, when nobody has it any more."""
        return DuckDBStore(self.folder / "flowmetal.duckdb")

    def _end(self) -> None:
        self.served.stop()

    def _kill_all(self) -> None:
        if self.served.pid and psutil.pid_exists(self.served.pid):
            self.served.kill()

    def _start(self) -> None:
        begun = time.monotonic()
        self.served.start()
        self.url, self.token = self.served.url, token_of(self.served.store) or ""
        self.restarts.append(time.monotonic() - begun)

    def _define(self) -> None:
        assert self.served.call("PUT", "/v1/definitions?file=soak.flow", SOURCE.encode())[0] == 200
        cell = self.served.call("POST", "/v1/eval", {"source": DECLARE})[1]["flow_id"]
        assert self.served.call("GET", f"/v1/flows/{cell}/result?wait=30")[1]["status"] == "completed"

    def _kill_until(self, end: float) -> None:
        chance = random.Random(self.seed)
        while time.monotonic() < end and not self.failures:
            self.over.wait(min(chance.choice([chance.uniform(0.05, 1), chance.uniform(1, 5)]), max(0.1, end - time.monotonic())))
            self.served.kill()
            self.kills += 1
            self._start()

    def _calm(self) -> None:
        """Load without kills: nothing grows."""
        process = psutil.Process(self.served.pid)
        self.over.wait(self.calm * 0.4)
        before = self._size(process)
        self.over.wait(self.calm * 0.6)
        after = self._size(process)
        print(f"calm part: {before} -> {after} (KB, threads, files, tasks)", flush=True)
        assert after[0] - before[0] <= GROWTH_KB, f"memory grew from {before[0]} to {after[0]} KB"
        assert after[1] - before[1] <= GROWTH_THREADS, f"threads grew from {before[1]} to {after[1]}"
        assert after[2] - before[2] <= GROWTH_FILES, f"open files grew from {before[2]} to {after[2]}"
        assert after[3] <= self.clients * OPEN * 10 + 50, f"{after[3]} tasks are under way"

    def _size(self, process: psutil.Process) -> tuple[int, int, int, int]:
        request = urllib.request.Request(f"{self.url}/metrics", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
        return process.memory_info().rss // 1024, process.num_threads(), process.num_fds(), int(float(lines["flowmetal_tasks"]))

    # Clients

    def _guarded(self, what: Any, *args: Any) -> None:
        try:
            what(*args)
        except BaseException as error:
            self.failures.append(error)
            self.over.set()

    def call(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        """One call, made again until it is answered by a host that works."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        deadline = time.monotonic() + PATIENCE
        data = None if body is None else json.dumps(body).encode()
        while time.monotonic() < deadline:
            request = urllib.request.Request(self.address() + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                problem: Any = error
                with contextlib.suppress(http.client.HTTPException, OSError):  # it was killed before its answer was whole
                    problem = error.read()
                    if error.code < 500:
                        return error.code, json.loads(problem)
            except (OSError, ValueError, http.client.HTTPException) as error:
                problem = error
            time.sleep(0.03)
        raise AssertionError(f"{method} {path} was not answered within {PATIENCE:.0f} s: {problem}")

    def _client(self, number: int) -> None:
        """Begins flows of every shape, does what belongs to each, and looks how they end."""
        chance = random.Random(f"{self.seed} {number}")
        open_: deque[tuple[str, str]] = deque()
        for n in itertools.count():
            if self.over.is_set() or (self.stop.is_set() and n >= len(SHAPES)):
                break
            shape = list(SHAPES)[n % len(SHAPES)] if n < len(SHAPES) else chance.choice(list(SHAPES))
            flow_id = f"{shape}-{number}-{n}"
            status, answer = self.call("POST", "/v1/flows", {"name": shape, "args": [self.outside.url, flow_id], "id": flow_id}, f"start-{flow_id}")
            assert status in (200, 201) and answer == {"flow_id": flow_id}, (status, answer)
            self.acknowledged["flows"].append(flow_id)
            self._follow(shape, flow_id)
            open_.append((shape, flow_id))
            if len(open_) >= OPEN:
                self._await(*open_.popleft())
        while open_ and not self.failures:
            self._await(*open_.popleft())

    def _follow(self, shape: str, flow_id: str) -> None:
        for method, path, body, key in SHAPES[shape].follow(flow_id):
            status, answer = self.call(method, path, body, key)
            if status == 410 and shape == "naps":
                continue  # it was over before it was paused
            assert status in (200, 202), (status, answer, path)
            if path.endswith("/messages"):
                self.acknowledged["messages"].append(f"{flow_id}/{key}")
            elif path.startswith("/v1/topics"):
                self.acknowledged["events"].append(answer["message_id"])

    def _await(self, shape: str, flow_id: str) -> None:
        deadline = time.monotonic() + PATIENCE
        status, answer = 202, {}
        while status == 202 and time.monotonic() < deadline and not self.failures:
            status, answer = self.call("GET", f"/v1/flows/{flow_id}/result?wait=5")
        assert status == 200, f"{flow_id} does not end: {answer} {self.call('GET', f'/v1/flows/{flow_id}/state')[1]}"
        SHAPES[shape].check(self.outside, flow_id, answer)
        self.ended[shape] += 1

    def _worker(self) -> None:
        """Leases foreign calls and answers them; does not always get so far."""
        chance = random.Random(self.seed)
        while not self.over.is_set():
            _, answer = self.call("POST", "/v1/tasks/lease", {"functions": ["handed"], "max": 3, "wait": 0.5, "lease": 1.0})
            for task in answer["tasks"]:
                key, (flow_id, n) = task["idempotency_key"], task["args"]
                status, body = self.outside.take(key, f"/handed/{flow_id}/{n}", {})
                if status == 0 and chance.random() < 0.5:
                    continue  # this worker has died
                action, given = (
                    ("complete", {"result": json.loads(body)["id"]}) if status == 200 else ("fail", {"error": {"type": "my/busy", "message": "busy"}})
                )
                code, said = self.call("POST", f"/v1/tasks/{task['id']}/{action}", given)
                assert code in (200, 409), (code, said)
                if code == 200 and action == "complete":
                    self.handed[key] = given["result"]

    # The end

    def _check_log(self) -> None:
        """What was acknowledged is in the log; and the log keeps its promises."""
        assert not self.outside.refused, self.outside.refused[:3]
        again = [key for key, n in self.outside.arrived.items() if n > 1]
        store = self.opened()
        try:
            definitions = DefinitionsLog(lambda: 0)
            definitions.replay(store.rows(kinds.DEFINITIONS_STREAM))
            assert not store.open_flows(), f"these have not ended: {store.open_flows()[:5]}"
            for flow_id in self.acknowledged["flows"]:
                assert store.last_seq(flow_id), f"the start of {flow_id} was acknowledged, and is missing"
            for key in self.acknowledged["messages"]:
                assert store.find(kinds.MESSAGE_RECEIVED, key) is not None, f"message {key} was acknowledged, and is missing"
            published = Counter(json.loads(row.data)["message_id"] for row in store.rows(f"{kinds.TOPIC_STREAM}soak"))
            assert all(published[event] == 1 for event in self.acknowledged["events"]), "an event was acknowledged, and is not once in its topic"
            self._check_outcomes(store)
            audit(store, definitions.registry)
        finally:
            store.close()
        print(
            f"{self.kills} kills, {sum(self.ended.values())} flows ended {dict(self.ended)}, {len(self.outside.times)} effects, {len(again)} sent again, "
            f"{len(self.outside.acknowledged)} callbacks, {len(self.handed)} calls of workers; "
            f"from a start to the first answer: median {sorted(self.restarts)[len(self.restarts) // 2]:.2f} s, at most {max(self.restarts):.2f} s",
            flush=True,
        )

    def _check_outcomes(self, store: Store) -> None:
        """Callbacks and calls of workers that were acknowledged have their outcome."""
        for token, body in self.outside.acknowledged.items():
            row = store.find(kinds.EFFECT_REQUESTED, token)
            assert row is not None
            outcomes = [json.loads(r.data) for r in store.rows(row.flow_id) if r.step == row.step and r.kind == kinds.EFFECT_COMPLETED]
            assert [outcome["result"] for outcome in outcomes] == [body], f"a callback of {row.flow_id} was acknowledged, and its log has {outcomes}"
        for key, result in self.handed.items():
            assert self.outside.results[key] == result


def soak(folder: Path, *, seconds: float, seed: int, clients: int, calm: float) -> Soak:
    """Runs a soak; raises AssertionError for whatever it finds."""
    run = Soak(folder, seconds, seed, clients, calm)
    run.run()
    return run


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where the store is left (a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flowmetal-soak-") as folder:
        soak(options.folder or Path(folder), seconds=options.seconds, seed=options.seed, clients=options.clients, calm=options.seconds / 6)


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
