"""Measuring: the machine's own fdatasync, memory, other processes.

What goes in: work to time. What comes out: figures, each with its unit. The one rule: a figure of time is worth
something only beside the fdatasync of the same minute on the same disk, so every run measures both.
"""

from __future__ import annotations

import math
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]

HERE = Path(__file__).parent
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # processes start from bytecode, as those of installed programs do
TO_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
"""Units of time, in microseconds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `most` is what it must not exceed, where the project promises that."""

    name: str
    value: float
    unit: str
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a benchmark runs, and whether only to see that it does."""

    directory: Path
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else full


Benchmark = Callable[[Place], Iterable[Figure]]


def short(value: float) -> str:
    """Three digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def verdict(value: float, most: float | None) -> str:
    """Whether a figure keeps what is promised of it; nothing where nothing is."""
    return "" if most is None else f"at most {short(most)}: {'kept' if value <= most else 'MISSED'}"


def fdatasync_us(directory: Path, count: int = 100) -> float:
    """The median of appends of 4 KB with fdatasync, in microseconds."""
    path = directory / "fdatasync"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        os.write(fd, b"x" * 4096)
        os.fdatasync(fd)
        times.append(time.perf_counter() - begun)
    os.close(fd)
    path.unlink()
    return statistics.median(times) * 1e6


def resident_kb(pid: int | None = None) -> float:
    """A process's resident memory in KB."""
    return float(psutil.Process(pid).memory_info().rss) / 1024


class Child:
    """A Python process that runs a file of this directory, in a process group of its own."""

    def __init__(self, file: str, *args: object) -> None:
        command = [sys.executable, str(HERE / file), *map(str, args)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)

    def wait_for(self, word: str, seconds: float = 300.0) -> str:
        """Reads the child's output up to a line that begins with `word`; the rest of that line."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            line = self.process.stdout.readline() if ready else ""
            if line.startswith(word):
                return line[len(word) :].strip()
            if not line:
                break
        self.kill()
        raise RuntimeError(f"the child did not say {word!r} within {seconds:.0f} s")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def say(word: str, *rest: object) -> None:
    """What a child says to its parent."""
    print(word, *rest, flush=True)
