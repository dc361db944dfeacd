"""Time, chance and identity for an engine: real, or virtual and seeded for tests.

Everything that a program may see of them is recorded by the engine; this is where it comes from.
"""

from __future__ import annotations

import random
import secrets
import time
import uuid
from collections.abc import MutableSequence
from typing import Any, Protocol


class Clock(Protocol):
    """What time it is, in microseconds since the epoch. A virtual clock is moved by the engine."""

    virtual: bool

    def now(self) -> int:
        """The time."""


class RealClock:
    """The machine's own clock."""

    virtual = False

    def now(self) -> int:
        """The time."""
        return time.time_ns() // 1000


class VirtualClock:
    """A clock that stands still until the engine has nothing to do but wait; then it jumps."""

    virtual = True

    def __init__(self, start: int = 1_767_225_600_000_000) -> None:
        self.time = start

    def now(self) -> int:
        """The time."""
        return self.time

    def advance_to(self, moment: int) -> None:
        """Moves the clock; never back."""
        self.time = max(self.time, moment)


class Chance:
    """Random numbers, ids and tokens. With a seed the same each time: for tests."""

    def __init__(self, seed: int | None = None) -> None:
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)
        self._seeded = seed is not None

    def random(self) -> float:
        """A number from 0 up to 1."""
        return self._random.random()

    def below(self, n: int) -> int:
        """An integer from 0 up to n."""
        return self._random.randrange(n)

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """Puts items into a random order, in place."""
        self._random.shuffle(items)

    def uuid(self) -> uuid.UUID:
        """A random UUID."""
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def token(self) -> str:
        """An unguessable name of 43 URL-safe characters."""
        return f"{self._random.getrandbits(256):064x}" if self._seeded else secrets.token_urlsafe(32)
