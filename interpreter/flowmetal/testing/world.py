"""An outside world for simulations: it performs every effect, and remembers under which keys.

In: calls of a simulated engine. Out: outcomes that depend only on what was asked. It outlives the
engines that are crashed around it, as the real world does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.runtime.connector import Call, Completed, Failed, Outcome

Answer = Callable[[Call], Any]


class World:
    """A connector for `http/request` and `foreign` whose answers are given by a function (default: an echo)."""

    ops = frozenset({"http/request", "foreign"})

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer or echo
        self.sent: Counter[str] = Counter()
        """How often each idempotency key was seen."""
        self.asked: dict[str, tuple[str, str]] = {}
        """What each key asked for: a key must always ask for the same."""
        self.broken: list[str] = []
        """Keys that asked for two different things: must stay empty."""
        self.callbacks: list[tuple[str, Any]] = []
        """(token, body) of webhooks that the world will call."""

    async def perform(self, call: Call) -> Outcome:
        """Performs one call."""
        what = (f"{call.op} {call.target}", repr(to_plain(call.args[0] if call.args else None)[0]))
        self.sent[call.idempotency_key] += 1
        if self.asked.setdefault(call.idempotency_key, what)[0] != what[0]:
            self.broken.append(call.idempotency_key)
        result = self.answer(call)
        if isinstance(result, (Completed, Failed)):
            return result
        return Completed(from_plain(result))

    async def close(self) -> None:
        """Nothing is held."""


def echo(call: Call) -> Any:
    """Answers with what was asked."""
    return {"status": 200, "target": call.target, "json": {"ok": True}}
