"""The workloads by which engines of durable execution are compared, on this one, through its public Python interface.

    python benchmarks/peers.py [W1 … W7] [--repeats 2] [--quick] [--postgres URL]

Each repeat is a new process on a new store; printed is a JSON line a workload, times as medians over the repeats, counts
as the worst of them, and beside what the project promises its bound, and whether it was kept:

    W1  200 flows of 10 steps, all started at once          W5  100 flows of 20 steps of 50 ms, killed with -9 in the middle;
    W2  one flow of 1,000 steps                                 from the start of a new process to the end of all
    W3  a message to a parked flow, to its next step        W6  waking a flow with 5,000 steps behind it after kill -9, and one with 10
    W4  2,000 parked flows: memory of each, cores in use    W7  from a process's start to its first flow's result

A step is a call of a Python function that this process provides. The store is a DuckDB file, or a database that is made for
each repeat, and dropped, on the PostgreSQL server whose URL is given (without the name of a database).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import HERE, Child, resident_kb, say, verdict

import flowmetal

SOURCE = """
(defforeign add-one "One more." [i])
(defforeign slow "Takes its time, and leaves a line." [log flow i])
(defforeign observe "Is told what came." [message])
(defflow steps "n steps." [n] (loop [i 0] (if (< i n) (recur (add-one i)) i)))
(defflow slow-steps "n steps that take their time." [log flow n] (loop [i 0] (if (< i n) (do (slow log flow i) (recur (inc i))) i)))
(defflow waiter "n steps, a message, one step more." [n] (loop [i 0] (if (< i n) (recur (add-one i)) (observe (receive)))))
"""
QUICK = ["--quick"] if "--quick" in sys.argv else []
"""Whether only to see that it runs; handed on to children."""
FLOWS, STEPS, LONG, MESSAGES, PARKED = (200, 10, 1_000, 100, 2_000) if not QUICK else (5, 2, 5, 2, 5)
SLOW_FLOWS, SLOW_STEPS, PAST = (100, 20, 5_000) if not QUICK else (4, 4, 20)
SLOW_SECONDS = 0.05
STORE = "FLOWMETAL_BENCHMARK_STORE"
"""The variable by which a repeat's processes are told the URL of their database."""
SETTLE, IDLE = (1.0, 5.0) if not QUICK else (0.1, 0.1)

observed = threading.Event()
Result = dict[str, Any]


def open_store(directory: Path) -> flowmetal.Flowmetal:
    """The store of a run, with its programs and the functions that they call."""
    fm = flowmetal.open(os.environ.get(STORE) or directory / "peers.duckdb")
    source = directory / "peers.flow"
    if not source.exists():
        source.write_text(SOURCE)
        fm.load(source)

    async def add_one(i: int) -> int:
        return i + 1

    def slow(log: str, flow: str, i: int) -> None:
        time.sleep(SLOW_SECONDS)
        fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, f"{flow}.{i}\n".encode())
        os.close(fd)

    async def observe(message: object) -> None:
        observed.set()

    for name, function in {"add-one": add_one, "slow": slow, "observe": observe}.items():
        fm.function(name)(function)
    return fm


def await_parked(fm: flowmetal.Flowmetal, count: int) -> None:
    """Waits until so many flows wait for a message."""
    while fm.sql("SELECT count(*) FROM flows WHERE status = 'waiting'").fetchall()[0][0] < count:
        time.sleep(0.01)


def w1(directory: Path) -> Result:
    """Many flows at once."""
    with open_store(directory) as fm:
        begun = time.perf_counter()
        handles = [fm.start("steps", STEPS) for _ in range(FLOWS)]
        assert [handle.result() for handle in handles] == [STEPS] * FLOWS
        seconds = time.perf_counter() - begun
    return {"n": FLOWS * STEPS, "seconds": seconds, "steps_per_s": FLOWS * STEPS / seconds}


