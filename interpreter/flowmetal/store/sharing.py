"""What a store can do that several interpreters have at once, besides what every `Store` can.

In: an interpreter that says it is alive. Out: which flows are its own, and what the others have written. The one rule: that a flow
is an interpreter's own only says who computes it; a commit is in order by what it expects, whoever makes it.

Flows fall into `SHARES` by their ids, for ever. Each share belongs to one interpreter, or to none for a moment: who is alive
takes what is free up to its fair part, and gives up what goes beyond that when nothing of it is at work.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

SHARES: Final = 64
"""Into how many parts a store's flows fall."""


def share_of(flow_id: str) -> int:
    """The share that a flow belongs to."""
    return zlib.crc32(flow_id.encode("utf-8", "surrogatepass")) % SHARES


@dataclass(frozen=True, slots=True)
class Standing:
    """How an interpreter stands among the others."""

    mine: frozenset[int]
    """Its shares."""
    lost: frozenset[int]
    """Those of them that it has taken just now from one that ended without giving them up."""
    fair: int
    """How many shares are its fair part."""
    members: int
    """How many interpreters have the store."""
    pos: int
    """Where the store's log stood: what its flows' former interpreters have written is before that."""


@dataclass(frozen=True, slots=True)
class News:
    """A row that another interpreter has written."""

    pos: int
    flow_id: str
    seq: int
    kind: str


@runtime_checkable
class SharedStore(Protocol):
    """A store that several interpreters may have at once."""

    def balance(self, given_up: Collection[int] = ()) -> Standing:
        """Extends this interpreter's lease, gives shares up, frees those of interpreters whose lease is over, and takes what is free.

        StoreError where this interpreter's own lease was over, and another has noticed."""

    def news(self, limit: int) -> list[News]:
        """The next rows of the log that others have written, in order; from where the store stood when this interpreter came."""

    def listen(self, on_news: Callable[[], object], on_change: Callable[[], object]) -> None:
        """Calls, from another thread: the first when others have written, the second when interpreters come or go. A sign may be lost."""
