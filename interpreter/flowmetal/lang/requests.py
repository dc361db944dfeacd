"""What a program may ask for: what the machine hands back besides its new state.

Only `Request`s are numbered. Whoever runs the machine turns each into rows of the log, and does
what it asks after they are on disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.spans import Span
from flowmetal.lang.values import ErrorValue

FLOW_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,200}")
FLOW_ID_TEXT: Final = "a flow id is 1 to 200 of A-Z a-z 0-9 . _ : -"


@dataclass(slots=True)
class Request:
    """A step: something that the outside is asked for.

    `instant` steps have their outcome at once, in `supplied`. `callback` and `start` also have
    something supplied at once (token and address; the child's id).
    """

    step: int
    fiber: int
    op: str
    target: str
    args: list[Any]
    options: Map = EMPTY_MAP
    span: Span | None = None
    function: str = ""
    instant: bool = False
    supplied: Any = None
    key: str | None = None
    child: str | None = None
    """The flow that the step begins."""
    pin: int | None = None
    """The definitions version that this flow is to see."""
    digest: str = ""
    """The hash of what was asked, filled in by who admits the request."""


@dataclass(slots=True)
class Withdraw:
    """An open step that nobody waits for any more; `child` steps are asked to end first."""

    step: int
    reason: Any
    child: bool = False


@dataclass(slots=True)
class Subscribe:
    """This flow waits for a promise of another."""

    fiber: int
    flow: str
    promise: int | str


@dataclass(slots=True)
class FiberEnded:
    """A fiber other than the first has ended: its promise is settled."""

    fiber: int
    promise: int | str
    value: Any
    error: ErrorValue | None


@dataclass(slots=True)
class Mark:
    """Something for the history: kind is output, log, checkpoint or info."""

    kind: str
    fiber: int
    data: Any


@dataclass(slots=True)
class Define:
    """A top-level definition of a cell, to be appended to the definitions log."""

    number: int
    fiber: int
    ns: str
    name: str
    kind: str
    meta: dict[str, Any]
    value: Any
    root: Any


@dataclass(slots=True)
class CellResult:
    """The first fiber of a cell has ended while something else of it goes on."""

    value: Any
    error: ErrorValue | None


@dataclass(slots=True)
class Ended:
    """The flow has ended."""

    value: Any
    error: ErrorValue | None
    stack: list[dict[str, Any]] = field(default_factory=list)


Action = Request | Withdraw | Subscribe | FiberEnded | Mark | Define | CellResult | Ended
