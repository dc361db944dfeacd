"""Finer than a step: the machine after each of its transitions, from one request to the next.

In: a flow's rows, the nearest snapshot, a step, a number. Out: the state, and how many transitions there are. The one
rule: the same number is the same state in every process, so pure code is not run by the second tier here. To go a
transition back is to ask for the number before.
"""

from __future__ import annotations

import asyncio
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.thrown import Held, StopAt
from flowmetal.runtime import past
from flowmetal.store.protocol import Row, Snapshot

MOST = 100_000
"""Transitions after which nobody counts on."""
PAUSE = 2_000


async def state_after(
    definitions: Definitions, flow_id: str, rows: list[Row], snapshot: Snapshot | None, step: int, number: int
) -> dict[str, Any]:  # fmt: skip
    """The state after so many transitions from the instant at which the flow asked for `step`, until it asks for the next.
    Raises LispError where there are not so many, or too many to count."""
    if number > MOST:
        raise LispError(f"transitions are counted up to {MOST}, which is less than {number}", type="limit")
    process = past.prepared(definitions, flow_id, rows, snapshot, step)
    found = await past.state_at(definitions, flow_id, rows, snapshot, step) if number == 0 else None
    await past.run_until_asked(process, step)
    machine = process.machine
    machine.tiers, machine.hold, machine.stop_at = False, True, step + 1
    count = 0
    try:
        while count < MOST and process.transition():
            count += 1
            if count == number:
                found = past.describe(process, "running", step=step, current=machine.fiber, ahead=True)
            if count % PAUSE == 0:
                await asyncio.sleep(0)
    except (Held, StopAt):  # it has come to its next request, or to where it failed
        pass
    if found is None:
        raise LispError(f"after step {step} flow {flow_id} made {count} transitions until its next request, not {number}", type="value")
    return {**found, "transition": number, "transitions": count}
