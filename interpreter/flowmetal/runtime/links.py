"""Steps of forks that another flow has asked: the fork gets that flow's outcome, and sends nothing.

In: open steps whose request is shared with the flow that was forked, while their outcome is not. Out: the outcomes, as
rows of the forks. The one rule: the outcome is looked for in the original's rows, so that it is found again after any
crash; one that will never be there fails the step, since what was sent may have happened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowmetal.lang.functions import CANCELLED
from flowmetal.lang.values import ErrorValue, kw
from flowmetal.runtime.control import if_open, is_open
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

OWN = frozenset({"timer", "sleep", "receive", "next-event", "begin"})
"""Operations whose open steps a fork waits for by itself: timers keep their due time, subscriptions their place."""
Step = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Link:
    """Who asked a step: the flow, its step, and the row by which it did."""

    flow: str
    step: int
    seq: int
    op: str
    target: str


class Links:
    """The open steps of forks that wait for the outcome of another flow's step."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.open: dict[Step, Link] = {}
        self.forks: dict[Step, set[Step]] = {}
        """Who waits for the outcome of a step of another flow."""

    def take(self, flow_id: str, step: int, facts: dict[str, Any]) -> None:
        """A fork waits for the outcome of a step that it shares."""
        if (flow_id, step) not in self.open:
            link = self.open[flow_id, step] = Link(**facts["linked"], op=facts["op"], target=facts["target"])
            self.forks.setdefault((link.flow, link.step), set()).add((flow_id, step))
        self.engine.insist(lambda: self._look(flow_id, step))

    def drop(self, flow_id: str, step: int) -> None:
        """The fork's step has its outcome, or nobody waits for it any more."""
        link = self.open.pop((flow_id, step), None)
        if link is not None:
            waiting = self.forks[link.flow, link.step]
            waiting.discard((flow_id, step))
            if not waiting:
                del self.forks[link.flow, link.step]

    def settled(self, flow_id: str, step: int) -> None:
        """A step has its outcome, or was withdrawn: forks that share it look for it."""
        for fork, fork_step in list(self.forks.get((flow_id, step), ())):
            self.engine.insist(lambda fork=fork, fork_step=fork_step: self._look(fork, fork_step))  # type: ignore[misc]

    def look_again(self, flow_id: str) -> None:
        """What became of a flow may not have been noticed."""
        for source, step in list(self.forks):
            if source == flow_id:
                self.settled(source, step)

    def cancelling(self, flow_id: str, step: int) -> None:
        """A fork wants a call of the original's to end: the call goes on, and the fork waits for it no longer."""
        error = ErrorValue(CANCELLED, "the call belongs to the flow that this one was forked from, and goes on")
        self.engine.put(flow_id, if_open(step, Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 0}, {"error": error})))

    async def refers(self, flow_id: str, child: str) -> bool:
        """Whether a flow is a fork that shares the start of another: that one is not its own to end."""
        first: list[Row] = await self.engine.writer.call(self.engine.store.rows, flow_id, 0, 1)
        return bool(first) and child in json.loads(first[0].data).get("references", ())

    async def settle_callback(self, source: str, step: int, token: str, body: Any, facts: dict[str, Any]) -> bool:
        """Settles a callback in the forks that wait for it, when the flow that made it has ended; whether there were any."""
        taken: dict[str, bool] = {}
        for fork, fork_step in list(self.forks.get((source, step), ())):

            def make(process: Process, fork: str = fork, fork_step: int = fork_step) -> Draft | None:
                taken[fork] = is_open(process, fork_step)
                done = Draft(kinds.EFFECT_COMPLETED, fork_step, None, dict(facts), {"result": body}, key=callback_key(token))
                return done if taken[fork] else None

            await self.engine.deliver(fork, make)
        return any(taken.values())

    async def _look(self, flow_id: str, step: int) -> None:
        link = self.open.get((flow_id, step))
        if link is None:
            return
        call, store = self.engine.writer.call, self.engine.store
        if link.op == "call" and any(row.step == step for row in await call(store.rows, flow_id, 0, None, frozenset({kinds.EFFECT_CANCELLING}))):
            self.cancelling(flow_id, step)
            return
        rows: list[Row] = await call(store.rows, link.flow, link.seq, None, kinds.CLOSING_STEP)
        row = next((row for row in rows if row.step == link.step), None)
        if row is None and await call(store.last_seq, link.flow) > 0:
            return
        done = self._outcome(step, link, row)
        if done is not None:
            self.engine.put(flow_id, if_open(step, done))

    def _outcome(self, step: int, link: Link, row: Row | None) -> Draft | None:
        """What the step comes to, given the row that settled the original's, or none where that flow was deleted."""
        if row is not None and row.kind != kinds.EFFECT_CANCELLED:
            known = to_draft(row, loader(self.engine.definitions.registry))
            facts: dict[str, Any] = {name: known.facts[name] for name in ("attempts", "message_id", "source") if name in known.facts}
            values: dict[str, Any] = {name: known.values[name] for name in ("result", "error") if name in known.values}
            return Draft(row.kind, step, None, facts, values)
        if link.op == "callback":  # the fork's own row has its address: whoever posts there settles it
            return None
        message = f"{link.op} {link.target} was asked by flow {link.flow}, which waits for it no longer: it may have happened, or may yet"
        return Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 0}, {"error": ErrorValue(kw("effect/interrupted"), message)})


def callback_key(token: str) -> str:
    """The key of the row by which a fork's callback was settled without the flow that made it."""
    return f"callback\n{token}"
