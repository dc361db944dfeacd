"""The state of a flow at any of its steps: the machine at the instant of that request.

In: the flow's rows, and the nearest snapshot before the step. Out: stacks, locals, positions, and what
was waited for, as data. The one rule: nothing new is asked for. What is executed again gets its
outcomes from the rows, and stops at the step, or where the rows end.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from flowmetal.errors import FlowNotFound, LispError
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.frames import Fiber, Frame
from flowmetal.lang.plain import to_plain
from flowmetal.lang.requests import Request
from flowmetal.lang.thrown import StopAt
from flowmetal.runtime import history, retried, snapshots
from flowmetal.runtime.book import TAKEN
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.reexecution import BEYOND, SLICE
from flowmetal.runtime.replay import is_outdated
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row, Snapshot, Store

STRIDE = 1_000
"""The same, where each transition is made by itself."""
LIFE = kinds.ENDING | {kinds.FLOW_PAUSED, kinds.FLOW_RESUMED, kinds.FLOW_RETRIED, kinds.FLOW_STEPPED}
"""Rows that say how the flow's life went on; here the machine runs to its step whatever they say."""


def read(store: Store, flow_id: str, step: int | None) -> tuple[list[Row], Snapshot | None]:
    """What `state_at` needs: the rows, and the nearest usable snapshot before the step."""
    rows = store.rows(flow_id)
    seq = _seq_of(flow_id, rows, step)
    snapshot = store.snapshot(flow_id, seq - 1)
    return rows, snapshot if snapshot is not None and snapshot.format == snapshots.FORMAT else None


def _seq_of(flow_id: str, rows: list[Row], step: int | None) -> int:
    """The row up to which the flow is looked at."""
    if not rows:
        raise FlowNotFound(f"there is no flow {flow_id}")
    if step is None:
        return rows[-1].seq
    asked = {row.step: row.seq for row in rows if row.kind in kinds.ASKING and row.step}
    if step not in asked:
        known = f"it has steps 1 to {max(asked)}" if asked else "it has no steps"
        raise LispError(f"flow {flow_id} has no step {step}: {known}", type="value")
    return asked[step]


def _no_supply(process: Process, request: Request) -> Any:
    raise StopAt


async def state_at(definitions: Definitions, flow_id: str, rows: list[Row], snapshot: Snapshot | None, step: int | None) -> dict[str, Any]:
    """The flow as it was when it asked for `step` (None: as it is now): its stacks, locals and what it waited for."""
    pause = _pause(rows, step)
    process = prepared(definitions, flow_id, rows, snapshot, step, float("inf") if pause is None else pause.get("taken", pause["seq"]))
    await _run_to(process, step, pause.get("step") if pause is not None and not pause.get("failed") else None)
    load = loader(definitions)
    asked = next((to_draft(row, load) for row in reversed(rows) if row.step == step and row.kind in kinds.ASKING), None) if step is not None else None
    current = process.machine.fiber if asked is not None else None
    return describe(process, _status(rows, asked), step=step, asked=asked, current=current)


def prepared(
    definitions: Definitions, flow_id: str, rows: list[Row], snapshot: Snapshot | None, step: int | None, taken: float = float("inf")
) -> Process:  # fmt: skip
    """A process that is to be run again, to a step or as far as the rows go; of what arrived it is given what came up to the row `taken`."""
    process = Process(definitions, flow_id, _no_supply)
    load = loader(definitions)
    seq = _seq_of(flow_id, rows, step)
    if step is not None:  # before an upgrade the flow's state was that of its old definitions
        rows = [row for row in rows if row.kind != kinds.FLOW_UPGRADED or row.seq < seq]
    after = _after(rows, snapshot)
    spoilt = snapshot is not None and (is_outdated(after) or retried.spoilt(rows, snapshot.seq))
    if snapshot is not None and (spoilt or not snapshots.restore(process, snapshot)):
        process, after = Process(definitions, flow_id, _no_supply), rows
        snapshot = None
    end = _run_end(rows, seq)
    after = [row for row in retried.live(after) if row.kind not in LIFE and row.seq < end and (row.kind not in TAKEN or row.seq <= taken)]
    process.rebuild([to_draft(row, load) for row in after], anew=snapshot is None)
    process.paused = process.ended = process.stepping = False
    return process


