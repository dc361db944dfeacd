"""One flow's turn: arrivals in, machine, one commit, then what was asked for is dispatched.

A flow has an actor while it is in memory, and a task only while there is something to do. A turn
takes all that has arrived, computes one slice, and writes everything in one commit: outcome k and
request k+1 share it. When a commit fails, the state in memory is dropped and made again from the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowmetalError, FlowNotFound, LispError, StoreError
from flowmetal.lang.requests import Action, Define, Withdraw
from flowmetal.lang.times import Instant
from flowmetal.lang.values import ErrorValue, kw
from flowmetal.runtime import snapshots
from flowmetal.runtime.process import SNAPSHOT_FORMAT, Process, loader
from flowmetal.runtime.rows import Draft, to_draft, to_row
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Row, Snapshot

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

RETRY_SECONDS = 1.0
"""After a failed commit, how long until the flow is read again from the store."""

Make = Callable[[Process], "Draft | list[Draft] | None"]


@dataclass(slots=True)
class Item:
    """Something for the flow's turn. `make` gives the rows of an arrival, or none; `future` is done when they are on disk."""

    make: Make
    future: asyncio.Future[Any] | None = None

    def done(self, error: BaseException | None = None) -> None:
        """Answers who waits."""
        if self.future is not None and not self.future.done():
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)


