"""What others write into a flow's log: pause, resume, step, cancel and terminate, and the outcomes of steps.

In: an action, who asked for it and why; an outcome. Out: a function that makes the rows in the flow's own turn.
The one rule: it is the flow's rows that decide; an action that changes nothing writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.errors import FlowConflict, FlowEnded, LispError
from flowmetal.lang.functions import CANCELLED
from flowmetal.lang.values import ErrorValue, kw
from flowmetal.runtime.process import Process
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds

Make = Callable[[Process], "Draft | list[Draft] | None"]
"""Makes the rows of an arrival when the flow's turn has come; what it raises is the answer to who brought it."""

WRITES = {
    "pause": kinds.FLOW_PAUSED, "resume": kinds.FLOW_RESUMED, "cancel": kinds.CANCEL_REQUESTED, "terminate": kinds.FLOW_CANCELLED,
    "retry": kinds.FLOW_RETRIED, "step": kinds.FLOW_STEPPED,
}  # fmt: skip
"""The row by which each action is known."""


def control(flow_id: str, action: str, reason: str | None, by: str, key: str | None = None) -> Make:
    """The rows of an action; raises FlowEnded for a flow that is over. `key` is the action's own row's, by which a repetition finds it."""
    if action not in WRITES:
        raise LispError(f"unknown control {action}", type="value")
    facts = {"reason": reason, "by": by or None}

    def make(process: Process) -> list[Draft]:
        if process.ended:
            raise FlowEnded(f"flow {flow_id} has ended: it is {process.status}")
        if action == "pause":
            return [] if process.paused else [_row(action, facts, key)]
        if action == "step":
            if not process.paused:
                raise FlowConflict(f"flow {flow_id} is {process.status}: only a paused flow goes step by step", hint=f"flowmetal pause {flow_id}")
            return [_row(action, facts, key)]
        if action == "terminate":
            return [_ending(ErrorValue(kw("flow/terminated"), reason or "the flow was terminated"), facts, key)]
        if action == "cancel" and process.cancel_asked:
            return []
        if action == "cancel" and not process.begun:
            return [_ending(ErrorValue(CANCELLED, reason or "the flow was cancelled before it began"), facts, key)]
        resumed = [_row("resume", facts, key)] if process.paused else []
        return resumed if action == "resume" else [*resumed, _row(action, facts, key)]

    return make


def is_open(process: Process, step: int) -> bool:
    """Whether a step waits for its outcome."""
    return step in process.open and not process.ended


def if_open(step: int, draft: Draft) -> Make:
    """A row of a step, unless it has its outcome already."""
    return lambda process: draft if is_open(process, step) else None


def beginning(step: int, facts: dict[str, Any]) -> tuple[Make, Callable[[], bool]]:
    """The row that says that an attempt of a step at most once begins, unless the step has its outcome already; and whether it was made,
    the last time that it was to be. Without it nothing may be sent."""
    made: list[bool] = []

    def make(process: Process) -> Draft | None:
        made.append(is_open(process, step))
        return Draft(kinds.ATTEMPT_STARTED, step, None, dict(facts)) if made[-1] else None

    return make, lambda: bool(made) and made[-1]


def _row(action: str, facts: dict[str, Any], key: str | None) -> Draft:
    return Draft(WRITES[action], None, None, dict(facts), key=key)


def _ending(error: ErrorValue, facts: dict[str, Any], key: str | None) -> Draft:
    return Draft(kinds.FLOW_CANCELLED, None, None, {**facts, "rendered": error.message, "stack": []}, {"error": error}, key=key)
