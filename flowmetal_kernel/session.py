"""What a notebook holds on to between its cells: the engine, the namespace, the cells that still run.

In: source text. Out: a running cell to wait for, and its output as it is committed. The one rule: the notebook never owns a
flow; an interrupt lets go of the cell at once, and its flow's cancel follows a second later unless the kernel is leaving.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowmetal.client import discovery
from flowmetal.client.client import Client, new_request_id
from flowmetal.client.requires import load_requires
from flowmetal.errors import FlowmetalError

CANCEL_AFTER = 1.0
"""Seconds between an interrupt and the cancel of the cell's flow: Jupyter interrupts before every shutdown, too."""

QUICK = 0.05
"""Seconds after which a cell's output is followed live instead of being read once at its end."""

Output = Callable[[str], None]

log = logging.getLogger("flowmetal.kernel")


@dataclass(slots=True, eq=False)
class RunningCell:
    """A cell that was begun, here or by a kernel before this one. `begun` gives its flow's id."""

    ns: str
    source: str
    begun: asyncio.Task[str]
    attached: bool = False


class Session:
    """One notebook's conversation with an engine."""

    def __init__(self, notebook: str = "") -> None:
        self.ns = "user"
        self.notebook = notebook
        """The notebook's name, where Jupyter tells it: only then can a new kernel know the cells of the one before."""
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._running: dict[tuple[str, str], RunningCell] = {}
        self._orphans: dict[tuple[str, str], str] | None = None
        self._cancelling: dict[RunningCell, asyncio.Task[None]] = {}
        self._leaving = False

    async def client(self) -> Client:
        """The engine of the notebook's store; the first call finds its host, or starts one."""
        async with self._connecting:
            if self._client is None:
                self._client = await discovery.connect(None, by="notebook")
            return self._client

    def place(self, number: int) -> str:
        """What stands in errors for a cell: the notebook, if it is known, and the cell's number."""
        return f"{self.notebook} In[{number}]".lstrip()

    async def begin(self, source: str, file: str, *, again: bool = False) -> RunningCell:
        """Starts a cell, or attaches to the same one where it still runs."""
        client = await self.client()
        key = (self.ns, source.strip())
        if not again:
            running = self._running.get(key) or await self._orphan(client, key)
            if running is not None:
                self._forget_cancel(running)
                running.attached = True
                return running
        request = self._eval(client, source, file)
        cell = RunningCell(*key, asyncio.ensure_future(request))
        self._running[key] = cell
        return cell

    async def _eval(self, client: Client, source: str, file: str) -> str:
        """Begins the cell's flow, after what it requires was loaded from beside the notebook."""
        await load_requires(client, source, self.notebook or "notebook")
        return await client.eval(source, ns=self.ns, file=file, request_id=new_request_id())

    async def wait(self, cell: RunningCell, output: Output) -> dict[str, Any]:
        """Waits for a cell's result and gives its output to `output` as it is committed."""
        client = await self.client()
        following: asyncio.Task[None] | None = None
        waiting: asyncio.Task[dict[str, Any] | None] | None = None
        shown = _Shown(output)
        try:
            flow_id = await asyncio.shield(cell.begun)
            waiting = asyncio.ensure_future(client.result(flow_id))
            await asyncio.wait({waiting}, timeout=QUICK)
            if not waiting.done():
                following = asyncio.ensure_future(_follow(client, flow_id, shown))
            result = await waiting
            if following is not None:
                await _end(following)
            for row in await client.events(flow_id, shown.seq):
                shown.take(row)
        except asyncio.CancelledError:
            self._interrupted(cell)
            raise
        except FlowmetalError:
            self._done(cell)
            raise
        finally:
            for task in (waiting, following):
                if task is not None:
                    await _end(task)
        self._done(cell)
        answer = result or {}
        self.ns = str(answer.get("ns") or self.ns)
        return answer

    async def leave(self, *, restart: bool) -> None:
        """The kernel ends. A restart cancels what runs, now; a shutdown lets it go on without the notebook."""
        self._leaving = not restart
        for task in self._cancelling.values():
            task.cancel()
        if restart and self._client is not None:
            cells = list(self._running.values())
            await asyncio.gather(*(self._cancel(cell, "the kernel was restarted") for cell in cells))

    def leave_soon(self) -> None:
        """Says, from any thread, that the kernel ends without a restart: no cancel is committed from now on."""
        self._leaving = True

    async def _orphan(self, client: Client, key: tuple[str, str]) -> RunningCell | None:
        """A cell that outlived the kernel which ran it; asked for once, when a kernel begins."""
        if self._orphans is None:
            self._orphans = await _open_cells(client, self.notebook) if self.notebook else {}
        flow_id = self._orphans.pop(key, None)
        if flow_id is None:
            return None
        cell = RunningCell(*key, asyncio.ensure_future(_ready(flow_id)))
        self._running[key] = cell
        return cell

    def _interrupted(self, cell: RunningCell) -> None:
        self._forget_cancel(cell)
        self._cancelling[cell] = asyncio.ensure_future(self._cancel_later(cell))

    async def _cancel_later(self, cell: RunningCell) -> None:
        await asyncio.sleep(CANCEL_AFTER)
        if not self._leaving:
            await self._cancel(cell, "interrupted in the notebook")
        self._cancelling.pop(cell, None)

    async def _cancel(self, cell: RunningCell, reason: str) -> None:
        try:
            client = await self.client()
            await client.control(await cell.begun, "cancel", reason=reason)
        except FlowmetalError as error:
            log.info("the cell had ended when it was to be cancelled: %s", error)
        self._done(cell)

    def _forget_cancel(self, cell: RunningCell) -> None:
        pending = self._cancelling.pop(cell, None)
        if pending is not None:
            pending.cancel()

    def _done(self, cell: RunningCell) -> None:
        if self._running.get((cell.ns, cell.source)) is cell:
            del self._running[(cell.ns, cell.source)]

    async def aclose(self) -> None:
        """Lets go of the engine."""
        if self._client is not None:
            await self._client.aclose()


class _Shown:
    """Which rows of a cell's history were shown."""

    def __init__(self, output: Output) -> None:
        self.seq = 0
        self._output = output

    def take(self, row: dict[str, Any]) -> None:
        self.seq = max(self.seq, int(row["seq"]))
        data = row.get("data")
        if row["kind"] in ("output", "truncated") and isinstance(data, dict):
            self._output(str(data.get("text", "")))


async def _follow(client: Client, flow_id: str, shown: _Shown) -> None:
    async for row in client.follow(flow_id, shown.seq):
        shown.take(row)


async def _open_cells(client: Client, notebook: str) -> dict[tuple[str, str], str]:
    """The cells of a notebook that still run towards their result."""
    found = await client.sql(
        "SELECT f.flow_id, e.data->>'ns', e.data->>'source' FROM flows f JOIN events e USING (flow_id) "
        "WHERE f.kind = 'cell' AND f.status IN ('running', 'waiting', 'paused') AND e.kind = 'flow-started' "
        "AND starts_with(e.data->>'file', ?) "
        "AND NOT EXISTS (SELECT 1 FROM events r WHERE r.flow_id = f.flow_id AND r.kind = 'cell-result') ORDER BY e.pos",
        [f"{notebook} In["],
    )
    return {(str(ns or "user"), str(source or "").strip()): str(flow_id) for flow_id, ns, source in found.fetchall()}


async def _ready(flow_id: str) -> str:
    return flow_id


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancels a task if it still runs, and waits for it; what it died of was already told, or is of no interest."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is not None:
        log.debug("a follower ended: %s", task.exception())
