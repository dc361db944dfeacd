"""Several interpreters on one store: which flows are this engine's, and what the others have written.

In: the store, when it is one that several may have at once. Out: flows taken up and let go; arrivals that others have committed.
The one rule: whose a flow is only says who computes it and sends what it asks for. Anybody may write an arrival into any flow, in a
commit that expects the flow where it was read; its interpreter learns of it from the log.

A share is given up when nothing of it is at work. Until then its flows take what arrives, and begin nothing new.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from flowmetal.runtime import lines, recovery
from flowmetal.runtime.topics import stream as topic_stream
from flowmetal.store import kinds
from flowmetal.store.sharing import SHARES, News, SharedStore, Standing, share_of

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

EVERY: Final = 1.0
"""Seconds between two looks at who is there."""
POLL: Final = 0.5
"""Seconds after which the log is looked at for what others have written, when no sign of it came."""
PATIENCE: Final = 10.0
"""Seconds that a share may take to come to rest; then its flows go on here, and it is tried again as long after."""
CHUNK: Final = 1_000
ALL: Final = frozenset(range(SHARES))


class Sharing:
    """What is this engine's of a store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = engine.store if isinstance(engine.store, SharedStore) else None
        self.mine: set[int] = set(ALL) if self.store is None else set()
        """The shares whose flows this engine computes."""
        self._fresh: set[int] = set()
        """Shares that are ours, and whose flows have not been taken up yet."""
        self._crashed: set[int] = set()
        """Those of them whose last interpreter ended without giving them up."""
        self.leaving: dict[int, float] = {}
        """Shares that are to be given up once they are at rest, and until when that is waited for, by the loop's clock."""
        self._kept: dict[int, float] = {}
        """Shares that did not come to rest, and when that may be tried again."""
        self._taken: dict[int, int] = {}
        """Where the log stood when a share was taken: its rows before that are no news."""
        self._leads = False
        self.members = 1
        self.lost: frozenset[int] = frozenset()
        """Shares whose last interpreter ended without giving them up, as this engine opens."""
        self._news, self._change = asyncio.Event(), asyncio.Event()

    def owns(self, flow_id: str) -> bool:
        """Whether this engine computes a flow."""
        return self.store is None or share_of(flow_id) in self.mine

    @property
    def leads(self) -> bool:
        """Whether this engine sees to what is one for the whole store: schedules, sources, retention."""
        return 0 in self.mine

    async def open(self) -> None:
        """Takes the first shares, whose flows are to be taken up then; and listens."""
        if self.store is None:
            return
        loop, store = asyncio.get_running_loop(), self.store

        def sign(event: asyncio.Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

        events = self._news, self._change, self.engine.foreign.offers.sign, self.engine.queues.room
        await self.engine.writer.call(store.listen, *(lambda event=event: sign(event) for event in events))
        standing = await self.engine.writer.call(store.balance)
        self.mine.update(standing.mine)
        self.members = standing.members
        self._taken = dict.fromkeys(standing.mine, standing.pos)
        self.lost = standing.lost

    def begin(self) -> None:
        """Follows the log and the other interpreters from now on."""
        self._leads = self.leads
        if self.store is not None:
            self.engine.attend(self._keep(self.store))
            self.engine.attend(self._follow(self.store))
            self.engine.attend(self.engine.queues.watch())
            self.engine.attend(self.engine.foreign.offers.keep())

    # Whose flows are whose

    async def _keep(self, store: SharedStore) -> None:
        while True:
            quick = bool(self.leaving)
            try:
                async with asyncio.timeout(0.05 if quick else EVERY):
                    await self._change.wait()
            except TimeoutError:
                pass
            self._change.clear()
            await self.engine.until_done(lambda: self._balance(store))

    async def _balance(self, store: SharedStore) -> None:
        given_up = [share for share in self.leaving if self._at_rest(share)]
        for share in given_up:
            del self.leaving[share]
            self._let_go(share)
        standing: Standing = await self.engine.writer.call(store.balance, given_up)
        self.members = standing.members
        new = standing.mine - self.mine - self.leaving.keys()
        self.mine.update(new)
        self._taken |= dict.fromkeys(new, standing.pos)
        self._fresh |= new
        self._crashed |= standing.lost
        await self._take_up()
        self._give_up(len(standing.mine) - standing.fair)
        await self._take_up()
        if self._leads != self.leads:
            await self.engine.lead()
            self._leads = self.leads

    async def _take_up(self) -> None:
        """Takes up the flows of fresh shares; done again from the beginning where the store fails on the way."""
        fresh = frozenset(self._fresh & self.mine)
        if fresh:
            await self.engine.catch_up_all()
            await recovery.recover(self.engine, fresh, frozenset(self._crashed))
        self._fresh -= fresh
        self._crashed.clear()

    def _give_up(self, surplus: int) -> None:
        """Chooses what is to be given up, first what is at rest; what does not come to rest stays."""
        now = asyncio.get_running_loop().time()
        back = [share for share, until in self.leaving.items() if until <= now]
        for share in back:
            del self.leaving[share]
            self._kept[share] = now + PATIENCE
            self.mine.add(share)
            self._fresh.add(share)
        surplus -= len(self.leaving)
        able = [share for share in sorted(self.mine, reverse=True) if self._kept.get(share, 0.0) <= now]
        able.sort(key=self._at_rest, reverse=True)
        for share in able[: max(0, surplus)]:
            self.mine.discard(share)
            self.leaving[share] = now + PATIENCE

    def _at_rest(self, share: int) -> bool:
        engine = self.engine
        held = (engine.busy, *([flow for flow, _ in each] for each in (engine.dispatcher.calls, engine.queues.within())))
        leased = [lease.task.flow_id for lease in engine.foreign.leases.values()]
        return not any(share_of(flow) == share for each in (*held, leased) for flow in each)

    def _let_go(self, share: int) -> None:
        """What is in memory of the flows of a share goes; whoever has it next finds all of it in the log."""
        engine = self.engine
        for task in [task for task in engine.foreign.open.values() if share_of(task.flow_id) == share]:
            engine.foreign.forget(task)  # the table of offers stays as it is
        desks = (engine.foreign.open, engine.topics.waiters, engine.asking.open, engine.queues.entries, engine.links.open, engine.timers.due_at)
        for flow_id, step in [key for desk in desks for key in desk if share_of(key[0]) == share and not kinds.is_stream(key[0])]:
            engine.dispatcher.let_go(flow_id, step)
            engine.timers.discard(flow_id, -step)
        for flow_id in [flow for flow in engine.queues.flows if share_of(flow) == share]:
            engine.queues.let_go(flow_id)
        for flow_id in [flow for flow in engine.actors if share_of(flow) == share]:
            engine.forget(flow_id)

    # What the others have written

    async def _follow(self, store: SharedStore) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL if self.members > 1 else EVERY):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            while news := await self.engine.until_done(lambda: self.engine.writer.call(store.news, CHUNK)):
                await self.engine.until_done(lambda news=news: self._told(news))  # type: ignore[misc]

    async def _told(self, news: list[News]) -> None:
        flows: dict[str, list[News]] = {}
        for each in news:
            if each.pos > self._taken.get(share_of(each.flow_id), 0) or kinds.is_stream(each.flow_id):
                flows.setdefault(each.flow_id, []).append(each)
        streams = {flow_id for flow_id in flows if kinds.is_stream(flow_id)}
        await self._streams(streams)
        others = {flow_id: rows for flow_id, rows in flows.items() if flow_id not in streams}
        mine = {flow_id: rows[0].seq - 1 for flow_id, rows in others.items() if self.owns(flow_id)}
        for flow_id, written in (await self.engine.writer.call(self.engine.store.rows_of, mine)).items():
            self.engine.actor(flow_id).notice([row for row in written if row.seq in {each.seq for each in others[flow_id]}])
        await self._guests({flow_id: rows for flow_id, rows in others.items() if flow_id not in mine})
        for flow_id in others:
            self.engine.watchers.wake(flow_id)
            if flow_id not in mine:
                self.engine.awaited.look_again(flow_id)
                self.engine.links.look_again(flow_id)
                self.engine.asking.ended(flow_id)
        if any(row.kind in kinds.ENDING for flow_id in mine for row in others[flow_id]):
            await recovery.end_orphans(self.engine)
        await self._ended([flow_id for flow_id, rows in others.items() if flow_id not in mine and any(row.kind in kinds.ENDING for row in rows)])

    async def _guests(self, others: dict[str, list[News]]) -> None:
        """Rows of others' flows, of whose calls workers here may have some."""
        offers = self.engine.foreign.offers
        told = {flow_id: others[flow_id][0].seq - 1 for flow_id, _ in offers.guests if flow_id in others}
        for rows in (await self.engine.writer.call(self.engine.store.rows_of, told)).values() if told else ():
            offers.others_wrote(rows)

    async def _ended(self, flows: list[str]) -> None:
        """Flows of others have ended: those of them that flows of ours had called are the outcome of that call."""
        first = await self.engine.writer.call(self.engine.store.rows_of, dict.fromkeys(flows, 0), frozenset({kinds.FLOW_STARTED})) if flows else {}
        for flow_id, rows in first.items():
            data = json.loads(rows[0].data)
            if data.get("parent_step") is not None and self.owns(data["parent"]):
                self.engine.insist(recovery.child_of(self.engine, data["parent"], data["parent_step"], flow_id))

    async def _streams(self, streams: set[str]) -> None:
        engine = self.engine
        if kinds.DEFINITIONS_STREAM in streams:
            await engine.catch_up_all()
        if any(name.startswith(kinds.LINE_STREAM) for name in streams):
            for _, rows in await engine.writer.call(lambda: list(lines.read(engine.store))):
                lines.bind(engine.definitions, rows)
        for name, read in (
            (kinds.TOPICS_STREAM, engine.topics.open), (kinds.QUEUES_STREAM, engine.queues.read), (kinds.SCHEDULES_STREAM, engine.schedules.open),
            (kinds.SOURCES_STREAM, engine.sources.open), (kinds.ALLOWANCES_STREAM, engine.allowances.open),
        ):  # fmt: skip
            if name in streams:
                await read()
        for name in list(engine.topics.topics):
            if topic_stream(name) in streams:
                engine.topics.wake(name)
