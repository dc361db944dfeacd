"""What must be true of every log, however its engines came to their ends.

In: a store and the definitions of an engine over it. Out: nothing, or an AssertionError that says which
promise the log breaks. Re-executing each flow from its rows is part of it: nothing new may come out.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

from flowmetal.lang.definitions import Definitions
from flowmetal.lang.requests import Request
from flowmetal.runtime import retried
from flowmetal.runtime.process import Process, loader, upgraded_to
from flowmetal.runtime.rows import to_draft
from flowmetal.store import kinds
from flowmetal.store.protocol import Row, Store

OUTCOMES = (kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED)


def audit(store: Store, definitions: Definitions) -> None:
    """Checks every flow of a store in which nothing happens any more."""
    flows = [row["flow_id"] for row in store.flow_rows(None, None, 100_000, None)]
    for flow_id in flows:
        rows = store.rows(flow_id)
        _check_order(flow_id, rows)
        rows = retried.live(rows)
        _check_steps(flow_id, rows)
        _check_messages(flow_id, rows)
        _reexecute(definitions, flow_id, rows)
    assert not store.orphans(), f"flows outlived the flow that they belong to: {store.orphans()}"


def _check_order(flow_id: str, rows: list[Row]) -> None:
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1)), f"{flow_id}: gaps in seq"
    assert all(a.at <= b.at and a.pos < b.pos for a, b in itertools.pairwise(rows)), f"{flow_id}: time or position goes back"
    assert [row.kind for row in rows].index(kinds.FLOW_STARTED) == 0, f"{flow_id}: does not begin with its start"
    ends = [row.seq for row in retried.live(rows) if row.kind in kinds.ENDING]
    assert ends in ([], [len(rows)]), f"{flow_id}: ends at {ends} of {len(rows)} rows"


def _check_steps(flow_id: str, rows: list[Row]) -> None:
    asked = Counter(row.step for row in rows if row.kind in kinds.ASKING and row.step is not None and not retried.is_anew(row))
    assert all(n == 1 for n in asked.values()), f"{flow_id}: steps asked twice: {asked}"
    first = json.loads(rows[0].data).get("steps", 0) + 1  # a fork of a later run goes on counting
    assert sorted(s for s in asked if s) == list(range(first, len([s for s in asked if s]) + first)), f"{flow_id}: steps have gaps: {sorted(asked)}"
    open_: set[Any] = set()
    for row in rows:
        if row.kind == kinds.EFFECT_REQUESTED:
            open_.add(row.step)
        elif row.kind in OUTCOMES or (row.kind == kinds.EFFECT_CANCELLED and "message_id" not in row.data):
            late = any(r.step == row.step and r.kind == kinds.EFFECT_CANCELLED and r.seq < row.seq for r in rows)
            assert row.step in open_ or late, f"{flow_id}: step {row.step} has two outcomes"
            open_.discard(row.step)
    assert not open_ or rows[-1].kind not in kinds.ENDING, f"{flow_id}: ended with open steps {open_}"


def _check_messages(flow_id: str, rows: list[Row]) -> None:
    """A message is consumed once, unless it was given back."""
    held: Counter[str] = Counter()
    for row in rows:
        message_id = json.loads(row.data).get("message_id") if row.kind in (*OUTCOMES, kinds.EFFECT_CANCELLED) else None
        if message_id is not None:
            held[message_id] += 1 if row.kind in OUTCOMES else -1
            assert held[message_id] in (0, 1), f"{flow_id}: message {message_id} was consumed {held[message_id]} times"


def _reexecute(definitions: Definitions, flow_id: str, rows: list[Row]) -> None:
    """The flow's state is a function of its rows: executed again from them, it asks for nothing that they do not hold."""

    def supply(process: Process, request: Request) -> Any:
        raise AssertionError(f"{flow_id}: step {request.step} ({request.op}) is not in the log")

    load = loader(definitions)
    drafts = [to_draft(row, load) for row in rows]
    process = Process(definitions, flow_id, supply)
    begins = max((n for n, draft in enumerate(drafts) if draft.kind == kinds.FLOW_CONTINUED), default=0)
    for draft in drafts[:begins]:
        process.note(draft)
    process.record(drafts[begins:])
    process.begin(drafts[begins], upgraded_to(drafts[begins:]))
    ended, process.ended, process.paused = process.ended, False, False
    terminated = "flow/terminated" in rows[-1].data
    while process.runnable and process.state.fibers and (process.rebuilding or not terminated):
        new, defines = process.run(1 if terminated else 100_000)  # a flow is terminated wherever it stands
        assert not new, f"{flow_id}: executed again it writes {new}"
        assert not defines, f"{flow_id}: executed again it defines {defines}"
    assert terminated or not ended or not process.state.fibers, f"{flow_id}: executed again it does not end"
