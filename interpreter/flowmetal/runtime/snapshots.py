"""Snapshots: a flow's whole process as bytes, when one is worth its cost, and back.

A snapshot is a cache: the log can make it again, so one that is missing, damaged or of another
format costs time and nothing else. The rule: snapshots' total work stays within a constant factor
of the run's own, and waking a flow costs what its state costs, not its history.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from flowmetal.errors import FlowmetalError
from flowmetal.lang import codec
from flowmetal.lang.library import engine_version
from flowmetal.runtime.book import Message, OpenStep
from flowmetal.runtime.process import Process, loader
from flowmetal.store import kinds
from flowmetal.store.protocol import Row, Snapshot, Store

FORMAT = f"5-{codec.FORMAT}-{engine_version()}"
"""What reads a snapshot: its own layout, the codec's, and the library whose code positions it holds."""
EVERY = 24
"""Rows after which a small state is worth a snapshot."""
BYTES_A_ROW = 400
"""A state of this many bytes more must wait for a row more."""
_DIGEST = 16


def worth(process: Process) -> bool:
    """Whether to take a snapshot with this commit."""
    return not process.ended and process.rows_since_snapshot >= EVERY + process.snapshot_size / BYTES_A_ROW


def take(process: Process) -> Snapshot | None:
    """The whole process; None while arrivals wait to be taken or an older part is still being rebuilt."""
    if process.pending or process.rebuilding or process.marks_recorded:
        return None
    text = json.dumps([_book(process), codec.encode_state(process.state)], separators=(",", ":")).encode()
    body = hashlib.sha256(text).digest()[:_DIGEST] + text
    process.rows_since_snapshot, process.snapshot_size = 0, len(body)
    return Snapshot(process.flow_id, process.seq, process.state.steps, FORMAT, body)


_PLAIN = ("seq", "at", "status", "paused", "cancel_asked", "begun", "output", "failed", "let_fail", "stepping", "old")


def _book(process: Process) -> dict[str, Any]:
    flow_id, pin = process.flow_id, process.state.pin
    return {
        "plain": [getattr(process, name) for name in _PLAIN], "parent_call": process.parent_call, "children": sorted(process.children), "terms": process.terms,
        "awaits": [list(a) for a in process.awaits],
        "open": {s: [o.op, o.target, o.due_at, o.child, o.linked] for s, o in process.open.items()},
        "receives": {s: codec.encode_value(r, flow_id, pin) for s, r in process.receives.items()},
        **{
            box: [[m.id, m.seq, codec.encode_value(m.value, flow_id, pin), m.ask] for m in messages.values()]
            for box, messages in (("mailbox", process.mailbox), ("asked", process.asked))
        },
    }  # fmt: skip


def restore(process: Process, snapshot: Snapshot) -> bool:
    """Takes a snapshot into a fresh process; False where it cannot be read."""
    text = snapshot.body[_DIGEST:]
    if snapshot.format != FORMAT or hashlib.sha256(text).digest()[:_DIGEST] != snapshot.body[:_DIGEST]:
        return False
    known, encoded = json.loads(text)
    load = loader(process.definitions)
    try:
        state = codec.decode(encoded, load)
        receives = {int(s): codec.decode(r, load) for s, r in known["receives"].items()}
        mailbox, asked = ({i: Message(i, seq, codec.decode(v, load), ask) for i, seq, v, ask in known[box]} for box in ("mailbox", "asked"))
    except FlowmetalError:  # it names code that cannot be found here: the log has all that is in it
        return False
    for name, value in zip(_PLAIN, known["plain"], strict=True):
        setattr(process, name, value)
    process.parent_call = (known["parent_call"][0], known["parent_call"][1]) if known["parent_call"] else None
    process.children, process.terms = set(known["children"]), known["terms"]
    process.awaits = {(flow, promise) for flow, promise in known["awaits"]}
    process.open = {int(s): OpenStep(*o) for s, o in known["open"].items()}
    process.receives, process.mailbox, process.asked = receives, mailbox, asked
    process.snapshot_size = len(snapshot.body)
    process.attach(state)
    return True


SENDINGS = frozenset({kinds.FLOW_STARTED, kinds.FLOW_CONTINUED, kinds.ATTEMPT_STARTED, kinds.ATTEMPT_FAILED, kinds.EFFECT_CANCELLING})
Known = tuple[Snapshot | None, list[Row]]
"""The newest snapshot of a flow, of this format, and the rows after it; without one, all rows."""


class Wakes:
    """What flows wake from, read for many at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, flow_ids: list[str]) -> dict[str, Known]:
        """For each flow what there is of it."""
        usable = {flow_id: s for flow_id, s in self._store.snapshots_of(flow_ids).items() if s.format == FORMAT}
        rows = self._store.rows_of({flow_id: usable[flow_id].seq if flow_id in usable else 0 for flow_id in flow_ids})
        return {flow_id: (usable.get(flow_id), rows.get(flow_id, [])) for flow_id in flow_ids}

    def sendings(self, flow_ids: list[str]) -> dict[str, list[Row]]:
        """For each flow its first row and its attempts: what an open request is sent again by."""
        return self._store.rows_of(dict.fromkeys(flow_ids, 0), SENDINGS)

    def outcomes(self, asked: list[tuple[str, int]]) -> dict[tuple[str, int], list[Row]]:
        """For each flow and place in its log the outcomes of steps after that."""
        after: dict[str, int] = {}
        for flow_id, seq in asked:
            after[flow_id] = min(seq, after.get(flow_id, seq))
        rows = self._store.rows_of(after, kinds.CLOSING_STEP)
        return {(flow_id, seq): [row for row in rows.get(flow_id, ()) if row.seq > seq] for flow_id, seq in asked}


def renew(process: Process) -> None:
    """Makes the machine's state anew from its encoding, as a restart would; for simulations."""
    state = codec.decode(codec.encode_state(process.state), loader(process.definitions))
    outbox = process.machine.outbox
    process.attach(state)
    process.machine.outbox = outbox
