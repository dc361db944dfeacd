"""Promises that other flows wait for: who waits for which, and how they are told.

In: flows that begin to wait, outcomes that are on disk. Out: `await-settled` rows in the logs of those
who wait. The one rule: a promise is settled by one row of its own flow; all else is copied from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowmetal.lang.functions import CANCELLED
from flowmetal.lang.persistent import Map
from flowmetal.lang.values import ErrorValue, kw
from flowmetal.runtime import history
from flowmetal.runtime.control import Make
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, carried
from flowmetal.store import kinds

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine


class Awaited:
    """Flows by the promises of other flows that they wait for."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.waiting: dict[str, dict[Any, set[str]]] = {}
        """Flow → promise → who waits for it."""

    def subscribe(self, flow_id: str, source: str, promise: Any) -> None:
        """`flow_id` waits for a promise of `source`; where it is settled already, the outcome comes at once."""
        self.waiting.setdefault(source, {}).setdefault(promise, set()).add(flow_id)
        self.engine.insist(lambda: self._look(source, promise))

    def look_again(self, source: str) -> None:
        """Looks for the outcomes of all promises of a flow that somebody waits for."""
        for promise in list(self.waiting.get(source, ())):
            self.engine.insist(lambda promise=promise: self._look(source, promise))  # type: ignore[misc]

    async def _look(self, source: str, promise: Any) -> None:
        engine = self.engine
        rows = await engine.writer.call(engine.store.rows, source, 0, None, history.SETTLING)
        found = history.outcome_of(rows, promise, loader(engine.definitions.registry))
        if found is not None:
            self.settled(source, promise, *found)
        elif not rows and await engine.writer.call(engine.store.last_seq, source) == 0:
            self.settled(source, promise, None, ErrorValue(kw("flow/not-found"), f"there is no flow {source}: it was deleted"))

    def settled(self, source: str, promise: Any, value: Any, error: ErrorValue | None) -> None:
        """A promise is settled: who waits for it in other flows is told."""
        promises = self.waiting.get(source)
        if promises is None:
            return
        for flow_id in promises.pop(promise, ()):
            values = {"result": value} if error is None else {"error": foreign_error(source, error)}
            self.engine.put(flow_id, _if_awaited(Draft(kinds.AWAIT_SETTLED, None, None, {"flow": source, "promise": promise}, values)))
        if not promises:
            del self.waiting[source]


def _if_awaited(draft: Draft) -> Make:
    awaited = (draft.facts["flow"], draft.facts["promise"])
    return lambda process: draft if awaited in process.awaits and not process.ended else None


def foreign_error(flow_id: str, error: ErrorValue) -> ErrorValue:
    """Another flow's error as this one sees it: being cancelled is not catching."""
    if error.type in (CANCELLED, kw("flow/terminated")):
        data = Map.of([(kw("flow"), flow_id), (kw("cause"), error.type)])
        return ErrorValue(kw("flow/failed"), f"flow {flow_id} was cancelled: {error.message}", data)
    return ErrorValue(error.type, error.message, error.data, error.cause, error.span)


def leaving(process: Process, value: Any) -> Any:
    """A value of a flow as others see it: its promises and functions know where they came from."""
    return carried(value, process.flow_id, process.state.pin, loader(process.definitions))


def outcome_draft(step: int, child: str, value: Any, error: ErrorValue | None) -> Draft:
    """A child's end as the outcome of its caller's step."""
    if error is None:
        return Draft(kinds.EFFECT_COMPLETED, step, None, {"attempts": 1}, {"result": value})
    return Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 1}, {"error": foreign_error(child, error)})
