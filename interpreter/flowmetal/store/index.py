"""Where in the log a flow or a key begins: a cache in memory, so that the log needs no index on disk.

What goes in: the log once, when the first question comes, and then each commit's rows.
What comes out: the `pos` from which to look, or None: it is certainly not there; the same for snapshots; the last rows of
the flows that are busy; the keyed rows written just now, since what asks for a callback's token is often its answer.
The one rule: whatever is here is in the log; what is not here is looked up there.

Measured on a log of a million rows: DuckDB looks at all of it in 2 to 3 ms and at the tail from a known `pos` in one;
an index of its own made each commit slower and helped no more. A flow that rests costs 8 bytes here, its open callback 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

from flowmetal.store import kinds
from flowmetal.store.positions import Positions
from flowmetal.store.protocol import Row, Snapshot

MAX_BUSY: Final = 50_000
"""Of how many flows at work the last row is remembered exactly; others are looked up."""
MAX_RESTING: Final = 1_000
"""The same for flows that wait or have ended, and for keyed rows."""

_SNAPSHOT: Final = "@snapshot"
"""In place of a row's kind."""
_RESTING: Final = kinds.ENDING | {kinds.FLOW_WAITING}


class LogIndex:
    """First positions of flows and of keys; last rows of flows; keyed rows of late."""

    def __init__(self) -> None:
        self.loaded = False
        self._first = Positions()
        self._busy: dict[str, tuple[int, int]] = {}
        self._resting: dict[str, tuple[int, int]] = {}
        self._keyed: dict[tuple[str, str], Row] = {}

    def load(self, flows: Iterable[tuple[str, int]], keys: Iterable[tuple[str, str, int]], snapshots: Iterable[tuple[str, int]]) -> None:
        """The log as it stands: each flow's first row, each keyed row, each flow's first snapshot."""
        keyed = (((kind, key), pos) for kind, key, pos in keys)
        self._first.load(chain(flows, keyed, (((_SNAPSHOT, flow_id), pos) for flow_id, pos in snapshots)))
        self.loaded = True

    def note(self, rows: Iterable[Row], snapshots: Iterable[tuple[int, Snapshot]]) -> None:
        """Rows and snapshots that were committed just now."""
        if self.loaded:
            for pos, snapshot in snapshots:
                self._first.add((_SNAPSHOT, snapshot.flow_id), pos)
        busy, resting = self._busy, self._resting
        for row in rows:
            if self.loaded and row.flow_id not in busy and row.flow_id not in resting:  # new, or of a flow that was archived
                self._first.add(row.flow_id, row.pos)
            if self.loaded and row.key is not None:
                self._note_key((row.kind, row.key), row)
            if row.kind in _RESTING:
                busy.pop(row.flow_id, None)
                resting[row.flow_id] = (row.seq, row.pos)
            else:
                resting.pop(row.flow_id, None)
                busy[row.flow_id] = (row.seq, row.pos)
        _trim(busy, MAX_BUSY)
        _trim(resting, MAX_RESTING)

    def _note_key(self, name: tuple[str, str], row: Row) -> None:
        if self._first.get(name) is None:
            self._first.add(name, row.pos)
            self._keyed[name] = row
            _trim(self._keyed, MAX_RESTING)

    def first_of_flow(self, flow_id: str) -> int | None:
        """No row of the flow has a smaller `pos`; None: there is no such flow."""
        return self._first.get(flow_id)

    def first_of_snapshot(self, flow_id: str) -> int | None:
        """No snapshot of the flow has a smaller `pos`; None: there is none."""
        return self._first.get((_SNAPSHOT, flow_id))

    def first_of_key(self, kind: str, key: str) -> int | None:
        """No row of that kind and key has a smaller `pos`; None: there is none."""
        return self._first.get((kind, key))

    def keyed(self, kind: str, key: str) -> Row | None:
        """The first row of that kind and key, when it was written lately."""
        return self._keyed.get((kind, key))

    def tail(self, flow_id: str) -> tuple[int, int] | None:
        """The `seq` and `pos` of the flow's last row, when they are remembered."""
        return self._busy.get(flow_id) or self._resting.get(flow_id)

    def remember(self, flow_id: str, seq: int, pos: int, *, busy: bool = False) -> None:
        """The flow's last row, as it was read from the log; `busy` where many were read, and all may go on."""
        if busy:
            self._busy[flow_id] = (seq, pos)
            _trim(self._busy, MAX_BUSY)
        elif flow_id not in self._busy:
            self._resting[flow_id] = (seq, pos)
            _trim(self._resting, MAX_RESTING)

    def drop(self, removed: Mapping[str, int]) -> None:
        """Rows of these flows went, up to a `seq` each: what is remembered of them is looked up anew. First positions stay true."""
        if removed:
            for flow_id in removed:
                self._busy.pop(flow_id, None)
                self._resting.pop(flow_id, None)
            self._keyed = {name: row for name, row in self._keyed.items() if row.seq > removed.get(row.flow_id, 0)}

    def forget(self) -> None:
        """Start afresh from the log."""
        self.loaded = False
        self._first.clear()
        self._busy.clear()
        self._resting.clear()
        self._keyed.clear()


def _trim(cache: dict[Any, Any], most: int) -> None:
    while len(cache) > most:
        del cache[next(iter(cache))]