class Turn:
    """What one turn writes and does."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.rows: list[Row] = []
        self.expect: dict[str, int] = {}
        self.definitions: list[Row] = []
        self.children: list[tuple[str, Draft]] = []
        self.others: list[Action] = []
        self.items: list[Item] = []


class Actor:
    """A flow in memory."""

    def __init__(self, engine: Engine, flow_id: str) -> None:
        self.engine = engine
        self.flow_id = flow_id
        self.process: Process | None = None
        self.inbox: deque[Item] = deque()

    def put(self, item: Item) -> None:
        """Something has arrived."""
        self.inbox.append(item)
        self.poke()

    def poke(self) -> None:
        """Sees to it that the flow has its turn."""
        if self.flow_id not in self.engine.busy and not self.engine.closing:
            self.engine.busy.add(self.flow_id)
            self.engine.spawn(self._drive())

    def born(self, started: Draft, seq: int) -> None:
        """The flow was made just now: its state needs no reading."""
        process = Process(self.engine.definitions.registry, self.flow_id, self.engine.supply)
        started.seq = seq
        process.note(started)
        process.begin(started)
        self.process = process

    async def _drive(self) -> None:
        try:
            while self.inbox or self.process is None or self.process.runnable:
                if self.engine.closing:
                    break
                await self._turn()
                await asyncio.sleep(0)
        except StoreError as e:
            self._failed(e)
        finally:
            self.engine.busy.discard(self.flow_id)
            if self.inbox:
                self.poke()
            self.engine.evict()

    def _failed(self, error: BaseException) -> None:
        """A commit failed: what was computed is forgotten, and read again from the log a while later."""
        self.process = None
        items, self.inbox = self.inbox, deque()
        for item in items:
            item.done(error)
        if not self.engine.closing:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.engine.dispatcher.take_up, self.flow_id)

    async def load(self) -> Process:
        """The flow's state: what is in memory, else the newest snapshot and the rows after it."""
        if self.process is None:
            engine = self.engine
            snapshot, rows = await engine.writer.call(snapshots.read, engine.store, self.flow_id)
            self.process = rebuild(engine, self.flow_id, snapshot, rows)
        return self.process

    async def _turn(self) -> None:
        turn = Turn()
        turn.items, self.inbox = list(self.inbox), deque()
        try:
            try:
                process = await self.load()
            except FlowNotFound as e:
                for item in turn.items:
                    item.done(e)
                del self.engine.actors[self.flow_id]
                self.process = Process(self.engine.definitions.registry, self.flow_id, self.engine.supply)
                self.process.ended = True
                return
            self._arrivals(process, turn)
            await self._compute(process, turn)
            self._status(process, turn)
            await self._write(process, turn)
        except BaseException as e:
            self.process = None
            for item in turn.items:
                item.done(e if isinstance(e, FlowmetalError) else StoreError(f"the commit was not made: {e}"))
            raise
        for item in turn.items:
            item.done()
        self.engine.dispatcher.after(process, turn)

    def _arrivals(self, process: Process, turn: Turn) -> None:
        kept = []
        for item in turn.items:
            try:
                made = item.make(process)
            except FlowmetalError as e:
                item.done(e)
                continue
            kept.append(item)
            for draft in made if isinstance(made, list) else [made] if made is not None else []:
                self._append(process, turn, draft)
        turn.items = kept
        for draft in process.match():
            self._append(process, turn, draft)

    def _append(self, process: Process, turn: Turn, draft: Draft) -> None:
        """Adds a row to the turn: it gets its time, and what follows from it is noted."""
        engine = self.engine
        draft.at = max(engine.clock.now(), process.at)
        draft.seq = process.seq + 1
        if draft.kind == kinds.EFFECT_REQUESTED:
            due = engine.dispatcher.due(draft)
            if due is not None:
                draft.facts["due_at"] = Instant(due).format()
        child = draft.facts.get("child")
        if child is not None and draft.kind in (kinds.EFFECT_REQUESTED, kinds.VALUE_RECORDED):
            turn.children.append((child, draft))
        try:
            row = to_row(self.flow_id, process.state.pin, draft)
        except LispError as e:
            if draft.kind not in kinds.ENDING and draft.kind not in (kinds.CELL_RESULT, kinds.PROMISE_SETTLED):
                raise
            # What cannot be stored cannot be a result.
            draft.values = {"error": ErrorValue(kw(e.type), e.message)}
            draft.facts.update({"rendered": e.message, "stack": []})
            if draft.kind == kinds.FLOW_COMPLETED:
                draft.kind = kinds.FLOW_FAILED
            row = to_row(self.flow_id, process.state.pin, draft)
        turn.rows.append(row)
        turn.drafts.append(draft)
        process.note(draft)

    async def _compute(self, process: Process, turn: Turn) -> None:
        if not process.runnable:
            return
        try:
            drafts, others = process.run(self.engine.fuel)
        except LispError as e:
            if e.type != "replay/mismatch":
                raise
            drafts, others = [Draft(kinds.FLOW_PAUSED, None, None, {"reason": e.message, "by": "engine"})], []
        if self.engine.after_slice is not None:
            self.engine.after_slice(process)
        for draft in drafts:
            self._append(process, turn, draft)
        for draft in process.match():
            self._append(process, turn, draft)
        for action in others:
            if isinstance(action, Define):
                await self._define(process, turn, action)
            elif isinstance(action, Withdraw):
                turn.others.append(action)

    async def _define(self, process: Process, turn: Turn, d: Define) -> None:
        """A cell's definition: its row of the definitions log and the flow's own share one commit."""
        log = self.engine.definitions
        async with self.engine.defining:
            facts: dict[str, Any] = {"number": d.number, "ns": d.ns, "name": d.name}
            try:
                row = log.row(d, self.flow_id)
            except LispError as e:
                error = ErrorValue(kw(e.type), f"{d.name} cannot be defined: {e.message}")
                self._append(process, turn, Draft(kinds.DEFINED, None, d.fiber, {**facts, "version": process.state.pin}, {"error": error}))
                return
            known = log.known(row)
            version = known if known is not None else log.version + 1
            self._append(process, turn, Draft(kinds.DEFINED, None, d.fiber, {**facts, "version": version}))
            if known is None:
                turn.rows.append(row)
                turn.expect[kinds.DEFINITIONS_STREAM] = log.version
                turn.definitions.append(row)
            await self._write(process, turn)

    def _status(self, process: Process, turn: Turn) -> None:
        """A row for a status that has changed."""
        if process.ended or process.paused or not process.began:
            return
        if process.runnable:
            status = "running"
        else:
            status = "running" if any(self.engine.dispatcher.is_busy(o.op) for o in process.open.values()) else "waiting"
        if status != process.status:
            kind = kinds.FLOW_WAITING if status == "waiting" else kinds.FLOW_RUNNING
            self._append(process, turn, Draft(kind, None, None, {"for": process.waiting_for()} if status == "waiting" else {}))

    async def _write(self, process: Process, turn: Turn) -> None:
        """Commits what the turn has so far."""
        if not turn.rows:
            return
        engine = self.engine
        rows, turn.rows = turn.rows, []
        expect, turn.expect = turn.expect, {}
        own = sum(1 for r in rows if r.flow_id == self.flow_id)
        expect[self.flow_id] = process.seq - own
        children = await self._children(process, turn)
        for child, draft in children:
            rows.append(to_row(child, process.state.pin, draft))
            expect[child] = 0
        kept = []
        if snapshots.worth(process):
            body = process.snapshot()
            if body is not None:
                kept.append(Snapshot(self.flow_id, process.seq, process.state.steps, SNAPSHOT_FORMAT, body))
                process.rows_since_snapshot, process.snapshot_size = 0, len(body)
        done = await engine.commit(Commit(rows, expect, kept))
        for row in done.rows:
            if row.flow_id == kinds.DEFINITIONS_STREAM:
                engine.definitions.committed(row)
        for child, draft in children:
            actor = engine.actor(child)
            actor.born(draft, 1)
            actor.poke()

    async def _children(self, process: Process, turn: Turn) -> list[tuple[str, Draft]]:
        """First rows of the children that the turn begins; one with an id that exists already is that flow."""
        out = []
        asked, turn.children = turn.children, []
        for child, request in asked:
            options = request.values.get("options")
            if options is not None and kw("id") in options and await self.engine.writer.call(self.engine.store.last_seq, child) > 0:
                continue
            out.append((child, self.engine.dispatcher.child(process, child, request)))
        return out


def rebuild(engine: Engine, flow_id: str, snapshot: Snapshot | None, rows: list[Row]) -> Process:
    """A process from a snapshot and the rows after it; from all rows where there is no usable snapshot."""
    registry = engine.definitions.registry
    load = loader(registry)
    process = Process(registry, flow_id, engine.supply)
    if snapshot is not None:
        process.restore(snapshot.body)
    drafts = [to_draft(row, load) for row in rows]
    if snapshot is None:
        if not drafts or drafts[0].kind != kinds.FLOW_STARTED:
            raise FlowNotFound(f"there is no flow {flow_id}")
    process.record(drafts)
    if snapshot is None and not process.ended:
        process.begin(drafts[0])
    return process