def w2(directory: Path) -> Result:
    """One flow of many steps."""
    with open_store(directory) as fm:
        begun = time.perf_counter()
        assert fm.start("steps", LONG).result() == LONG
        seconds = time.perf_counter() - begun
    return {"n": LONG, "seconds": seconds, "per_unit_us": seconds / LONG * 1e6}


def w3(directory: Path) -> Result:
    """A message to the next step, as the step sees it."""
    times = []
    with open_store(directory) as fm:
        for _ in range(MESSAGES):
            handle = fm.start("waiter", 0)
            while handle.status != "waiting":
                time.sleep(0.001)
            observed.clear()
            begun = time.perf_counter()
            handle.send("hi")
            observed.wait()
            times.append((time.perf_counter() - begun) * 1e3)
            handle.result()
    return {"n": MESSAGES, "seconds": sum(times) / 1e3, "median_ms": statistics.median(times)}


def w4(directory: Path) -> Result:
    """Parked flows, besides the first: what that one brings into memory is not a flow's."""
    with open_store(directory) as fm:
        fm.start("waiter", 0)
        await_parked(fm, 1)
        before, begun = resident_kb(), time.perf_counter()
        for _ in range(PARKED):
            fm.start("waiter", 0)
        await_parked(fm, PARKED + 1)
        seconds = time.perf_counter() - begun
        time.sleep(SETTLE)
        grown, used = resident_kb() - before, time.process_time()
        time.sleep(IDLE)
        idle = (time.process_time() - used) / IDLE
    return {"n": PARKED, "seconds": seconds, "rss_kb_each": grown / PARKED, "idle_cores": idle}


def w5(directory: Path) -> Result:
    """Killed in the middle."""
    log = directory / "effects"
    first = Child("peers.py", "--role", "start", "--directory", directory, *QUICK)
    first.wait_for("started")
    while _lines(log) < SLOW_FLOWS * SLOW_STEPS * 0.4:
        time.sleep(0.01)
    first.kill()
    done = Counter(line.split(".")[0] for line in set(log.read_text().split()))
    left = (SLOW_STEPS - min(done[f"flow-{n}"] for n in range(SLOW_FLOWS))) * SLOW_SECONDS
    begun = time.perf_counter()
    second = Child("peers.py", "--role", "end", "--directory", directory, *QUICK)
    second.wait_for("done")
    seconds = time.perf_counter() - begun
    second.kill()
    calls = Counter(log.read_text().split())
    again = Counter(min(count, 3) for count in calls.values())
    lost = SLOW_FLOWS * SLOW_STEPS - len(calls)
    return {"n": SLOW_FLOWS, "seconds": seconds, "beyond_s": seconds - left, "lost": lost, "twice": again[2], "more": again[3]}


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def start_role(directory: Path) -> None:
    """Starts the slow flows, and answers their calls until it is killed."""
    with open_store(directory) as fm:
        for n in range(SLOW_FLOWS):
            fm.start("slow-steps", str(directory / "effects"), f"flow-{n}", SLOW_STEPS, id=f"flow-{n}")
        say("started")
        time.sleep(600)


def end_role(directory: Path) -> None:
    """Finds the slow flows, and waits for their end."""
    with open_store(directory) as fm:
        for n in range(SLOW_FLOWS):
            fm.result(f"flow-{n}")
        say("done")


def w6(directory: Path) -> Result:
    """Waking after a long past."""
    took = {}
    for past in (10, PAST):
        place = directory / str(past)
        place.mkdir()
        first = Child("peers.py", "--role", "park", "--directory", place, "--past", past, *QUICK)
        first.wait_for("parked")
        first.kill()
        second = Child("peers.py", "--role", "wake", "--directory", place, "--past", past, *QUICK)
        took[past] = float(second.wait_for("done"))
        second.kill()
    ratio = took[PAST] / took[10]
    return {"n": PAST, "seconds": took[PAST] / 1e3, "send_to_done_ms": took[PAST], "same_with_10_steps_ms": took[10], "ratio": ratio}


