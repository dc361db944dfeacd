"""What a store can do that several interpreters have at once, besides what every `Store` can.

In: an interpreter that says it is alive. Out: which flows are its own, and what the others have written. The one rule: that a flow
is an interpreter's own only says who computes it; a commit is in order by what it expects, whoever makes it.

Flows fall into `SHARES` by their ids, for ever. Each share belongs to one interpreter, or to none for a moment: who is alive
takes what is free up to its fair part, and gives up what goes beyond that when nothing of it is at work.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Sequence
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


Place = tuple[str, int]
"""Who is in a queue: a flow (0), or the step of a call."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a queue."""

    concurrency: int | None = None
    rate: tuple[int, int] | None = None
    """So many in so many microseconds."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A call that any interpreter's workers may have: what it is stands in the log, at row `seq` of its flow."""

    flow_id: str
    step: int
    name: str
    queue: str | None
    place: int
    """What comes first: by this, the priority of its queue, then by its own, then by its age."""
    priority: int
    seq: int
    run: str
    attempt: int
    n: int = 0
    lease: str | None = None
    """Under which lease it is had."""
    holder: str | None = None
    """By which interpreter; None, where it is had, when that is gone: it is for nobody until its flow's interpreter has seen to it."""


class OfferTable(Protocol):
    """Calls that wait for a worker, and may be had by any interpreter's. A key is a flow and its step."""

    def put(self, offers: Sequence[Offer]) -> None:
        """Calls that anybody may have from now on, whoever had them before."""

    def claim(
        self, names: Collection[str], queues: Collection[str] | None, full: Collection[str], shares: Collection[int], lease: str, most: int
    ) -> list[Offer]:  # fmt: skip
        """Takes up to `most` calls of these functions, in these queues only (None: in any or none), in none of the queues `full` and of
        none of the shares. Their leases are `FLOW~STEP~` and `lease`."""

    def take_back(self, keys: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """Which of these calls nobody has: they are offered no more."""

    def withdraw(self, keys: Collection[tuple[str, int]]) -> None:
        """These are offered no more, whoever has them."""

    def end(self, leases: Collection[str]) -> None:
        """What these leases were for is offered no more."""

    def free(self, leases: Collection[str]) -> None:
        """What this interpreter had under these leases anybody may have."""

    def wanted(self, names: Collection[str], shares: Collection[int]) -> dict[tuple[str, str | None], int]:
        """How many calls of these functions, by queue, are to be had outside of these shares."""

    def lapsed(self, shares: Collection[int]) -> list[Offer]:
        """Calls of these shares that an interpreter had which is gone."""

    def of_shares(self, shares: Collection[int]) -> list[Offer]:
        """What is offered of these shares, had by somebody or not."""

    def of(self, keys: Collection[tuple[str, int]]) -> list[Offer]:
        """Those of these calls that are offered."""

    def held(self) -> set[str]:
        """The leases under which this interpreter has calls."""


@runtime_checkable
class SharedStore(Protocol):
    """A store that several interpreters may have at once."""

    offers: OfferTable

    def balance(self, given_up: Collection[int] = ()) -> Standing:
        """Extends this interpreter's lease, gives shares up, frees those of interpreters whose lease is over, and takes what is free.

        StoreError where this interpreter's own lease was over, and another has noticed."""

    def news(self, limit: int) -> list[News]:
        """The next rows of the log that others have written, in order; from where the store stood when this interpreter came."""

    def listen(
        self, on_news: Callable[[], object], on_change: Callable[[], object], on_offer: Callable[[], object], on_room: Callable[[], object]
    ) -> None:  # fmt: skip
        """Calls, from another thread: the first when others have written, the second when interpreters come or go, the third when others
        offer calls, the fourth when they give places in queues back. A sign may be lost."""

    def enter(self, queue: str, places: Sequence[Place], limits: Limits, now: int) -> tuple[int, int | None]:
        """Takes places in a queue, flows' for those of this interpreter: how many, the first of them; and when there may be room for the
        next: a time, or None: when somebody leaves. Asked again for places that it has, it says so."""

    def settle(self, queue: str, inside: Collection[Place], outside: Collection[Place]) -> None:
        """This interpreter's flows and calls are in a queue, whatever its limits; others are not."""

    def reclaim(self, shares: Collection[int], inside: Collection[tuple[str, str]]) -> None:
        """Frees the places of flows of these shares, which are this interpreter's, but those that are named after their queues; and the
        places of calls whose interpreter is gone."""

    def inside(self, queue: str) -> list[Place]:
        """Who is in a queue that has a limit, whoever's they are."""
