"""The command line on a store in PostgreSQL: the commands are the same, and what only a file has says so."""

from __future__ import annotations

import contextlib
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from command_line import Cli, Done
from forks import Forks
from postgres_server import Server
from processes import end_host, has_ended, store_at
from stores import Stores
from test_cli_serve import listening

from flowmetal.client.host_file import lock_holder
from flowmetal.client.store_url import resolve

pytestmark = pytest.mark.slow

PROGRAM = "(defflow kid [n] (* n 2)) (defflow main [n] {:twice (kid n)}) (defflow waits [] (receive))"


@pytest.fixture
def there(postgres: Server, tmp_path: Path, forks: Forks) -> Iterator[Cli]:
    """The command line with a store in PostgreSQL, whose URL has a password."""
    url = postgres.store()
    cli = Cli(tmp_path, forks, Stores("duckdb", None))
    cli.store = resolve(url.replace("//postgres@", "//postgres:hunter2@"), environ={})
    cli.env["FLOWMETAL_STORE"] = cli.store.url
    cli.file(PROGRAM)
    yield cli
    end_host(cli.store)
    postgres.give_back(url)


def test_a_day_of_a_store_in_postgresql(there: Cli) -> None:
    def run(*args: str) -> Done:
        done = there(*args)
        assert "hunter2" not in done.out + done.err
        return done

    assert run("run", "orders.flow", "--arg", "21").json() == {"twice": 42}
    assert run("load", "orders.flow").code == 0
    assert run("start", "waits", "--id", "w").out == "w\n"
    assert run("doctor", "--json").json()["open_flows"] == 1
    parents = "SELECT f.name, p.name AS parent FROM flows f JOIN flows p ON p.flow_id = f.parent_id"
    assert run("sql", parents, "--format", "json").json() == {"name": "kid", "parent": "main"}
    refused = run("sql", "SELECT pg_read_file('PG_VERSION')")
    assert refused.code == 2 and "pg_read_file is not allowed" in refused.err
    assert "no file to copy" in run("backup", str(there.folder / "copy")).err
    assert run("delete", "--where", "name = 'main'").code == 0
    assert [row["flow_id"] for row in run("ps", "--json").rows()] == ["w"]
    assert run("send", "w", '{"x": 1}').code == 0
    assert run("result", "w").json() == {"x": 1}
    assert run("stop").code == 0 and lock_holder(there.store) is None
    assert "nobody serves postgresql://postgres@/" in run("stop").err


def test_flows_move_to_a_file_and_back(there: Cli) -> None:
    file = ("--store", "elsewhere.duckdb")
    there.ok("load", "orders.flow")
    over, waits = there.ok("start", "main", "4").out.strip(), there.ok("start", "waits").out.strip()
    there.ok("result", over)
    try:
        assert {f"{over} exported", f"{waits} moved"} <= set(there.ok("export", over, waits, "-o", "there.flowlog").out.splitlines())
        assert there("send", waits, "1").code == 2 and ":flow/moved" in there("result", waits).err
        there.ok("import", "there.flowlog", *file)
        assert there.ok("result", over, *file).json() == {"twice": 8}
        assert there.ok("export", waits, "-o", "back.flowlog", *file).out == f"{waits} moved\n"
        there.ok("import", "back.flowlog")
        there.ok("send", waits, '"here"')
        assert there.ok("result", waits).json() == "here"
        assert ":flow/moved" in there("result", waits, *file).err
    finally:
        end_host(store_at(there.folder / "elsewhere.duckdb"))


def test_several_interpreters_share_a_store_and_one_that_hangs_loses_its_flows(there: Cli) -> None:
    waiting = [f"w{n}" for n in range(8)]
    with there.popen("serve", "--port", "0") as first, there.popen("serve", "--port", "0") as second:
        try:
            first_url, second_url = listening(first), listening(second)
            assert first_url != second_url
            there.ok("load", "orders.flow")
            for flow in waiting:
                there.ok("start", "waits", "--id", flow)
            wait_until_shared(there.store.url, [32, 32])
            for n, flow in enumerate(waiting[:4]):
                there.ok("send", flow, str(n))
                assert there.ok("result", flow).out == f"{n}\n"
            first.send_signal(signal.SIGSTOP)
            with psycopg.connect(there.store.url, autocommit=True) as raw:  # as if the time of its lease were over
                raw.execute("UPDATE fm.interpreters SET until = now() - interval '1 second' WHERE host LIKE %s", (f'%"pid": {first.pid},%',))
            wait_until_shared(there.store.url, [64])
            for n, flow in enumerate(waiting[4:]):
                there.ok("send", flow, str(n))
                assert there.ok("result", flow).out == f"{n}\n"
            first.send_signal(signal.SIGCONT)
            out, err = first.communicate(timeout=60)
            assert first.returncode != 0 and not out
            assert any(line.startswith("error: ") and "taken over by another interpreter" in line for line in err.splitlines()), err
            assert "Traceback" not in err
            assert there.host_pid() == second.pid
            second.terminate()
            assert second.wait(60) == 0
        finally:
            first.kill()
            second.kill()
            first.wait(60)
            second.wait(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interpreter_whose_server_is_away_ends_when_it_is_asked_to(there: Cli, postgres: Server, number: signal.Signals) -> None:
    with there.popen("serve", "--port", "0") as serving:
        url = listening(serving)
        postgres.stop("immediate")
        try:
            asking = threading.Thread(target=unanswered, args=(url,))
            asking.start()  # and the interpreter waits for the server
            assert not has_ended(serving.pid, 1)
            serving.send_signal(number)
            _, err = serving.communicate(timeout=20)
            asking.join()
        finally:
            serving.kill()
            postgres.start()
    assert serving.returncode == 0 and "Traceback" not in err


def unanswered(url: str) -> None:
    """Asks for a page of callbacks, which the store has to look for."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v1/callbacks/no-such-token", b"1", timeout=60) as answer:
        answer.read()


def wait_until_shared(url: str, parts: list[int]) -> None:
    """Waits until so many interpreters have so many shares each."""
    with psycopg.connect(url, autocommit=True) as raw:
        sql = "SELECT count(*) FROM fm.shares WHERE owner IS NOT NULL GROUP BY owner ORDER BY 1"
        while [count for (count,) in raw.execute(sql).fetchall()] != parts:
            raw.execute("SELECT pg_sleep(0.02)")
