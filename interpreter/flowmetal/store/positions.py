"""Where in the log each of very many names begins, at eight bytes a name.

What goes in: names with the `pos` of their first row, in the order of `pos`. What comes out: a lower bound of it.
The one rule: an entry is found by 28 bits of a hash, so it may be that of another name; whoever uses it compares names.

An entry is one integer: the hash, then the position. New ones stand in a dict; when there are many they become a sorted
array, and arrays of like size are merged, so that there are few of them (a log-structured merge tree, in small).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterable
from typing import Final

POS_BITS: Final = 36
"""Enough for sixty-eight thousand million rows."""
HASH_MASK: Final = (1 << (64 - POS_BITS)) - 1
POS_MASK: Final = (1 << POS_BITS) - 1
FRESH: Final = 2_048
"""How many names stand in the dict, at about a hundred bytes each."""
LARGEST: Final = 262_144
"""Arrays of more entries are not merged: that would keep the caller waiting."""


class Positions:
    """First positions by name."""

    def __init__(self) -> None:
        self._fresh: dict[int, int] = {}
        self._runs: list[array[int]] = []
        """Sorted; the oldest, with the smallest positions, first."""

    def load(self, names: Iterable[tuple[Hashable, int]]) -> None:
        """All there are, instead of what is here."""
        self.clear()
        self._runs.append(array("Q", sorted((hash(name) & HASH_MASK) << POS_BITS | pos for name, pos in names)))

    def add(self, name: Hashable, pos: int) -> None:
        """The name has a row at `pos`; it counts if it is the first."""
        code = hash(name) & HASH_MASK
        if self._find(code) is None:
            self._fresh[code] = pos
            if len(self._fresh) >= FRESH:
                self._settle()

    def get(self, name: Hashable) -> int | None:
        """No row of that name has a smaller `pos`; None: there is none."""
        return self._find(hash(name) & HASH_MASK)

    def clear(self) -> None:
        """Forget everything."""
        self._fresh.clear()
        self._runs.clear()

    def _find(self, code: int) -> int | None:
        lowest = code << POS_BITS
        for run in self._runs:
            i = bisect_left(run, lowest)
            if i < len(run) and run[i] >> POS_BITS == code:
                return run[i] & POS_MASK
        return self._fresh.get(code)

    def _settle(self) -> None:
        newest = sorted(code << POS_BITS | pos for code, pos in self._fresh.items())
        self._fresh = {}
        while self._runs and len(self._runs[-1]) <= min(2 * len(newest), LARGEST):
            newest = sorted([*self._runs.pop(), *newest])
        self._runs.append(array("Q", newest))
