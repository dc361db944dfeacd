"""What a step gets at once: time, chance, tokens, the ids of children. It is recorded with the step.

In: a request of a running flow. Out: its value, drawn here once and read from the log ever after.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

from flowmetal.lang.persistent import Vector
from flowmetal.lang.requests import Request
from flowmetal.lang.values import Instant, kw
from flowmetal.runtime.clock import Chance, Clock
from flowmetal.runtime.process import Process


class Supplies:
    """Where such values come from. `public_url` gives the address that callbacks name."""

    def __init__(self, clock: Clock, chance: Chance, public_url: Callable[[], str]) -> None:
        self.clock = clock
        self.chance = chance
        self.public_url = public_url

    def __call__(self, process: Process, request: Request) -> Any:
        """The value of a step."""
        op, args, chance = request.op, request.args, self.chance
        if op == "now":
            process.at = max(process.at, self.clock.now())
            return Instant(process.at)
        if op == "continue-as":
            return str(uuid.uuid5(uuid.UUID(process.state.run), str(request.step)))
        if op == "random-uuid":
            return chance.uuid()
        if op == "rand":
            return chance.random() * (args[0] if args else 1)
        if op == "rand-int":
            return chance.below(args[0])
        if op == "callback":
            token = chance.token()
            return token, f"{self.public_url()}/v1/callbacks/{token}"
        if op == "shuffle":
            items = list(args[0])
            chance.shuffle(items)
            return Vector.of(items)
        given = request.options.get(kw("id"))
        return given if given is not None else child_id(process.state.run, request.step)


def child_id(run: str, step: int) -> str:
    """The id of a child: the same for the same step of the same run."""
    return hashlib.sha256(f"{run}/{step}".encode()).hexdigest()[:20]
