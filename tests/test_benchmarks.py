"""The benchmarks run: each once, small. What they measure is not looked at here, except where size does not matter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent / "benchmarks"
NAMES = ["steps", "message", "callback", "opening", "resume", "sleepers", "events", "killed", "command", "kernel"]


WORKLOADS = ["W1", "W2", "W3", "W4", "W5", "W6", "W7"]


def figures(*arguments: str) -> dict[str, float]:
    """What the command prints."""
    done = subprocess.run([sys.executable, str(ROOT / "run.py"), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {figure["name"]: figure["value"] for figure in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs(name: str) -> None:
    found = figures(name, "--quick", "--json")
    assert found
    if name == "killed":
        assert found["calls lost"] == 0


def test_all_of_them_are_tested() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "run.py"), "nothing"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith(f"there are {', '.join(NAMES)}")


def test_the_workloads_of_peers_run() -> None:
    command = [sys.executable, str(ROOT / "peers.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = {line["workload"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(found) == WORKLOADS
    assert (found["W5"]["lost"], found["W5"]["more"]) == (0, 0)


def test_several_interpreters_are_measured(postgres: Server) -> None:
    """`postgres` says whether there is a server to be had; the benchmark has one of its own, on the disk."""
    command = [sys.executable, str(ROOT / "scaling.py"), "--flows", "4", "--steps", "2", "--repeats", "1", "--interpreters", "1", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()] == ["| interpreters", "| ---", "| 1", "| 2"]


def test_the_language_gives_what_python_gives() -> None:
    command = [sys.executable, str(ROOT / "language.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [line[:20].strip() for line in done.stdout.splitlines()[1:]] == ["fib", "nested loops", "map filter reduce", "strings", "persistent map", "records"]
