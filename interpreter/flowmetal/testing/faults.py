"""Failure points that are passed in: which writes of a simulated store fail, and whether the process survives it.

In: the number of a commit and where it is to fail. Out: a `Faults` for a store's constructor. A process that was
killed writes nothing more, whatever it still tries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from flowmetal.errors import StoreError

BEFORE, AFTER = "commit:before", "commit:after"


class Crash(StoreError):
    """The simulated process is dead: nothing that it does counts any more."""


@dataclass(slots=True, eq=False)
class Faults:
    """Fails the n-th commits, before they are written or after (then only the answer is lost).

    `kill` says whether the process dies of it, so that every later write of that life fails too, or lives on with
    one refused commit.
    """

    at: Iterable[tuple[int, str]] = ()
    kill: bool = True
    commits: int = 0
    """Commits that were tried, over all lives."""
    dead: bool = False
    died: asyncio.Event = field(default_factory=asyncio.Event)
    points: frozenset[tuple[int, str]] = frozenset()

    def __post_init__(self) -> None:
        self.points = frozenset(self.at)

    def reborn(self) -> None:
        """The next life begins."""
        self.dead = False
        self.died = asyncio.Event()

    def __call__(self, point: str) -> None:
        """A failure point."""
        if self.dead:
            raise Crash("the process is dead")
        if point == BEFORE:
            self.commits += 1
        if (self.commits, point) in self.points and point != "meta":
            if not self.kill:
                raise StoreError("the disk says no")
            self.dead = True
            self.died.set()
            raise Crash("the process was killed")
