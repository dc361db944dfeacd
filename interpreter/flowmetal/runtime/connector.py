"""What a connector must do: perform one recorded request outside, and say how it ended.

In: a `Call`, made by the engine from a committed `effect-requested` row. Out: `Completed` or
`Failed`, which the engine records. The one rule: whatever happens outside happens under
`call.idempotency_key`, the same for every attempt, because a call whose outcome was lost in a
crash is performed again. A connector raises nothing but `asyncio.CancelledError`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from flowmetal.lang.persistent import EMPTY_MAP, Map

if TYPE_CHECKING:
    from flowmetal.runtime.rows import Draft


@dataclass(frozen=True, slots=True)
class Completed:
    """The request succeeded with a language value, at its n-th attempt."""

    value: Any
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed for good: `type` is the text of an error keyword (`http/timeout`)."""

    type: str
    message: str
    data: Map | None = None
    attempts: int = 1


Outcome = Completed | Failed


async def _unrecorded_start(attempt: int) -> None:
    """The default of `Call.attempt_started`: nobody keeps a record."""


async def _unrecorded_failure(attempt: int, error: Failed, next_at: int) -> None:
    """The default of `Call.attempt_failed`: nobody keeps a record."""


@dataclass(slots=True)
class Call:
    """One request to perform.

    `args` and `options` are language values. `attempt` is the number that the first attempt made
    now has: more than 1 when earlier ones are on record; `not_before` (microseconds since the
    epoch) is then the recorded time before which it must not be made. `elapsed` are the seconds since
    the request was made: much, when the engine was down meanwhile.

    `attempt_started(n)` commits a row before the n-th sending of an at-most-once call;
    `attempt_failed(n, error, next_at)` commits one before a back-off of a second or more.
    """

    op: str
    target: str
    args: tuple[Any, ...]
    options: Map = EMPTY_MAP
    flow_id: str = ""
    run: str = ""
    step: int = 0
    idempotency_key: str = ""
    attempt: int = 1
    not_before: int | None = None
    elapsed: float = 0.0
    attempt_started: Callable[[int], Awaitable[None]] = field(default=_unrecorded_start, repr=False)
    attempt_failed: Callable[[int, Failed, int], Awaitable[None]] = field(default=_unrecorded_failure, repr=False)


class Desk(Protocol):
    """Keeps steps that wait for somebody outside their flow, in memory and without a task each. The log can fill it again."""

    @property
    def ops(self) -> Set[str]:
        """The operations whose steps wait here."""

    def take(self, flow_id: str, run: str, draft: Draft, attempts: Sequence[Draft]) -> None:
        """A step that is on disk waits from now on; `attempts` are those on record. One that waits already is left as it is."""

    def drop(self, flow_id: str, step: int, *, withdrawn: bool = False) -> None:
        """The step has its outcome, or is `withdrawn`; nothing is done where it does not wait here."""


@runtime_checkable
class Connector(Protocol):
    """Performs the requests of some operations (`http/request`)."""

    @property
    def ops(self) -> Set[str]:
        """The operations that this connector performs."""

    async def perform(self, call: Call) -> Outcome:
        """Performs one call, with its retries. Cancelling the task abandons it."""

    async def close(self) -> None:
        """Gives back what the connector holds (connections). Called once, when the engine closes."""


async def performed(connector: Connector, call: Call) -> Outcome:
    """How a call ended. What its connector raises against the rule is the call's failure: a bug there loses no flow."""
    try:
        return await connector.perform(call)
    except Exception as e:  # noqa: BLE001  whatever it is
        return Failed("value", f"{call.op} failed: {type(e).__name__}: {e}")
