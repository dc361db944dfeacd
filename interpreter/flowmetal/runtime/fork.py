"""Forks: a new flow that shares another's past up to one of its steps.

In: a flow, a step, and what is to be different from there. Out: the first rows of a new flow, in one commit, and the flow
running. The one rule: nothing that is shared happens again: what the original asked before the fork has its outcome from
the original's rows, now or when it comes; what it asked after, the fork asks under its own keys.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowNotFound, LispError, StoreError
from flowmetal.lang.functions import FlowHandle
from flowmetal.lang.origin import ForkPoint, Origin
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.plain import from_plain
from flowmetal.lang.values import kw
from flowmetal.runtime import recovery
from flowmetal.runtime.links import OWN
from flowmetal.runtime.process import loader, mismatch
from flowmetal.runtime.reexecution import Reexecution, Run
from flowmetal.runtime.rows import Draft, to_row
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Duplicate, Row
from flowmetal.store.unanswered import unanswered

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

HARMLESS = OWN | {
    "callback", "subscribe", "status", "history", "flows", "state-at", "promise-status", "deref", "now", "rand", "rand-int", "random-uuid", "shuffle",
}  # fmt: skip
"""Operations that change nothing outside when they are done again."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a fork is to differ: from which step on, and what of it. `outcome` holds the value that the step is to have, if any."""

    at: int
    outcome: tuple[Any, ...] = ()
    upgrade: bool = False
    adopt_rollbacks: bool = False


