"""The project's benchmarks, in one command.

    python benchmarks/run.py [NAME…] [--repeats 5] [--quick] [--json]

Each benchmark runs so many times, each time in a new process on a new store. What is printed is the median of the runs
and, for times, the median of their ratios to the fdatasync that the same process measured just before and after.
`--quick` runs each once, small, in this process: to see that it runs, not to measure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import kills
import size
import speed
import startup
from measure import TO_US, Benchmark, Place, fdatasync_us, short, verdict

BENCHMARKS: dict[str, Benchmark] = {
    "steps": speed.steps,
    "message": speed.message,
    "callback": speed.callback,
    "opening": speed.opening,
    "resume": size.resume,
    "sleepers": size.sleepers,
    "events": size.events,
    "killed": kills.killed,
    "command": startup.command,
    "kernel": startup.kernel,
}


def measure(name: str, *, quick: bool = False) -> list[dict[str, Any]]:
    """One run, in this process."""
    with tempfile.TemporaryDirectory(prefix="flowmetal-benchmark-") as directory:
        place = Place(Path(directory), quick)
        before = fdatasync_us(place.directory, place.size(100, 5))
        figures = list(BENCHMARKS[name](place))
        sync = (before + fdatasync_us(place.directory, place.size(100, 5))) / 2
    return [
        {
            "name": f.name,
            "value": f.value,
            "unit": f.unit,
            "most": None if quick else f.most,
            "fdatasyncs": f.value * TO_US[f.unit] / sync if f.unit in TO_US else None,
        }
        for f in figures
    ]


def in_new_process(name: str) -> list[dict[str, Any]]:
    """One run, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--child", name], stdout=subprocess.PIPE, text=True, check=True)
    figures: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return figures


def medians(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The runs of a benchmark as one."""
    out = []
    for same in zip(*runs, strict=True):
        values = [figure["value"] for figure in same]
        ratios = [figure["fdatasyncs"] for figure in same if figure["fdatasyncs"] is not None]
        ratio = statistics.median(ratios) if ratios else None
        out.append({**same[0], "value": statistics.median(values), "runs": values, "fdatasyncs": ratio})
    return out


def line(figure: dict[str, Any]) -> str:
    """A figure for a person."""
    ratio = f"{figure['fdatasyncs']:.1f} fdatasyncs" if figure["fdatasyncs"] is not None else ""
    spread = " ".join(short(value) for value in sorted(figure["runs"])) if len(figure["runs"]) > 1 else ""
    promised = verdict(figure["value"], figure["most"])
    return f"{figure['name']:<90}{short(figure['value']):>9} {figure['unit']:<8}{ratio:<20}{promised:<22}{spread}".rstrip()


def main(arguments: list[str]) -> int:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (all of them)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="once, small, in this process")
    parser.add_argument("--json", action="store_true", help="a JSON line a figure")
    parser.add_argument("--child", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        print(json.dumps(measure(options.child)))
        return 0
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}: there are {', '.join(BENCHMARKS)}")
    if not options.json:
        with tempfile.TemporaryDirectory() as directory:
            sync = fdatasync_us(Path(directory), 400)
        print(f"{os.cpu_count()} cores, Python {platform.python_version()}, an fdatasync takes {sync:.0f} us, load {os.getloadavg()[0]:.1f}")
    for name in options.names or BENCHMARKS:
        runs = [measure(name, quick=True)] if options.quick else [in_new_process(name) for _ in range(options.repeats)]
        for figure in medians(runs):
            print(json.dumps({"benchmark": name, **figure}) if options.json else line(figure), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
