"""Queues: how much of something runs at once, and how much in a time.

In: flows that are to begin in a queue, calls that are to be sent in one. Out: their turns, in order. Who is in a
queue is told by the log: a flow from its beginning to its end, except while it is paused; a call while it is
leased or sent. The times that a rate counts by are kept in the store, and written before the work begins.
A queue that nobody declared has no limits. Where several interpreters may have the store, turns are taken there (see `places`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError
from flowmetal.lang.persistent import EMPTY_MAP, Map, Vector
from flowmetal.lang.printer import pr_str
from flowmetal.lang.values import Duration, Instant, kw
from flowmetal.runtime.book import BEGIN
from flowmetal.runtime.history import life_row
from flowmetal.runtime.places import Places
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, plain_name, to_draft, to_row
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Duplicate, Row
from flowmetal.store.sharing import Limits, SharedStore, share_of

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

CHUNK = 500
"""Flows that are looked at together when an engine opens."""
Key = tuple[str, int]
"""A flow and its step; a flow itself waits under the step `BEGIN`."""


@dataclass(slots=True, eq=False)
class Entry:
    """Who waits for a turn. `go` is called when it has come."""

    key: Key
    go: Callable[[], Any]
    gone: bool = False


Waiting = tuple[int, int, Entry]
"""Who waits, behind what they are ordered by."""


@dataclass(slots=True, eq=False)
class Queue:
    """One queue: its limits, who is in it, who waits, when work has begun in it."""

    name: str
    number: int
    concurrency: int | None = None
    rate: tuple[int, int] | None = None
    """So many in so many microseconds."""
    priority: int = 0
    inside: set[Key] = field(default_factory=set)
    waiting: list[Waiting] = field(default_factory=list)
    begun: deque[int] = field(default_factory=deque)
    pumping: bool = False

    # Where several interpreters may have the store
    entering: set[Key] = field(default_factory=set)
    """Who asks for a place."""
    held: set[Key] = field(default_factory=set)
    """Whose places stand in the store."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    poked: bool = False
    shut: bool = False
    """Whether the last that asked was refused, and nothing has happened since."""
    opens: int | None = None
    """When that may change by itself."""
    signs: int = 0
    """How often there may have come to be room."""

    @property
    def limits(self) -> Limits:
        """Its limits."""
        return Limits(self.concurrency, self.rate)

    @property
    def limited(self) -> bool:
        """Whether it has any."""
        return self.concurrency is not None or self.rate is not None

    def unsettled(self) -> tuple[set[Key], set[Key]]:
        """Who is in it, and has no place in the store; and who has one, and is not in it. Only places are counted there, so without a
        `:concurrency` there are none."""
        if self.concurrency is None:
            return set(), set(self.held)
        return self.inside - self.held, self.held - self.inside - self.entering

    def opens_at(self, now: int) -> int | None:
        """When there is room: `now`, a later time, or None: when somebody leaves."""
        if self.concurrency is not None and len(self.inside) >= self.concurrency:
            return None
        if self.rate is None:
            return now
        count, period = self.rate
        while self.begun and self.begun[0] <= now - period:
            self.begun.popleft()
        return now if len(self.begun) < count else self.begun[0] + period


