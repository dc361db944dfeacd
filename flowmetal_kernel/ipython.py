"""`%load_ext flowmetal_kernel`: Flowmetal in an ordinary Python notebook.

In: `%%flow`, `%%sql` and the line magics of the notebook. Out: values, tables and live histories, as in the kernel of our own.
The one rule: a magic that waits is awaited by the cell, so that the notebook's buttons go on working meanwhile.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from flowmetal.errors import FlowmetalError
from flowmetal_kernel import display, magics
from flowmetal_kernel.interrupts import INTERRUPTED, interrupts
from flowmetal_kernel.session import Session
from flowmetal_kernel.views import Views

CELLS = ("flow", "sql")
LINES = ("flow", "replay", "flow_help", *magics.LINES)
_CALL = re.compile(rf"^(\s*)(get_ipython\(\)\.run_(?:cell_magic\('(?:{'|'.join(CELLS)})'|line_magic\('(?:{'|'.join(LINES)})'))")
_EMPTY_BODY = re.compile(r", ''\)(?=\s*$)")
_BINDING = re.compile(r"^\s*(\w+)\s*<<")


class CellFailed(Exception):
    """What Lisp or the engine had to say of a cell; IPython shows it without a Python traceback."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content["evalue"])
        self._content = content

    def _render_traceback_(self) -> list[str]:
        return list(self._content["traceback"])


class Extension:
    """One Python notebook's conversation with an engine."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._session = Session()
        self._views: Views | None = None

    def load(self) -> None:
        """Adds the magics."""
        for name in CELLS:
            self._shell.register_magic_function(getattr(self, f"{name}_cell"), "cell", name)
        for name in LINES:
            self._shell.register_magic_function(self._line(name), "line", name)
        self._shell.input_transformers_post.append(await_magics)

    def unload(self) -> None:
        """Takes the magics away."""
        self._shell.input_transformers_post.remove(await_magics)
        for kind, names in (("cell", CELLS), ("line", LINES)):
            for name in names:
                self._shell.magics_manager.magics[kind].pop(name, None)
        if self._views is not None:
            self._views.close()

    async def flow_cell(self, line: str, body: str) -> None:
        """Runs Lisp; `%%flow name <<` gives its value to Python as `name`."""
        await self._guarded(self._run(line, body))

    async def sql_cell(self, line: str, body: str) -> None:
        """Runs a SELECT over the store's views; `%%sql name <<` gives its rows to Python as `name`."""
        await self._guarded(self._select(line, body))

    def _line(self, name: str) -> Any:
        async def magic(line: str) -> None:
            await self._guarded(self._answer(name, line.strip()))

        magic.__doc__ = f"%{name} of Flowmetal; %flow_help says what it does."
        return magic

    async def _guarded(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        with interrupts(task):
            try:
                await task
            except asyncio.CancelledError:
                raise CellFailed(INTERRUPTED) from None
            except FlowmetalError as problem:
                raise CellFailed(display.error(problem)) from None

    async def _run(self, line: str, body: str) -> None:
        source = "\n" + body  # the magic's own line: lines keep their numbers
        number = len(self._shell.user_ns.get("In", ())) - 1
        cell = await self._session.begin(source, self._session.place(number))
        result = await self._session.wait(cell, lambda text: print(text, end="", flush=True))
        if result.get("error"):
            raise CellFailed(display.error_content(result["error"]))
        bound = _BINDING.match(line)
        if bound:
            self._shell.user_ns[bound[1]] = result.get("handle") or result.get("result")
        elif result.get("handle"):
            await self.views.show(str(result["handle"]), str(result.get("printed") or ""))
        else:
            self._show(display.value(result))

    async def _select(self, line: str, body: str) -> None:
        bound = _BINDING.match(line)
        query = f"{line[bound.end() :] if bound else line}\n{body}".strip()
        bundle, rows = await magics.sql(await self._session.client(), query)
        if bound:
            self._shell.user_ns[bound[1]] = rows
        else:
            self._show(bundle)

    async def _answer(self, name: str, line: str) -> None:
        if name == "flow_help":
            self._show(magics.help_())
        elif name in magics.LINES:
            self._show(await magics.LINES[name](await self._session.client(), line))
        else:
            flow, _, step = line.partition(" ")
            flow_id = await magics.find_flow(self._session, flow)
            await (self.views.show(flow_id) if name == "flow" else self.views.replay(flow_id, magics.step_of(step.strip())))

    @property
    def views(self) -> Views:
        """The histories that this notebook shows."""
        if self._views is None:
            self._views = Views(self._session.client, self._publish)
        return self._views

    def _show(self, bundle: display.Bundle | None) -> None:
        if bundle is not None:
            self._shell.display_pub.publish(data=bundle, metadata={})

    def _publish(self, kind: str, content: dict[str, Any]) -> None:
        update = kind == "update_display_data"
        self._shell.display_pub.publish(data=content["data"], metadata={}, transient=content["transient"], update=update)


def await_magics(lines: list[str]) -> list[str]:
    """An input transformer: the calls of our magics, which IPython has just written, are awaited.

    A cell that is one line only (`%%sql SELECT …`) is a cell too: IPython refuses an empty body, so it gets an empty line.
    """
    return [_EMPTY_BODY.sub(r", '\\n')", _CALL.sub(r"\1await \2", line)) if _CALL.match(line) else line for line in lines]
