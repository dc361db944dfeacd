"""Callbacks: a promise that the outside settles, once, by a token that nobody can guess.

In: a token and what was posted. Out: the outcome of the step that made it, and what the sender is told. The one rule:
the first body counts; who posts the same again is told so, and who posts another is told of the conflict.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowmetal.lang.equality import equal
from flowmetal.lang.plain import from_plain
from flowmetal.runtime import history
from flowmetal.runtime.control import is_open
from flowmetal.runtime.links import callback_key
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine


async def settle(engine: Engine, token: str, value: Any, source: str) -> tuple[str, str]:
    """Settles a callback: accepted, again (the same body), conflict (another), unknown or ended; and the message's id."""
    row = await engine.writer.call(engine.store.find, kinds.EFFECT_REQUESTED, token)
    if row is None or row.step is None:
        return "unknown", ""
    flow_id, step, body = row.flow_id, row.step, from_plain(value)
    linked = json.loads(row.data).get("linked")  # the row of a fork: found first where the original has come back from a file
    if linked is not None and await engine.writer.call(engine.store.last_seq, linked["flow"]) > 0:
        flow_id, step = linked["flow"], linked["step"]
    message_id = engine.chance.uuid().hex
    accepted = False

    def make(process: Process) -> Draft | None:
        nonlocal accepted
        accepted = is_open(process, step)
        facts = {"message_id": message_id, "source": source}
        return Draft(kinds.EFFECT_COMPLETED, step, None, facts, {"result": body}) if accepted else None

    await engine.deliver(flow_id, make)
    if accepted:
        return "accepted", message_id
    settled = await engine.writer.call(history.outcome_row, engine.store, flow_id, step)
    if settled is None or settled.kind != kinds.EFFECT_COMPLETED:
        facts = {"message_id": message_id, "source": source}
        if await engine.links.settle_callback(flow_id, step, token, body, facts):
            return "accepted", message_id
        settled = await engine.writer.call(engine.store.find, kinds.EFFECT_COMPLETED, callback_key(token))
        if settled is None:
            return "ended", ""
    first = to_draft(settled, loader(engine.definitions.registry))
    return "again" if equal(first.values.get("result"), body) else "conflict", first.facts.get("message_id", "")
