"""Throughput of one store in PostgreSQL with 1, 2 and 4 interpreters, and where the limit is then.

    python benchmarks/scaling.py [--flows 400] [--steps 10] [--repeats 3] [--interpreters 1 2 4]

In: a PostgreSQL's binaries. Out: for each number of interpreters the steps a second, as a ratio to one interpreter; what each step took of the
interpreters' CPU, of the server's, of commits and bytes of WAL; and how many of the server's backends, looked at every 20 ms, were computing, waiting for
the disk and waiting for one another. All in one run, in turn, so that a busy machine is busy for all. The server's settings are its own, fsync among them.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from postgres_server import Server, binaries

from flowmetal.client.host_file import token_of
from flowmetal.client.store_url import resolve

PROGRAM = """
(defflow worker [n] (dotimes [_ n] (sleep #dur "1ms")) n)
(defflow many [flows steps] (dotimes [_ flows] (start worker steps)) flows)
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took."""

    seconds: float
    steps: int
    interpreters_cpu: float
    server_cpu: float
    commits: int
    wal: int
    backends: dict[str, float]
    """How many, on the average, were doing what."""


BACKENDS = """SELECT CASE wait_event_type WHEN 'Lock' THEN 'locks' WHEN 'LWLock' THEN 'locks' WHEN 'IO' THEN 'disk' ELSE 'computing' END, count(*)
    FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()
    AND coalesce(wait_event_type, '') NOT IN ('Client', 'Timeout') GROUP BY 1"""


class Interpreters:
    """So many `flowmetal serve` on one new store."""

    def __init__(self, server: Server, count: int, folder: Path) -> None:
        self.url = server.new()
        self.processes = [self._start(folder) for _ in range(count)]
        self.addresses = [self._address(process) for process in self.processes]
        self.token = token_of(resolve(self.url, environ={}))
        self.sql = psycopg.connect(self.url, autocommit=True)
        while self._parts() != count:
            time.sleep(0.05)

    def _start(self, folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flowmetal", "serve", "--store", self.url, "--port", "0"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder)

    @staticmethod
    def _address(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        return found[0]

    def _parts(self) -> int:
        """How many have their fair part of the flows."""
        fair = 64 // len(self.processes)
        counts = self.sql.execute("SELECT count(*) FROM fm.shares WHERE owner IS NOT NULL GROUP BY owner").fetchall()
        return sum(count == fair for (count,) in counts)

    def call(self, method: str, path: str, body: bytes | dict[str, Any] | None = None) -> Any:
        """A call to the first of them."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(self.addresses[0] + path, data, {"Authorization": f"Bearer {self.token}"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def cpu(self) -> float:
        """Seconds of CPU that all of them have taken."""
        return sum(sum(psutil.Process(p.pid).cpu_times()[:2]) for p in self.processes)

    def end(self) -> None:
        """Ends them."""
        self.sql.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)


def server_cpu(server: Server) -> float:
    """Seconds of CPU of the server's processes that are there, and of those that have ended."""
    postmaster = psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))
    return sum(sum(p.cpu_times()[:2]) for p in [postmaster, *postmaster.children(recursive=True)]) + sum(postmaster.cpu_times()[2:4])


def measure(server: Server, count: int, flows: int, steps: int, folder: Path) -> Run:
    """One run with so many interpreters."""
    group = Interpreters(server, count, folder)
    try:
        group.call("PUT", "/v1/definitions?file=scaling.flow", PROGRAM.encode())
        group.call("POST", "/v1/flows", {"name": "many", "args": [4, 2], "id": "warm"})
        wait(group, 5)
        said = "SELECT (SELECT coalesce(sum(commits), 0) FROM fm.interpreters), pg_current_wal_lsn() - '0/0'::pg_lsn"
        before, cpu, postgres, begun = group.sql.execute(said).fetchone(), group.cpu(), server_cpu(server), time.perf_counter()
        group.call("POST", "/v1/flows", {"name": "many", "args": [flows, steps], "id": "run"})
        backends = wait(group, flows + 6)
        seconds = time.perf_counter() - begun
        after = group.sql.execute(said).fetchone()
        assert before is not None and after is not None
        return Run(seconds, flows * steps, group.cpu() - cpu, server_cpu(server) - postgres, int(after[0] - before[0]), int(after[1] - before[1]), backends)
    finally:
        group.end()


def wait(group: Interpreters, ended: int) -> dict[str, float]:
    """Waits until so many flows have ended; what the server's backends did meanwhile."""
    seen: Counter[str] = Counter()
    looks = 0
    said = "SELECT count(*) FILTER (WHERE kind = 'flow-completed'), count(*) FILTER (WHERE kind = 'flow-failed') FROM fm.log"
    while (found := group.sql.execute(said).fetchone()) != (ended, 0):
        assert found is not None and not found[1], "a flow has failed"
        seen.update(dict(group.sql.execute(BACKENDS).fetchall()))
        looks += 1
        time.sleep(0.02)
    return {what: seen[what] / max(1, looks) for what in ("computing", "disk", "locks")}


HEADS = (
    "interpreters", "steps/s", "to one", "CPU of interpreters a step", "CPU of PostgreSQL a step", "steps a commit", "WAL a step", "cores busy",
    "backends computing, at the disk, at locks",
)  # fmt: skip


def lines(runs: dict[int, list[Run]]) -> Iterator[str]:
    """What was found, as a table."""
    one = statistics.median(run.steps / run.seconds for run in next(iter(runs.values())))
    for cells in (HEADS, ["---"] * len(HEADS), *(_cells(count, each, one) for count, each in runs.items())):
        yield f"| {' | '.join(cells)} |"


def _cells(count: int, each: list[Run], one: float) -> list[str]:
    rate = statistics.median(run.steps / run.seconds for run in each)
    middle = sorted(each, key=lambda run: run.seconds)[len(each) // 2]
    busy = (middle.interpreters_cpu + middle.server_cpu) / middle.seconds
    return [
        str(count), f"{rate:.0f}", f"{rate / one:.2f}",
        f"{middle.interpreters_cpu / middle.steps * 1e3:.2f} ms", f"{middle.server_cpu / middle.steps * 1e3:.2f} ms",
        f"{middle.steps / middle.commits:.1f}", f"{middle.wal / middle.steps:.0f} B", f"{busy:.1f} of {psutil.cpu_count()}",
        ", ".join(f"{count:.1f}" for count in middle.backends.values()),
    ]  # fmt: skip


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=400)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--interpreters", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    found = binaries()
    assert found is not None, "PostgreSQL is not installed"
    server = Server(found, durable=True)
    runs: dict[int, list[Run]] = {count: [] for count in options.interpreters}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.repeats):
                for count, each in runs.items():
                    each.append(measure(server, count, options.flows, options.steps, Path(folder)))
    finally:
        server.remove()
    print("\n".join(lines(runs)))


if __name__ == "__main__":
    main()
