"""A run done once more from its rows, under another identity or other definitions, and written down anew.

In: the rows of a flow's present run; how far to go. Out: the rows that a flow with the same past would have, or an error
that names the first step at which it would not ask what is recorded. The one rule: nothing outside is asked; every step
gets what is recorded for it, and the machine stops at the first that has no record.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.codec import CodeLoader
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.persistent import Vector
from flowmetal.lang.renumber import known_otherwise
from flowmetal.lang.requests import Request
from flowmetal.lang.thrown import StopAt
from flowmetal.runtime import marks, retried
from flowmetal.runtime.book import BEGIN, TAKEN, Book
from flowmetal.runtime.links import OWN
from flowmetal.runtime.process import Process, asks, mismatch, upgraded_to
from flowmetal.runtime.rows import Draft, request_hash, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row

SLICE = 20_000
"""Transitions between two looks at whether somebody else wants the loop."""
BEYOND = 200_000
"""Transitions after the last arrival, for a flow that computes and asks for nothing."""


class Run:
    """The present run of a flow, as its rows tell it. `known_as` is the id by which the flow is to know itself."""

    def __init__(self, flow_id: str, rows: Sequence[Row], load: CodeLoader, known_as: str | None = None) -> None:
        self.flow_id = flow_id
        drafts = [to_draft(row if known_as is None else renamed(row, flow_id, known_as), load) for row in retried.live(rows)]
        begins = max((n for n, draft in enumerate(drafts) if draft.kind == kinds.FLOW_CONTINUED), default=0)
        book = Book()
        for draft in drafts[: begins + 1]:
            book.note(draft)
        left = list(book.pending)
        for draft in drafts[begins + 1 :]:
            book.note(draft)
        self.started, self.first = drafts[0], drafts[begins]
        self.rows = drafts[begins:]
        self.steps = {draft.step: draft for draft in self.rows if draft.kind in kinds.ASKING and draft.step is not None and draft.step != BEGIN}
        self.arrivals = [*left, *(draft for draft in self.rows if draft.kind in TAKEN and draft.step != BEGIN)]
        self.messages = {draft.facts["message_id"]: draft for draft in drafts if draft.kind == kinds.MESSAGE_RECEIVED}
        upgraded = upgraded_to(self.rows)
        self.version: int = self.first.facts["definitions"] if upgraded is None else upgraded
        self.let_fail = book.let_fail
        """It was paused because it had failed, and has gone on to its end."""

    def outcome(self, step: int) -> Draft | None:
        """The row that settled a step first."""
        return next((d for d in self.rows if d.step == step and kinds.CLOSING.get(d.kind) == kinds.EFFECT_REQUESTED), None)


def renamed(row: Row, flow_id: str, known_as: str) -> Row:
    """A row in which the flow's own handles and promises are those of another."""
    if row.kind == kinds.AWAIT_SETTLED and json.loads(row.data)["flow"] == flow_id:  # it waited for a promise of its own
        row = replace(row, data=json.dumps({**json.loads(row.data), "flow": known_as}))
    if row.exact is None or flow_id not in row.exact:
        return row
    return replace(row, exact=json.dumps({name: known_otherwise(text, flow_id, known_as) for name, text in json.loads(row.exact).items()}))