class Forks:
    """Forks the flows of an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def fork(self, flow_id: str, wish: Wish, *, reason: str | None = None, by: str = "", request_id: str | None = None) -> str:
        """Makes a fork; its id. The same request id again is the same fork. Raises FlowNotFound, LispError: `:replay/mismatch` where
        other definitions do not do what is shared."""
        engine = self.engine
        flow_id = await engine.resolve(flow_id)
        unique = (kinds.REQUEST, request_id) if request_id is not None else None
        if unique is not None:
            there = await engine.writer.call(engine.store.find, *unique)
            if there is not None:
                return self._known(there)
        new_id = engine.new_id()
        point, past = await self._shared(flow_id, new_id, wish)
        facts = {"from": flow_id, "step": wish.at, "steps": point.steps, "reason": reason, "by": by or None}
        past.append(Draft(kinds.FLOW_FORKED, None, None, {k: v for k, v in facts.items() if v is not None}, at=engine.clock.now()))
        if wish.outcome and wish.at in past.open:
            past.append(self._outcome(past, wish, by))
        rows = [to_row(new_id, past.state.pin, draft) for draft in past.written]
        own = list(rows)
        if request_id is not None:
            rows.append(Row(kinds.REQUESTS_STREAM, kinds.REQUEST, json.dumps({"flow_id": new_id}), rows[-1].at, key=request_id))
        try:
            await engine.commit(Commit(rows, {new_id: 0}, [], unique))
        except Duplicate as e:
            return self._known(e.row)
        except StoreError:
            engine.recover_later(new_id, 0)
            raise
        if engine.sharing.owns(new_id):
            engine.actor(new_id).poke()
        for seq, row in enumerate(own, 1):
            row.seq = seq
        recovery.take_up(engine, unanswered(own))
        return new_id

    async def perform(self, flow_id: str, options: Map, key: str, by: str) -> Any:
        """What the step `fork` of a flow gives: the new flow's handle, or what it would share."""
        outcome = (options.get(kw("with")),) if kw("with") in options else ()
        wish = Wish(options.get(kw("at")), outcome, bool(options.get(kw("upgrade"))), bool(options.get(kw("adopt-rollbacks"))))
        if options.get(kw("dry-run")):
            return from_plain(await self.preview(flow_id, wish))
        fork = await self.fork(flow_id, wish, by=by, request_id=key)
        return FlowHandle(fork, (await self.engine.flow(fork))["name"])

    async def preview(self, flow_id: str, wish: Wish) -> dict[str, Any]:
        """What a fork would share, what it would wait for together with the original, and what it may do again."""
        flow_id = await self.engine.resolve(flow_id)
        point, past = await self._shared(flow_id, self.engine.new_id(), wish)
        linked = [d for d in past.written if "linked" in d.facts and d.step in past.open]
        again = [d for step, d in sorted(past.source.steps.items()) if step > point.steps and d.facts["op"] not in HARMLESS]
        sagas = {id(f.saga): f.saga for f in past.state.fibers.values() if f.saga is not None}
        rollbacks = [entry for saga in sagas.values() for entry in saga.value if entry.nth(0).value.nth(0) <= point.steps]
        return {
            "flow_id": flow_id, "at": wish.at, "definitions_version": past.state.pin, "shared": point.steps, "linked": [_step(d) for d in linked],
            "again": [_step(d) for d in again if not (wish.outcome and d.step == wish.at)], "rollbacks": len(rollbacks),
        }  # fmt: skip

    def _known(self, row: Row) -> str:
        flow_id: str = json.loads(row.data)["flow_id"]
        if flow_id not in self.engine.actors and self.engine.sharing.owns(flow_id):
            self.engine.actor(flow_id).poke()
        return flow_id

    # What is shared

    async def _shared(self, flow_id: str, new_id: str, wish: Wish) -> tuple[ForkPoint, Past]:
        engine = self.engine
        rows = await engine.writer.call(engine.store.rows, flow_id)
        if not rows or rows[0].kind != kinds.FLOW_STARTED:
            raise FlowNotFound(f"there is no flow {flow_id}")
        load = loader(engine.definitions.registry)
        run = Run(flow_id, rows, load)
        asked = _asked(run, wish)
        arrivals = await self._consumed(run, asked, wish)
        await engine.catch_up()
        version = engine.definitions.version if wish.upgrade else run.version
        mine = Run(flow_id, rows, load, new_id)
        while True:
            past = Past(engine, new_id, mine, wish, arrivals)
            await past.share(asked, version)
            if not wish.outcome or asked.kind == kinds.VALUE_RECORDED or wish.at in past.open or wish.at in past.steps_recorded or not arrivals:
                break
            arrivals = arrivals[:-1]  # the one that made the original withdraw the step: it comes after
        past.check(asked)
        return past.point, past

    async def _consumed(self, run: Run, asked: Draft, wish: Wish) -> list[Draft]:
        """The arrivals that the fork shares."""
        if wish.outcome and asked.kind == kinds.EFFECT_REQUESTED:
            outcome = run.outcome(wish.at)
            return [a for a in run.arrivals if outcome is None or a.seq < outcome.seq]
        original = Reexecution(self.engine.definitions.registry, run.flow_id, run)
        await original.go(run.first, run.arrivals, run.version, wish.at)
        return run.arrivals[: original.fed]

    def _outcome(self, past: Past, wish: Wish, by: str) -> Draft:
        """The outcome that the step is given."""
        (value,) = wish.outcome
        asked = past.source.steps[wish.at]
        if asked.facts["op"] == "next-event":  # the subscription stands where it stood
            position = asked.values["args"].nth(0).get(kw("after"))
            value = Map.of([(kw("value"), value), (kw("position"), position), (kw("envelope"), EMPTY_MAP)])
        facts = {"attempts": 0, "given": True, "by": by or None}
        return Draft(kinds.EFFECT_COMPLETED, wish.at, None, facts, {"result": value}, at=self.engine.clock.now())