class Queues:
    """The queues of an engine: a desk at which flows wait that begin later, or when there is room."""

    ops = frozenset({"begin"})

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.queues: dict[str, Queue] = {}
        self.entries: dict[Key, tuple[Queue, Entry]] = {}
        """Who waits."""
        self.flows: dict[str, str] = {}
        """Flows that have begun in a queue, paused ones too."""
        self.later: dict[str, tuple[str | None, int]] = {}
        """Flows that wait for their time: the queue that they go to then, and their priority in it."""
        self._orders = itertools.count()
        self.places = Places(self, engine.store) if isinstance(engine.store, SharedStore) else None
        """Where turns are taken, if others may have the store too."""
        self.room = asyncio.Event()
        """Is set when another interpreter has given a place back."""

    async def open(self) -> None:
        """Reads the declarations, and the times that rates count by."""
        call, store = self.engine.writer.call, self.engine.store
        await self.read()
        if self.places is not None:
            return
        for queue in self.queues.values():
            kept: str | None = await call(store.get_meta, _meta(queue))
            queue.begun.extend(json.loads(kept or "[]"))

    async def read(self) -> None:
        """Reads the declarations; the newest of each queue counts."""
        load = loader(self.engine.definitions.registry)
        declared = [to_draft(row, load) for row in await self.engine.writer.call(self.engine.store.rows, kinds.QUEUES_STREAM)]
        for name, options in {draft.facts["queue"]: draft.values["options"] for draft in declared}.items():
            self.note(name, options)

    async def watch(self) -> None:
        """Asks again for those who wait, as long as the engine lives."""
        if self.places is not None:
            await self.places.watch(self.room)

    async def recover(self, shares: frozenset[int]) -> None:
        """Shares were taken up: notes which of their flows are in a queue."""
        if self.places is not None:
            await self.read()
        if self.queues:
            flows = await self.engine.writer.call(self.engine.store.open_flows)
            await self.find([flow_id for flow_id in flows if share_of(flow_id) in shares])
        if self.places is not None:
            await self.places.recover(shares)

    async def find(self, flows: list[str]) -> None:
        """Notes which of these flows are in a queue."""
        for chunk in (flows[i : i + CHUNK] for i in range(0, len(flows), CHUNK)):
            await self._find(chunk)

    async def _find(self, flows: list[str]) -> None:
        call, store = self.engine.writer.call, self.engine.store
        flows = [flow_id for flow_id in flows if self.engine.sharing.owns(flow_id)]
        first = await call(store.rows_of, dict.fromkeys(flows, 0), frozenset({kinds.FLOW_STARTED}))
        named = {flow_id: queue for flow_id, rows in first.items() if (queue := json.loads(rows[0].data).get("queue"))}
        for flow_id, queue in named.items():
            rows = await call(store.rows, flow_id)
            if any(row.kind == kinds.EFFECT_REQUESTED and row.step == BEGIN for row in rows) and not any(
                row.kind == kinds.EFFECT_COMPLETED and row.step == BEGIN for row in rows
            ):
                continue
            life = life_row(rows).kind
            if life in kinds.ENDING:
                continue
            self.flows[flow_id] = queue
            if life != kinds.FLOW_PAUSED:
                self._stay(flow_id)

    # Declaring

    async def declare(self, name: str, options: Map, key: str, by: str) -> None:
        """Gives a queue its limits, once for each key; the newest declaration counts, for what has not begun."""
        parse(name, options)
        try:
            await self.engine.commit(Commit([self.declaration(name, options, key, by)], unique=(kinds.QUEUE_DECLARED, key)))
        except Duplicate:  # the answer to the first time was lost, and others may have come after it
            await self.read()
            return
        self.note(name, options)

    def declaration(self, name: str, options: Map, key: str | None, by: str) -> Row:
        """The row of a declaration."""
        draft = Draft(kinds.QUEUE_DECLARED, None, None, {"queue": name, "by": by}, {"options": options}, key=key, at=self.engine.clock.now())
        return to_row(kinds.QUEUES_STREAM, 0, draft)

    def note(self, name: str, options: Map) -> None:
        """Takes a declaration."""
        queue = self._queue(name)
        queue.concurrency, queue.rate, queue.priority = parse(name, options)
        queue.shut = False
        queue.signs += 1
        self._pump(queue)

    def _queue(self, name: str) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name, len(self.queues) + 1)
        return queue

    def priority(self, name: str | None) -> int:
        """How much a queue's work comes before that of others."""
        return self.queues[name].priority if name in self.queues else 0

    # Waiting

    def take(self, flow_id: str, run: str, draft: Draft, attempts: Sequence[Draft]) -> None:
        """A flow is to begin at a time, or when its queue has room."""
        facts = draft.facts
        if flow_id in self.flows or (flow_id, BEGIN) in self.entries:
            return
        self.later[flow_id] = facts.get("queue"), facts.get("priority") or 0
        due = facts.get("due_at")
        if due is None or Instant.parse(due).micros <= self.engine.clock.now():
            self.begin(flow_id)

    def begin(self, flow_id: str) -> None:
        """The time of a flow has come: it begins, or waits for its queue."""
        if flow_id not in self.later:
            return
        queue, priority = self.later.pop(flow_id)
        if queue is None:
            self.engine.put(flow_id, _begun)
        else:
            self.line_up(queue, (flow_id, BEGIN), priority, lambda: self._let_begin(flow_id, queue))

    def _let_begin(self, flow_id: str, queue: str) -> None:
        self.flows[flow_id] = queue

        def make(process: Process) -> Draft | None:
            if process.paused and not process.ended:  # it lines up again when it is resumed
                self._leave_flow(flow_id)
                self.later[flow_id] = queue, 0
                return None
            return _begun(process)

        self.engine.put(flow_id, make)

    def line_up(self, name: str, key: Key, priority: int, go: Callable[[], Any]) -> None:
        """Calls `go` when a queue has room for `key`, which is in it from then on until it leaves."""
        queue, entry = self._queue(name), Entry(key, go)
        if key in self.entries or key in queue.inside:
            return
        self.entries[key] = queue, entry
        heapq.heappush(queue.waiting, (-priority, next(self._orders), entry))
        self._pump(queue)

    def within(self) -> set[Key]:
        """Calls that have a place in some queue."""
        return {key for queue in self.queues.values() for key in (*queue.inside, *queue.entering) if key[1] != BEGIN}

    async def holders(self, name: str) -> list[str]:
        """The flows that are in a queue, or whose calls are."""
        queue = self._queue(name)
        inside = queue.inside if self.places is None or queue.concurrency is None else await self.places.all_inside(queue)
        return [flow_id for flow_id, _ in inside]

    def waits(self, flow_id: str, step: int) -> bool:
        """Whether a step waits for its queue."""
        return (flow_id, step) in self.entries

    def has(self, flow_id: str, step: int) -> bool:
        """Whether a call waits for its turn, or has its place."""
        key = (flow_id, step)
        return step != BEGIN and (key in self.entries or any(key in queue.inside for queue in self.queues.values()))

    def is_shut(self, name: str) -> bool:
        """Whether a queue has no place, as far as is known."""
        return self._queue(name).shut

    async def enter(self, name: str, key: Key) -> bool:
        """Takes a place in a queue, if there is one now."""
        queue = self._queue(name)
        return self._enter(queue, key) if self.places is None or not queue.limited else await self.places.enter(queue, [key]) > 0

    def _enter(self, queue: Queue, key: Key) -> bool:
        now = self.engine.clock.now()
        if queue.opens_at(now) != now:
            self._wake_later(queue)
            return False
        queue.inside.add(key)
        if queue.rate is not None:
            queue.begun.append(now)
        return True

    async def keep(self, name: str) -> None:
        """Writes down what a rate counts by, before the work of a place that was taken begins."""
        queue = self._queue(name)
        if queue.rate is not None and self.places is None:
            await self.engine.writer.call(self.engine.store.set_meta, _meta(queue), json.dumps(list(queue.begun)))

    def leave(self, name: str, key: Key) -> None:
        """Gives a place back."""
        queue = self._queue(name)
        queue.inside.discard(key)
        self._pump(queue)
        if self.places is None or not queue.limited:
            self.engine.foreign.room_in(name)

    def let_go(self, flow_id: str) -> None:
        """A flow is another interpreter's from now on: its place is seen to there."""
        self.drop(flow_id, BEGIN)
        name = self.flows.pop(flow_id, None)
        if name is not None:
            self._queue(name).inside.discard((flow_id, BEGIN))
            self._queue(name).held.discard((flow_id, BEGIN))

    def drop(self, flow_id: str, step: int, *, withdrawn: bool = False) -> None:
        """Whoever waits under this step does not any more."""
        if step == BEGIN:
            self.later.pop(flow_id, None)
        found = self.entries.pop((flow_id, step), None)
        if found is not None:
            found[1].gone = True

    # Flows

    def paused(self, flow_id: str) -> None:
        """A flow was paused: another may have its place."""
        if flow_id in self.flows:
            self.leave(self.flows[flow_id], (flow_id, BEGIN))

    def resumed(self, process: Process) -> None:
        """A flow goes on: it is in its queue again at once, even beyond the limit; one that has not begun lines up again."""
        flow_id = process.flow_id
        if flow_id in self.flows:
            self._stay(flow_id)
        elif flow_id in self.later and process.open[BEGIN].due_at is None:
            self.begin(flow_id)
        elif self.places is not None and self.queues:  # it may have ended here, and another interpreter has retried it
            self.engine.insist(lambda: self.find([flow_id]))

    def _stay(self, flow_id: str) -> None:
        """A flow is in its queue, whatever its limits."""
        queue = self._queue(self.flows[flow_id])
        queue.inside.add((flow_id, BEGIN))
        if self.places is not None:
            self._pump(queue)

    def ended(self, flow_id: str) -> None:
        """A flow has ended."""
        self.drop(flow_id, BEGIN)
        if flow_id in self.flows:
            self._leave_flow(flow_id)

    def look_again(self, flow_id: str, status: str) -> None:
        """What became of a flow may not have been noticed: the last row that says so is of this kind."""
        if status in kinds.ENDING:
            self.ended(flow_id)
        elif status == kinds.FLOW_PAUSED:
            self.paused(flow_id)
        elif flow_id in self.flows:
            self._stay(flow_id)

    def _leave_flow(self, flow_id: str) -> None:
        self.leave(self.flows.pop(flow_id), (flow_id, BEGIN))

    # Turns

    def due(self, number: int) -> None:
        """A queue's rate allows more."""
        for queue in list(self.queues.values()):
            if queue.number == number and self.places is not None:
                self.places.open(queue)
            elif queue.number == number:
                self._pump(queue)
                self.engine.foreign.room_in(queue.name)

    def _wake_later(self, queue: Queue) -> None:
        opens = queue.opens_at(self.engine.clock.now())
        if opens is not None:
            self.engine.timers.add(opens, kinds.QUEUES_STREAM, queue.number)

    def _next(self, queue: Queue) -> Entry | None:
        """The next one that has its turn now; it is inside from here on."""
        while queue.waiting and queue.waiting[0][2].gone:
            heapq.heappop(queue.waiting)
        if not queue.waiting or not self._enter(queue, queue.waiting[0][2].key):
            return None
        entry = heapq.heappop(queue.waiting)[2]
        del self.entries[entry.key]
        return entry

    def _pump(self, queue: Queue) -> None:
        if self.engine.closing:
            return
        if self.places is not None and (queue.limited or queue.held):
            self.places.poke(queue)
        elif queue.rate is None:
            while (entry := self._next(queue)) is not None:
                entry.go()
        elif queue.waiting and not queue.pumping:
            queue.pumping = True
            self.engine.insist(lambda: self._pump_rated(queue))

    async def _pump_rated(self, queue: Queue) -> None:
        try:
            while (entry := self._next(queue)) is not None:
                await self.engine.until_done(lambda: self.keep(queue.name))
                entry.go()
        finally:
            queue.pumping = False


