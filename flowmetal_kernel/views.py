"""The live histories of a notebook: which flows are shown, who looks at them, and what their buttons do.

In: a flow's id, and the rows of its log as they are committed. Out: a widget, and the static picture under the same display
id. The one rule: what is saved must not need a kernel, so an ended flow's output is its picture; our own extension of
JupyterLab puts the live view in the picture's place for as long as there is a kernel that has one.
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
from flowmetal_kernel.widgets import picture, stack
from flowmetal_kernel.widgets.history import model_id, new_view
from flowmetal_kernel.widgets.timeline import has_failed, past, timeline

WIDGET = "application/vnd.jupyter.widget-view+json"
HISTORY = "application/vnd.flowmetal.history+json"
"""Names the live view of an output that is otherwise a picture; only our extension of JupyterLab knows it."""
REFRESH = 0.12
"""Seconds between two updates of a widget."""
PICTURE = 1.5
"""Seconds that a status must last before the saved picture follows it (the output is drawn anew each time)."""
REVIVED = 20
"""How many views a new kernel makes again at most: the open flows' first, then the newest."""
OPEN = ("running", "waiting", "paused")

Publish = Callable[[str, dict[str, Any]], None]
Connect = Callable[[], Awaitable[Client]]

log = logging.getLogger("flowmetal.kernel")


