"""Topics: events that anybody may publish, and the subscriptions of flows that read them.

In: events, from flows, HTTP and the engine itself; open `next-event` steps. Out: rows of the topic's
stream, and outcomes of those steps. A subscription is a position in the stream, kept in the flow's own
state, so it survives whatever the flow survives. The one rule: a flow is woken only for an event that
its pattern matches, and it gets every such event, in order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, kw
from flowmetal.runtime.control import if_open
from flowmetal.runtime.matching import matches
from flowmetal.runtime.process import Process, loader
from flowmetal.runtime.rows import Draft, to_draft, to_row
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Duplicate, Row

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

ENDINGS = "$flows"
"""The topic to which the ending of every flow is published."""
SCHEMES = ("standard-webhooks", "github", "stripe", "hmac")
"""Signature schemes that a topic may be declared with."""
CHUNK = 200
"""Rows that are read of a stream at once."""
NAME = re.compile(r"[^\s/\x00-\x1f\x7f][^\s\x00-\x1f\x7f]{0,199}")


@dataclass(slots=True, eq=False)
class Waiter:
    """An open `next-event`: what it asks for, and how far the stream has been looked through for it."""

    flow_id: str
    step: int
    topic: str
    where: Any
    envelope: Any
    position: int


@dataclass(slots=True)
class Topic:
    """A topic that somebody waits for: who has seen all of it, up to the row `tail`."""

    tail: int
    waiters: dict[tuple[str, int], Waiter] = field(default_factory=dict)
    pumping: bool = False
    woken: bool = False


class Topics:
    """The topics of a store, and the flows that wait for their events."""

    ops = frozenset({"next-event"})

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.declared: dict[str, Map] = {}
        """Options of the topics that were declared."""
        self.waiters: dict[tuple[str, int], Waiter] = {}
        self.topics: dict[str, Topic] = {}

    async def open(self) -> None:
        """Reads the declarations."""
        load = loader(self.engine.definitions.registry)
        for row in await self.engine.writer.call(self.engine.store.rows, kinds.TOPICS_STREAM):
            draft = to_draft(row, load)
            self.declared[draft.facts["topic"]] = draft.values["options"]

    # Publishing

    async def publish(
        self, topic: str, value: Any, *, key: str | None = None, source: str = "", envelope: dict[str, Any] | None = None, by: str = ""
    ) -> tuple[str, bool]:
        """Publishes a language value: the event's id, and whether it was there already under this key."""
        check_name(topic)
        if topic.startswith("$"):
            raise LispError(f"the topic {topic} is the interpreter's own: nobody else publishes to it", type="value")
        row_key = None if key is None else f"{topic}\n{key}"
        message_id, row = self.event(topic, value, key=row_key, source=source, idempotency_key=key, envelope=envelope, by=by)
        try:
            await self.engine.commit(Commit([row], unique=None if row_key is None else (kinds.PUBLISHED, row_key)))
        except Duplicate as duplicate:
            self.wake(topic)
            return str(json.loads(duplicate.row.data)["message_id"]), True
        self.wake(topic)
        return message_id, False

    def event(self, topic: str, value: Any, *, key: str | None = None, source: str, by: str = "", at: int | None = None, **facts: Any) -> tuple[str, Row]:
        """The id and the row of an event; `key` is the row's, by which a repetition is found, `at` its time, if not now."""
        message_id = self.engine.chance.uuid().hex
        facts = {"topic": topic, "message_id": message_id, "source": source or None, **facts, "from": by or None}
        known = {name: fact for name, fact in facts.items() if fact is not None}
        when = self.engine.clock.now() if at is None else at
        return message_id, to_row(stream(topic), 0, Draft(kinds.PUBLISHED, None, None, known, {"message": value}, key=key, at=when))

    def ending(self, process: Process, draft: Draft) -> Row:
        """The event of a flow's end, for the commit that ends it."""
        state = process.state
        return self.told(process.flow_id, state.program.name, state.kind, kinds.STATUS[draft.kind], state.parent, draft.error, draft.at)

    def told(self, flow_id: str, name: str, kind: str, status: str, parent: str | None, error: ErrorValue | None, at: int) -> Row:
        """The event that says how a flow is over."""
        value = {
            "flow_id": flow_id, "name": name, "kind": kind, "status": status, "parent_id": parent,
            "error": None if error is None else {"type": error.type.text.lstrip(":"), "message": error.message},
        }  # fmt: skip
        return self.event(ENDINGS, from_plain(value), source="flow", by=flow_id, at=at)[1]

    async def declare(self, topic: str, options: Map, key: str, by: str) -> None:
        """Gives a topic its options, once for each key; the newest declaration counts."""
        check_name(topic)
        check_options(options)
        draft = Draft(kinds.TOPIC_DECLARED, None, None, {"topic": topic, "by": by}, {"options": options}, key=key, at=self.engine.clock.now())
        try:
            await self.engine.commit(Commit([to_row(kinds.TOPICS_STREAM, 0, draft)], unique=(kinds.TOPIC_DECLARED, key)))
        except Duplicate:  # the answer to the first time was lost, and others may have come after it
            await self.open()
            return
        self.declared[topic] = options

    # Subscribing

    async def position(self, topic: str, start: Any) -> int:
        """Where a subscription begins: at `:now`, at the `:start` of what is retained, or at an instant."""
        check_name(topic)
        call, store = self.engine.writer.call, self.engine.store
        retain = self.declared.get(topic, EMPTY_MAP).get(kw("retain"))
        if start is None or start is kw("now"):
            return int(await call(store.last_seq, stream(topic)))
        if start is kw("start"):
            return 0 if retain is None else await self._before(topic, self.engine.clock.now() - retain.micros)
        if isinstance(start, Instant):
            return await self._before(topic, start.micros)
        raise LispError("the :from of subscribe must be :now, :start or an instant", type="value")

    async def _before(self, topic: str, micros: int) -> int:
        """The last row of a topic that is older than a time."""
        position = 0
        while rows := await self.engine.writer.call(self.engine.store.rows, stream(topic), position, CHUNK):
            for row in rows:
                if row.at >= micros:
                    return position
                position = row.seq
        return position

    def take(self, flow_id: str, run: str, draft: Draft, attempts: Sequence[Draft]) -> None:
        """A flow waits for the next event of a topic after a position."""
        assert draft.step is not None
        if (flow_id, draft.step) in self.waiters:
            return
        options: Map = draft.values["args"].nth(0)
        waiter = Waiter(flow_id, draft.step, draft.facts["target"], options.get(kw("where")), options.get(kw("envelope")), options.get(kw("after")))
        self.waiters[flow_id, draft.step] = waiter
        self.engine.insist(lambda: self._catch_up(waiter))

    def drop(self, flow_id: str, step: int, *, withdrawn: bool = False) -> None:
        """The step has its outcome, or nobody waits for it any more."""
        waiter = self.waiters.pop((flow_id, step), None)
        topic = self.topics.get(waiter.topic) if waiter is not None else None
        if waiter is not None and topic is not None:
            topic.waiters.pop((flow_id, step), None)
            if not topic.waiters and not topic.pumping:
                del self.topics[waiter.topic]

    async def _catch_up(self, waiter: Waiter) -> None:
        """Looks through what was published before the step was asked; then the waiter is one of those who have seen all."""
        load = loader(self.engine.definitions.registry)
        while self._waits(waiter):
            rows = await self.engine.writer.call(self.engine.store.rows, stream(waiter.topic), waiter.position, CHUNK)
            if not rows and self._waits(waiter):
                topic = self.topics.setdefault(waiter.topic, Topic(waiter.position))
                topic.waiters[waiter.flow_id, waiter.step] = waiter
                topic.tail = min(topic.tail, waiter.position)
                self.wake(waiter.topic)
                return
            for row in rows:
                if self._offer(waiter, row, to_draft(row, load)):
                    return

    def _waits(self, waiter: Waiter) -> bool:
        return self.waiters.get((waiter.flow_id, waiter.step)) is waiter

    def wake(self, name: str) -> None:
        """Something was published."""
        topic = self.topics.get(name)
        if topic is None:
            return
        topic.woken = True
        if not topic.pumping:
            topic.pumping = True
            self.engine.insist(lambda: self._pump(name, topic))

    async def _pump(self, name: str, topic: Topic) -> None:
        """Reads what is new in a topic, once for all who wait for it."""
        load = loader(self.engine.definitions.registry)
        while topic.waiters:
            rows = await self.engine.writer.call(self.engine.store.rows, stream(name), topic.tail, CHUNK)
            if not rows:
                if not topic.woken:
                    break
                topic.woken = False
            for row in rows:
                draft = to_draft(row, load)
                for waiter in list(topic.waiters.values()):
                    if row.seq > waiter.position:
                        self._offer(waiter, row, draft)
                topic.tail = row.seq
        topic.pumping = False
        if not topic.waiters:
            self.topics.pop(name, None)

    def _offer(self, waiter: Waiter, row: Row, draft: Draft) -> bool:
        """Gives a waiter an event, if it is one that it asked for; or remembers that it was not."""
        waiter.position = row.seq
        value, facts = draft.values["message"], draft.facts
        about = envelope(draft)
        if not (matches(waiter.where, value) and matches(waiter.envelope, about)):
            return False
        self.drop(waiter.flow_id, waiter.step)
        step = waiter.step
        event = Map.of([(kw("value"), value), (kw("position"), row.seq), (kw("envelope"), about)])
        known = {"message_id": facts["message_id"], "topic": waiter.topic, "source": facts.get("source"), "attempts": 1}
        outcome = Draft(kinds.EFFECT_COMPLETED, step, None, known, {"result": event})
        self.engine.put(waiter.flow_id, if_open(step, outcome))
        return True


