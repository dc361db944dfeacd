"""The Jupyter kernel: messages on one side, a `Client` on the other; thin.

A cell's parts run in order until one fails. The one rule: whatever a cell waits for, the notebook stays alive: buttons,
completion and interrupts are answered meanwhile, and none of them ends a flow that the cell started.
"""

from __future__ import annotations

import asyncio
import inspect as inspection_of
import os
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import PurePath
from typing import Any, ClassVar

from ipykernel.ipkernel import IPythonKernel

from flowmetal.client import store_url
from flowmetal.errors import FlowmetalError
from flowmetal_kernel import completion, display, inspection, magics
from flowmetal_kernel.cells import Part, is_python, parse_cell
from flowmetal_kernel.interrupts import INTERRUPTED, interrupts
from flowmetal_kernel.literals import NotData, lisp_literal
from flowmetal_kernel.python_cell import LastValue
from flowmetal_kernel.python_store import NotebookStore
from flowmetal_kernel.scanner import scan
from flowmetal_kernel.session import Session
from flowmetal_kernel.views import Views

VERSION = "0.1.0"
CONCURRENT = frozenset(f"{name}_request" for name in ("complete", "inspect", "is_complete", "history", "kernel_info", "comm_info")) | {
    "comm_open",
    "comm_msg",
    "comm_close",
}
"""What is answered while a cell waits."""
REVIVE_TIMEOUT = 5.0
RESTART_TIMEOUT = 3.0

Reply = dict[str, Any]


class CellError(Exception):
    """A part of a cell failed; `content` is what Jupyter shows."""

    def __init__(self, content: dict[str, Any], *, shown: bool = False) -> None:
        super().__init__(content.get("evalue", ""))
        self.content = content
        self.shown = shown


