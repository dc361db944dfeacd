"""`flowmetal repl`: what is typed is evaluated, in a terminal as people have it."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest
from command_line import Cli
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.data_structures import Size
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from stores import Stores

from flowmetal.cli.repl import NameCompleter, Repl, is_complete
from flowmetal.client.host import Host, HostOptions
from flowmetal.client.local import LocalClient


@pytest.fixture(scope="module")
def client(module_stores: Stores) -> Iterator[LocalClient]:
    host = Host(module_stores.quick_at(), None, HostOptions()).start()
    yield LocalClient(host, by="test")
    host.stop()


def talk(client: LocalClient, keys: str) -> str:
    """What a terminal shows for keys that end with Ctrl-D."""
    screen = io.StringIO()
    output = Vt100_Output(screen, lambda: Size(rows=40, columns=100), term="dumb")

    async def converse() -> None:
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=output):
            pipe.send_text(keys + "\x04")
            await asyncio.wait_for(Repl(client, InMemoryHistory()).run(), 20)

    asyncio.run(converse())
    return screen.getvalue()


def test_values_definitions_and_output_are_shown(client: LocalClient) -> None:
    shown = talk(client, '(defn twice [x] (* 2 x))\r(do (println "out loud") (twice 21))\r')
    assert "twice" in shown and "out loud" in shown and "42" in shown and "('" not in shown


def test_an_unfinished_form_goes_on_in_the_next_line(client: LocalClient) -> None:
    assert "49152" in talk(client, "(let [x 16384]\r(* x\r3))\r")


def test_an_error_shows_its_place_and_the_next_form_is_read(client: LocalClient) -> None:
    shown = talk(client, '(inc "x")\r(str "still" " here")\r')
    assert ":type: inc needs a number" in shown and "\r\n  repl:1:1" in shown and "still here" in shown


def test_the_namespace_is_kept_and_shown(client: LocalClient) -> None:
    shown = talk(client, "(ns shop.core)\r(def price 12345)\r")
    assert "shop.core=>" in shown and "shop.core/price" in shown


def test_completion_knows_locals_names_and_keywords(client: LocalClient) -> None:
    async def completions(text: str) -> list[str]:
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=Vt100_Output(io.StringIO(), lambda: Size(rows=40, columns=80))):
            completer = NameCompleter(Repl(client, InMemoryHistory()))
            found = completer.get_completions_async(Document(text), CompleteEvent())
            return [c.text async for c in found]

    assert asyncio.run(completions("(let [reduction 1] (+ redu"))[:1] == ["reduction"]
    assert "reduce" in asyncio.run(completions("(redu"))
    assert asyncio.run(completions("(str/joi")) == ["str/join"]
    assert ":timeout" in asyncio.run(completions("(await p {:time"))
    assert asyncio.run(completions("(")) == []


@pytest.mark.parametrize(
    ("text", "complete"),
    [("(+ 1 2)", True), ("(+ 1", False), ('"abc', False), ("'", False), ("(+ 1))", True), ("1 2 ; done", True), ("#_", False), ("s/x ::a/b", True)],
)
def test_a_text_is_complete_when_no_further_line_is_needed(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


def test_without_a_terminal_it_says_what_to_use(cli: Cli) -> None:
    done = cli("repl", input="(+ 1 2)")
    assert done.code == 2 and "flowmetal eval -" in done.err


def test_in_a_real_terminal(cli: Cli) -> None:
    """Typed, interrupted, left: and the flow that was started goes on in the store."""
    lead, follow = pty.openpty()
    process = subprocess.Popen(
        cli.command("repl"), stdin=follow, stdout=follow, stderr=follow, cwd=cli.folder, env={**cli.env, "TERM": "xterm"}, start_new_session=True
    )
    os.close(follow)
    try:
        assert "user=>" in read_until(lead, "user=>")
        os.write(lead, b"(* 111 111)\r")
        assert "12321" in read_until(lead, "12321")
        os.write(lead, b'(defflow nap [] (sleep #dur "1h"))\r(:id (do (start nap) {:id 4711}))\r')
        assert "4711" in read_until(lead, "4711\x1b", "4711\r")
        os.write(lead, b'(do (println (str "be" "gun")) @(start nap))\r')
        read_until(lead, "begun")
        psutil.Process(process.pid).send_signal(2)
        assert "interrupted" in read_until(lead, "interrupted")
        read_until(lead, "user=>")
        os.write(lead, b"\x04")
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(lead)
    rows = cli.ok("ps", "--json", "--name", "nap").rows()
    assert [row["status"] for row in rows] == ["waiting", "waiting"]


def read_until(fd: int, *texts: str, seconds: float = 30.0) -> str:
    """What the terminal showed up to one of some texts."""
    shown = ""
    end = time.monotonic() + seconds
    while not any(text in shown for text in texts) and time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            part = os.read(fd, 65536).decode("utf-8", "replace")
            shown += part
            if "\x1b[6n" in part:  # where is the cursor?
                os.write(fd, b"\x1b[1;1R")
    return shown