class Past(Reexecution):
    """The past of a fork, as it is written down for it."""

    def __init__(self, engine: Engine, new_id: str, run: Run, wish: Wish, arrivals: list[Draft]) -> None:
        super().__init__(engine.definitions.registry, new_id, run, {*(a.step for a in arrivals), *([wish.at] if wish.outcome else [])})
        seqs = {a.seq for a in arrivals}
        self.arrivals = [a for a in run.arrivals if a.seq in seqs]
        self.wish = wish
        self.run_id = str(engine.chance.uuid())

    async def share(self, asked: Draft, version: int) -> None:
        """Does what is shared."""
        wish, run = self.wish, self.source
        stop_at = max(run.steps) + 1
        if asked.kind == kinds.VALUE_RECORDED and wish.outcome:
            given = self.steps_recorded[wish.at]
            self.steps_recorded[wish.at] = Draft(given.kind, given.step, given.fiber, given.facts, {**given.values, "result": wish.outcome[0]}, at=given.at)
            stop_at = wish.at + 1
        elif not wish.outcome:
            stop_at = wish.at
        await self.go(self._first_row(version), self.arrivals, version, stop_at)
        self.point = self._point(asked)
        self.written[0].facts["forks"] = [asdict(p) for p in self._points()]
        self.written[0].facts["references"] = sorted({d.facts["child"] for d in self.written if "child" in d.facts})
        told = sum(1 for d in self.written if d.kind == kinds.FLOW_FORKED)
        for row in [d for d in run.rows if d.kind == kinds.FLOW_FORKED][told : len(self._points()) - 1]:
            self.append(row)

    def check(self, asked: Draft) -> None:
        """Raises LispError where this cannot be a fork's past."""
        wish, step = self.wish, self.wish.at
        if self.end is not None and not (wish.outcome and asked.kind == kinds.VALUE_RECORDED):
            raise LispError(f"flow {self.source.flow_id} has ended in what would be shared: there is nothing left to do after step {step}", type="value")
        late = [n for n in self.steps_recorded if n < step]
        if late or (wish.outcome and step in self.steps_recorded):
            error = self.missing()
            assert error is not None
            raise error
        if wish.outcome and asked.kind == kinds.EFFECT_REQUESTED and step not in self.open:
            raise mismatch(self.source.flow_id, asked, "it was withdrawn at once: it cannot have an outcome")

    def _first_row(self, version: int) -> Draft:
        """The first row: that of the run, with an identity of its own."""
        first, origin = self.source.first.facts, self.source.started.facts
        kind = "flow" if first["kind"] == "child" else first["kind"]
        facts = {**origin, **first, "kind": kind, "definitions": version, "run": self.run_id, "forked_from": self.source.flow_id, "forked_at": self.wish.at}
        parent = facts.get("parent") or facts.get("original_parent")
        for name in ("parent", "parent_step", "queue", "forks", "references", *(["on_failure"] if self.source.let_fail else [])):
            facts.pop(name, None)
        if parent is not None:
            facts["original_parent"] = parent
        # In the shared part all is as it was in the original, and its keys are the original's.
        facts["forks"] = [*origin.get("forks", []), asdict(ForkPoint(first["run"], max(self.source.steps)))]
        return Draft(kinds.FLOW_STARTED, None, None, facts, {"args": self.source.first.values.get("args")}, at=self.source.first.at)

    def _point(self, asked: Draft) -> ForkPoint:
        own_from = self.wish.at if not self.wish.outcome or asked.kind == kinds.VALUE_RECORDED else self.steps_asked + 1
        steps = min(own_from - 1, self.steps_asked)
        origin = Origin([ForkPoint(**p) for p in self.source.started.facts.get("forks", ())])
        return ForkPoint(origin.run_of(steps, self.source.first.facts["run"]), steps, self.wish.adopt_rollbacks)

    def _points(self) -> list[ForkPoint]:
        before = [ForkPoint(**p) for p in self.source.started.facts.get("forks", ())]
        taken = sum(1 for d in self.written if d.kind == kinds.FLOW_FORKED)
        return [*(p for n, p in enumerate(before) if n < taken or p.steps < self.point.steps), self.point]


def _asked(run: Run, wish: Wish) -> Draft:
    """The row by which the step was asked; raises LispError where a fork cannot begin there."""
    asked = run.steps.get(wish.at)
    if asked is None:
        known = f"its present run has the steps {min(run.steps)} to {max(run.steps)}" if run.steps else "it has no steps yet"
        raise LispError(f"flow {run.flow_id} has no step {wish.at} to be forked at: {known}", type="value")
    if wish.outcome and asked.facts["op"] in ("start", "continue-as"):
        raise LispError(f"step {wish.at} of flow {run.flow_id} is {asked.facts['op']}: its outcome cannot be replaced", type="value")
    return asked


def _step(draft: Draft) -> dict[str, Any]:
    f = draft.facts
    return {"step": draft.step, "op": f["op"], "target": f.get("target"), "line": f.get("line"), "source": f.get("source")}
