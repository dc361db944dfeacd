"""Where a flow failed, and of what: found by running it again over its rows.

In: the rows of a flow. Out: the error, the whole stack with its locals as it stood before anything was unwound, and the
outcomes that the flow had taken by then. The one rule: nothing is kept for this; the log has it all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from flowmetal.lang.definitions import Definitions
from flowmetal.lang.requests import Request, Withdraw
from flowmetal.lang.thrown import StopAt
from flowmetal.lang.values import ErrorValue
from flowmetal.runtime import history, past, retried
from flowmetal.runtime.marks import render
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.reexecution import SLICE
from flowmetal.runtime.rows import Draft, plain_error, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row


@dataclass(slots=True)
class Taken:
    """An outcome that the machine took, and how far the flow had come before."""

    draft: Draft
    steps: int
    marks: Counter[str]
    """How much of each kind of mark in its rows it had not come to yet."""
    withdrawn: frozenset[int]


@dataclass(slots=True)
class Failure:
    """Where a flow failed: the error, the outcomes that it had taken by then, in order, and the process as it stands there."""

    error: ErrorValue
    taken: list[Taken]
    process: Process


class _Watched(Process):
    """A flow that is run again, and stops where it fails."""

    def __init__(self, definitions: Definitions, flow_id: str, supply: Any) -> None:
        super().__init__(definitions, flow_id, supply)
        self.hold = True
        self.outcomes: list[Taken] = []
        self.withdrawn: set[int] = set()
        self._before: tuple[int, Counter[str], frozenset[int]] = 0, Counter(), frozenset()

    def _take(self, draft: Draft) -> None:
        outbox, self.machine.outbox = self.machine.outbox, []
        self.withdrawn |= {action.step for action in outbox if isinstance(action, Withdraw)}
        self._drafts(outbox)
        self._before = self.state.steps, Counter(self.marks_recorded.left), frozenset(self.withdrawn)
        super()._take(draft)

    def taken(self, draft: Draft) -> None:
        """The machine has taken an arrival."""
        super().taken(draft)
        self.outcomes.append(Taken(draft, *self._before))


async def failure_of(definitions: Definitions, flow_id: str, rows: list[Row]) -> Failure | None:
    """Runs a flow again over its rows, up to where it failed; None where it did not, or was cancelled."""
    process = _Watched(definitions, flow_id, _nothing_new)
    load = loader(definitions)
    process.rebuild([to_draft(row, load) for row in retried.live(rows) if row.kind not in past.LIFE], anew=True)
    process.paused = process.ended = False
    try:
        while process.runnable:
            for draft in process.run(SLICE)[0]:
                if draft.kind == kinds.FLOW_PAUSED and draft.error is not None:
                    return Failure(draft.error, process.outcomes, process)
            await asyncio.sleep(0)
    except StopAt:  # it asks for something that is not in its rows: it did not fail
        pass
    return None


def _nothing_new(process: Process, request: Request) -> Any:
    raise StopAt


async def state_at_failure(definitions: Definitions, flow_id: str, rows: list[Row]) -> dict[str, Any] | None:
    """The state of a flow that has failed as it was where it failed, with its error; None where that cannot be seen."""
    failure = await failure_of(definitions, flow_id, rows)
    if failure is None:
        return None
    process = failure.process
    state = past.describe(process, history.status_of(rows), current=process.machine.fiber)
    return {**state, "error": {**plain_error(failure.error), "rendered": render(failure.error)}}