def begins_later(started: Draft, due: int | None, queue: str | None, priority: int) -> list[Draft]:
    """The rows of a flow that begins at a time, or in its turn: what it waits for, and that it does."""
    if due is None and queue is None:
        return []
    facts: dict[str, Any] = {"op": "begin", "target": started.facts["name"]}
    waits = {"step": BEGIN, "op": "begin", "target": started.facts["name"], "due_at": None if due is None else Instant(due).format()}
    if due is not None:
        facts["due_at"] = waits["due_at"]
    if queue is not None:
        facts["queue"] = waits["queue"] = queue
    if priority:
        facts["priority"] = priority
    asked = Draft(kinds.EFFECT_REQUESTED, BEGIN, None, facts, {"args": started.values["args"]}, at=started.at, seq=2)
    return [asked, Draft(kinds.FLOW_WAITING, None, None, {"for": [waits]}, at=started.at, seq=3)]


def _begun(process: Process) -> Draft | None:
    if BEGIN not in process.open or process.paused or process.ended:
        return None
    return Draft(kinds.EFFECT_COMPLETED, BEGIN, None, {}, {"result": None})


def parse(name: str, options: Map) -> tuple[int | None, tuple[int, int] | None, int]:
    """Concurrency, rate and priority of a queue; raises LispError for options that are none."""
    concurrency, rate, priority = options.get(kw("concurrency")), options.get(kw("rate")), options.get(kw("priority"), 0)
    if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
        raise LispError(f"the :concurrency of the queue {name} must be a positive integer, but is {pr_str(concurrency)}", type="value")
    if type(priority) is not int:
        raise LispError(f"the :priority of the queue {name} must be an integer, but is {pr_str(priority)}", type="value")
    if rate is None:
        return concurrency, None, priority
    if isinstance(rate, Vector) and len(rate) == 2:
        count, period = rate
        if type(count) is int and count > 0 and isinstance(period, Duration) and period.micros > 0:
            return concurrency, (count, period.micros), priority
    raise LispError(f'the :rate of the queue {name} must be [count duration] such as [10 #dur "1m"], but is {pr_str(rate)}', type="value")


