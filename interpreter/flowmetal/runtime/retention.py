"""Keeping a store small: flows that are over go to the archive, and what nobody needs any more goes.

In: how long flows stay in the log when they are over. Out: flows in the archive, where they answer as before; streams without their
older part. The one rule: nothing that a flow or a client can still ask for is lost, but events of topics beyond their `:retain`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from flowmetal.errors import FlowmetalError, LispError, StoreError
from flowmetal.lang.persistent import EMPTY_MAP
from flowmetal.lang.values import Duration, kw
from flowmetal.runtime import topics
from flowmetal.store import kinds
from flowmetal.store.files import FileStore
from flowmetal.store.protocol import Commit, Row

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

BATCH = 500
"""Flows that are archived in one commit."""
EVERY = 600.0
"""Seconds between two looks at what is to be archived, where the store has such a setting."""
REQUESTS_KEPT = Duration.parse("7d").micros
"""How long a client's call is remembered, so that its repetition is recognised."""
META = "keep"
"""The setting of the store: microseconds that flows which are over stay in the log."""


class Retention:
    """What the store of an engine keeps, and where."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._next: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Begins to look after the store, if it has a setting and lives in real time."""
        self.close()
        if not self.engine.clock.virtual and self.engine.sharing.leads and await self.keep() is not None:
            self._later(EVERY / 10)

    def close(self) -> None:
        """Looks no more."""
        if self._next is not None:
            self._next.cancel()

    async def keep(self) -> int | None:
        """How long flows that are over stay in the log, in microseconds; None: for ever."""
        text = await self.engine.writer.call(self.engine.store.get_meta, META)
        return int(text) if text else None

    async def set_keep(self, micros: int | None) -> None:
        """Makes it the store's setting; from now on it is seen to. Raises StoreError for a store without an archive."""
        self._files()
        await self.engine.writer.call(self.engine.store.set_meta, META, "" if micros is None else str(micros))
        self.close()
        if micros is not None and not self.engine.clock.virtual:
            self._later(EVERY / 10)

    def _later(self, seconds: float) -> None:
        """The next look, and the only one, is after so many seconds."""
        self.close()
        if not self.engine.closing:
            self._next = asyncio.get_running_loop().call_later(seconds, lambda: self.engine.spawn(self._look()))

    async def _look(self) -> None:
        try:
            keep = await self.keep()
            if keep is None:
                return
            await self.archive(older_than=keep, by="engine")
        except Exception as error:  # noqa: BLE001  the disk may be full: the next time it may not be
            self.engine.report(error)
        self._later(EVERY)

    async def archive(self, *, older_than: int | None = None, where: str | None = None, by: str = "") -> int:
        """Archives flows that are over: those that ended so many microseconds ago, and those for which an SQL condition holds; how many.

        What streams need no longer goes, too. Raises StoreError for a store without an archive, SqlRefused.
        """
        store, call, now = self._files(), self.engine.writer.call, self.engine.clock.now()
        before = now + 1 if older_than is None else now - older_than
        count = 0
        if where is not None:
            limit = "" if older_than is None else f" AND finished_at < make_timestamptz({before})"
            chosen = (await self.engine.sql(f"SELECT flow_id FROM flows WHERE finished_at IS NOT NULL{limit} AND ({where})")).rows
            for i in range(0, len(chosen), BATCH):
                count += await self._archive(store, [flow_id for (flow_id,) in chosen[i : i + BATCH]], by)
        else:
            while flows := await call(store.ended_before, before, BATCH):
                count += await self._archive(store, flows, by)
            await self._archive_runs(store, before, by)
        await self._prune(older_than, by)
        await call(store.give_back)
        return count

    async def _archive(self, store: FileStore, flows: list[str], by: str) -> int:
        said = Row(kinds.REMOVED_STREAM, kinds.FLOWS_ARCHIVED, json.dumps({"flows": len(flows), "by": by or None}), self.engine.clock.now())
        return int(await self.engine.writer.call(store.archive, flows, said))

    async def _archive_runs(self, store: FileStore, before: int, by: str) -> None:
        """Archives the runs that `continue-as` has ended, of flows that go on."""
        while runs := await self.engine.writer.call(store.ended_runs, before, BATCH):
            said = Row(kinds.REMOVED_STREAM, kinds.FLOWS_ARCHIVED, json.dumps({"runs_of": len(runs), "by": by or None}), self.engine.clock.now())
            await self.engine.writer.call(store.archive_runs, runs, said)

    async def _prune(self, older_than: int | None, by: str) -> None:
        """Takes out what is remembered no longer: calls of clients, endings, events of topics beyond their `:retain`."""
        now = self.engine.clock.now()
        limits = {kinds.REQUESTS_STREAM: now - REQUESTS_KEPT}
        if older_than is not None:
            limits[topics.stream(topics.ENDINGS)] = now - older_than
        for topic, options in self.engine.topics.declared.items():
            retain = (options or EMPTY_MAP).get(kw("retain"))
            if retain is not None:
                limits[topics.stream(topic)] = now - retain.micros
        for stream, before in limits.items():
            await self._cut(stream, before, by)

    async def _cut(self, stream: str, before: int, by: str) -> None:
        """Removes the rows of a stream that are older, but for its last."""
        call, store = self.engine.writer.call, self.engine.store
        last, upto = await call(store.last_seq, stream), 0
        while rows := await call(store.rows, stream, upto, topics.CHUNK):
            older = [row.seq for row in rows if row.at < before and row.seq < last]
            if older:
                upto = older[-1]
            if len(older) < len(rows):
                break
        if upto:
            said = Row(kinds.REMOVED_STREAM, kinds.EVENTS_PRUNED, json.dumps({"stream": stream, "seq": upto, "by": by or None}), self.engine.clock.now())
            await self.engine.commit(Commit([said], remove={stream: upto}))

    def _files(self) -> FileStore:
        store = self.engine.store
        if not isinstance(store, FileStore):
            raise StoreError("this store has no archive: only one in a DuckDB file has", type="store/path")
        return store


def duration(text: str | None) -> int | None:
    """The microseconds of a duration as users write it; None for None. Raises LispError."""
    if text is None:
        return None
    try:
        micros = Duration.parse(text).micros
    except (ValueError, FlowmetalError):
        micros = -1
    if micros < 0:
        raise LispError(f"{text[:40]!r} is no duration: write 30d, 12h, 90s", type="value")
    return micros
