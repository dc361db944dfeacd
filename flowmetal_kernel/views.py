"""The live histories of a notebook: which flows are shown, who looks at them, and what their buttons do.

In: a flow's id, and the rows of its log as they are committed. Out: a widget, and the static picture under the same display
id. The one rule: what is saved must not need a kernel, so an ended flow's output is its picture alone, for good.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from flowmetal.client.client import Client
from flowmetal.errors import FlowmetalError

from flowmetal_kernel.widgets import picture
from flowmetal_kernel.widgets.history import new_view
from flowmetal_kernel.widgets.timeline import timeline

WIDGET = "application/vnd.jupyter.widget-view+json"
REFRESH = 0.12
"""Seconds between two updates of a widget."""
PICTURE = 1.5
"""Seconds that a status must last before the saved picture follows it (the output is drawn anew each time)."""
REVIVED = 30
OPEN = ("running", "waiting", "paused")

Publish = Callable[[str, dict[str, Any]], None]
Connect = Callable[[], Awaitable[Client]]

log = logging.getLogger("flowmetal.kernel")


@dataclass(slots=True, eq=False)
class View:
    """One flow as it is shown: its rows so far, the widget, the outputs that hold its picture."""

    flow_id: str
    events: list[dict[str, Any]] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)
    widget: Any = None
    outputs: dict[str, str] = field(default_factory=dict)
    pictured: str = ""
    following: asyncio.Task[None] | None = None
    picturing: asyncio.TimerHandle | None = None


class Views:
    """All histories of one kernel."""

    def __init__(self, connect: Connect, publish: Publish) -> None:
        self._connect = connect
        self._publish = publish
        self._views: dict[str, View] = {}
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    async def show(self, flow_id: str, printed: str = "") -> None:
        """Displays the history of a flow; it stays live until the flow ends."""
        client = await self._connect()
        view = await self._fetch(client, flow_id)
        text = printed or f"#flow[{view.model['name']} {view.flow_id}]"
        output = uuid4().hex
        bundle = self._bundle(view, text)
        self._publish("display_data", {"data": bundle, "metadata": {}, "transient": {"display_id": output}})
        if not view.model["ended"]:
            view.outputs[output] = text
            view.pictured = str(view.model["status"])
            self._follow(view)

    async def revive(self) -> None:
        """Makes the views of open flows again, so that a notebook opened with a new kernel finds its widgets."""
        client = await self._connect()
        for status in OPEN:
            for row in (await client.flows(status=status, limit=REVIVED))["items"]:
                if row.get("kind") == "flow" and row["flow_id"] not in self._views:
                    view = self._views[row["flow_id"]] = View(row["flow_id"], model=timeline(row, []))
                    self._widget(view)

    def close(self) -> None:
        """Stops following."""
        for view in self._views.values():
            if view.following is not None:
                view.following.cancel()

    async def _fetch(self, client: Client, flow_id: str) -> View:
        row = await client.flow(flow_id)
        view = self._views.setdefault(row["flow_id"], View(row["flow_id"]))
        await self._catch_up(client, view)
        view.model = timeline(row, view.events)
        return view

    async def _catch_up(self, client: Client, view: View) -> None:
        after = view.events[-1]["seq"] if view.events else 0
        for event in await client.events(view.flow_id, after):
            _append(view, event)

    def _widget(self, view: View) -> Any:
        if view.widget is None:
            view.widget = new_view(view.flow_id, view.model, lambda action, message: self._clicked(view, action, message))
        return view.widget

    def _bundle(self, view: View, text: str) -> dict[str, Any]:
        ended = bool(view.model["ended"])
        bundle: dict[str, Any] = {"text/html": picture.html(view.model, table=ended), "text/plain": text}
        if not ended:
            widget = self._widget(view)
            bundle[WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
        return bundle

    def _clicked(self, view: View, action: str, message: Any) -> None:
        """A button, or a page that began to look; may come on any thread."""
        self._loop.call_soon_threadsafe(self._spawn, self._act(view, action, message))

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _act(self, view: View, action: str, message: Any) -> None:
        try:
            client = await self._connect()
            if action == "watch":
                self._follow(view)
            elif action == "send":
                await client.send(view.flow_id, _message(message))
            elif action in ("pause", "resume", "cancel"):
                await client.control(view.flow_id, action, reason="asked for in the notebook")
        except FlowmetalError as problem:
            view.widget.send({"notice": problem.render()})

    def _follow(self, view: View) -> None:
        if (view.following is None or view.following.done()) and not view.model.get("ended"):
            view.following = self._loop.create_task(self._stay_live(view))

    async def _stay_live(self, view: View) -> None:
        try:
            client = await self._connect()
            fresh = asyncio.Event()
            fresh.set()
            reading = self._loop.create_task(_read(client, view, fresh))
            try:
                while not view.model.get("ended"):
                    await fresh.wait()
                    fresh.clear()
                    over = reading.done()
                    await self._refresh(client, view)
                    if over and not view.model["ended"]:
                        reading.result()
                        break
                    await asyncio.sleep(REFRESH)
            finally:
                reading.cancel()
        except FlowmetalError as problem:
            log.info("the view of %s stopped: %s", view.flow_id, problem)
            self._widget(view).send({"notice": problem.render()})

    async def _refresh(self, client: Client, view: View) -> None:
        row = await client.flow(view.flow_id)
        await self._catch_up(client, view)
        view.model = timeline(row, view.events)
        if view.widget is not None:
            view.widget.timeline = view.model
        if view.model["ended"]:
            self._picture(view)
        elif view.model["status"] != view.pictured and view.picturing is None:
            view.picturing = self._loop.call_later(PICTURE, self._picture, view)

    def _picture(self, view: View) -> None:
        """Brings the saved picture up to date; at the flow's end it replaces the widget."""
        if view.picturing is not None:
            view.picturing.cancel()
            view.picturing = None
        view.model = {**view.model, "now": time.time() * 1000}
        view.pictured = str(view.model["status"])
        for output, text in view.outputs.items():
            content = {"data": self._bundle(view, text), "metadata": {}, "transient": {"display_id": output}}
            self._publish("update_display_data", content)
        if view.model["ended"]:
            view.outputs.clear()


def _append(view: View, event: dict[str, Any]) -> None:
    if not view.events or event["seq"] > view.events[-1]["seq"]:
        view.events.append(event)


async def _read(client: Client, view: View, fresh: asyncio.Event) -> None:
    try:
        after = view.events[-1]["seq"] if view.events else 0
        async for event in client.follow(view.flow_id, after):
            _append(view, event)
            fresh.set()
    finally:
        fresh.set()


def _message(text: Any) -> Any:
    """What was typed, as JSON; words that are no JSON are themselves the message."""
    try:
        return json.loads(str(text))
    except ValueError:
        return str(text)
