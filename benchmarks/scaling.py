"""Throughput of one store in PostgreSQL with 1, 2 and 4 interpreters, and where the limit is then.

    python benchmarks/scaling.py [--flows 400] [--steps 10] [--repeats 3]

In: a PostgreSQL's binaries. Out: for each number of interpreters the steps a second, as a ratio to one interpreter; and what each
step took of the interpreters' CPU, of the server's, commits and bytes of WAL. All in one run, in turn, so that a busy machine is busy for all.
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
(defflow many [flows steps] (dotimes [_ flows] (start worker [steps])) flows)
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
        wait(group, flows + 6)
        seconds = time.perf_counter() - begun
        after = group.sql.execute(said).fetchone()
        assert before is not None and after is not None
        return Run(seconds, flows * steps, group.cpu() - cpu, server_cpu(server) - postgres, int(after[0] - before[0]), int(after[1] - before[1]))
    finally:
        group.end()


def wait(group: Interpreters, ended: int) -> None:
    """Waits until so many flows have ended."""
    while group.sql.execute("SELECT count(*) FROM fm.log WHERE kind = 'flow-completed'").fetchone() != (ended,):
        time.sleep(0.02)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=400)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = binaries()
    assert found is not None, "PostgreSQL is not installed"
    server = Server(found)
    try:
        with tempfile.TemporaryDirectory() as folder:
            counts = (1, 2, 4)
            runs: dict[int, list[Run]] = {count: [] for count in counts}
            for _ in range(options.repeats):
                for count in counts:
                    runs[count].append(measure(server, count, options.flows, options.steps, Path(folder)))
    finally:
        server.remove()
    one = statistics.median(run.steps / run.seconds for run in runs[1])
    print("| interpreters | steps/s | to one | CPU of interpreters a step | CPU of PostgreSQL a step | steps a commit | WAL a step | cores busy |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for count, each in runs.items():
        rate = statistics.median(run.steps / run.seconds for run in each)
        middle = sorted(each, key=lambda run: run.seconds)[len(each) // 2]
        ours, theirs = middle.interpreters_cpu / middle.steps * 1e3, middle.server_cpu / middle.steps * 1e3
        busy = (middle.interpreters_cpu + middle.server_cpu) / middle.seconds
        print(
            f"| {count} | {rate:.0f} | {rate / one:.2f} | {ours:.2f} ms | {theirs:.2f} ms | {middle.steps / middle.commits:.1f} "
            f"| {middle.wal / middle.steps:.0f} B | {busy:.1f} of {psutil.cpu_count()} |"
        )


if __name__ == "__main__":
    main()
