"""Upgrades: a flow in flight goes on under the current definitions, as if it had begun with them.

In: a flow. Out: one row of its log, or an error that says where its past and the definitions part. The one rule: the
present run is done again from its start before anything is written; each request must be the one on record, and each
outcome must find its step asked. From that row on the flow's state is what the new definitions make of its rows.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowConflict, FlowEnded, LispError
from flowmetal.lang.persistent import Map
from flowmetal.lang.plain import from_plain
from flowmetal.lang.values import kw
from flowmetal.runtime.history import life_row
from flowmetal.runtime.marks import COUNTED, size
from flowmetal.runtime.process import Process, find_program, loader, mismatch
from flowmetal.runtime.reexecution import Reexecution, Run, done_again
from flowmetal.runtime.retried import ANEW
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

TRIES = 10
"""How often a flow is looked at that goes on meanwhile."""
SHOWN = frozenset({kinds.OUTPUT, kinds.TRUNCATED, kinds.LOG, kinds.CHECKPOINT, kinds.INFO})
"""Marks that only people see: under other definitions there may be others in the past, which is not told again."""
RELIED_ON = {kinds.AWAIT: ("flow", "promise"), kinds.PROMISE_SETTLED: ("promise",), kinds.EFFECT_CANCELLING: ()}
"""Marks that other flows, or this one's future, depend on, and what of them must be the same."""


class Upgrades:
    """Upgrades the flows of an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def perform(self, flow_id: str, options: Map, key: str, by: str) -> Any:
        """What the step `upgrade` of a flow gives."""
        return from_plain(await self.upgrade(flow_id, dry_run=bool(options.get(kw("dry-run"))), by=by, request_id=key))

    async def upgrade(self, flow_id: str, *, dry_run: bool = False, reason: str | None = None, by: str = "", request_id: str | None = None) -> dict[str, Any]:
        """Moves a flow to the current definitions: `{"flow_id", "from", "to", "steps", "upgraded"}`. With `dry_run` only says so.

        Raises `:replay/mismatch` where they do not do what the flow has done, FlowEnded, FlowConflict for a flow that does not stand still.
        """
        engine = self.engine
        flow_id = await engine.resolve(flow_id)
        key = f"{flow_id}/{request_id}" if request_id is not None else None
        done = await engine.writer.call(engine.store.find, kinds.FLOW_UPGRADED, key) if key is not None else None
        if done is not None:
            facts = json.loads(done.data)
            return _report(flow_id, facts["from"], facts["version"], facts["steps"], upgraded=True)
        for _ in range(TRIES):
            rows = await engine.writer.call(engine.store.rows, flow_id)
            if rows[-1].kind in kinds.ENDING:
                raise FlowEnded(f"flow {flow_id} has ended: it is {kinds.STATUS[rows[-1].kind]}")
            await engine.catch_up()
            before, after = Run(flow_id, rows, loader(engine.definitions.registry)), engine.definitions.version
            if before.version == after:
                return _report(flow_id, after, after, len(before.steps), upgraded=False)
            marks = await self._agree(before, after)
            facts = {"version": after, "from": before.version, "steps": len(before.steps), "marks": marks, "reason": reason, "by": by or None}
            if dry_run or await self._write(flow_id, rows[-1].seq, facts, key):
                return _report(flow_id, before.version, after, len(before.steps), upgraded=not dry_run)
        raise FlowConflict(f"flow {flow_id} does not stand still long enough", hint=f"pause it first: flowmetal pause {flow_id}")

    async def _write(self, flow_id: str, seq: int, facts: dict[str, Any], key: str | None) -> bool:
        """Writes the row, if the flow still stands where it was looked at."""
        moved = False

        def make(process: Process) -> Draft | None:
            nonlocal moved
            if process.ended:
                raise FlowEnded(f"flow {flow_id} has ended: it is {process.status}")
            moved = process.seq != seq
            return None if moved else Draft(kinds.FLOW_UPGRADED, None, None, dict(facts), key=key)

        await self.engine.deliver(flow_id, make)
        return not moved

    async def _agree(self, run: Run, version: int) -> dict[str, int]:
        """Does the run again under a version of the definitions: how many marks of each kind there are in its past then."""
        registry = self.engine.definitions.registry
        name = run.first.facts["name"]
        if run.first.facts.get("source") is None and run.started.facts.get("source") is None:
            find_program(registry, name, version)
        try:
            again = await done_again(registry, run, version, _taken(run))
            error = again.missing() or _unlike(run, again)
        except LispError as e:
            if e.type != "replay/mismatch":
                raise
            error = e
        if error is not None:
            raise _refusal(run, error)
        recorded = {kind: sum(size(d) for d in run.rows if d.kind == kind and not d.facts.get(ANEW)) for kind in COUNTED - SHOWN}
        return {kind: n for kind, n in {**recorded, **{kind: again.made[kind] for kind in SHOWN}}.items() if n}


def _taken(run: Run) -> list[Draft]:
    """The arrivals that the flow has taken: a paused one has left those that came since."""
    life = life_row(run.rows)
    taken = life.facts.get("taken", life.seq) if life.kind == kinds.FLOW_PAUSED else None
    return [a for a in run.arrivals if taken is None or a.seq <= taken]


def _unlike(run: Run, again: Reexecution) -> LispError | None:
    """What differs although every request is the same: what the flow waits for, what its fibers gave, what it has withdrawn."""
    for kind, names in RELIED_ON.items():
        was, now = ([(d.step, *(d.facts[n] for n in names)) for d in rows if d.kind == kind and not d.facts.get(ANEW)] for rows in (run.rows, again.written))
        if now[: len(was)] != was:
            message = f"flow {run.flow_id} has other rows {kind} on record than it would have now: {was[:3]} and {now[:3]}"
            return LispError(message, type="replay/mismatch")
    withdrawn = {d.step for d in again.written if d.kind == kinds.EFFECT_CANCELLED}
    left = sorted(d.step for d in run.rows if d.kind == kinds.EFFECT_CANCELLED and not d.facts.get("ended") and d.step in run.steps and d.step not in withdrawn)
    return mismatch(run.flow_id, run.steps[left[0]], "was withdrawn, and now would be waited for") if left else None


def _refusal(run: Run, error: LispError) -> LispError:
    """The error with what to do instead: a fork after the last step that agrees."""
    step = error.data.get(kw("step")) if isinstance(error.data, Map) else None
    if step is None:
        return error
    first = min(run.steps)
    agree = "no step agrees" if step == first else f"step {first} agrees" if step == first + 1 else f"steps {first} to {step - 1} agree"
    error.hint = f"{agree}; a fork goes on from there under the current definitions: flowmetal fork {run.flow_id} --at {step} --upgrade"
    return error


def _report(flow_id: str, before: int, after: int, steps: int, *, upgraded: bool) -> dict[str, Any]:
    return {"flow_id": flow_id, "from": before, "to": after, "steps": steps, "upgraded": upgraded}
