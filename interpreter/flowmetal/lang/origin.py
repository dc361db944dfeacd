"""Where the past of a fork comes from: which of its steps another flow asked, and whose the rollbacks are.

In: the points at which a flow, and those that it was forked from, were forked; the machine's own count. Out: the run
whose idempotency keys a step has, and whether a rollback is the fork's to run. The one rule: what the original
asked for, the original undoes, unless the fork has adopted it; in the shared part all is as it was in the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowmetal.lang.persistent import Vector


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """One forking: the steps up to `steps` were asked under `run`, by the flow that was forked."""

    run: str
    steps: int
    adopts: bool = False
    """Whether the rollbacks that were registered before are the fork's."""


class Origin:
    """The fork points of a flow, the oldest first; none for a flow that is no fork."""

    __slots__ = ("points", "taken")

    def __init__(self, points: Sequence[ForkPoint] = (), taken: int = 0) -> None:
        self.points = points
        self.taken = taken
        """How many of them the machine has come past for certain: it took their row."""

    def run_of(self, step: int, own: str) -> str:
        """The run under which a step was asked; `own` is that of the flow itself."""
        return next((p.run for p in self.points if step <= p.steps), own)

    def mark(self, steps: int) -> Vector:
        """When something happens that is no step: how many steps were asked, how many fork points taken."""
        return Vector.of([steps, self.taken])

    def owns(self, mark: Any, steps: int) -> bool:
        """Whether a rollback that was registered at `mark` is the flow's own to run, when so many steps were asked."""
        at, taken = mark
        return all(
            p.adopts or at > p.steps or taken > n
            for n, p in enumerate(self.points) if steps > p.steps or self.taken > n
        )  # fmt: skip
