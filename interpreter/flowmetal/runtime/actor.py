"""One flow's turn: arrivals in, machine, one commit, then what was asked for is dispatched.

A flow has an actor while it is in memory, and a task only while there is something to do. A turn
takes all that has arrived, computes one slice, and writes everything in one commit: outcome k and
request k+1 share it. When a commit fails, the state in memory is dropped and made again from the log;
what had arrived from inside stays in the inbox, who brought it from outside gets the error.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowmetal.errors import FlowmetalError, FlowNotFound, LispError, StoreError
from flowmetal.lang.requests import Define
from flowmetal.lang.values import ErrorValue, Instant, kw
from flowmetal.runtime import replay, snapshots
from flowmetal.runtime.control import Make
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, to_draft, to_row
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Row, StoreConflict

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

KEPT_AS_ERROR = kinds.ENDING | {kinds.CELL_RESULT, kinds.PROMISE_SETTLED}
"""Kinds whose value, where it cannot be stored, becomes an error: it cannot be a result."""
PATIENCE = 100
"""How often in a row others may be first to write, until that is taken for a fault."""


@dataclass(slots=True)
class Item:
    """Something for the flow's turn. `make` gives the rows of an arrival, or none; `future` is done when they are on disk."""

    make: Make
    future: asyncio.Future[Any] | None = None
    once: tuple[str, str] | None = None
    """Kind and key of its row: there may be one already that another interpreter has written meanwhile."""
    noticed: list[Row] | None = None
    """Rows that another interpreter has written, to be seen to."""

    def done(self, error: BaseException | None = None) -> None:
        """Answers who waits."""
        if self.future is not None and not self.future.done():
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)


class Turn:
    """What one turn writes and does."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.drafts: list[Draft] = []
        self.rows: list[Row] = []
        self.expect: dict[str, int] = {}
        self.children: dict[str, Draft] = {}
        """Flows that this turn begins, with the request of each."""
        self.orphans: list[str] = []
        """Flows that are to end because this one has."""
        self.broken = False
        """The machine's state is not to be relied on: it is dropped after the commit."""