class Reexecution(Process):
    """A process that does what a run did."""

    def __init__(self, definitions: Definitions, flow_id: str, run: Run, answered: Iterable[int | None] = ()) -> None:
        super().__init__(definitions, flow_id, _unrecorded)
        self.source = run
        self.steps_recorded = dict(run.steps)
        self.answered = frozenset(answered)
        """Steps whose outcome is part of what is done again; others are linked."""
        self.written: list[Draft] = []
        self.fed = 0
        """How many arrivals were taken."""
        self.stopped = False
        """It has come to the step at which it is to stop."""
        self.end: Draft | None = None
        """How it would end. That is not written down: who goes on from here comes to it again."""
        self.differs: LispError | None = None
        """Why it stopped, where it asked for something else than what is recorded."""
        self.made: Counter[str] = Counter()
        """What the machine has said besides its requests, by kind, as `marks` counts it."""

    async def go(self, started: Draft, arrivals: Sequence[Draft], version: int, stop_at: int) -> None:
        """Begins with a first row, takes arrivals, and stops at a step, or when it has taken all. Raises `:replay/mismatch`."""
        if started.kind == kinds.FLOW_CONTINUED:
            self.note(self.source.started)
        self.append(started)
        self.begin(started, version)
        self.let_fail = True
        self.machine.stop_at = stop_at
        await self._until_it_waits()
        for arrival in arrivals:
            if self.stopped or self.end is not None:
                return
            message = self.source.messages.get(arrival.facts.get("message_id", ""))
            if message is not None:
                self.append(message)
            self.fed += 1
            self.append(arrival)
            await self._until_it_waits()

    def append(self, draft: Draft) -> None:
        """Writes a row down. Only a callback's keeps its key: other keys say what happened to the original."""
        if draft.kind in kinds.ENDING:
            self.end = draft
            return
        key = draft.key if draft.kind == kinds.EFFECT_REQUESTED else None
        draft = replace(draft, key=key, at=max(self.at, draft.at), seq=len(self.written) + 1)
        self.written.append(draft)
        self.note(draft)

    @property
    def steps_asked(self) -> int:
        """How many steps were asked."""
        return self.state.steps - self.stopped

    def missing(self) -> LispError | None:
        """What to say of the first recorded step that was not asked."""
        if not self.steps_recorded:
            return None
        if self.end is None:
            place = next((f.frames[-1].span for f in self.state.fibers.values() if f.promise is self.state.main and f.frames), None)
            but = f"now does not ask for it, and waits{f' at {place}' if place is not None else ''}"
        else:
            but = "now ends before it" if self.end.error is None else f"now fails before it: {self.end.error.message}"
        return mismatch(self.source.flow_id, self.steps_recorded[min(self.steps_recorded)], but)

    async def _until_it_waits(self) -> None:
        beyond = BEYOND
        while self.runnable and not self.stopped and beyond > 0:
            try:
                drafts, _ = self.run(SLICE)
            except StopAt:
                self.stopped = True
                drafts, _ = self._drafts(self.machine.outbox)
            for draft in drafts:
                self.append(draft)
            if self.differs is not None:
                raise self.differs
            beyond -= SLICE
            await asyncio.sleep(0)

    def _take(self, draft: Draft) -> None:
        if draft.step in self.steps_recorded:
            raise mismatch(self.source.flow_id, self.steps_recorded[draft.step], "now does not ask for it before its outcome comes")
        super()._take(draft)

    def _marks(self, action: Any) -> list[Draft]:
        drafts = super()._marks(action)
        for draft in drafts:
            self.made[draft.kind] += marks.size(draft)
        return drafts

    def _request(self, r: Request) -> Draft | None:
        recorded = self.steps_recorded.pop(r.step)
        self._compare(recorded, r)
        draft = super()._request(r)
        assert draft is not None
        draft.at = recorded.at
        draft.facts.pop("with_parent", None)
        draft.facts.update({name: recorded.facts[name] for name in ("due_at", "definitions") if name in recorded.facts})
        if draft.kind == kinds.EFFECT_REQUESTED and r.op not in OWN and r.step not in self.answered:
            draft.facts.pop("due_at", None)
            draft.facts["linked"] = recorded.facts.get("linked") or {"flow": self.source.flow_id, "step": r.step, "seq": recorded.seq}
        return draft

    def _compare(self, recorded: Draft, r: Request) -> None:
        f, known_as = recorded.facts, self.source.flow_id
        digest = r.digest
        if known_as != self.flow_id:
            digest = request_hash(r.op, r.target, Vector.of(r.args), self.flow_id, known_as=known_as)
        if f.get("op") != r.op or f.get("hash") != digest:
            raise mismatch(known_as, recorded, asks(recorded, r))


async def done_again(definitions: Definitions, run: Run, version: int, arrivals: Sequence[Draft]) -> Reexecution:
    """Does a run once more under a version of the definitions, with all its outcomes, as far as these arrivals lead. Raises `:replay/mismatch`."""
    again = Reexecution(definitions, run.flow_id, run, (draft.step for draft in run.rows))
    await again.go(run.first, arrivals, version, max(run.steps, default=run.first.facts.get("steps", 0)) + 1)
    return again


def _unrecorded(process: Process, request: Request) -> Any:
    recorded = process.steps_recorded.get(request.step)
    if recorded is not None and isinstance(process, Reexecution):
        process.differs = mismatch(process.source.flow_id, recorded, asks(recorded, request))
    raise StopAt
