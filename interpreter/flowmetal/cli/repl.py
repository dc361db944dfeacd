"""`flowmetal repl`: forms typed one after the other, in a terminal.

In: keys. Out: values, what forms print, errors with their carets. The one rule: every input is a cell, a flow of its own in the
store, as in the notebook: it may wait, and what it started goes on when the terminal is closed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import click
from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText, PygmentsTokens
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.styles import Style, merge_styles
from prompt_toolkit.styles.pygments import style_from_pygments_cls
from pygments.styles import get_style_by_name

from flowmetal.cli.exits import DONE
from flowmetal.cli.options import client_of, common
from flowmetal.cli.output import clean
from flowmetal.client.client import Client, Row
from flowmetal.client.problems import failure_of
from flowmetal.client.requires import load_requires
from flowmetal.errors import FlowmetalError, SourceError
from flowmetal.lang.complete import around
from flowmetal.lang.highlight import FlowmetalLexer
from flowmetal.lang.layout import AnyAlias, indent_after
from flowmetal.lang.reader import Reader
from flowmetal.lang.spans import Source

STOPS = " \t\n,()[]{}\"';`~@^"
HELP = """\
A form, and Enter: its value. An unfinished form goes on in the next line. Tab completes, Up brings back what was typed.
(doc name) (source name) (apropos "text") tell about names; Ctrl-C ends what is running, Ctrl-D leaves.
"""


@click.command()
@common
def repl(store: str | None) -> int:
    """Type forms and see their values, with history, completion and colours.

    Each input is a flow in the store, as a cell of a notebook is.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("repl needs a terminal; flowmetal eval - reads forms from a pipe")
    return asyncio.run(_run(store))


async def _run(store: str | None) -> int:
    async with client_of(store) as client:
        click.echo(f"Flowmetal in {client.store}\n{HELP}")
        await Repl(client, _history()).run()
    return DONE


def _history() -> History:
    """What was typed before; kept for this run only where the file cannot be written."""
    path = Path(os.environ.get("FLOWMETAL_HOME") or Path.home() / ".flowmetal") / "repl_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


class Repl:
    """One conversation. `input` and `output` are prompt_toolkit's, for tests."""

    def __init__(self, client: Client, history: History, **io: Any) -> None:
        self.client = client
        self.ns = "user"
        self._session: PromptSession[str] = PromptSession(
            history=history, completer=NameCompleter(self), lexer=PygmentsLexer(FlowmetalLexer), multiline=True, key_bindings=_keys(),
            prompt_continuation=lambda width, line, wrapped: " " * width, style=_style(), include_default_pygments_style=False,
            complete_while_typing=False, enable_history_search=True, **io,
        )  # fmt: skip

    async def run(self) -> None:
        """Until Ctrl-D."""
        while True:
            try:
                text = await self._session.prompt_async(f"{self.ns}=> ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text.strip():
                await self._evaluate(text)

    async def _evaluate(self, text: str) -> None:
        try:
            await load_requires(self.client, text, "repl")
            flow_id = await self.client.eval(text, ns=self.ns, file="repl")
        except FlowmetalError as error:
            self._show_error(error)
            return
        async with _interruptible(asyncio.ensure_future(self._outcome(flow_id))) as task:
            await asyncio.wait({task})
        if task.cancelled():
            await self._cancel(flow_id)
            return
        try:
            self._show(task.result(), flow_id)
        except FlowmetalError as error:
            self._show_error(error)

    async def _outcome(self, flow_id: str) -> Row:
        """Prints what the cell prints as it comes; its outcome."""
        seen = 0
        wait = 0.05
        while True:
            outcome = await self.client.result(flow_id, wait)
            for row in await self.client.events(flow_id, seen):
                seen = int(row["seq"])
                if row["kind"] == "output":
                    self._print(clean(str(row["data"]["text"])), end="")
            if outcome is not None:
                return outcome
            wait = 0.5

    async def _cancel(self, flow_id: str) -> None:
        try:
            await self.client.control(flow_id, "cancel", reason="interrupted in the repl")
        except FlowmetalError as error:
            self._show_error(error)
        else:
            self._print("interrupted; flows that it started go on")

    def _show(self, outcome: Row, flow_id: str) -> None:
        self.ns = str(outcome.get("ns") or self.ns)
        if outcome["status"] == "completed":
            tokens = list(FlowmetalLexer().get_tokens(str(outcome.get("printed"))))
            print_formatted_text(PygmentsTokens(tokens), style=_style(), end="", output=self._session.output)
        else:
            self._show_error(failure_of(outcome, flow_id))

    def _show_error(self, error: FlowmetalError) -> None:
        self._print(clean(f":{error.type}: {error.render()}"), "ansired")

    def _print(self, text: str, style: str = "", end: str = "\n") -> None:
        print_formatted_text(FormattedText([(style, text)]), end=end, output=self._session.output)


class _interruptible:
    """Ctrl-C cancels a task while it runs."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    async def __aenter__(self) -> asyncio.Task[Any]:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._task.cancel)
        return self._task

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


class NameCompleter(Completer):
    """Completes locals of what is being typed, and names of the engine."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Nothing: the names come from the engine, which is asked asynchronously."""
        return ()

    async def get_completions_async(self, document: Document, complete_event: CompleteEvent) -> AsyncIterator[Completion]:  # type: ignore[override]
        """The names that may stand at the cursor, each with what it does."""
        before = document.text_before_cursor
        prefix = before[max(before.rfind(stop) for stop in STOPS) + 1 :].lstrip("#")
        if not prefix:
            return
        local = around(document.text, document.cursor_position, prefix)
        names = dict.fromkeys([*local, *await self._repl.client.complete(prefix, self._repl.ns)])
        for name in names:
            yield Completion(name, start_position=-len(prefix))


def is_complete(text: str) -> bool:
    """Whether a text is a number of whole forms, or such as no further line can mend."""
    try:
        for _ in Reader(Source("repl", text), aliases=AnyAlias()):
            pass
    except SourceError as error:
        return error.type != "reader/eof"
    return True


def _keys() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        """Ends a whole form; goes on in the next line, indented, with one that is not."""
        buffer = event.current_buffer
        rest = buffer.document.text_after_cursor
        if is_complete(buffer.text) and (not rest.strip() or "\n" not in buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n" + " " * indent_after(buffer.document.text_before_cursor))

    return bindings


def _style() -> Style:
    return merge_styles([style_from_pygments_cls(get_style_by_name("friendly")), Style.from_dict({"prompt": "bold"})])  # type: ignore[return-value]


__all__ = ["Repl", "is_complete", "repl"]