def park_role(directory: Path, past: int) -> None:
    """Steps, then a wait."""
    with open_store(directory) as fm:
        fm.start("waiter", past, id=f"after-{past}")
        asked = "SELECT count(*) FROM events WHERE flow_id = $1 AND kind = 'effect-requested' AND data->>'op' = 'receive'"
        while fm.sql(asked, [f"after-{past}"]).fetchall()[0][0] < 1:
            time.sleep(0.1)
        say("parked")
        time.sleep(600)


def wake_role(directory: Path, past: int) -> None:
    """A message as soon as the store is open."""
    with open_store(directory) as fm:
        begun = time.perf_counter()
        fm.flow(f"after-{past}").send("hi")
        observed.wait()
        say("done", (time.perf_counter() - begun) * 1e3)


def w7(directory: Path) -> Result:
    """From nothing to a result."""
    took = []
    for _ in range(4 if not QUICK else 2):
        begun = time.perf_counter()
        child = Child("peers.py", "--role", "cold", "--directory", directory, *QUICK)
        child.wait_for("done")
        took.append(time.perf_counter() - begun)
        child.kill()
    return {"n": 1, "seconds": statistics.median(took[1:]), "new_storage_s": took[0]}


def cold_role(directory: Path) -> None:
    """One flow of one step."""
    with open_store(directory) as fm:
        assert fm.start("steps", 1).result() == 1
        say("done")


WORKLOADS: dict[str, Callable[[Path], Result]] = {"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W6": w6, "W7": w7}


BOUNDS: dict[str, dict[str, float]] = {
    "W4": {"rss_kb_each": 0.3, "idle_cores": 0.01},
    "W5": {"beyond_s": 1.0, "lost": 0, "twice": SLOW_FLOWS, "more": 0},
    "W6": {"ratio": 1.5},
}
"""What the figures of a workload must not exceed. Nothing is promised of how long a step takes on some machine."""


def of_all(runs: list[Result]) -> Result:
    """The repeats of a workload as one."""
    return {key: statistics.median(run[key] for run in runs) if isinstance(value, float) else max(run[key] for run in runs) for key, value in runs[0].items()}


def verdicts(name: str, result: Result) -> dict[str, str]:
    """What was promised of a workload, and whether it was kept; nothing where it is only seen to run."""
    bounds = {} if QUICK else BOUNDS.get(name, {})
    return {key: verdict(result[key], most) for key, most in bounds.items()}


def run_once(name: str, server: str | None) -> Result:
    """One repeat, on a store of its own, in a process of its own unless it is only to be seen that it runs."""
    with tempfile.TemporaryDirectory(prefix="flowmetal-peers-") as directory, database(server) as store:
        if QUICK:
            os.environ[STORE] = store
            return WORKLOADS[name](Path(directory))
        command = [sys.executable, str(HERE / "peers.py"), "--role", name, "--directory", directory, *QUICK]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, STORE: store})
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


@contextmanager
def database(server: str | None) -> Iterator[str]:
    """The URL of a new database on a server, or nothing."""
    if server is None:
        yield ""
        return
    import psycopg

    name = f"flowmetal_{os.urandom(4).hex()}"
    with psycopg.connect(f"{server.rstrip('/')}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        try:
            yield f"{server.rstrip('/')}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="W", help="which (all of them)")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small, once: to see that it runs")
    parser.add_argument("--postgres", metavar="URL", help="a server on which databases may be made (a DuckDB file)")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--past", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    roles = {"start": start_role, "end": end_role, "cold": cold_role}
    past_roles = {"park": park_role, "wake": wake_role}
    if options.role in WORKLOADS:
        print(json.dumps(WORKLOADS[options.role](options.directory)))
    elif options.role in past_roles:
        past_roles[options.role](options.directory, options.past)
    elif options.role:
        roles[options.role](options.directory)
    else:
        for name in options.names or WORKLOADS:
            runs = [run_once(name, options.postgres) for _ in range(1 if QUICK else options.repeats)]
            result = of_all(runs)
            print(json.dumps({"workload": name, **result, "runs": [run["seconds"] for run in runs], "promised": verdicts(name, result)}), flush=True)


if __name__ == "__main__":
    main()