class Actor:
    """A flow in memory."""

    __slots__ = ("conflicts", "engine", "flow_id", "gone", "inbox", "process")

    def __init__(self, engine: Engine, flow_id: str) -> None:
        self.engine = engine
        self.flow_id = flow_id
        self.process: Process | None = None
        self.inbox: list[Item] = []
        self.gone = False
        """There is no such flow in the store."""
        self.conflicts = 0
        """How often in a row another interpreter was first to write."""

    def put(self, item: Item) -> None:
        """Something has arrived."""
        self.inbox.append(item)
        self.poke()

    @property
    def owned(self) -> bool:
        """Whether the flow is computed here. If not, what arrives is written down, and another interpreter goes on with it."""
        return self.engine.sharing.owns(self.flow_id)

    def poke(self) -> None:
        """Sees to it that the flow has its turn."""
        if not (self.inbox or self.owned):
            self.engine.rest(self)
        elif self.flow_id not in self.engine.busy and not self.engine.closing:
            self.engine.busy.add(self.flow_id)
            self.engine.resting.pop(self.flow_id, None)
            self.engine.spawn(self._drive())

    def notice(self, rows: list[Row]) -> None:
        """Another interpreter has written these rows of the flow."""
        self.put(Item(lambda process: None, noticed=rows))

    def born(self, first: list[Draft]) -> None:
        """The flow was made just now, with these rows: its state needs no reading, unless somebody has read it already. One that is
        another interpreter's begins there."""
        if not self.owned:
            return
        process = Process(self.engine.definitions.registry, self.flow_id, self.engine.supply)
        process.note(first[0])
        process.begin(first[0])
        for draft in first[1:]:
            process.note(draft)
            if draft.kind == kinds.EFFECT_REQUESTED:
                self.engine.dispatcher.begin(self.flow_id, process.state.run, draft)
        if self.process is None and self.flow_id not in self.engine.busy:
            self.process = process

    @property
    def _has_work(self) -> bool:
        return not self.gone and (bool(self.inbox) or (self.owned and (self.process is None or self.process.runnable)))

    async def _drive(self) -> None:
        known, failed = 0, True
        try:
            while self._has_work and not self.engine.closing:
                known = self.process.seq if self.process is not None else known
                try:
                    await self._turn()
                finally:
                    self.engine.crashes.turned(self.flow_id)
                if self._has_work:
                    await asyncio.sleep(0)
            failed = False
        except StoreError:
            self.engine.recover_later(self.flow_id, known)
        except Exception as e:  # noqa: BLE001  a bug of ours must not leave the flow hanging without a word
            self.engine.report(e)
            await self._stuck(e)
        finally:
            self.engine.busy.discard(self.flow_id)
            if not failed and self.inbox:
                self.poke()
            elif not failed or not self.inbox:
                self.engine.rest(self)

    async def _stuck(self, error: Exception) -> None:
        """The flow cannot go on: it is paused, and says why. A pause is an arrival: it needs no state."""
        engine = self.engine
        there = await engine.writer.call(engine.store.flow_row, self.flow_id)
        if there is not None and there["status"] in ("running", "waiting"):
            reason = f"the engine could not go on with this flow: {type(error).__name__}: {error}"
            draft = Draft(kinds.FLOW_PAUSED, None, None, {"reason": reason, "by": "engine"}, at=engine.clock.now())
            await engine.commit(Commit([to_row(self.flow_id, 0, draft)]))

    def drop(self) -> None:
        """Gives up what is in memory of the flow: the log has it."""
        if self.process is not None:
            self.process.release()
            self.process = None

    async def load(self) -> Process:
        """The flow's state: what is in memory, else the newest snapshot and the rows after it."""
        if self.process is None:
            engine = self.engine
            definitions = engine.definitions.registry
            snapshot, rows = await engine.writer.ask(engine.wakes.read, self.flow_id) or (None, [])
            process = replay.rebuild(definitions, self.flow_id, engine.supply, snapshot, rows)
            if process is None:
                rows = await engine.writer.call(engine.store.rows, self.flow_id)
                process = replay.rebuild(definitions, self.flow_id, engine.supply, None, rows)
            assert process is not None
            self.process = process
        return self.process

    async def _turn(self) -> None:
        turn, self.inbox = Turn(self.inbox), []
        owned = self.owned
        noticed = [row for item in turn.items for row in item.noticed or ()]
        if self.process is not None and not (owned and (not noticed or noticed[-1].seq <= self.process.seq)):
            self.drop()
        try:
            process = await self._loaded(turn)
            self._arrivals(process, turn)
            taken = len(process.pending)
            if not owned:
                self._status(process, turn)  # whoever takes the flow up finds that there is something to compute
                await self._write(process, turn)
                self._written_for_another(turn)
                return
            if process.runnable and not turn.broken:
                await self.engine.crashes.computing(self.flow_id)
                await self._compute(process, turn)
            self._status(process, turn)
            await self._write(process, turn)
        except FlowNotFound as e:
            turn.items += self.inbox
            self.inbox.clear()
            self._answer(turn, e)
            self.gone = True
            return
        except BaseException as e:
            self.process = None
            if isinstance(e, StoreConflict) and self.engine.sharing.store is not None and self.conflicts < PATIENCE:
                self.conflicts += 1
                self.engine.definitions.stale = True
                self.inbox[:0] = turn.items
                return
            self._answer(turn, e if isinstance(e, FlowmetalError) else StoreError(f"the commit was not made: {e}"))
            self.inbox[:0] = [item for item in turn.items if item.future is None]
            raise
        self.conflicts = 0
        self._answer(turn, None)
        if noticed:
            load = loader(self.engine.definitions.registry)
            turn.drafts[:0] = [to_draft(row, load) for row in noticed]
        self.engine.dispatcher.after(process, turn)
        if turn.broken:
            self.process = None
        if not process.runnable:
            await self.engine.crashes.resting(self.flow_id, bool(taken) or process.status != "running")

    async def _loaded(self, turn: Turn) -> Process:
        """The flow's state; where it was read just now, what is in the log already is not to be written again."""
        if self.process is not None:
            return self.process
        engine = self.engine
        if engine.sharing.members == 1:
            return await self.load()
        await engine.catch_up_all()
        process = await self.load()
        for item in list(turn.items):
            if item.once is not None and await engine.writer.call(engine.store.find, item.once[0], item.once[1]) is not None:
                item.done()
                turn.items.remove(item)
        return process

    def _written_for_another(self, turn: Turn) -> None:
        """What has arrived for a flow that another interpreter computes is on disk."""
        self.conflicts = 0
        self.drop()
        self._answer(turn, None)
        for child in turn.orphans:
            self.engine.dispatcher.end_child(child, "its caller has ended", self.flow_id)

    def _answer(self, turn: Turn, error: BaseException | None) -> None:
        for item in turn.items:
            item.done(error)

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
        self._match(process, turn)

    def _match(self, process: Process, turn: Turn) -> None:
        for draft in process.match():
            self._append(process, turn, draft)

    def _append(self, process: Process, turn: Turn, draft: Draft) -> None:
        """Adds a row to the turn: it gets its time, and what follows from it is noted."""
        if draft.kind in kinds.ENDING:
            self._close(process, turn)
        elif draft.kind == kinds.FLOW_CONTINUED:
            self._close_run(process, turn)
        elif draft.kind == kinds.FLOW_UPGRADED:  # the state is made again from the rows, by the new definitions
            turn.broken = True
        draft.at = max(self.engine.clock.now(), process.at)
        draft.seq = process.seq + 1
        if draft.kind == kinds.EFFECT_REQUESTED and "due_at" not in draft.facts:
            due = self.engine.dispatcher.due(draft)
            if due is not None:
                draft.facts["due_at"] = Instant(due).format()
        child = draft.facts.get("child")
        if child is not None and draft.kind in kinds.ASKING:
            turn.children.setdefault(child, draft)
        turn.rows.append(self._row(process, draft))
        turn.drafts.append(draft)
        process.note(draft)
        if draft.kind == kinds.FLOW_CONTINUED:
            process.begin(draft)

    def _close(self, process: Process, turn: Turn) -> None:
        """The flow ends: what it still asks for is withdrawn, and the flows that are its own end with it."""
        turn.orphans += [o.child for o in process.open.values() if o.child is not None]
        turn.orphans += sorted(process.children)
        for step in list(process.open):
            self._append(process, turn, Draft(kinds.EFFECT_CANCELLED, step, None, {"reason": "the flow has ended", "ended": True}))

    def _close_run(self, process: Process, turn: Turn) -> None:
        """A run ends, and the next begins: what the old one still asks for is withdrawn, the flows that it called end, and a message
        that it had not taken yet is given back."""
        turn.orphans += [o.child for o in process.open.values() if o.child is not None]
        for step in [*process.open, *process.delivered]:
            withdrawal = process.withdrawal(step, "the flow has begun anew")
            assert withdrawal is not None
            self._append(process, turn, withdrawal)

    def _row(self, process: Process, draft: Draft) -> Row:
        pin = process.state.pin
        try:
            return to_row(self.flow_id, pin, draft)
        except LispError as e:
            if draft.kind not in KEPT_AS_ERROR:
                raise
            draft.values = {"error": ErrorValue(kw(e.type), e.message)}
            draft.facts.update({"rendered": e.message, "stack": []})
            if draft.kind == kinds.FLOW_COMPLETED:
                draft.kind = kinds.FLOW_FAILED
            return to_row(self.flow_id, pin, draft)

    async def _compute(self, process: Process, turn: Turn) -> None:
        try:
            drafts, defines = process.run(self.engine.fuel)
        except Exception as e:  # noqa: BLE001  what arrived is kept whatever the machine does with it
            if not isinstance(e, LispError):
                self.engine.report(e)
            reason = e.message if isinstance(e, LispError) else f"the engine could not go on with this flow: {type(e).__name__}: {e}"
            drafts, defines = [Draft(kinds.FLOW_PAUSED, None, None, {"reason": reason, "by": "engine"})], []
            turn.broken = True
        if self.engine.after_slice is not None and not turn.broken:
            self.engine.after_slice(process)
        for draft in drafts:
            self._append(process, turn, draft)
        self._match(process, turn)
        for define in defines:
            await self._define(process, turn, define)

    async def _define(self, process: Process, turn: Turn, d: Define) -> None:
        """A cell's definition: its row of the definitions log and the flow's own share one commit."""
        engine = self.engine
        log = engine.definitions
        async with engine.defining:
            facts: dict[str, Any] = {"number": d.number, "ns": d.ns, "name": d.name}
            try:
                row = log.row(d, self.flow_id)
            except LispError as e:
                error = ErrorValue(kw(e.type), f"{d.name} cannot be defined: {e.message}")
                self._append(process, turn, Draft(kinds.DEFINED, None, d.fiber, {**facts, "version": process.state.pin}, {"error": error}))
                return
            await engine.catch_up()
            known = log.known(row)
            self._append(process, turn, Draft(kinds.DEFINED, None, d.fiber, {**facts, "version": known if known is not None else log.version + 1}))
            if known is None:
                turn.rows.append(row)
                turn.expect[kinds.DEFINITIONS_STREAM] = log.version
            await self._write(process, turn)

    def _status(self, process: Process, turn: Turn) -> None:
        """A row for a status that has changed."""
        if process.ended or process.paused:
            return
        busy = process.runnable or any(self.engine.dispatcher.is_busy(o.op) and not o.linked for o in process.open.values())
        if busy and process.status != "running":
            self._append(process, turn, Draft(kinds.FLOW_RUNNING))
        elif not busy and process.status != "waiting":
            self._append(process, turn, Draft(kinds.FLOW_WAITING, None, None, {"for": process.waiting_for()}))

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
        for child, first in children.items():
            rows += [to_row(child, first[0].facts["definitions"], draft) for draft in first]
            expect[child] = 0
        if any(row.kind in kinds.ENDING for row in rows):
            rows.append(engine.topics.ending(process, turn.drafts[-1]))
        snapshot = snapshots.take(process) if not turn.broken and self.owned and engine.keep_snapshot(process) else None
        done = await engine.commit(Commit(rows, expect, [snapshot] if snapshot is not None else []))
        for row in done.rows:
            if row.flow_id == kinds.DEFINITIONS_STREAM:
                engine.definitions.committed(row)
        for child, first in children.items():
            actor = engine.actor(child)
            actor.born(first)
            actor.poke()

    async def _children(self, process: Process, turn: Turn) -> dict[str, list[Draft]]:
        """First rows of the flows that the turn begins; one with an id that exists already is that flow."""
        out = {}
        asked, turn.children = turn.children, {}
        for child, request in asked.items():
            options = request.values.get("options")
            if options is not None and kw("id") in options and await self.engine.writer.call(self.engine.store.last_seq, child) > 0:
                continue
            out[child] = self.engine.dispatcher.child(process, child, request)
        return out
