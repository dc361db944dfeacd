"""The client of an engine in this process.

In: calls from any thread or loop. Out: what the engine answers. The one rule: the engine is touched on its own
loop only; a call from elsewhere crosses as a message with a future.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from flowmetal.client.client import ENDED, ENDING_KINDS, Row, new_request_id
from flowmetal.client.relation import Relation
from flowmetal.errors import StoreError
from flowmetal.lang.plain import from_plain
from flowmetal.lang.values import Instant
from flowmetal.runtime.fork import Wish
from flowmetal.runtime.start_options import moved_by

if TYPE_CHECKING:
    from flowmetal.client.host import Host

T = TypeVar("T")


class LocalClient:
    """A `Client` on the `Host` of this process. `owns` says whether closing the client ends the host."""

    def __init__(self, host: Host, *, owns: bool = True, by: str = "") -> None:
        self.store = host.store
        self._host = host
        self._engine = host.engine
        self._owns = owns
        self._by = by

    async def near(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """See `Client`."""
        loop = self._host.loop
        if asyncio.get_running_loop() is loop:
            return await coroutine
        try:
            crossing = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:
            coroutine.close()
            raise StoreError("the store was closed", hint="open it again") from None
        return await asyncio.wrap_future(crossing)

    async def start_flow(
        self, name: str, args: Sequence[Any], *, flow_id: str | None = None, request_id: str | None = None, options: Row | None = None
    ) -> tuple[str, bool]:
        """See `Client`."""
        key = request_id or new_request_id()
        return await self.near(self._engine.start_flow(name, list(args), flow_id=flow_id, request_id=key, by=self._by, options=options))

    async def eval(self, source: str, *, ns: str = "user", file: str = "cell", request_id: str | None = None) -> str:
        """See `Client`."""
        key = request_id or new_request_id()
        return await self.near(self._engine.eval(source, ns=ns, file=file, request_id=key, by=self._by))

    async def load(self, source: str, *, file: str, request_id: str | None = None) -> Row:
        """See `Client`."""
        return await self.near(self._engine.load(source, file=file, by=self._by))

    async def result(self, flow_id: str, timeout: float | None = None) -> Row | None:
        """See `Client`."""
        return await self.near(self._engine.result(flow_id, timeout))

    async def flow(self, flow_id: str) -> Row:
        """See `Client`."""
        return await self.near(self._engine.flow(flow_id))

    async def flows(self, status: str | None = None, name: str | None = None, limit: int = 100, after: str | None = None) -> Row:
        """See `Client`."""
        return await self.near(self._engine.flows(status=status, name=name, limit=limit, after=after))

    async def events(self, flow_id: str, after: int = 0) -> list[Row]:
        """See `Client`."""
        return await self.near(self._engine.events(flow_id, after))

    async def follow(self, flow_id: str, after: int = 0) -> AsyncIterator[Row]:
        """See `Client`."""
        row = await self.flow(flow_id)
        if row["status"] in ENDED and not await self.events(row["flow_id"], after):
            return
        ticks = self._engine.watch(row["flow_id"])
        try:
            while await self.near(_next_tick(ticks)):
                rows = await self.events(row["flow_id"], after)
                for event in rows:
                    after = event["seq"]
                    yield event
                if rows and rows[-1]["kind"] in ENDING_KINDS:  # one that is retried goes on after its end
                    return
        finally:
            await self.near(ticks.aclose())

    async def state(self, flow_id: str, step: int | None = None, transition: int | None = None) -> Row:
        """See `Client`."""
        return await self.near(self._engine.state(flow_id, step, transition))

    async def diff(self, flow_id: str, old: int, new: int | None = None) -> Row:
        """See `Client`."""
        return await self.near(self._engine.diff(flow_id, old, new))

    async def stuck(self, after: float = 60.0) -> list[Row]:
        """See `Client`."""
        return await self.near(self._engine.stuck(after))

    async def send(self, flow_id: str, message: Any, *, key: str | None = None) -> str:
        """See `Client`."""
        coroutine = self._engine.send(flow_id, message, key=key or new_request_id(), source="client", by=self._by)
        return await self.near(coroutine)

    async def publish(self, topic: str, data: Any, *, key: str | None = None) -> str:
        """See `Client`."""
        value = from_plain(data)
        coroutine = self._engine.topics.publish(topic, value, key=key or new_request_id(), source="client", by=self._by)
        return str((await self.near(coroutine))[0])

    async def lease_tasks(
        self, functions: Sequence[str], *, queues: Sequence[str] | None = None, most: int = 1, wait: float = 0.0, lease: float = 60.0
    ) -> list[Row]:
        """See `Client`."""
        return await self.near(self._engine.foreign.lease(functions, queues=queues, most=most, wait=wait, lease=lease))

    async def complete_task(self, task_id: str, result: Any) -> None:
        """See `Client`."""
        await self.near(self._engine.foreign.complete(task_id, result))

    async def fail_task(self, task_id: str, error: Row, *, retry: bool | None = None) -> None:
        """See `Client`."""
        await self.near(self._engine.foreign.fail(task_id, error, retry))

    async def heartbeat_task(self, task_id: str) -> None:
        """See `Client`."""
        await self.near(self._engine.foreign.heartbeat(task_id))

    async def control(self, flow_id: str, action: str, *, reason: str | None = None) -> Row:
        """See `Client`."""
        return await self.near(self._engine.control(flow_id, action, reason=reason, by=self._by))

    async def delete(self, flow_id: str) -> list[str]:
        """See `Client`."""
        return await self.near(self._engine.keeping.delete(flow_id, by=self._by))

    async def backup(self, directory: str) -> str:
        """See `Client`."""
        return await self.near(self._engine.keeping.backup(directory))

    async def archive(self, *, older_than: str | None = None, where: str | None = None, keep: str | None = None) -> Row:
        """See `Client`."""
        return await self.near(self._engine.keeping.archive(older_than=older_than, where=where, keep=keep, by=self._by))

    async def export(self, flows: Sequence[str]) -> bytes:
        """See `Client`."""
        return await self.near(self._engine.keeping.export(flows))

    async def mark_moved(self, flows: dict[str, int]) -> None:
        """See `Client`."""
        await self.near(self._engine.keeping.mark_moved(flows, by=self._by))

    async def import_flows(self, data: bytes) -> Row:
        """See `Client`."""
        return await self.near(self._engine.keeping.import_flows(data, by=self._by))

    async def fork(
        self,
        flow_id: str,
        at: int,
        *,
        outcome: Sequence[Any] = (),
        upgrade: bool = False,
        adopt_rollbacks: bool = False,
        dry_run: bool = False,
        reason: str | None = None,
    ) -> Row:
        """See `Client`."""
        wish, forks = Wish(at, tuple(from_plain(value) for value in outcome), upgrade, adopt_rollbacks), self._engine.forks
        if dry_run:
            return await self.near(forks.preview(flow_id, wish))
        made = await self.near(forks.fork(flow_id, wish, reason=reason, by=self._by, request_id=new_request_id()))
        return await self.flow(made)

    async def upgrade(self, flow_id: str, *, dry_run: bool = False, reason: str | None = None) -> Row:
        """See `Client`."""
        upgrading = self._engine.upgrades.upgrade(flow_id, dry_run=dry_run, reason=reason, by=self._by, request_id=new_request_id())
        return await self.near(upgrading)

    async def schedules(self) -> list[Row]:
        """See `Client`."""
        rows: list[Row] = (await self.near(self._engine.sql("SELECT * FROM schedules ORDER BY name"))).plain()
        return rows

    async def control_schedule(self, name: str, action: str) -> Row:
        """See `Client`."""
        return await self.near(self._engine.schedules.control(name, action, self._by, new_request_id()))

    async def schedule_times(self, name: str, since: str, until: str) -> list[str]:
        """See `Client`."""

        async def times() -> list[str]:
            found = self._engine.schedules.times(name, Instant.parse(since).micros, Instant.parse(until).micros)
            return [Instant(at).format() for at in found]

        return await self.near(times())

    async def begin_scheduled(self, name: str, at: str) -> str:
        """See `Client`."""
        flow_id: str = (await self.near(self._engine.schedules.begin_for(name, Instant.parse(at).micros, self._by)))[0]
        return flow_id

    async def allowed_notebooks(self) -> list[str]:
        """See `Client`."""
        return sorted(self._engine.allowances.allowed)

    async def allow_notebook(self, notebook: str, allowed: bool = True) -> list[str]:
        """See `Client`."""
        return await self.near(self._engine.allowances.allow(notebook, allowed, self._by))

    async def sql(self, sql: str, params: Sequence[Any] | None = None) -> Relation:
        """See `Client`."""
        answer = await self.near(self._engine.sql(sql, list(params) if params is not None else None))
        return Relation.from_store(answer.columns, answer.types, answer.rows)

    async def complete(self, prefix: str, ns: str = "user") -> list[str]:
        """See `Client`."""
        return await self.near(self._engine.complete(prefix, ns))

    async def inspect(self, name: str, ns: str = "user") -> Row | None:
        """See `Client`."""
        return await self.near(self._engine.inspect(name, ns))

    async def advance(self, by: float | str) -> str:
        """See `Client`."""
        return Instant(await self.near(self._engine.advance(moved_by(by)))).format()

    async def host(self) -> Row:
        """See `Client`."""
        return await self.near(self._host.describe())

    async def stop(self) -> None:
        """See `Client`."""
        self._host.ask_to_stop()

    async def aclose(self) -> None:
        """See `Client`."""
        if self._owns:
            await asyncio.wrap_future(self._host.ask_to_stop())


async def _next_tick(ticks: AsyncIterator[None]) -> bool:
    """Waits for the next commit of the watched flow; false when there will be none."""
    try:
        await anext(ticks)
    except StopAsyncIteration:
        return False
    return True