def stream(topic: str) -> str:
    """The stream of a topic's events in the log."""
    return kinds.TOPIC_STREAM + topic


def envelope(draft: Draft) -> Map:
    """What is known of an event besides its value: its id, topic, source, time, and the attributes of a CloudEvent."""
    facts = draft.facts
    about: Map = from_plain({**(facts.get("envelope") or {}), "message_id": facts["message_id"], "topic": facts["topic"]})
    if facts.get("source") is not None and kw("source") not in about:
        about = about.assoc(kw("source"), facts["source"])
    return about.assoc(kw("received-at"), Instant(draft.at))


def check_name(topic: str) -> None:
    """Raises LispError for a topic's name that is none."""
    if not NAME.fullmatch(topic):
        raise LispError(f"a topic's name is 1 to 200 characters without spaces, and does not begin with /: not {topic[:80]!r}", type="value")


def check_options(options: Map) -> None:
    """Raises LispError for options of a topic that mean nothing."""
    for key, _ in options.items():
        if key not in (kw("verify"), kw("retain")):
            raise LispError(f"topic knows no option {to_plain(key)[0]}; it has :verify :retain", type="value")
    retain = options.get(kw("retain"))
    if retain is not None and not isinstance(retain, Duration):
        raise LispError(":retain must be a duration", type="value")
    verify = options.get(kw("verify"))
    if isinstance(verify, Map) and verify.get(kw("scheme")) not in map(kw, SCHEMES):
        raise LispError(f":scheme must be one of {' '.join(f':{name}' for name in SCHEMES)}", type="value")
    if verify is not None and not (isinstance(verify, Map) and isinstance(verify.get(kw("scheme")), Keyword) and verify.get(kw("secret")) is not None):
        raise LispError(':verify must be a map with :scheme and :secret, such as {:scheme :github :secret (secret "HOOK")}', type="value")
