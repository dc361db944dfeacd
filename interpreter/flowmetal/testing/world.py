"""An outside world for simulations: it performs every effect, and remembers under which keys.

In: calls of a simulated engine. Out: outcomes that depend only on what was asked. It outlives the
engines that are crashed around it, as the real world does; and it knows the store, so that it notices
an effect that is sent before its request is on disk, or after its outcome is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.runtime.connector import Call, Completed, Failed, Outcome
from flowmetal.runtime.retried import live
from flowmetal.store import kinds
from flowmetal.store.protocol import Store

Answer = Callable[[Call], Any]


class World:
    """A connector for `http/request`, `foreign` and database sources whose answers are given by a function (default: an echo)."""

    ops = frozenset({"http/request", "foreign", "source/read", "source/done"})

    def __init__(self, answer: Answer | None = None, store: Store | None = None, dead: Callable[[], bool] = lambda: False) -> None:
        self.answer = answer or echo
        self.store = store
        self.dead = dead
        """Whether the process that calls was killed: then nothing of it arrives."""
        self.sent: Counter[str] = Counter()
        """How often each idempotency key was seen."""
        self.asked: dict[str, tuple[str, str]] = {}
        """What each key asked for: a key must always ask for the same."""
        self.broken: list[str] = []
        """Promises that were broken, in words: must stay empty."""

    async def perform(self, call: Call) -> Outcome:
        """Performs one call."""
        if self.dead():
            await asyncio.Event().wait()
        if call.op.startswith("source/"):  # it is read as often as one likes
            return Completed(from_plain(self.answer(call)))
        what = (f"{call.op} {call.target}", repr(to_plain(call.args[0] if call.args else None)[0]))
        self.sent[call.idempotency_key] += 1
        if self.asked.setdefault(call.idempotency_key, what) != what:
            self.broken.append(f"the key {call.idempotency_key} asked for {self.asked[call.idempotency_key]} and for {what}")
        self._look(call)
        result = self.answer(call)
        if isinstance(result, (Completed, Failed)):
            return result
        return Completed(from_plain(result))

    def _look(self, call: Call) -> None:
        if self.store is None:
            return
        rows = [row.kind for row in live(self.store.rows(call.flow_id)) if row.step == call.step]
        if kinds.EFFECT_REQUESTED not in rows:
            self.broken.append(f"{call.idempotency_key} was sent before its request was on disk")
            return
        rows = rows[len(rows) - rows[::-1].index(kinds.EFFECT_REQUESTED) :]
        if {kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED, kinds.EFFECT_CANCELLED} & set(rows):
            self.broken.append(f"{call.idempotency_key} was sent although its outcome is on disk")

    async def close(self) -> None:
        """Nothing is held."""


def echo(call: Call) -> Any:
    """Answers with what was asked."""
    return {"status": 200, "target": call.target, "json": {"ok": True}}
