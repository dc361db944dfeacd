"""Questions to running flows, and their answers: durable on both sides.

In: open `ask` and `reply` steps. Out: a message in the mailbox of who is asked, and the answer as the
outcome of the step that asked. The one rule: the answer is a row of the flow that gives it, found by
the question's id, so that whoever asked can look for it again after any crash.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowEnded, FlowmetalError, LispError, StoreError
from flowmetal.lang.equality import equal
from flowmetal.lang.thrown import error_value
from flowmetal.lang.values import ErrorValue, kw
from flowmetal.runtime import history
from flowmetal.runtime.control import if_open, is_open
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

Step = tuple[str, int]


class Asking:
    """The open questions of an engine's flows."""

    ops = frozenset({"ask", "reply"})

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.open: dict[Step, tuple[str, str]] = {}
        """Steps that ask: whom, and the question's id."""
        self.asked: dict[str, set[Step]] = {}
        """Who is asked, and by which steps."""

    def take(self, flow_id: str, run: str, draft: Draft, attempts: Sequence[Draft]) -> None:
        """Puts a question that is on disk to its flow, or gives an answer."""
        assert draft.step is not None
        step = draft.step
        if draft.facts["op"] == "reply":
            self.engine.insist(lambda: self._reply(flow_id, step, draft))
        elif (flow_id, step) not in self.open:
            key = f"{run}/{step}"
            self.open[flow_id, step] = draft.facts["target"], key
            self.engine.insist(lambda: self._ask(flow_id, key, step, draft))

    def drop(self, flow_id: str, step: int, *, withdrawn: bool = False) -> None:
        """The step has its outcome, or nobody waits for it any more."""
        target, _ = self.open.pop((flow_id, step), ("", ""))
        askers = self.asked.get(target, set())
        askers.discard((flow_id, step))
        if not askers:
            self.asked.pop(target, None)

    def ended(self, flow_id: str) -> None:
        """A flow has ended: who still asks it is told."""
        for asker, step in list(self.asked.get(flow_id, ())):
            self.engine.insist(lambda asker=asker, step=step: self._look(asker, step))  # type: ignore[misc]

    # Questions

    async def _ask(self, flow_id: str, key: str, step: int, draft: Draft) -> None:
        try:
            target = await self._put_question(flow_id, key, step, draft)
        except StoreError:
            raise
        except FlowmetalError as e:
            self._settle(flow_id, step, None, error_value(e))
            return
        if (flow_id, step) in self.open:
            self.open[flow_id, step] = target, key
            self.asked.setdefault(target, set()).add((flow_id, step))
            await self._look(flow_id, step)

    async def _put_question(self, flow_id: str, key: str, step: int, draft: Draft) -> str:
        engine = self.engine
        target = await engine.resolve(draft.facts["target"])
        if target == flow_id:
            raise LispError("a flow cannot ask itself: nobody would be there to reply", type="value")
        row_key = f"{target}/{key}"
        if await engine.writer.call(engine.store.find, kinds.MESSAGE_RECEIVED, row_key) is None:
            message = draft.values["args"].nth(0)
            facts = {"message_id": key, "from": flow_id, "source": "flow", "ask": [flow_id, step]}

            def make(process: Process) -> Draft:
                if process.ended:
                    raise FlowEnded(f"flow {target} has ended")
                return Draft(kinds.MESSAGE_RECEIVED, None, None, facts, {"message": message}, key=row_key)

            await engine.deliver(target, make, once=(kinds.MESSAGE_RECEIVED, row_key))
        return str(target)

    async def _look(self, flow_id: str, step: int) -> None:
        """Settles a step that asks, if there is an answer, or nobody to give one."""
        engine = self.engine
        target, question = self.open.get((flow_id, step), ("", ""))
        if not question:
            return
        answer = await self.answer(target, question)
        if answer is None:
            if not await engine.writer.call(history.has_ended, engine.store, target):
                return
            answer = await self.answer(target, question)  # it may have come with the end, after it was looked for
        if answer is not None:
            draft = to_draft(answer, loader(engine.definitions.registry))
            self._settle(flow_id, step, draft.values["value"], None)
        else:
            self._settle(flow_id, step, None, ErrorValue(kw("flow/ended"), f"flow {target} ended without a reply"))

    def _settle(self, flow_id: str, step: int, value: Any, error: ErrorValue | None) -> None:
        self.drop(flow_id, step)
        if error is None:
            draft = Draft(kinds.EFFECT_COMPLETED, step, None, {"attempts": 1}, {"result": value})
        else:
            draft = Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 1}, {"error": error})
        self.engine.put(flow_id, if_open(step, draft))

    # Answers

    async def answer(self, flow_id: str, question: str) -> Row | None:
        """The row by which a flow has answered a question."""
        row: Row | None = await self.engine.writer.call(self.engine.store.find, kinds.EFFECT_COMPLETED, _key(flow_id, question))
        return row

    async def _reply(self, flow_id: str, step: int, draft: Draft) -> None:
        message, value = draft.values["args"].nth(0), draft.values["args"].nth(1)
        given: list[dict[str, Any]] = []

        def make(process: Process) -> Draft | None:
            if not is_open(process, step):
                return None
            asked = next((m for m in process.asked.values() if equal(m.value, message)), None)
            given.clear()
            if asked is None:
                error = ErrorValue(kw("value"), "nobody waits for a reply to this message: it came by send, or has been answered")
                return Draft(kinds.EFFECT_FAILED, step, None, {"attempts": 1}, {"error": error})
            given.append({"attempts": 1, "reply_to": asked.id, "asker": asked.ask})
            return Draft(kinds.EFFECT_COMPLETED, step, None, given[0], {"result": None, "value": value}, key=_key(flow_id, asked.id))

        await self.engine.deliver(flow_id, make)
        if not given:  # it may be that it was on disk already
            rows = await self.engine.writer.call(self.engine.store.rows, flow_id, 0, None, frozenset({kinds.EFFECT_COMPLETED}))
            given = [json.loads(row.data) for row in rows if row.step == step]
        for facts in given:
            if isinstance(facts.get("asker"), list):
                await self._look(*facts["asker"])


def _key(flow_id: str, question: str) -> str:
    return f"reply\n{flow_id}\n{question}"
