"""kill -9, and going on: as a benchmark, and the processes that it kills.

    python benchmarks/kills.py start|resume PATH FLOWS STEPS SECONDS

Flows of steps that take a while each append the idempotency key of every call to a file. The process is killed when
two fifths of the lines are there; another opens the store, and ends when every flow has.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from measure import Child, Figure, Place, say
from world import Work, engine_on


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the work."""

    seconds: float
    """From the start of the second process to the end of the last flow."""
    left: float
    """The seconds of work that were left when the first was killed, in the flow that was furthest behind."""
    lost: int
    repeated: int
    most: int
    """How often the call that was made most often was made."""


def kill_and_go_on(directory: Path, flows: int, steps: int, seconds: float) -> Outcome:
    """Starts the flows, kills their process, starts another."""
    log = directory / "calls"
    arguments = (directory / "kills.duckdb", flows, steps, seconds)
    first = Child("kills.py", "start", *arguments)
    first.wait_for("started")
    while len(_lines(log)) < flows * steps * 0.4:
        time.sleep(0.01)
    first.kill()
    done = Counter(line.split("/")[0] for line in _lines(log))
    behind = steps - min(done.values()) if len(done) == flows else steps
    begun = time.perf_counter()
    second = Child("kills.py", "resume", *arguments)
    second.wait_for("done")
    taken = time.perf_counter() - begun
    second.kill()
    calls = Counter(_lines(log))
    repeated = sum(count > 1 for count in calls.values())
    return Outcome(taken, behind * seconds, flows * steps - len(calls), repeated, max(calls.values()))


def _lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


def killed(place: Place) -> Iterator[Figure]:
    """100 flows of 20 steps of 50 ms, killed and done again by another process."""
    flows, steps = place.size(100, 3), place.size(20, 4)
    found = kill_and_go_on(place.directory, flows, steps, 0.05)
    yield Figure(f"{flows} flows of {steps} steps of 50 ms killed with -9: to their end, from the next start", found.seconds, "s")
    yield Figure("the same, beyond the work that was left", found.seconds - found.left, "s", 1.0)
    yield Figure("calls lost", found.lost, "", 0)
    yield Figure("calls made again, a flow in flight", found.repeated / flows, "", 1.0)
    yield Figure("how often the call made most often was made", found.most, "", 2)


async def _child(role: str, path: Path, flows: int, steps: int, seconds: float) -> None:
    async with engine_on(path, Work(seconds, path.parent / "calls")) as engine:
        ids = [f"flow-{n}" for n in range(flows)]
        if role == "start":
            await asyncio.gather(*[engine.start_flow("steps", [steps], flow_id=flow_id) for flow_id in ids])
            say("started")
        for flow_id in ids:
            answer = await engine.result(flow_id)
            assert answer is not None and answer["status"] == "completed", answer
        say("done")


if __name__ == "__main__":
    asyncio.run(_child(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
