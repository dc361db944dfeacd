"""`flowmetal stop` where several interpreters have a store: who is ended, who goes on, who is out of reach; and what they say of their ports."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from command_line import Cli
from forks import Forks
from postgres_server import Server
from stores import Stores
from test_cli_serve import listening

import flowmetal

ELSEWHERE = {"pid": 7, "url": "http://127.0.0.1:9", "token": "t", "version": "9", "started_at": "", "machine": "elsewhere", "mood": "of a later version"}


@pytest.fixture
def there(postgres: Server, tmp_path: Path, forks: Forks) -> Iterator[Cli]:
    """The command line with a store in PostgreSQL."""
    stores = Stores("postgresql", postgres)
    yield Cli(tmp_path, forks, stores)
    stores.close()


def test_one_of_several_is_ended_or_all_of_them(there: Cli) -> None:
    with contextlib.ExitStack() as stack:
        served: list[subprocess.Popen[str]] = []
        urls = []
        for port in (("--port", "0"), (), ("--port", "0")):
            served.append(stack.enter_context(there.popen("serve", *port)))
            stack.callback(served[-1].kill)
            urls.append(listening(served[-1]))
        first, second, third = (f"process {each.pid} at {url}" for each, url in zip(served, urls, strict=True))

        assert [each["pid"] for each in there.ok("doctor", "--json").json()["interpreters"]] == [each.pid for each in reversed(served)]
        assert f"interpreter  process {served[0].pid} at {urls[0]} on " in there.ok("doctor").out
        done = there.ok("stop")
        assert f"{third}, which served {there.store}, has ended" in done.err and served[2].wait(30) == 0
        assert f"2 other interpreters have the store still: {second}, {first}\nflowmetal stop --all ends all" in done.err
        assert [each.poll() for each in served[:2]] == [None, None]

        raw = stack.enter_context(psycopg.connect(there.store.url, autocommit=True))
        sql = """INSERT INTO fm.interpreters (id, fence, commits, until, backend, backend_start, host)
            SELECT 'x', 1, 0, now() + interval '1 hour', pid, backend_start, %s FROM pg_stat_activity WHERE pid = pg_backend_pid()"""
        raw.execute(sql, (json.dumps(ELSEWHERE),))
        done = there.ok("stop", "--all")
        assert [each.wait(30) for each in served] == [0, 0, 0]
        assert f"{first}, which served {there.store}, has ended" in done.err and f"{second}, which" in done.err
        assert done.err.endswith("another interpreter has the store still: process 7 at http://127.0.0.1:9 on elsewhere\n")
        assert "nobody who can be reached from here serves" in there.ok("stop").err
        raw.execute("DELETE FROM fm.interpreters")
        assert there.ok("stop", "--all").err == f"nobody serves {there.store}\n"

        ports = [url.rpartition(":")[2] for url in urls]
        said = [each.stderr.read() for each in served if each.stderr is not None]
        assert f"warning: another interpreter of this store listens on port {ports[0]}, this one on {ports[1]}" in said[1] and "--public-url" in said[1]
        assert said[0] == "" and "is taken" not in said[1]
        assert raw.execute("SELECT value FROM fm.meta WHERE key = 'port'").fetchone() == (ports[0],), "the store keeps the port of the first"


def test_an_interpreter_inside_a_program_is_not_ended(there: Cli) -> None:
    with flowmetal.open(there.store.url) as fm, there.popen("serve", "--port", "0") as served:
        try:
            url = listening(served)
            done = there("stop", "--all")
            assert done.code == 1 and f"process {served.pid} at {url}, which served" in done.err and served.wait(30) == 0
            assert "could not be ended: this interpreter lives inside another program" in done.err
            assert "another interpreter has the store still" in done.err and fm.eval("(+ 1 2)") == 3
            alone = there("stop")
            assert alone.code != 0 and "error: this interpreter lives inside another program" in alone.err
        finally:
            served.kill()


def test_of_a_file_all_is_the_one_that_there_is(tmp_path: Path, forks: Forks) -> None:
    cli = Cli(tmp_path, forks, Stores("duckdb", None))
    with cli.popen("serve", "--port", "0") as served:
        listening(served)
        assert f"process {served.pid}, which served {cli.store}, has ended" in cli.ok("stop", "--all").err
        assert served.wait(30) == 0
