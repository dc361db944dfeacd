"""`serve`, `stop`, and hosts that come and go."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import urllib.request

import psutil
import pytest
from command_line import ORDERS, Cli
from processes import free_port, has_ended, kill, wait_until_ended

from flowmetal.client.host_file import HostInfo

pytestmark = pytest.mark.slow


def listening(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
    assert found, (line, process.stderr.read() if process.stderr is not None and not line else "")
    return found[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_in_order(cli: Cli, number: signal.Signals) -> None:
    with cli.popen("serve", "--port", "0") as serving:
        url = listening(serving)
        with urllib.request.urlopen(url + "/healthz") as answer:
            assert answer.status == 200
        said = HostInfo.read(cli.store)
        assert said is not None and said.pid == serving.pid
        serving.send_signal(number)
        out, err = serving.communicate(timeout=60)
    assert (serving.returncode, out, err) == (0, "", "")
    assert HostInfo.read(cli.store) is None
    assert cli.host_pid() is None


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "tgkill"), reason="a signal to one thread of another process needs Linux")
def test_a_signal_that_another_thread_takes_ends_serve(cli: Cli) -> None:
    with cli.popen("serve", "--port", "0") as serving:
        listening(serving)
        others = [t.id for t in psutil.Process(serving.pid).threads() if t.id != serving.pid]
        assert others
        assert ctypes.CDLL(None).tgkill(serving.pid, others[0], int(signal.SIGTERM)) == 0
        out, err = serving.communicate(timeout=20)
    assert (serving.returncode, out, err) == (0, "", "")


def test_commands_attach_to_serve(cli: Cli) -> None:
    with cli.popen("serve", "--port", "0") as serving:
        listening(serving)
        cli.ok("load", cli.file(ORDERS))
        flow = cli.ok("start", "main").out.strip()
        assert cli.ok("result", flow).out == "3\n"
        assert cli.host_pid() == serving.pid
        assert cli.ok("stop").code == 0
        serving.communicate(timeout=60)
        assert serving.returncode == 0
    assert "nobody" in cli.ok("stop").err


@pytest.mark.one_store("any number of interpreters share a store in PostgreSQL")
def test_a_file_has_one_host(cli: Cli) -> None:
    with cli.popen("serve", "--port", "0") as serving:
        listening(serving)
        second = cli("serve", "--port", "0")
        assert (second.code, second.out) == (3, "")
        assert str(serving.pid) in second.err
        serving.terminate()
        serving.communicate(timeout=60)


def test_the_port_is_kept(cli: Cli) -> None:
    with cli.popen("serve", "--port", "0") as serving:
        first = listening(serving)
        serving.terminate()
        serving.communicate()
    with cli.popen("serve", "--port", "0") as serving:
        assert listening(serving) == first
        serving.terminate()
        serving.communicate()
    other = free_port()
    with cli.popen("serve", "--port", str(other)) as serving:
        assert listening(serving) == f"http://127.0.0.1:{other}"
        serving.terminate()
        serving.communicate()
    cli.ok("ps")
    said = HostInfo.read(cli.store)
    assert said is not None and said.url == f"http://127.0.0.1:{other}"


def test_a_new_port_warns_of_open_callbacks(cli: Cli) -> None:
    cli.file("(defflow main [] (let [c (callback)] @c))")
    cli.ok("load", "orders.flow")
    flow = cli.ok("start", "main").out.strip()
    cli.ok("stop")
    with cli.popen("serve", "--port", str(free_port())) as serving:
        listening(serving)
        assert cli.ok("show", flow).out
        serving.terminate()
        _, err = serving.communicate()
    assert "1 open callback" in err


def test_a_taken_port_is_an_error(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = cli("serve", "--port", str(other.getsockname()[1]))
    assert (done.code, done.out) == (2, "")
    assert "--port 0" in done.err


def test_memory_listens_only_here(cli: Cli) -> None:
    with cli.popen("serve", "--port", "0", "--store", ":memory:") as serving:
        url = listening(serving)
        with urllib.request.urlopen(url + "/healthz") as answer:
            assert answer.status == 200
        serving.terminate()
        serving.communicate()
    assert serving.returncode == 0


def test_flows_go_on_after_the_host_was_killed(cli: Cli) -> None:
    cli.ok("load", cli.file(ORDERS))
    flow = cli.ok("start", "waits").out.strip()
    first = cli.host_pid()
    assert first
    kill(first)
    cli.ok("send", flow, "7")
    assert cli.ok("result", flow).json() == {"got": 7}
    assert cli.host_pid() not in (None, first)


@pytest.mark.one_store("any number of interpreters share a store in PostgreSQL")
def test_many_starters_and_one_host(cli: Cli) -> None:
    racers = [cli.popen("ps", "--json") for _ in range(4)]
    for racer in racers:
        _, err = racer.communicate(timeout=120)
        assert (racer.returncode, err) == (0, "")
    pid = cli.host_pid()
    assert pid
    others = [p for p in psutil.process_iter(["cmdline"]) if cli.store.url in (p.info["cmdline"] or [])]
    assert [p.pid for p in others] == [pid]


@pytest.mark.one_store("an interpreter of PostgreSQL that says nothing is soon taken over by another")
def test_a_host_that_says_nothing_is_named(cli: Cli) -> None:
    cli.ok("ps")
    pid = cli.host_pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        for command in [cli.popen(name) for name in ("ps", "doctor", "stop")]:
            said = "".join(command.communicate(timeout=60))
            assert command.returncode == 3
            assert str(pid) in said
            assert "not answer" in said
    finally:
        os.kill(pid, signal.SIGCONT)
    assert cli("ps").code == 0


def test_a_background_host_ends_by_itself(cli: Cli) -> None:
    assert cli.ok("serve", "--background", "--idle-seconds", "0.2").out.startswith("listening on ")
    if pid := cli.host_pid():  # else it has ended already
        wait_until_ended(pid)
    assert cli.host_pid() is None
    assert HostInfo.read(cli.store) is None


def test_a_background_host_stays_for_an_open_flow(cli: Cli) -> None:
    cli.ok("load", cli.file(ORDERS))
    flow = cli.ok("start", "naps", "--json").json()["flow_id"]
    cli.ok("stop")
    cli.ok("serve", "--background", "--idle-seconds", "0.2")
    pid = cli.host_pid()
    assert pid
    assert not has_ended(pid, 1.0)
    cli.ok("terminate", flow)
    wait_until_ended(pid)


def test_a_second_background_host_is_the_first(cli: Cli) -> None:
    first = cli.ok("serve", "--background").out
    pid = cli.host_pid()
    assert cli.ok("serve", "--background").out == first
    assert cli.host_pid() == pid


@pytest.mark.one_store("a file that is no database")
@pytest.mark.parametrize("command", [["ps"], ["serve", "--port", "0"], ["run", "orders.flow"], ["serve", "--background"]])
def test_what_is_no_store_is_exit_3(cli: Cli, command: list[str]) -> None:
    cli.file(ORDERS)
    (cli.folder / "flowmetal.duckdb").write_text("not a database\n" * 1000)
    done = cli(*command)
    assert (done.code, done.out) == (3, "")
    assert "flowmetal.duckdb" in done.err
    assert (cli.folder / "flowmetal.duckdb").read_text().startswith("not a database")


def test_kernel_install(cli: Cli) -> None:
    cli.ok("kernel", "install", "--prefix", str(cli.folder / "env"))
    spec = cli.folder / "env" / "share" / "jupyter" / "kernels" / "flowmetal" / "kernel.json"
    assert json.loads(spec.read_text())["display_name"] == "Flowmetal"
