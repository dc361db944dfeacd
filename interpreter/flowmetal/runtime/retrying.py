"""A flow that has failed goes on: the step that failed is asked anew.

In: a flow that is paused where it failed, or has ended there. Out: the row `flow-retried`, and the request again,
in one commit. The one rule: only what failed is asked again (with it whatever failed since, and was not taken), and only where
nothing was asked since: what the flow did after the failure is taken back (see `retried`), and what reached the outside
cannot be. So a flow whose clean-up has asked for anything is not retried: it is forked.

Which step failed is found by running the flow again over its rows, as it is for any look at the past. The step keeps
its number and its idempotency key: whoever did the work without our hearing of it does not do it twice.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowConflict, FlowmetalError, StoreError
from flowmetal.lang.equality import equal
from flowmetal.lang.values import ErrorValue
from flowmetal.runtime import history, retried
from flowmetal.runtime import marks as marks_
from flowmetal.runtime.book import BEGIN
from flowmetal.runtime.failures import Failure, Taken, failure_of
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

ONLY_LOOKS = frozenset({"timer", "sleep", "http/get", "http/head", "http/options", "sql/query", "status", "history", "flows", "state-at", "promise-status"})
"""Steps that only look or wait: where the flow's code fails of what such a step gave, it is asked again."""
INTERRUPTED = "effect/interrupted"
ENDS = kinds.ENDING | {kinds.FLOW_PAUSED, kinds.FLOW_RESUMED, kinds.FLOW_STEPPED, kinds.CANCEL_REQUESTED}
"""Kinds of what became of the flow after it had failed."""


class _Moved(FlowmetalError):
    """The flow has gone on since it was looked at."""


async def retry(engine: Engine, flow_id: str, reason: str | None, by: str, key: str | None = None) -> None:
    """Asks the failed step of a flow anew. Raises FlowConflict where that cannot be, with what can."""
    while True:
        rows: list[Row] = await engine.writer.call(engine.store.rows, flow_id)
        _check_failed(flow_id, rows)
        cause, last = await _cause(engine, flow_id, rows)
        back = _taken_back(flow_id, rows, cause, last)
        queue = json.loads(rows[0].data).get("queue") if rows[-1].kind in kinds.ENDING else None
        if queue is not None and engine.sharing.owns(flow_id):
            engine.queues.flows[flow_id] = queue  # resumed, it has its place again
        facts = {"back": sorted(back), "reason": reason, "by": by or None}
        made = Draft(kinds.FLOW_RETRIED, cause.draft.step, None, facts, key=key)
        try:
            await engine.deliver(flow_id, lambda process, rows=rows, cause=cause, made=made: _again(engine, process, rows, cause, made))  # type: ignore[misc]
        except _Moved:
            continue
        except FlowmetalError as error:
            if queue is not None and not isinstance(error, StoreError):  # then the row may be on disk: recovery sees to the place
                engine.queues.flows.pop(flow_id, None)
            raise
        return


def _check_failed(flow_id: str, rows: list[Row]) -> None:
    first, life = json.loads(rows[0].data), history.life_row(rows)
    status, failed = kinds.STATUS[life.kind], history.says_failed(life)
    if first["kind"] in ("cell", "load"):
        raise FlowConflict(f"{flow_id} is a cell", hint="run the cell again")
    if life.kind == kinds.FLOW_PAUSED and not failed:
        raise FlowConflict(f"flow {flow_id} is paused, and has not failed", hint=f"it goes on with: flowmetal resume {flow_id}")
    if not failed:
        raise FlowConflict(f"flow {flow_id} has not failed: it is {status}", hint=None if status not in kinds.ENDED else _fork(flow_id))
    if life.kind == kinds.FLOW_FAILED and first.get("parent_step") is not None:
        parent = first["parent"]
        raise FlowConflict(f"flow {flow_id} was called by {parent}, which has been told that it failed", hint=f"retry that: flowmetal retry {parent}")


async def _cause(engine: Engine, flow_id: str, rows: list[Row]) -> tuple[Taken, int]:
    """The outcome that the flow failed of, and may be asked again; and the row of the last that was taken before: what failed later is asked again as well."""
    failure = await failure_of(engine.definitions.registry, flow_id, rows)
    if failure is None and rows[-1].kind not in kinds.ENDING:
        raise FlowConflict(f"flow {flow_id} does not fail any more with the definitions that it has now", hint=f"it goes on with: flowmetal resume {flow_id}")
    if failure is None:
        raise FlowConflict(f"flow {flow_id} was ended from outside, not by a step that failed", hint=_fork(flow_id))
    cause = _origin(failure)
    asked = {row.step: json.loads(row.data) for row in rows if row.kind in kinds.ASKING}
    f = asked.get(cause.draft.step) if cause is not None else None  # none where it took a promise of another flow
    if cause is not None and (cause.draft.error is not None or (f is not None and f["op"] in ONLY_LOOKS)):
        return cause, failure.taken[-1].draft.seq
    where, after = "", ""
    if failure.error.span is not None:
        where = f" at {failure.error.span}"
    if cause is not None and f is not None:
        after = f", after step {cause.draft.step} ({f['op']} {f.get('target', '')}".rstrip() + ") had completed"
    raise FlowConflict(
        f"flow {flow_id} failed in its own code{where}{after}: no step of it is to be asked again",
        hint=f"correct the code, load it, and let a fork go on with it: flowmetal fork {flow_id} --at {_last_step(rows) or 1} --upgrade",
    )


