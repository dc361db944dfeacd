"""A notebook without a page: a real kernel, spoken to through jupyter_client, on a store of its own.

In: cells. Out: what each one showed. The one rule: a test waits for a message, never for time to pass.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

import flowmetal
from flowmetal.client.host_file import lock_holder
from flowmetal.client.store_url import StoreUrl
from flowmetal_kernel.widgets.history import model_id

TIMEOUT = 30.0
Message = dict[str, Any]


@dataclass
class Cell:
    """What a cell has shown so far."""

    msg_id: str
    messages: list[Message] = field(default_factory=list)
    idle: bool = False

    def of(self, *kinds: str) -> list[Message]:
        """The contents of the messages of some kinds."""
        return [m["content"] for m in self.messages if m["msg_type"] in kinds]

    @property
    def data(self) -> dict[str, Any]:
        """The newest thing displayed, as a MIME bundle."""
        return dict(self.of("execute_result", "display_data")[-1]["data"])

    @property
    def value(self) -> str:
        """The cell's value, as text."""
        return str(self.data["text/plain"])

    @property
    def output(self) -> str:
        """What was printed."""
        return "".join(c["text"] for c in self.of("stream") if c["name"] == "stdout")

    @property
    def remarks(self) -> str:
        """What was said on stderr."""
        return "".join(c["text"] for c in self.of("stream") if c["name"] == "stderr")

    @property
    def error(self) -> Message:
        """The error, as Jupyter shows it."""
        return dict(self.of("error")[-1])

    @property
    def traceback(self) -> list[str]:
        """The error's lines, without colours."""
        return [_plain(line) for line in self.error["traceback"]]


class Notebook:
    """One kernel, and the store that it speaks to."""

    def __init__(self, folder: Path, store: StoreUrl, *, kernel: str = "flowmetal", name: str = "") -> None:
        self.folder = folder
        self.store = store
        env = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWMETAL_", "JPY_"))}
        env |= {"FLOWMETAL_HOME": str(folder / "home"), "FLOWMETAL_STORE": self.store.url, "IPYTHONDIR": str(folder / "ipython")}
        if name:
            env["JPY_SESSION_NAME"] = str(folder / name)
        self.kernel = KernelManager(kernel_name=kernel)
        self.kernel.start_kernel(env=env, cwd=str(folder))
        self.client: BlockingKernelClient = self.kernel.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT)
        self.cells: dict[str, Cell] = {}
        self.others: list[Message] = []

    # Cells

    def send(self, code: str, **options: Any) -> Cell:
        """Runs a cell, without waiting for anything."""
        cell = Cell(self.client.execute(code, **options))
        self.cells[cell.msg_id] = cell
        return cell

    def run(self, code: str, **options: Any) -> Cell:
        """Runs a cell to its end."""
        return self.finish(self.send(code, **options))

    def ok(self, code: str) -> Cell:
        """Runs a cell that must not fail."""
        cell = self.run(code)
        assert not cell.of("error"), cell.traceback
        return cell

    def finish(self, cell: Cell, timeout: float = TIMEOUT) -> Cell:
        """Waits for a cell's end."""
        self.until(lambda _message: cell.idle, timeout)
        return cell

    def until(self, done: Callable[[Message], Any], timeout: float = TIMEOUT) -> Message:
        """Takes what the kernel publishes until `done` holds of a message; that message."""
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            cell = self.cells.get(message["parent_header"].get("msg_id", ""))
            if cell is None:
                self.others.append(message)
            else:
                cell.messages.append(message)
                cell.idle = cell.idle or (message["msg_type"], message["content"].get("execution_state")) == ("status", "idle")
            if done(message):
                return message

    def until_output(self, text: str) -> Message:
        """Waits until something is printed that holds `text`."""
        return self.until(lambda m: m["msg_type"] == "stream" and text in m["content"]["text"])

    def until_view(self, flow_id: str, done: Callable[[Message], Any]) -> Message:
        """Waits until a live view gets a model of which `done` holds; that model."""

        def shows(message: Message) -> bool:
            mine = message["msg_type"] == "comm_msg" and message["content"]["comm_id"] == model_id(flow_id)
            timeline = message["content"]["data"].get("state", {}).get("timeline") if mine else None
            return bool(timeline) and bool(done(timeline))

        return dict(self.until(shows)["content"]["data"]["state"]["timeline"])

    def ask(self, kind: str, *args: Any) -> Message:
        """One request beside cells (`complete`, `inspect`, `is_complete`, `history`); its answer's content."""
        asked = getattr(self.client, kind)(*args)
        while True:
            reply = self.client.get_shell_msg(timeout=TIMEOUT)
            if reply["parent_header"].get("msg_id") == asked:
                return dict(reply["content"])

    def click(self, flow_id: str, action: str, message: Any = None, at: int | None = None) -> None:
        """What a page sends when somebody presses a button of a live view."""
        content = {"comm_id": model_id(flow_id, at), "data": {"method": "custom", "content": {"action": action, "message": message}}}
        self.client.shell_channel.send(self.client.session.msg("comm_msg", content))

    # Processes

    def interrupt(self) -> None:
        """Stops the cell that runs."""
        self.kernel.interrupt_kernel()

    def restart(self) -> None:
        """Restarts the kernel, as the menu does."""
        self.kernel.restart_kernel(now=False)
        self.client.wait_for_ready(timeout=TIMEOUT)

    def kill(self) -> None:
        """The kernel dies without a word."""
        self.kernel.shutdown_kernel(now=True)
        self.client.stop_channels()

    def shutdown(self) -> None:
        """Ends the kernel, as closing a notebook does."""
        self.kernel.shutdown_kernel(now=False)
        self.client.stop_channels()

    def host(self) -> psutil.Process:
        """The process that hosts the store."""
        pid = lock_holder(self.store)
        assert pid
        return psutil.Process(pid)

    def open(self) -> flowmetal.Flowmetal:
        """The store, as another program sees it."""
        return flowmetal.open(self.store.url)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
