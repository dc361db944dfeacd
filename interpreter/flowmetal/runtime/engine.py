"""The engine: what clients, the shim and the tests speak to.

In: calls, and arrivals from outside. Out: rows of the log, and requests dispatched after the commit
that holds them. The one rule: nothing is answered, and nothing leaves, before its row is on disk.
All of it runs on one event loop; the store has its writer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowmetal.errors import FlowConflict, FlowEnded, FlowNotFound, LispError, OtherClock, StoreError
from flowmetal.lang.complete import names
from flowmetal.lang.equality import equal
from flowmetal.lang.persistent import Vector
from flowmetal.lang.plain import from_plain
from flowmetal.lang.requests import FLOW_ID, FLOW_ID_TEXT
from flowmetal.runtime import callbacks, diff, failures, history, lines, past, recovery, retrying, snapshots, stuck, transitions
from flowmetal.runtime.actor import Actor, Item
from flowmetal.runtime.allowances import Allowances
from flowmetal.runtime.asking import Asking
from flowmetal.runtime.clock import Chance, Clock, RealClock
from flowmetal.runtime.connector import Connector
from flowmetal.runtime.control import WRITES, Make, control
from flowmetal.runtime.crashes import CrashWatch
from flowmetal.runtime.definitions_log import DefinitionsLog
from flowmetal.runtime.dispatch import Dispatcher, terms, waits_to_begin
from flowmetal.runtime.errands import Errands
from flowmetal.runtime.fork import Forks
from flowmetal.runtime.keeping import Keeping
from flowmetal.runtime.keyed_locks import KeyedLocks
from flowmetal.runtime.links import Links
from flowmetal.runtime.process import Process, find_program, loader
from flowmetal.runtime.promises import Awaited
from flowmetal.runtime.queues import Queues
from flowmetal.runtime.rows import Draft, to_draft, to_row
from flowmetal.runtime.schedules import Schedules
from flowmetal.runtime.sharing import Sharing
from flowmetal.runtime.sources import Sources
from flowmetal.runtime.start_options import start_options
from flowmetal.runtime.supply import Supplies
from flowmetal.runtime.tasks import Tasks
from flowmetal.runtime.timers import Timers
from flowmetal.runtime.topics import Topics
from flowmetal.runtime.upgrade import Upgrades
from flowmetal.runtime.watching import Endings, Watchers
from flowmetal.store import kinds
from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Commit, CommitResult, Duplicate, Result, Row, Store, StoreConflict
from flowmetal.store.writer import CommitWriter, InlineWriter, Writer

FUEL = 20_000
"""Transitions in one slice: a few milliseconds, after which others have their turn."""
RESIDENT = 48
"""Flows that wait and whose state is kept in memory, so that the next arrival finds it there."""
REST_SECONDS = 10.0
"""How long it is kept."""
RETRY_SECONDS = 1.0
"""After the store has failed, how long until it is asked again."""


class Engine(Errands):
    """Runs the flows of one store."""

    def __init__(
        self, store: Store, *, connectors: Sequence[Connector] = (), clock: Clock | None = None, chance: Chance | None = None,
        fuel: int = FUEL, resident: int = RESIDENT, after_slice: Callable[[Process], None] | None = None,
        keep_snapshot: Callable[[Process], bool] = snapshots.worth, retry_seconds: float = RETRY_SECONDS,
    ) -> None:  # fmt: skip
        super().__init__(retry_seconds)
        self.store = store
        self.writer: CommitWriter = InlineWriter(store) if isinstance(store, MemoryStore) else Writer(store)
        self.wakes = snapshots.Wakes(store)
        self.clock = clock or RealClock()
        self.chance = chance or Chance()
        self.fuel = fuel
        self.resident = resident
        self.after_slice = after_slice
        """Called after each slice of fuel: simulations look at the state there, or make it anew from its encoding."""
        self.keep_snapshot = keep_snapshot
        """Whether a commit is to hold a snapshot of its flow."""
        self.public_url = "http://127.0.0.1:8421"
        self.supply = Supplies(self.clock, self.chance, lambda: self.public_url)
        self.actors: dict[str, Actor] = {}
        self.busy: set[str] = set()
        """Flows whose actor has a task."""
        self.resting: dict[str, float] = {}
        """Flows in memory that only wait, and since when; the one that has waited longest first."""
        self._sweeper: asyncio.TimerHandle | None = None
        self.definitions = DefinitionsLog(self.clock.now)
        self.defining = asyncio.Lock()
        self.timers = Timers(self.clock, self._timer_due, self._idle)
        self.foreign = Tasks(self)
        self.topics = Topics(self)
        self.asking = Asking(self)
        self.queues = Queues(self)
        self.schedules = Schedules(self)
        self.sources = Sources(self)
        self.allowances = Allowances(self)
        self.keeping = Keeping(self)
        self.dispatcher = Dispatcher(self, connectors)
        self.awaited = Awaited(self)
        self.links = Links(self)
        self.forks = Forks(self)
        self.upgrades = Upgrades(self)
        self.crashes = CrashWatch(self)
        self.watchers = Watchers()
        self.watch = self.watchers.watch
        self.endings = Endings()
        self.sharing = Sharing(self)
        self.sending = KeyedLocks()
        """Messages being sent, so that two with one key are one."""

    # Life

    async def open(self) -> None:
        """Reads the definitions, and takes up what was open when the store was last closed."""
        self.writer.start()
        await self.sharing.open()
        await self._check_clock()
        await self._read_definitions()
        for _, rows in await self.writer.call(lambda: list(lines.read(self.store))):
            lines.bind(self.definitions, rows)
        await self.topics.open()
        await self.allowances.open()
        await self.queues.open()
        await recovery.recover(self, frozenset(self.sharing.mine), self.sharing.lost)
        await self.schedules.open()
        await self.keeping.retention.open()
        await self.sources.open()
        self.sharing.begin()

    async def lead(self) -> None:
        """This engine begins, or ceases, to see to what is one for the whole store."""
        await self.schedules.open()
        await self.keeping.retention.open()
        await self.sources.open()

    async def _read_definitions(self) -> None:
        """Reads the definitions, and records which library reads them; again, where another interpreter comes at the same time."""
        while True:
            rows = await self.writer.call(self.store.rows, kinds.DEFINITIONS_STREAM)
            self.definitions.replay(rows[self.definitions.version :])
            row = self.definitions.engine_row(rows)
            if row is None:
                return
            try:
                done = await self.commit(Commit([row], {kinds.DEFINITIONS_STREAM: self.definitions.version}))
            except StoreConflict:
                continue
            self.definitions.replay(done.rows)
            return

    async def _check_clock(self) -> None:
        """A virtual clock belongs to a store from its creation."""
        mine = "virtual" if self.clock.virtual else "real"
        known = await self.writer.call(self.store.get_meta, "clock")
        if known is None:
            known = mine if await self.writer.call(self.store.last_pos) == 0 else "real"
            await self.writer.call(self.store.set_meta, "clock", known)
        if known != mine:
            raise OtherClock(f"this store lives in {known} time, and cannot be opened with a {mine} clock")
        if self.clock.virtual and self.sharing.members > 1:
            raise StoreError("a store that lives in virtual time has one interpreter", type="store/locked", hint="Attach to it, or stop it: flowmetal stop")

    async def close(self) -> None:
        """Ends tasks and the writer. What is open stays in the log."""
        await self._stop_tasks()
        try:
            await self.crashes.close()
        finally:
            await self._release()

    async def abandon(self) -> None:
        """Ends as a crash does: nothing more is written. For simulations."""
        await self._stop_tasks()
        await self._release()

    async def _stop_tasks(self) -> None:
        self.closing = True
        self.timers.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.foreign.close()
        self.keeping.retention.close()
        await self.end_errands()

    async def _release(self) -> None:
        await self.dispatcher.close()
        self.watchers.close()
        await self.writer.stop()

    def recover_later(self, flow_id: str, since: int) -> None:
        """A commit of a flow failed, at its row `since` or later: the flow is read again from the log a while from now."""
        self.definitions.stale = True

        def again() -> None:
            if not self.closing:
                self.insist(lambda: recovery.recover_flow(self, flow_id, since))

        if not self.closing:
            asyncio.get_running_loop().call_later(self.retry_seconds, again)

    async def catch_up(self) -> None:
        """Reads definitions that were committed without our knowing: a commit that failed may be on disk."""
        if self.definitions.stale:
            rows = await self.writer.call(self.store.rows, kinds.DEFINITIONS_STREAM, self.definitions.version)
            self.definitions.replay(rows)
            self.definitions.stale = False

    async def catch_up_all(self) -> None:
        """Reads definitions that others have made."""
        async with self.defining:
            self.definitions.stale = True
            await self.catch_up()

    def errand_done(self) -> None:
        """See `Errands.errand_done`: virtual time goes on when nothing else does."""
        if self.clock.virtual:
            self.timers.arm()

    def _idle(self) -> bool:
        return not self.tasks and not self.foreign.busy

    # Flows

    def actor(self, flow_id: str) -> Actor:
        """The actor of a flow, made when there is none in memory."""
        actor = self.actors.get(flow_id)
        if actor is None:
            actor = self.actors[flow_id] = Actor(self, flow_id)
        return actor

    def rest(self, actor: Actor) -> None:
        """A turn is over: a flow that has ended is forgotten; one that waits stays a while, unless too many do."""
        process, flow_id = actor.process, actor.flow_id
        if process is None or process.ended:
            self.forget(flow_id)
            return
        if process.status == "running":
            return
        loop = asyncio.get_running_loop()
        self.resting[flow_id] = loop.time()
        if len(self.resting) > self.resident:
            self.forget(next(iter(self.resting)))
        if self._sweeper is None and not self.clock.virtual:
            self._sweeper = loop.call_later(REST_SECONDS, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = None
        while self.resting:
            flow_id, since = next(iter(self.resting.items()))
            if since + REST_SECONDS > loop.time():
                self._sweeper = loop.call_at(since + REST_SECONDS, self._sweep)
                return
            self.forget(flow_id)

    def forget(self, flow_id: str) -> None:
        """Nothing of a flow stays in memory; of one that has its turn now the state goes, and is made again from the log."""
        self.resting.pop(flow_id, None)
        actor = self.actors.get(flow_id)
        if actor is None:
            return
        if flow_id in self.busy:  # what arrives is for the actor that has the turn: a second one would wait for it for ever
            actor.process = None
        else:
            actor.drop()
            del self.actors[flow_id]

    async def commit(self, commit: Commit) -> CommitResult:
        """Writes rows; wakes who watches their flows."""
        result = await self.writer.commit(commit)
        self.watchers.notify(result.rows)
        if self.sharing.store is None:
            self.endings.note(commit, result.rows)
        return result

    def put(self, flow_id: str, make: Make) -> None:
        """Hands an arrival to a flow: it will be on disk, whatever fails on the way."""
        self.actor(flow_id).put(Item(make))

    def _timer_due(self, flow_id: str, step: int) -> None:
        if kinds.is_stream(flow_id):
            streams = {kinds.SCHEDULES_STREAM: self.schedules.due, kinds.QUEUES_STREAM: self.queues.due, kinds.SOURCES_STREAM: self.sources.due}
            streams[flow_id](step)
            return
        if step < 0:
            self.foreign.back(flow_id, -step)
            return
        self.put(flow_id, lambda process: self.dispatcher.timer_outcome(process, step))

    # Calls of clients

    async def start_flow(
        self,
        name: str,
        args: Sequence[Any],
        *,
        flow_id: str | None = None,
        request_id: str | None = None,
        by: str = "",
        options: Mapping[str, Any] | None = None,
        kind: str = "flow",
    ) -> tuple[str, bool]:
        """Begins a flow of the newest definitions, with plain `start_options`; (its id, whether this call made it)."""
        given = start_options(options or {})
        if self.sharing.members > 1:
            await self.catch_up_all()
        try:
            program = find_program(self.definitions.registry, name, self.definitions.version)
        except LispError:
            raise self.definitions.no_flow(name) from None
        values = Vector.of([from_plain(a) for a in args])
        started = self.started(program.full_name, kind, values, self.definitions.version, by=by, **terms(given))
        new_id = flow_id or self.new_id()
        check_id(new_id)
        return await self._begin(new_id, [started, *waits_to_begin(started, given)], request_id)

    def started(self, name: str, kind: str, args: Any, version: int, **facts: Any) -> Draft:
        """The first row of a flow."""
        known = {"name": name, "kind": kind, "definitions": version, "run": str(self.chance.uuid())}
        return Draft(kinds.FLOW_STARTED, None, None, {**known, **{k: v for k, v in facts.items() if v}}, {"args": args}, at=self.clock.now())

    def new_id(self) -> str:
        """A fresh flow id."""
        return self.chance.uuid().hex[:20]

    async def _begin(self, flow_id: str, first: list[Draft], request_id: str | None) -> tuple[str, bool]:
        started = first[0]
        rows = [to_row(flow_id, started.facts["definitions"], draft) for draft in first]
        unique = None
        if request_id is not None:
            rows.append(Row(kinds.REQUESTS_STREAM, kinds.REQUEST, json.dumps({"flow_id": flow_id}), started.at, key=request_id))
            unique = (kinds.REQUEST, request_id)
        try:
            await self.commit(Commit(rows, {flow_id: 0}, [], unique))
        except Duplicate as e:
            flow_id = json.loads(e.row.data)["flow_id"]
            self._see_to(flow_id)
            return flow_id, False
        except StoreConflict:
            await self._same_call(flow_id, started)
            self._see_to(flow_id)
            return flow_id, False
        except StoreError:
            self.recover_later(flow_id, 0)
            raise
        for seq, draft in enumerate(first, 1):
            draft.seq = seq
        actor = self.actor(flow_id)
        actor.born(first)
        actor.poke()
        return flow_id, True

    def _see_to(self, flow_id: str) -> None:
        """A flow exists already: if the answer to the commit that made it was lost, nobody has begun it yet."""
        if flow_id not in self.actors and self.sharing.owns(flow_id):
            self.actor(flow_id).poke()

    async def _same_call(self, flow_id: str, started: Draft) -> None:
        first = (await self.writer.call(self.store.rows, flow_id, 0, 1))[0]
        there = to_draft(first, loader(self.definitions.registry))
        if there.facts.get("name") != started.facts["name"] or not equal(there.values.get("args"), started.values["args"]):
            raise FlowConflict(f"flow {flow_id} exists already, and is another call: {there.facts.get('name')}")

    async def eval(self, source: str, *, ns: str = "user", file: str = "cell", request_id: str | None = None, by: str = "") -> str:
        """Begins a cell: a flow that evaluates source text; its id."""
        started = self.started("cell", "cell", Vector.of([]), self.definitions.version, source=source, ns=ns, file=file, by=by)
        started.facts.setdefault("source", source)
        return (await self._begin(self.new_id(), [started], request_id))[0]

    async def load(self, source: str, *, file: str, by: str = "") -> dict[str, Any]:
        """Adds a file's definitions, all or none: `{"version", "names"}`. Raises SourceError or LispError."""
        async with self.defining:
            await self.catch_up()
            rows, names = self.definitions.load(source, file)
            if rows:
                self.definitions.stale = True
                done = await self.commit(Commit(rows, {kinds.DEFINITIONS_STREAM: self.definitions.version}))
                self.definitions.stale = False
                for row in done.rows:
                    self.definitions.committed(row)
        return {"version": self.definitions.version, "names": names}

    async def result(self, flow_id: str, timeout: float | None = None) -> dict[str, Any] | None:
        """Waits for a flow's end (or a cell's result); None when the time is over before."""
        ended = self.endings.of(flow_id)
        if ended is not None:
            return history.result(ended)
        flow_id = await self.resolve(flow_id)
        ticks = self.watch(flow_id, history.RESULT)
        self.timers.wait(1)
        try:
            row = await anext(ticks)
            if not self._runs(flow_id):
                row = await self.writer.call(history.result_row, self.store, flow_id)
            async with asyncio.timeout(timeout):
                while row is None:
                    row = await anext(ticks) or await self.writer.call(history.result_row, self.store, flow_id)
        except (TimeoutError, StopAsyncIteration):
            return None
        finally:
            self.timers.wait(-1)
            await ticks.aclose()
        return history.result(row)

    def _runs(self, flow_id: str) -> bool:
        """Whether the flow is in memory and has no result yet, so that the store need not be asked."""
        actor = self.actors.get(flow_id)
        process = actor.process if actor is not None else None
        return process is not None and not process.ended and process.state.kind != "cell"

    async def resolve(self, flow_id: str) -> str:
        """The id that an id or an unambiguous prefix names; raises FlowNotFound."""
        if self._runs(flow_id):
            return flow_id
        found = await self.writer.call(_find, self.store, flow_id)
        if not found or not flow_id:
            raise FlowNotFound(f"there is no flow {flow_id}")
        if len(found) > 1:
            raise FlowNotFound(f"several flows begin with {flow_id}: {', '.join(found)} …")
        return str(found[0])

    async def flow(self, flow_id: str) -> dict[str, Any]:
        """The row of the view `flows`."""
        flow_id = await self.resolve(flow_id)
        row = await self.writer.call(self.store.flow_row, flow_id)
        if row is None:
            raise FlowNotFound(f"there is no flow {flow_id}")
        return dict(row)

    async def flows(self, status: str | None = None, name: str | None = None, limit: int = 100, after: str | None = None) -> dict[str, Any]:
        """A page of flows, newest first."""
        items = await self.writer.call(self.store.flow_rows, status, name, limit + 1, after)
        more = len(items) > limit
        return {"items": items[:limit], "next": items[limit - 1]["flow_id"] if more else None}

    async def events(self, flow_id: str, after: int = 0) -> list[dict[str, Any]]:
        """Rows of the view `events` of one flow."""
        flow_id = await self.resolve(flow_id)
        return [history.event(row) for row in await self.writer.call(self.store.rows, flow_id, after)]

    async def state(self, flow_id: str, step: int | None = None, transition: int | None = None) -> dict[str, Any]:
        """The flow as it waits now, or as it waited for `step`, or so many transitions later; of one that has failed, as it was there."""
        if transition is not None and (step is None or transition < 0):
            raise LispError("transitions are counted from 0, from the request of a step: name the step too", type="value")
        flow_id = await self.resolve(flow_id)
        process = self.actors[flow_id].process if step is None and flow_id in self.actors and flow_id not in self.busy else None
        if process is not None and not process.ended and not process.rebuilding and not process.failed:
            return past.now(process)
        rows, snapshot = await self.writer.call(past.read, self.store, flow_id, step)
        registry = self.definitions.registry
        if transition is not None and step is not None:
            return await transitions.state_after(registry, flow_id, rows, snapshot, step, transition)
        failed = await failures.state_at_failure(registry, flow_id, rows) if step is None and history.says_failed(history.life_row(rows)) else None
        return failed or await past.state_at(registry, flow_id, rows, snapshot, step)

    async def stuck(self, after: float = stuck.AFTER) -> list[dict[str, Any]]:
        """The flows that wait for what cannot arrive, or for what nobody has asked for in `after` seconds; with what to do about each."""
        return await stuck.stuck(self, after)

    async def diff(self, flow_id: str, old: int | None = None, new: int | None = None) -> dict[str, Any]:
        """What changed between two steps of a flow; None is now."""
        return diff.diff(await self.state(flow_id, old), await self.state(flow_id, new))

    async def send(
        self, flow_id: str, message: Any, *, key: str | None = None, source: str = "http", by: str = "", ask: bool = False
    ) -> str:  # fmt: skip
        """Puts a message into a flow's mailbox; its id. The same key again is the same message. One that asks can be replied to."""
        flow_id = await self.resolve(flow_id)
        value = from_plain(message)
        message_id = key or self.chance.uuid().hex
        row_key = f"{flow_id}/{message_id}"

        def make(process: Process) -> Draft | None:
            if process.ended:
                raise FlowEnded(f"flow {flow_id} has ended")
            facts = {"message_id": message_id, "from": by or None, "source": source, **({"ask": True} if ask else {})}
            return Draft(kinds.MESSAGE_RECEIVED, None, None, facts, {"message": value}, key=row_key)

        async with self.sending.held(row_key):
            if key is None or await self.writer.call(self.store.find, kinds.MESSAGE_RECEIVED, row_key) is None:
                await self.deliver(flow_id, make, once=None if key is None else (kinds.MESSAGE_RECEIVED, row_key))
        return message_id

    async def deliver(self, flow_id: str, make: Make, *, once: tuple[str, str] | None = None) -> None:
        """Hands an arrival to a flow; returns when its row is on disk. `make` runs in the flow's turn; again, where another interpreter was
        first to write. `once`: kind and key of its row, of which the log has one, whoever else writes it."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.actor(flow_id).put(Item(make, future, once))
        await future

    async def reply(self, flow_id: str, message_id: str, wait: float) -> tuple[bool, Any]:
        """Waits up to `wait` seconds for the reply to a message: whether there is one, and its plain value."""
        flow_id = await self.resolve(flow_id)
        try:
            async with asyncio.timeout(wait):
                async for _ in self.watch(flow_id, kinds.ENDING | {kinds.EFFECT_COMPLETED}):
                    row = await self.asking.answer(flow_id, message_id)
                    if row is not None:
                        return True, json.loads(row.data)["value"]
        except TimeoutError:
            pass
        return False, None

    async def settle_callback(self, token: str, value: Any, *, source: str = "http") -> tuple[str, str]:
        """Settles a callback: accepted, again (the same body), conflict (another), unknown or ended; and the message's id."""
        return await callbacks.settle(self, token, value, source)

    async def control(self, flow_id: str, action: str, *, reason: str | None = None, by: str = "", request_id: str | None = None) -> dict[str, Any]:
        """pause, resume, step, retry, cancel or terminate; the flow's row afterwards. Raises FlowEnded for a flow that is over.
        The same request id again changes nothing, even where the action itself has ended the flow."""
        flow_id = await self.resolve(flow_id)
        key = f"{flow_id}/{request_id}" if request_id is not None else None
        if key is None or await self.writer.call(self.store.find, WRITES[action], key) is None:
            await self.act(flow_id, action, reason, by, key)
        return await self.flow(flow_id)

    async def act(self, flow_id: str, action: str, reason: str | None, by: str, key: str | None) -> None:
        """What `control` does, to the flow of this very id; `key` is the key of the row that it writes."""
        if action == "retry":
            await retrying.retry(self, flow_id, reason, by, key)
        else:
            await self.deliver(flow_id, control(flow_id, action, reason, by, key), once=None if key is None else (WRITES[action], key))

    async def advance(self, micros: int) -> int:
        """Moves a virtual clock by so many microseconds, running what falls due on the way; the time. Raises LispError in real time."""
        return await self.timers.advance(micros)

    async def sql(self, sql: str, params: Any = None, *, limit: int | None = None) -> Result:
        """A read-only query over the views, on a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(None, lambda: self.store.query(sql, params, limit=limit))

    async def complete(self, prefix: str, ns: str = "user") -> list[str]:
        """Names and keywords that begin with `prefix`."""
        return names(self.definitions.registry, prefix, ns, self.definitions.version)

    async def inspect(self, name: str, ns: str = "user") -> dict[str, Any] | None:
        """What is known of a name."""
        return self.definitions.inspect(name, ns)


def _find(store: Store, flow_id: str) -> list[str]:
    """Flows that an id or a prefix names. Whether there is a flow of that very id needs no query, as a rule."""
    return [flow_id] if not kinds.is_stream(flow_id) and store.last_seq(flow_id) else store.find_flows(flow_id)


def check_id(flow_id: str) -> None:
    """Raises LispError for an id that is none."""
    if not FLOW_ID.fullmatch(flow_id):
        raise LispError(f"{FLOW_ID_TEXT}, not {flow_id[:80]!r}", type="value")
