"""Database sources: tables of other databases whose rows are published to topics.

In: declarations, from flows; rows, read by a connector. Out: events, and how far was read. The one rule: the events of a
page and the cursor after it are in one commit, and every event has a key, so whatever is read again is published once.

A cursor is *safe* when nothing at or before it can appear any more. Without `:lag` it is at once. With it, a transaction
may commit so much later than one with a greater cursor: a cursor is safe when a whole pass over what is unsafe
has begun `:lag` after it was first seen. Each pass reads from the safe cursor on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError, StoreError
from flowmetal.lang.equality import equal
from flowmetal.lang.persistent import Map, Vector
from flowmetal.lang.plain import to_plain
from flowmetal.lang.printer import pr_str
from flowmetal.lang.secrets import Secret
from flowmetal.lang.values import Duration, ErrorValue, Instant, kw
from flowmetal.runtime.connector import Call, Completed, Failed, performed
from flowmetal.runtime.process import loader
from flowmetal.runtime.rows import Draft, plain_name, to_draft, to_row
from flowmetal.runtime.topics import check_name
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Duplicate, Row, Store

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

PAGE = 500
"""Rows that are read, and published in one commit."""
MOST = 100_000
"""Rows of a SELECT without a cursor."""
EVERY = Duration(10_000_000)
SHORTEST = 100_000
LONGEST_WAIT = 300_000_000
"""Microseconds after which a source that fails is tried again, at the latest."""
REMEMBERED = 10_000
"""Keys of a source that were published, and need no looking up."""
COLUMN = re.compile(r"[A-Za-z_]\w*|\"(?:[^\"]|\"\")+\"")
_COMPARED = re.compile(rf"({COLUMN.pattern})\s*>=?\s*:cursor\b")


@dataclass(slots=True, eq=False)
class Source:
    """One source, as its rows tell it."""

    number: int
    name: str
    options: Map
    column: str | None
    """The column by which it goes on; None: all rows are read each time."""
    reached: Any = None
    """The last cursor that was read."""
    safe: Any = None
    seen: deque[tuple[int, Any]] = field(default_factory=deque)
    """Cursors that are not safe yet, and when each was first seen."""
    seq: int = 0
    """The last row of its stream."""
    failures: int = 0
    complaint: str | None = None
    """What is wrong, as it stands in the log."""
    keys: OrderedDict[str, None] = field(default_factory=OrderedDict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def topic(self) -> str:
        """Where its rows are published."""
        given = self.options.get(kw("topic"))
        return self.name if given is None else plain_name(given)

    @property
    def every(self) -> int:
        """Microseconds between two passes."""
        found: Duration = self.options.get(kw("every"), EVERY)
        return found.micros

    @property
    def lag(self) -> int:
        """Microseconds by which a commit may be late."""
        found: Duration = self.options.get(kw("lag"), Duration(0))
        return found.micros

    def passed(self, began: int) -> None:
        """A whole pass that began then is over: what was seen long enough before it is safe."""
        while self.seen and self.seen[0][0] <= began - self.lag:
            self.safe = self.seen.popleft()[1]

    def key_of(self, row: Map) -> str:
        """What makes a row the same event as another: the columns of `:key`, else all of it."""
        given = self.options.get(kw("key"))
        names = [] if given is None else list(given) if isinstance(given, Vector) else [given]
        values = [row.get(kw(plain_name(name))) for name in names] if names else row
        text = json.dumps(to_plain(Vector.of(values) if names else row)[0], sort_keys=True)
        short = text if len(text) <= 100 else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self.topic}\nsource/{self.name}/{short}"


class _Unread(Exception):
    """The database did not give what it was asked for."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class Sources:
    """The database sources of a store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[str, Source] = {}
        self.numbers = 0

    async def open(self) -> None:
        """Reads the declarations, and how far each source was read; then they go on."""
        for row in await self.engine.writer.call(self.engine.store.rows, kinds.SOURCES_STREAM):
            self._note(to_draft(row, loader(self.engine.definitions.registry)))
        for source in self.known.values():
            await self._load(source)
            self._wake(source, 0)

    # Declaring

    async def declare(self, name: str, options: Map | None, key: str, by: str) -> None:
        """Makes a source, changes it, or without options ends it; the same again changes nothing. The cursor stays with the name."""
        there = self.known.get(name)
        if options is None if there is None else options is not None and equal(there.options, options):
            return
        if options is not None:
            check_name(name)
            check_options(options)
        draft = Draft(kinds.SOURCE_DECLARED, None, None, {"source": name, "by": by}, {"options": options}, key=key, at=self.engine.clock.now())
        try:
            await self.engine.commit(Commit([to_row(kinds.SOURCES_STREAM, 0, draft)], unique=(kinds.SOURCE_DECLARED, key)))
        except Duplicate:  # the answer to the first time was lost, and others may have come after it
            await self.open()
            return
        source = self._note(draft)
        if source is not None:
            await self._load(source)
            self._wake(source, 0)

    def _note(self, draft: Draft) -> Source | None:
        name, options = draft.facts["source"], draft.values.get("options")
        before = self.known.pop(name, None)
        if before is not None:
            self.engine.timers.discard(kinds.SOURCES_STREAM, before.number)
        if options is None:
            return None
        self.numbers += 1
        self.known[name] = source = Source(self.numbers, name, options, column_of(options))
        return source

    async def _load(self, source: Source) -> None:
        """What the log says of how far a source was read."""
        call, store, stream = self.engine.writer.call, self.engine.store, kinds.SOURCE_STREAM + source.name
        source.seq = await call(store.last_seq, stream)
        source.reached = source.safe = source.options.get(kw("from"), 0)
        source.seen.clear()
        rows = await call(store.rows, stream, source.seq - 1) if source.seq else []
        if rows:
            draft = to_draft(rows[-1], loader(self.engine.definitions.registry))
            value: Map = draft.values["value"]
            source.reached, source.safe = value.get(kw("cursor")), value.get(kw("safe"))
            if not equal(source.reached, source.safe):
                source.seen.append((draft.at, source.reached))
            source.complaint = draft.error.message if draft.error is not None else None

    # Time

    def _wake(self, source: Source, micros: int) -> None:
        if self.engine.sharing.leads:
            self.engine.timers.add(self.engine.clock.now() + micros, kinds.SOURCES_STREAM, source.number)

    def due(self, number: int) -> None:
        """It is time to read a source."""
        source = next((s for s in self.known.values() if s.number == number), None)
        if source is not None and self._reader is not None:
            self.engine.spawn(self._see_to(source))

    @property
    def _reader(self) -> Any:
        return self.engine.dispatcher.connectors.get("source/read")

    async def _see_to(self, source: Source) -> None:
        async with source.lock:
            if self.known.get(source.name) is not source or self.engine.closing or not self.engine.sharing.leads:
                return
            try:
                await self._pass(source)
                source.failures = 0
            except _Unread as error:
                failed = error.failed
                source.failures += 1
                await self.engine.until_done(lambda: self._complain(source, failed))
            except StoreError:  # a commit may be on disk or not: the log says how far it is
                source.failures += 1
                await self.engine.until_done(lambda: self._load(source))
                self.engine.topics.wake(source.topic)
            except Exception as error:  # noqa: BLE001  whatever it is, the source is asked again
                source.failures += 1
                self.engine.report(error)
            if self.known.get(source.name) is source:
                wait = source.every if not source.failures else min(source.every * 2 ** min(source.failures, 20), max(source.every, LONGEST_WAIT))
                self._wake(source, wait)

    # Reading

    async def _pass(self, source: Source) -> None:
        began = self.engine.clock.now()
        at, more = source.safe, True
        while more:
            rows = await self._ask(source, "source/read", plain_name(source.options.get(kw("sql"))), source.column, at, self._most(source) + 1)
            more = len(rows) > self._most(source)
            if source.column is not None and rows:
                rows, at = _page(source, rows, more=more)
            new = False
            for page in _chunks(rows):
                new |= await self._publish(source, page, at)
                if source.options.get(kw("done")) is not None:
                    await self._ask(source, "source/done", source.options.get(kw("done")), Vector.of(page))
            more = more and (source.column is not None or new)
        source.passed(began)
        if source.complaint is not None:
            await self._commit(source, [], {"rows": 0}, source.reached)

    def _most(self, source: Source) -> int:
        return PAGE if source.column is not None or source.options.get(kw("done")) is not None else MOST

    async def _ask(self, source: Source, op: str, sql: str, *args: Any) -> Any:
        url = source.options.get(kw("url"))
        outcome = await performed(self._reader, Call(op, sql, (url, *args)))
        if not isinstance(outcome, Completed):
            raise _Unread(outcome)
        if outcome.value is not None and len(outcome.value) > MOST:
            raise _Unread(Failed("limit", f"the SELECT gives more than {MOST:,} rows: add a LIMIT, or a :cursor"))
        return outcome.value

    async def _publish(self, source: Source, page: Sequence[Map], at: Any) -> bool:
        """Publishes what is new of some rows, and writes down how far was read; whether anything was new."""
        found = {source.key_of(row): row for row in reversed(page)}
        unsure = [key for key in found if key not in source.keys]
        there = await self.engine.writer.call(_published, self.engine.store, unsure)
        fresh = [(key, found[key]) for key in reversed(unsure) if key not in there]
        beyond = source.column is not None and bool(page) and _beyond(at, source.reached)
        if fresh or beyond:
            events = [self.engine.topics.event(source.topic, row, key=key, source=f"source/{source.name}")[1] for key, row in fresh]
            await self._commit(source, events, {"rows": len(fresh)}, at if beyond else source.reached)
        for key in unsure:
            source.keys[key] = None
        while len(source.keys) > REMEMBERED:
            source.keys.popitem(last=False)
        if fresh:
            self.engine.topics.wake(source.topic)
        return bool(fresh)

    async def _commit(self, source: Source, events: list[Row], facts: dict[str, Any], reached: Any, error: ErrorValue | None = None) -> None:
        now, stream = self.engine.clock.now(), kinds.SOURCE_STREAM + source.name
        moved = not equal(reached, source.reached)
        safe = reached if moved and not source.lag else source.safe
        values: dict[str, Any] = {"value": Map.of([(kw("cursor"), reached), (kw("safe"), safe)])}
        if error is not None:
            values["error"] = error
        row = to_row(stream, 0, Draft(kinds.SOURCE_READ, None, None, {"source": source.name, **facts}, values, at=now))
        await self.engine.commit(Commit([row, *events], {stream: source.seq}))
        source.seq += 1
        source.complaint = error.message if error is not None else None
        source.reached, source.safe = reached, safe
        if moved and source.lag:
            source.seen.append((now, reached))

    async def _complain(self, source: Source, failed: Failed) -> None:
        """Writes down what is wrong, once: the next attempt comes by itself."""
        if failed.message != source.complaint:
            await self._commit(source, [], {"rows": 0}, source.reached, ErrorValue(kw(failed.type), failed.message, failed.data))


def _page(source: Source, rows: Any, *, more: bool) -> tuple[list[Map], Any]:
    """The rows of a page, and the cursor after them. Of a full page, rows with its last cursor are left to the next."""
    name = (source.column or "").strip('"').lower()
    key = next((k for k, _ in rows.nth(0).items() if k.name.lower() == name), None)
    if key is None:
        raise _Unread(Failed("value", f"the SELECT does not give the column {source.column}, by which it goes on"))
    kept = list(rows)
    if more:
        last = kept[-1].get(key)
        kept = [row for row in kept if not equal(row.get(key), last)]
        if not kept:
            raise _Unread(Failed("limit", f"more than {PAGE} rows have the same {source.column}: the source cannot go on after them"))
    return kept, kept[-1].get(key)


def _chunks(rows: Any) -> list[list[Map]]:
    every = list(rows)
    return [every[i : i + PAGE] for i in range(0, len(every), PAGE)]


def _published(store: Store, keys: Sequence[str]) -> set[str]:
    return {key for key in keys if store.find(kinds.PUBLISHED, key) is not None}


def _beyond(a: Any, b: Any) -> bool:
    """Whether a cursor comes after another; of kinds that cannot be compared, the new one does."""
    if isinstance(a, Instant) and isinstance(b, Instant):
        return a.micros > b.micros
    try:
        return bool(a > b)
    except TypeError:
        return not equal(a, b)


def column_of(options: Map) -> str | None:
    """The column whose greatest value is the cursor: `:column`, else the one that `:sql` compares with `:cursor`."""
    sql = str(options.get(kw("sql")))
    given = options.get(kw("column"))
    if given is not None:
        return plain_name(given)
    found = _COMPARED.search(sql)
    return found[1] if found is not None else None


def check_options(options: Map) -> None:
    """Raises LispError for options of a source that mean nothing."""
    sql, url = options.get(kw("sql")), options.get(kw("url"))
    if not isinstance(sql, str) or not isinstance(url, (str, Secret)):
        raise LispError("defsource needs :sql, a SELECT, and :url, a database, as strings", type="value")
    column = column_of(options)
    if column is None and ":cursor" in sql:
        raise LispError("defsource cannot tell which column :cursor is compared with: name it by :column", type="value")
    if column is not None and not COLUMN.fullmatch(column):
        raise LispError(f"the :column of defsource must be the name of a column, not {column}", type="value")
    if column is not None and ":cursor" not in sql:
        raise LispError(f"defsource has a :column, so its :sql needs a condition such as {column} > :cursor", type="value")
    for name, least in (("every", SHORTEST), ("lag", 0)):
        given = options.get(kw(name))
        if given is not None and not (isinstance(given, Duration) and given.micros >= least):
            what = "a duration of 100 ms or more" if least else "a duration"
            raise LispError(f"the :{name} of defsource must be {what}, but is {pr_str(given)}", type="value")
    if options.get(kw("done")) is not None and not isinstance(options.get(kw("done")), str):
        raise LispError("the :done of defsource must be a statement, such as DELETE FROM outbox WHERE id = :id", type="value")
    topic = options.get(kw("topic"))
    if topic is not None:
        check_name(plain_name(topic))