@dataclass(slots=True, eq=False)
class View:
    """One flow as it is shown: its rows so far, its widgets by the step at which they open, the outputs with its picture."""

    flow_id: str
    events: list[dict[str, Any]] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)
    widgets: dict[int | None, Any] = field(default_factory=dict)
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
        self._changes: dict[str, dict[str, Any]] = {}

    def take_changes(self) -> list[dict[str, Any]]:
        """The changes to earlier outputs since this was last asked, as they were published."""
        changes, self._changes = list(self._changes.values()), {}
        return changes

    async def show(self, flow_id: str, printed: str = "") -> None:
        """Displays the history of a flow; it stays live until the flow ends."""
        view = await self._fetch(await self._connect(), flow_id)
        text = printed or _printed(view)
        output = uuid4().hex
        self._display(self._bundle(view, text), output)
        if not view.model["ended"]:
            view.outputs[output] = text
            view.pictured = str(view.model["status"])
            self._follow(view)

    async def replay(self, flow_id: str, step: int | None = None) -> None:
        """Displays a flow's history as it was at a step (its first one unless said), to be scrubbed from there."""
        client = await self._connect()
        view = await self._fetch(client, flow_id)
        if step is None:
            step = next((row["step"] for row in view.model["rows"] if not row["mark"]), None)
        if step is None:
            raise FlowmetalError(f"flow {view.flow_id} has no steps to look at", type="value", hint=f"%flow {view.model['short']} shows what it has")
        state = past(await client.state(view.flow_id, step))
        widget = self._widget(view, step)
        bundle = {
            HISTORY: {"model_id": widget.model_id, "flow_id": view.flow_id},
            "text/html": picture.html(view.model) + stack.html(state),
            "text/plain": f"{_printed(view)} {stack.text(state)}",
        }
        self._display(bundle, uuid4().hex)
        self._follow(view)

    async def revive(self) -> None:
        """Makes the views of open and of the newest flows again, so that a notebook opened with a new kernel finds its widgets."""
        client = await self._connect()
        for status in (*OPEN, None):
            for row in (await client.flows(status=status, limit=REVIVED))["items"]:
                if row.get("kind") == "flow" and row["flow_id"] not in self._views and len(self._views) < REVIVED:
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
        view.model = await _model(client, row, view.events)
        return view

    async def _catch_up(self, client: Client, view: View) -> None:
        after = view.events[-1]["seq"] if view.events else 0
        for event in await client.events(view.flow_id, after):
            _append(view, event)

    def _widget(self, view: View, at: int | None = None) -> Any:
        if at not in view.widgets:
            view.widgets[at] = new_view(view.flow_id, view.model, lambda *asked: self._asked(view, *asked), at)
        return view.widgets[at]

    def _display(self, bundle: dict[str, Any], output: str) -> None:
        self._publish("display_data", {"data": bundle, "metadata": {}, "transient": {"display_id": output}})

    def _bundle(self, view: View, text: str) -> dict[str, Any]:
        ended = bool(view.model["ended"])
        widget = self._widget(view)
        live: dict[str, Any] = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
        if ended:
            live = {"model_id": model_id(view.flow_id), "flow_id": view.flow_id}
        return {HISTORY if ended else WIDGET: live, "text/html": _drawn(view.model, table=ended), "text/plain": text}

    def _asked(self, view: View, widget: Any, action: str, message: Any) -> None:
        """A button, the slider, or a page that began to look; may come on any thread."""
        self._loop.call_soon_threadsafe(self._spawn, self._act(view, widget, action, message))

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _act(self, view: View, widget: Any, action: str, message: Any) -> None:
        try:
            client = await self._connect()
            if action == "watch":
                await self._watch(client, view)
            elif action == "send":
                await client.send(view.flow_id, _message(message))
            elif action == "state":
                widget.send({"state": past(await client.state(view.flow_id, int(message)))})
            elif action == "fork":
                made = str((await client.fork(view.flow_id, int(message), reason="asked for in the notebook"))["flow_id"])
                widget.send({"notice": f"forked at step {message}: the new flow is {made}; %flow {made} shows it"})
            elif action in ("pause", "resume", "step", "retry", "cancel"):
                await client.control(view.flow_id, action, reason="asked for in the notebook")
                if action == "retry":
                    await self._go_on(client, view)
        except (FlowmetalError, TypeError, ValueError) as problem:
            widget.send({"notice": problem.render() if isinstance(problem, FlowmetalError) else str(problem)})

    async def _go_on(self, client: Client, view: View) -> None:
        """A flow that had ended was retried: it is followed again."""
        if view.model.get("ended"):
            await self._fetch(client, view.flow_id)
            self._show_model(view)
        self._follow(view)

    async def _watch(self, client: Client, view: View) -> None:
        """A page looks: an open flow is followed, an ended one is read once."""
        if not view.model.get("ended"):
            self._follow(view)
        elif not view.events:
            await self._fetch(client, view.flow_id)
            self._show_model(view)

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
                    if view.model["ended"]:
                        break
                    if over:
                        return reading.result()
                    await asyncio.sleep(REFRESH)
                self._ended(view)
            finally:
                reading.cancel()
        except FlowmetalError as problem:
            log.info("the view of %s stopped: %s", view.flow_id, problem)
            for widget in view.widgets.values():
                widget.send({"notice": problem.render()})

    async def _refresh(self, client: Client, view: View) -> None:
        row = await client.flow(view.flow_id)
        await self._catch_up(client, view)
        view.model = await _model(client, row, view.events)
        self._show_model(view)
        if not view.model["ended"] and view.model["status"] != view.pictured and view.picturing is None:
            view.picturing = self._loop.call_later(PICTURE, self._picture, view)

    def _ended(self, view: View) -> None:
        """The flow has ended, whoever was the first to read it: its widgets and its outputs say so."""
        self._show_model(view)
        self._picture(view)

    def _show_model(self, view: View) -> None:
        for widget in view.widgets.values():
            widget.timeline = view.model

    def _picture(self, view: View) -> None:
        """Brings the saved picture up to date; at the flow's end it replaces the widget."""
        if view.picturing is not None:
            view.picturing.cancel()
            view.picturing = None
        view.model = {**view.model, "now": time.time() * 1000}
        view.pictured = str(view.model["status"])
        for output, text in view.outputs.items():
            content = {"data": self._bundle(view, text), "metadata": {}, "transient": {"display_id": output}}
            self._changes[output] = content
            self._publish("update_display_data", content)
        if view.model["ended"]:
            view.outputs.clear()


async def _model(client: Client, row: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, Any]:
    """The model of a flow; of one that has failed, with where."""
    failed = has_failed(row, events)
    return timeline(row, events, await client.state(row["flow_id"]) if failed else None)


def _drawn(model: dict[str, Any], *, table: bool) -> str:
    failure = model.get("failure")
    return picture.html(model, table=table) + (stack.html(failure) if failure else "")


def _printed(view: View) -> str:
    return f"#flow[{view.flow_id} {view.model['name']}]"


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
