"""A paused flow goes on by one step, and is paused again.

In: a process that was told to (`flow-stepped`), after each transition of its machine. Out: when the step is over, and
the row that pauses the flow. The one rule: where a flow stands when it is paused follows from its rows: at the request
in the row `flow-paused` (`step`), with the arrivals taken up to the one that is named there (`taken`).

A step ends with the next request that the flow makes; or, where an outcome led to none, when it has been taken and
every fiber waits again. Of what has arrived a step takes one outcome. Where nothing has arrived the flow waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowmetal.lang.requests import Request
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds

if TYPE_CHECKING:
    from flowmetal.runtime.process import Process


def is_over(process: Process) -> dict[str, Any] | None:
    """How the step ended: at the request `step`, or with none (nil); None while it goes on."""
    for action in process.machine.outbox:
        if isinstance(action, Request) and action.step not in process.steps_recorded:
            return {"step": action.step}
    if process.last_taken > process.old and not process.state.ready:
        return {"step": None}
    return None


def paused(over: dict[str, Any], taken: int) -> Draft:
    """The row that pauses a flow after its step."""
    return Draft(kinds.FLOW_PAUSED, None, None, {"reason": "it has gone on by one step", "by": "engine", **over, "taken": taken})