class FlowmetalKernel(IPythonKernel):
    """Lisp by default; `%%sql`, `%%python` and IPython's magics beside it."""

    implementation = "flowmetal"
    implementation_version = VERSION
    banner = f"Flowmetal {VERSION}: a durable Lisp. %help lists what a cell may hold; Shift-Tab documents a name."
    language_info: ClassVar[dict[str, Any]] = {
        "name": "flowmetal",
        "version": VERSION,
        "mimetype": "text/x-flowmetal",
        "file_extension": ".flow",
        "codemirror_mode": "clojure",
        "pygments_lexer": "clojure",
    }
    help_links: ClassVar[list[dict[str, str]]] = []

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.session_state: Session | None = None
        self._views: Views | None = None
        self._reviving: asyncio.Task[None] | None = None
        self._main_loop: asyncio.AbstractEventLoop | None = None
        self._newest_parent: dict[str, Any] = {}

    # What the kernel says of itself

    @property
    def kernel_info(self) -> Reply:
        """Without subshells: every widget's handler then runs on the main thread, and Lab's busy mark is true."""
        info = dict(super().kernel_info)
        info["supported_features"] = [f for f in info["supported_features"] if f not in ("kernel subshells", "debugger")]
        return info

    def start(self) -> None:
        """Begins to listen, and brings back the views of open flows where there is a store already."""
        super().start()
        self._main_loop = self.io_loop.asyncio_loop
        self._main_loop.call_soon(self._begin)

    def _begin(self) -> None:
        self.session_state = Session(PurePath(os.environ.get("JPY_SESSION_NAME", "")).stem)
        self._views = Views(self.session_state.client, self._publish)
        self._reviving = asyncio.ensure_future(self._revive())
        self.shell.user_ns.setdefault("fm", NotebookStore())

    @property
    def flows(self) -> Session:
        """This notebook's conversation with the engine."""
        if self.session_state is None:
            self._begin()
        assert self.session_state is not None
        return self.session_state

    @property
    def views(self) -> Views:
        """The histories that this notebook shows."""
        if self._views is None:
            self._begin()
        assert self._views is not None
        return self._views

    async def _revive(self) -> None:
        try:
            store = store_url.resolve(None)
            if store.path.exists() if store.path is not None else store.kind != "memory":
                await self.views.revive()
        except FlowmetalError as problem:
            self.log.info("no views were brought back: %s", problem)

    # Cells

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, Any] | None = None,
        allow_stdin: bool = False,
        *,
        cell_meta: dict[str, Any] | None = None,
        cell_id: str | None = None,
    ) -> Reply:
        """Runs a cell's parts, one after the other."""
        self._newest_parent = self.get_parent("shell")
        if self._views is not None:
            self._repeat(self._views.take_changes(), unheard=cell_id is None)
        number = self.shell.execution_count
        options = {"allow_stdin": allow_stdin, "cell_meta": cell_meta, "cell_id": cell_id}
        reply: Reply = {"status": "ok"}
        try:
            for part in parse_cell(code):
                await self._run_part(part, number, silent, options, reply)
        except CellError as failure:
            if not failure.shown and not silent:
                self._publish("error", failure.content)
            reply |= {"status": "error", **failure.content}
        if store_history and not silent:
            self.shell.history_manager.store_inputs(number, code)
        if not silent:
            self.shell.execution_count = number + 1
        return {"payload": [], "user_expressions": {}, **reply, "execution_count": number}

    async def _run_part(self, part: Part, number: int, silent: bool, options: dict[str, Any], reply: Reply) -> None:
        if part.kind in ("python", "ipython"):
            await self._python(part, silent, options, reply)
        elif part.kind == "quit":
            reply["payload"] = [*reply.get("payload", []), {"source": "ask_exit", "keepkernel": False}]
        else:
            work = self._lisp(part, number, silent) if part.kind in ("lisp", "again") else self._magic(part, number, silent)
            await self._interruptible(work)

    async def _lisp(self, part: Part, number: int, silent: bool) -> None:
        """Runs Lisp as a cell flow and shows its output and its value."""
        cell = await self.flows.begin(part.text, self.flows.place(number), again=part.kind == "again")
        if cell.attached and not silent:
            self._stream("attached to this cell, which still runs (%%again starts it anew)\n", "stderr")
        result = await self.flows.wait(cell, (lambda _text: None) if silent else self._stream)
        if result.get("error"):
            raise CellError(display.error_content(result["error"]))
        if silent:
            return
        if result.get("handle"):
            await self.views.show(str(result["handle"]), str(result.get("printed") or ""))
        else:
            self._result(display.value(result), number)

    async def _magic(self, part: Part, number: int, silent: bool) -> None:
        if part.kind == "sql":
            bundle, rows = await magics.sql(await self.flows.client(), part.text)
            if part.name is not None:
                self.shell.user_ns[part.name] = rows
                await self._define(part.name, rows, number, silent)
                return
        elif part.name == "flow":
            await self.views.show(await magics.find_flow(self.flows, part.text))
            return
        elif part.name == "replay":
            flow, _, step = part.text.partition(" ")
            at = magics.step_of(step.strip())
            await self.views.replay(await magics.find_flow(self.flows, flow), at)
            return
        elif part.name == "help":
            bundle = magics.help_()
        else:
            bundle = await magics.LINES[str(part.name)](await self.flows.client(), part.text)
        if not silent:
            self._publish("display_data", {"data": bundle, "metadata": {}, "transient": {}})

    async def _python(self, part: Part, silent: bool, options: dict[str, Any], whole: Reply) -> None:
        """Runs Python in IPython's own shell; a named cell's last value becomes a definition in Lisp."""
        number = self.shell.execution_count
        last = LastValue()
        if part.name is not None:
            self.shell.ast_transformers.append(last)
        try:
            with _no_history(self.shell.history_manager):
                answer = super().do_execute(part.text, silent, True, {}, **options)
                reply = dict(await answer if inspection_of.isawaitable(answer) else answer)
        finally:
            if part.name is not None:
                self.shell.ast_transformers.remove(last)
            self.shell.execution_count = number
        whole["payload"] = [*whole.get("payload", []), *reply.get("payload", [])]
        if reply["status"] != "ok":
            content = {name: reply.get(name) for name in ("ename", "evalue", "traceback")}
            raise CellError(content, shown=True)
        if part.name is not None:
            await self._interruptible(self._define(part.name, last.take(self.shell.user_ns), number, silent))

    async def _define(self, name: str, value: Any, number: int, silent: bool) -> None:
        """Gives Python data a name in Lisp."""
        try:
            source = f"(def {name} {lisp_literal(value)})"
        except NotData as problem:
            raise FlowmetalError(str(problem), type="value") from problem
        await self._lisp(Part("again", source), number, silent)

    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Any:
        """What IPython awaits ends by an interrupt as ours does; ipykernel's own way does not wake a loop that sleeps."""
        return interrupts(future)

    async def _interruptible(self, work: Awaitable[None]) -> None:
        """Runs `work` so that an interrupt ends it at once; a problem becomes the cell's error."""
        task = asyncio.ensure_future(work)
        with interrupts(task):
            try:
                await task
            except asyncio.CancelledError:
                raise CellError(INTERRUPTED) from None
            except FlowmetalError as problem:
                raise CellError(display.error(problem)) from None
            except CellError:
                raise
            except Exception as bug:
                self.log.exception("a cell could not be run")
                message = f"{type(bug).__name__}: {bug}"
                raise CellError(display.error_content({"type": "kernel", "message": message})) from bug

    # What is shown

    def _publish(self, kind: str, content: dict[str, Any]) -> None:
        """Sends what a cell shows. A change to what an earlier cell showed goes out under the cell that runs now: programs that
        execute notebooks listen to no other."""
        if kind == "update_display_data":
            self.session.send(self.iopub_socket, kind, content, parent=self._newest_parent)
        else:
            self.send_response(self.iopub_socket, kind, content)

    def _repeat(self, changes: list[dict[str, Any]], *, unheard: bool) -> None:
        """A program that executes notebooks (it names no cells) hears nothing between two cells: it is told again."""
        for content in changes if unheard else ():
            self._publish("update_display_data", content)

    def _stream(self, text: str, name: str = "stdout") -> None:
        self._publish("stream", {"name": name, "text": text})

    def _result(self, bundle: display.Bundle | None, number: int) -> None:
        if bundle is not None:
            sys.stdout.flush()
            self._publish("execute_result", {"data": bundle, "metadata": {}, "execution_count": number})

    # Help while writing

    async def do_complete(self, code: str, cursor_pos: int | None) -> Reply:
        """Names for the text before the cursor."""
        cursor = len(code) if cursor_pos is None else cursor_pos
        magics_there = completion.complete_magic(code, cursor)
        if magics_there is not None:
            return magics_there
        if is_python(code):
            answer = super().do_complete(code, cursor)
            return dict(await answer if inspection_of.isawaitable(answer) else answer)
        try:
            return await completion.complete(await self.flows.client(), code, cursor, self.flows.ns)
        except FlowmetalError as problem:
            self.log.info("no completion: %s", problem)
            return completion.reply([], cursor, cursor)

    async def do_inspect(self, code: str, cursor_pos: int | None, detail_level: int = 0, omit_sections: Any = ()) -> Reply:
        """Documentation for the name under the cursor."""
        cursor = len(code) if cursor_pos is None else cursor_pos
        if is_python(code):
            answer = super().do_inspect(code, cursor, detail_level, omit_sections)
            return dict(await answer if inspection_of.isawaitable(answer) else answer)
        try:
            return await inspection.inspect(await self.flows.client(), code, cursor, self.flows.ns, detail_level)
        except FlowmetalError as problem:
            self.log.info("no inspection: %s", problem)
            return inspection.NOTHING

    async def do_is_complete(self, code: str) -> Reply:
        """Whether Enter runs the cell in a console."""
        if code.lstrip().startswith("%%"):
            return {"status": "complete" if code.endswith("\n") or "\n" not in code else "incomplete", "indent": ""}
        found = scan(code)
        return {"status": found.status, "indent": found.indent} if found.status == "incomplete" else {"status": found.status}

    # The protocol's edges

    async def comm_info_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """A page asks which widgets there are: first the views of open flows are brought back."""
        if self._reviving is not None and not self._reviving.done():
            await asyncio.wait({self._reviving}, timeout=REVIVE_TIMEOUT)
        await super().comm_info_request(stream, ident, parent)

    async def shell_main(self, subshell_id: str | None, msg: Any) -> None:
        """While a cell waits, what needs no turn is answered at once, each in a context of its own."""
        if subshell_id is None and self._main_asyncio_lock.locked() and self._type_of(msg) in CONCURRENT:
            await self._beside_the_cell(msg)
        else:
            await super().shell_main(subshell_id, msg)

    def _type_of(self, msg: Any) -> str:
        try:
            _, frames = self.session.feed_identities(msg, copy=False)
            return str(self.session.deserialize(frames, content=False, copy=False)["header"]["msg_type"])
        except Exception:  # a message that cannot be read is reported by the one that handles it
            self.log.debug("a message could not be read", exc_info=True)
            return ""

    async def _beside_the_cell(self, msg: Any) -> None:
        parent = self.get_parent("shell")
        ident = self._get_shell_context_var(self._shell_parent_ident)
        context = copy_context()
        try:
            await asyncio.create_task(self.dispatch_shell(msg, subshell_id=None, concurrent=True), context=context)
        finally:
            answered = context.run(self.get_parent, "shell")
            self.set_parent(ident, parent, channel="shell")
            self._publish_status("idle", "shell", answered)
            if self._main_asyncio_lock.locked():
                self._publish_status("busy", "shell", parent)

    async def do_shutdown(self, restart: bool) -> Reply:
        """A restart cancels running cells; a shutdown leaves them to the engine. Runs on the control thread."""
        if self.session_state is not None and self._main_loop is not None:
            if restart:
                leaving = asyncio.run_coroutine_threadsafe(self.session_state.leave(restart=True), self._main_loop)
                await asyncio.wait({asyncio.wrap_future(leaving)}, timeout=RESTART_TIMEOUT)
            else:
                self.session_state.leave_soon()
        answer = super().do_shutdown(restart)
        return dict(await answer if inspection_of.isawaitable(answer) else answer)


@contextmanager
def _no_history(manager: Any) -> Iterator[None]:
    """IPython counts and displays the part that it runs; the cell as a whole is stored once, by this kernel."""
    manager.store_inputs = lambda *_inputs, **_options: None
    try:
        yield
    finally:
        del manager.store_inputs