def _origin(failure: Failure) -> Taken | None:
    """The outcome that an error came from: the last one taken when it failed, else the newest that failed with this very error."""
    if not failure.taken or failure.taken[-1].draft.error is not None:
        return failure.taken[-1] if failure.taken else None
    failed = [taken for taken in failure.taken if taken.draft.error is not None and _comes_from(failure.error, taken.draft.error)]
    return failed[-1] if failed else failure.taken[-1]


def _comes_from(error: Any, origin: ErrorValue) -> bool:
    while isinstance(error, ErrorValue):
        if error.type is origin.type and error.message == origin.message and equal(error.data, origin.data):
            return True
        error = error.cause
    return False


def _taken_back(flow_id: str, rows: list[Row], cause: Taken, last: int) -> set[int]:
    """The rows of what the flow did after an outcome, and that of the outcome. Raises FlowConflict where something has reached the outside."""
    since = cause.draft
    after = [row for row in retried.live(rows) if row.seq > since.seq]
    asked = [row for row in after if row.kind in kinds.ASKING and not retried.is_anew(row) and (row.step or 0) > cause.steps]
    if asked:
        did = ", ".join(f"{row.step} ({json.loads(row.data)['op']})" for row in asked[:5])
        raise FlowConflict(f"after the failure flow {flow_id} asked for step {did}, which cannot be taken back", hint=_fork(flow_id, since.step))
    back = [row for row in after if row.kind in ENDS or (row.kind == kinds.EFFECT_CANCELLED and row.step not in cause.withdrawn)]
    back += [row for row in after if row.kind == kinds.EFFECT_FAILED and row.seq > last and json.loads(row.data)["error"]["type"] != INTERRUPTED]
    calls = {row.step for row in rows if row.kind == kinds.EFFECT_REQUESTED and json.loads(row.data)["op"] == "call"}
    marks = [row for row in reversed(after) if row.kind in marks_.COUNTED - kinds.ENDING and not retried.is_anew(row)]
    left = Counter(cause.marks)
    for row in marks:
        if left[row.kind] > 0:
            left[row.kind] -= marks_.size_of(row)
            back.append(row)
    ended = [row.step for row in back if row.step in calls and row.kind in (kinds.EFFECT_CANCELLED, kinds.EFFECT_CANCELLING)]
    if ended:
        raise FlowConflict(f"with its failure the flow that step {ended[0]} of {flow_id} had called was cancelled", hint=_fork(flow_id, since.step))
    return {since.seq, *(row.seq for row in back)}


def _fork(flow_id: str, step: int | None = None) -> str:
    return f"a fork can go on from any of its steps: flowmetal fork {flow_id} --at {step or 'STEP'}"


def _last_step(rows: list[Row]) -> int:
    return max((row.step for row in rows if row.step is not None), default=0)


def _again(engine: Engine, process: Process, rows: list[Row], cause: Taken, made: Draft) -> list[Draft]:
    """The rows of a retry; the process stands afterwards where it waited for the outcome that is taken back."""
    if process.seq != rows[-1].seq:
        raise _Moved("the flow has gone on")
    since, back = cause.draft, set(made.facts["back"])
    load = loader(engine.definitions.registry)
    drafts = [to_draft(row, load) for row in retried.live(rows) if row.seq not in back]
    process.rewind(drafts)
    out = [made]
    failed = {since.step, *(row.step for row in rows if row.seq in back and row.kind == kinds.EFFECT_FAILED)}
    closed = failed | {row.step for row in rows if row.seq in back and row.kind == kinds.EFFECT_CANCELLED}
    for step in sorted(step for step in process.open if step in closed and step != BEGIN):
        asked = [draft for draft in drafts if draft.kind == kinds.EFFECT_REQUESTED and draft.step == step][-1]
        out.append(_anew(engine, asked, renew=step in failed))
        process.steps_recorded[step] = out[-1]
    if since.kind == kinds.AWAIT_SETTLED:
        out.append(Draft(kinds.AWAIT, None, None, {"flow": since.facts["flow"], "promise": since.facts["promise"], retried.ANEW: True}))
    return out


def _anew(engine: Engine, asked: Draft, *, renew: bool) -> Draft:
    """A request again: that of the failed step with its whole time and, where it called a flow, a new one; others as they stood."""
    facts = {**asked.facts, retried.ANEW: True}
    if renew:
        facts.pop("due_at", None)
        facts.pop("linked", None)  # a fork asks for itself what failed in the flow that it was forked from
        if "child" in facts:
            facts["child"] = engine.new_id()
    return replace(asked, facts=facts, values=dict(asked.values), key=None, seq=0, at=0)