def _after(rows: list[Row], snapshot: Snapshot | None) -> list[Row]:
    """The rows that a snapshot does not hold."""
    return [row for row in rows if snapshot is None or row.seq > snapshot.seq]


def _run_end(rows: list[Row], seq: int) -> float:
    """The row with which the run after that of the row `seq` begins."""
    return min((row.seq for row in rows if row.kind == kinds.FLOW_CONTINUED and row.seq > seq), default=float("inf"))


def _pause(rows: list[Row], step: int | None) -> dict[str, Any] | None:
    """What the row says by which the flow is paused now: after it nothing was taken."""
    life = history.life_row(rows)
    return {**json.loads(life.data), "seq": life.seq} if step is None and life.kind == kinds.FLOW_PAUSED else None


async def _run_to(process: Process, step: int | None, made: int | None = None) -> None:
    """Runs to the instant of the request `step`; or until `made` has just been asked for; or as far as the rows go."""
    process.machine.stop_at = step
    beyond = BEYOND
    try:
        if made is not None:
            await run_until_asked(process, made)
        while made is None and process.runnable and beyond > 0:
            process.run(SLICE)
            beyond -= 0 if process.rebuilding or process.pending else SLICE
            await asyncio.sleep(0)
    except StopAt:  # it has come to the step, or to something that is not in the log yet
        process.pending.clear()


async def run_until_asked(process: Process, step: int) -> None:
    """Runs until the machine has just made a request: transition by transition, so that it goes no further."""
    count = 0
    while process.runnable and process.state.steps < step:
        process.run(1)
        count += 1
        if count % STRIDE == 0:
            await asyncio.sleep(0)


def _status(rows: list[Row], asked: Draft | None) -> str:
    if asked is not None:
        return "waiting" if asked.kind == kinds.EFFECT_REQUESTED else "running"
    return history.status_of(rows)


def now(process: Process) -> dict[str, Any]:
    """The state of a flow that is in memory."""
    return describe(process, process.status)


def describe(
    process: Process, status: str, *, step: int | None = None, asked: Draft | None = None, current: Fiber | None = None, ahead: bool = False
) -> dict[str, Any]:  # fmt: skip
    """A state as data: the stacks (that of the `current` fiber first), what is waited for, and which promises are open.
    `asked` is the request at whose instant it is looked at; `ahead` says that the current fiber runs, and stands before its next instruction."""
    state = process.state
    fibers = sorted(state.fibers.values(), key=lambda f: (f is not current, f.id))
    waiting = [w for fiber in fibers for w in _waits(fiber)]
    if asked is not None:
        f = asked.facts
        own = {"fiber": asked.fiber, "step": step, "op": f["op"], "target": f.get("target"), "line": f.get("line"), "due_at": f.get("due_at")}
        waiting.insert(0, own)
    stacks = [{"fiber": f.id, "stack": [_frame(x, int(ahead and f is current and x is f.frames[-1])) for x in reversed(f.frames)]} for f in fibers]
    promises = [{"promise": str(p.id), "op": p.op or "fiber", "flow": p.flow} for p in state.open.values() if p is not state.main]
    return {
        "step": step if step is not None else state.steps, "status": status, "stack": stacks[0]["stack"] if stacks else [], "fibers": stacks,
        "waiting_for": waiting, "promises": promises,
    }  # fmt: skip


def _waits(fiber: Fiber) -> list[dict[str, Any]]:
    if fiber.wait is None:
        return []
    return [{"fiber": fiber.id, "promise": str(p.id), "op": p.op or "promise", "flow": p.flow} for p in fiber.wait.promises]


def _frame(frame: Frame, ahead: int) -> dict[str, Any]:
    code, spans = frame.arity.code, frame.arity.spans
    span = spans[frame.pc] if ahead and frame.pc < len(spans) else frame.span
    line = span.source.line(span.line).strip() if span is not None else None
    return {
        "function": code.name or "fn", "line": span.line if span is not None else None, "column": span.column if span is not None else None,
        "file": span.source.name if span is not None else None, "source": line, "library": code.root.prelude is not None,
        "locals": _locals(frame, frame.pc - 1 + ahead),
    }  # fmt: skip


def _locals(frame: Frame, at: int) -> dict[str, Any]:
    named = {}
    for slot, name, start, end in sorted(frame.arity.names):
        if start <= at < end and not name.endswith("__auto"):
            named[name] = to_plain(frame.locals[slot], truncate=True)[0]
    return named