def queue_name(options: Map) -> str | None:
    """The name of the queue that options give; None without one."""
    given = options.get(kw("queue"))
    return None if given is None else plain_name(given)


def call_options(draft: Draft) -> Map:
    """The options of a call; those of an HTTP request are among its arguments."""
    args, options = draft.values["args"], draft.values.get("options")
    if options is None and draft.facts["op"].startswith("http/") and len(args):
        options = args.nth(0)
    return options if isinstance(options, Map) else EMPTY_MAP


def asked_queue(draft: Draft) -> tuple[str | None, int]:
    """The queue that a call is to be sent in, and its priority there."""
    options = call_options(draft)
    priority = options.get(kw("priority"))
    return queue_name(options), priority if type(priority) is int else 0


def shortened(draft: Draft, now: int) -> Draft:
    """A call that has waited for its turn: what is left of its time."""
    options = call_options(draft)
    limit = options.get(kw("timeout"))
    if not isinstance(limit, Duration) or now <= draft.at:
        return draft
    options = options.assoc(kw("timeout"), Duration(max(1, limit.micros - (now - draft.at))))
    if "options" in draft.values:
        return replace(draft, values={**draft.values, "options": options})
    return replace(draft, values={**draft.values, "args": Vector.of([options, *list(draft.values["args"])[1:]])})


def _meta(queue: Queue) -> str:
    return f"queue:{queue.name}"
