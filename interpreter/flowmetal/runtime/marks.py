"""What the machine says besides its requests, as rows: prints and marks, fibers and flows that ended.

In: actions of the machine. Out: drafts. Nothing here is numbered; on re-execution these rows are
told from new ones by counting them, kind by kind (prints by their characters).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from flowmetal.errors import FlowmetalError
from flowmetal.lang.evaluate import raised
from flowmetal.lang.frames import State
from flowmetal.lang.functions import CANCELLED, CONTINUED, FlowHandle
from flowmetal.lang.printer import pr_str
from flowmetal.lang.requests import Action, CellResult, Ended, FiberEnded, Mark, Subscribe, Withdraw
from flowmetal.lang.spans import Span
from flowmetal.lang.values import ErrorValue, kw
from flowmetal.runtime import retried
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row

COUNTED = kinds.ENDING | {
    kinds.OUTPUT, kinds.TRUNCATED, kinds.LOG, kinds.CHECKPOINT, kinds.INFO, kinds.AWAIT, kinds.PROMISE_SETTLED, kinds.CELL_RESULT,
    kinds.EFFECT_CANCELLING,
}  # fmt: skip
PRINTED_LIMIT = 100_000
"""Characters of a cell's value as it is shown."""
OUTPUT_LIMIT = 1 << 20
"""Bytes of UTF-8 that a flow may print; one row says that there was more."""
TRUNCATED = "\n[what the flow prints from here on is not kept: it is over 1 MiB]\n"


class Recorded:
    """How many rows of each kind the log holds that re-execution has not come to yet."""

    __slots__ = ("left",)

    def __init__(self, left: Mapping[str, int] | None = None) -> None:
        self.left: Counter[str] = Counter(left or {})

    def count(self, draft: Draft) -> None:
        """Takes one row of the log."""
        if draft.kind in COUNTED and not draft.facts.get(retried.ANEW):
            self.left[draft.kind] += size(draft)

    def is_new(self, draft: Draft) -> bool:
        """Whether a row is not in the log yet; of a print that is there in part, the rest is new."""
        there = self.left[draft.kind]
        if there == 0:
            return True
        here = size(draft)
        self.left[draft.kind] = max(0, there - here)
        if there >= here:
            return False
        draft.facts["text"] = draft.facts["text"][there:]
        return True

    def __bool__(self) -> bool:
        return any(self.left.values())


def size(draft: Draft) -> int:
    """What a row counts for: a print its characters, any other one."""
    return len(draft.facts["text"]) if draft.kind == kinds.OUTPUT else 1


def size_of(row: Row) -> int:
    """How much one row of the log counts."""
    return len(json.loads(row.data)["text"]) if row.kind == kinds.OUTPUT else 1


def printed(text: str, fiber: int, before: int) -> tuple[list[Draft], int]:
    """The rows of a print of a flow that has printed `before` bytes, and how many it has printed then."""
    body = text.encode("utf-8", "surrogatepass")
    total = before + len(body)
    if total <= OUTPUT_LIMIT:
        return ([Draft(kinds.OUTPUT, None, fiber, {"text": text})] if text else []), total
    if before > OUTPUT_LIMIT:
        return [], total
    kept = body[: OUTPUT_LIMIT - before].decode("utf-8", "ignore")
    rows = [Draft(kinds.OUTPUT, None, fiber, {"text": kept})] if kept else []
    return [*rows, Draft(kinds.TRUNCATED, None, fiber, {"limit": OUTPUT_LIMIT, "text": TRUNCATED})], total


def mark(action: Action, state: State, cancel_asked: bool) -> Draft:
    """The row of an action that is neither a request nor a print."""
    if isinstance(action, Mark):
        if action.kind == "checkpoint":
            return Draft(kinds.CHECKPOINT, None, action.fiber, {"label": action.data if isinstance(action.data, str) else pr_str(action.data)})
        return Draft(action.kind, None, action.fiber, {}, {"data": action.data}, shown=True)
    if isinstance(action, Subscribe):
        return Draft(kinds.AWAIT, None, action.fiber, {"flow": action.flow, "promise": action.promise})
    if isinstance(action, FiberEnded):
        return Draft(kinds.PROMISE_SETTLED, None, action.fiber, {"promise": action.promise}, _outcome(action.value, action.error))
    if isinstance(action, Withdraw):
        return Draft(kinds.EFFECT_CANCELLING, action.step, None, {"reason": action.reason})
    if isinstance(action, CellResult):
        return _ending(kinds.CELL_RESULT, action.value, action.error, state)
    assert isinstance(action, Ended)
    if action.error is not None and action.error.type is CONTINUED:
        return _continued(action.error, state)
    kind = kinds.FLOW_COMPLETED
    if action.error is not None:
        kind = kinds.FLOW_CANCELLED if action.error.type is CANCELLED and cancel_asked else kinds.FLOW_FAILED
    return _ending(kind, action.value, action.error, state)


def held(error: ErrorValue, step: int, taken: int) -> Draft:
    """The row of a flow that has failed and is paused there; `step` is the last one that it asked for."""
    facts = {"reason": f"it has failed: {error.message}", "by": "engine", "failed": True, "step": step, "taken": taken, "rendered": render(error)}
    return Draft(kinds.FLOW_PAUSED, None, None, facts, {"error": error})


def _continued(error: ErrorValue, state: State) -> Draft:
    """The first row of the next run: it goes on counting steps and fibers, so that no two of one flow have the same number."""
    assert error.data is not None
    facts = {
        "name": state.program.name, "kind": state.kind, "definitions": state.pin, "run": error.data.get(kw("run")), "parent": state.parent,
        "steps": state.steps, "fibers": state.next_fiber,
    }  # fmt: skip
    return Draft(kinds.FLOW_CONTINUED, None, None, facts, {"args": error.data.get(kw("args"))})


def _ending(kind: str, value: Any, error: ErrorValue | None, state: State) -> Draft:
    cell = state.kind == "cell"
    draft = Draft(kind, None, None, {}, _outcome(value, error), shown=cell)
    if error is not None:
        draft.facts["rendered"] = render(error)
        draft.facts["stack"] = [{"function": str(name), **place(span)} for name, span in error.trace]
    elif cell:
        draft.facts["printed"] = pr_str(value)[:PRINTED_LIMIT]
        draft.facts["handle"] = value.flow if isinstance(value, FlowHandle) else None
    if cell:
        draft.facts["ns"] = state.program.ns
    return draft


def _outcome(value: Any, error: ErrorValue | None) -> dict[str, Any]:
    return {"result": value} if error is None else {"error": error}


def place(span: Span | None) -> dict[str, Any]:
    """Where something stands in its source, as data."""
    if span is None:
        return {"line": None, "column": None, "source": None}
    return {"line": span.line, "column": span.column, "source": span.source.name}


def merge_output(drafts: list[Draft]) -> list[Draft]:
    """Adjacent prints of one slice are one row."""
    out: list[Draft] = []
    for draft in drafts:
        if draft.kind == kinds.OUTPUT and out and out[-1].kind == kinds.OUTPUT and out[-1].fiber == draft.fiber:
            out[-1].facts["text"] += draft.facts["text"]
        else:
            out.append(draft)
    return out


def render(error: ErrorValue) -> str:
    """An error for a person: message, place with a caret, the Lisp stack."""
    e = raised(error)
    text = FlowmetalError(e.message, type=e.type, span=error.span).render()
    frames = [f"  in {name} at {span}" if span is not None else f"  {name}" if name.startswith("…") else f"  in {name}" for name, span in error.trace]
    return "\n".join([text, *frames]) if len(frames) > 1 else text
