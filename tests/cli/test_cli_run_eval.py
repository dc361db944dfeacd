"""`run` and `eval`."""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from pathlib import Path

import pytest
from command_line import ORDERS, Cli


def test_run_prints_the_result_as_json(cli: Cli) -> None:
    cli.file(ORDERS)
    assert cli.ok("run", "orders.flow").out == "3\n"
    assert cli.ok("run", "orders.flow", "--main", "add", "--arg", "1.5", "--arg", "2").out == "3.5\n"
    assert cli.host_pid() is None


def test_what_a_flow_prints_goes_to_stderr(cli: Cli) -> None:
    done = cli.ok("run", cli.file(ORDERS), "--main", "talks")
    assert done.out == "7\n"
    assert "hello from inside\n" in done.err


def test_run_keeps_the_flow_in_the_store(cli: Cli) -> None:
    cli.ok("run", cli.file(ORDERS))
    (row,) = cli.ok("ps", "--json").rows()
    assert (row["name"], row["status"], row["result"]) == ("user/main", "completed", 3) or row["name"] == "main"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["missing.flow"], 2, "missing.flow"),
        (["orders.flow", "--main", "nope"], 2, "nope"),
        (["orders.flow", "--arg", "{"], 2, "not JSON"),
        (["orders.flow", "--main", "boom"], 1, "it broke"),
        (["orders.flow", "--clock", "virtual", "--store", "x.duckdb"], 2, "virtual"),
        (["orders.flow", "--clock", "odd"], 2, "odd"),
        (["broken.flow"], 2, "broken.flow:1:7"),
        (["binary.flow"], 2, "UTF-8"),
        (["."], 2, "directory"),
    ],
)
def test_run_that_goes_wrong(cli: Cli, args: list[str], code: int, words: str) -> None:
    cli.file(ORDERS)
    cli.file("(def x]", "broken.flow")
    (cli.folder / "binary.flow").write_bytes(b"\xff\xfe")
    done = cli("run", *args, "--store", ":memory:") if "--clock" not in args else cli("run", *args)
    assert (done.code, done.out) == (code, ""), done
    assert words in done.err


def test_a_virtual_clock_takes_no_time(cli: Cli) -> None:
    began = time.monotonic()
    done = cli("run", cli.file(ORDERS), "--main", "naps", "--clock", "virtual", env={"FLOWMETAL_STORE": "x.duckdb"})
    assert (done.code, done.out) == (0, '"rested"\n')
    assert time.monotonic() - began < 60
    assert not (cli.folder / "x.duckdb").exists()


def test_an_interrupted_run_stays_and_goes_on(cli: Cli) -> None:
    cli.file('(defflow main [] (println "ready") {:got (receive)})')
    with cli.popen("run", "orders.flow") as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert "flowmetal result" in err
    flow = cli.ok("ps", "--json").rows()[0]["flow_id"]
    assert flow in err
    cli.ok("send", flow, '"late"')
    assert cli.ok("result", flow).json() == {"got": "late"}


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in /proc")
def test_an_interrupt_is_heard_whichever_thread_takes_it(cli: Cli) -> None:
    cli.file('(defflow main [] (println "ready") (receive))')
    with cli.popen("run", "orders.flow") as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "ready\n"
        another = max(int(thread.name) for thread in Path(f"/proc/{running.pid}/task").iterdir())
        assert another != running.pid
        assert ctypes.CDLL(None).tgkill(running.pid, another, int(signal.SIGINT)) == 0
        running.communicate(timeout=60)
    assert running.returncode == 130


EACH = [
    ("1", "1"),
    ('"a\\nb"', '"a\\nb"'),
    ("(def x 41)", "#'user/x"),
    ("(inc x)", "42"),
    ("; a comment\n#_ (ignored) :k", ":k"),
    ("nil", "nil"),
    ("(nope 1)", "!! :compile/unresolved at {line}:2: "),
    ('(throw (ex-info "bad\\nnews" {:a 1}))', "!! :user at {line}:1: bad\\nnews"),
    ('(throw (ex-info "typed" {:type :my/kind}))', "!! :my/kind at {line}:1: typed"),
    ("(+ 1 nil)", "!! :type at {line}:1: "),
    ("(/ 1 0)", "!! :arithmetic at {line}:1: "),
    ("(ns other.place)", "nil"),
    ("(def y 1)", "#'other.place/y"),
    ("::here", ":other.place/here"),
    ("(do (println 1) 2)", "2"),
    ("[(range 3)]", "[(0 1 2)]"),
]


def test_eval_each_gives_one_line_a_form(cli: Cli) -> None:
    line, expected = 1, []
    for text, answer in EACH:
        expected.append(answer.replace("{line}", str(line)))
        line += text.count("\n") + 1
    done = cli("eval", "--each", "-", input="\n".join(text for text, _ in EACH))
    assert done.code == 0
    said = done.out.splitlines()
    assert len(said) == len(expected), done.out
    for (text, _), got, wanted in zip(EACH, said, expected, strict=True):
        if wanted.startswith("!!"):
            assert got.startswith(wanted), text
        else:
            assert got == wanted, text
    assert "1\n" in done.err


def test_each_position_is_the_form_s_own(cli: Cli) -> None:
    done = cli("eval", "--each", input='1\n\n  (let [a 1]\n     (+ a "x"))  (nope)\n')
    assert done.out.splitlines()[1].startswith("!! :type at 4:6: ")
    assert done.out.splitlines()[2].startswith("!! :compile/unresolved at 4:19: ") or "4:18" in done.out.splitlines()[2]


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("1 (+ 2", "!! :reader/eof at 1:3: "),
        ("1 ) 2", "!! :reader/syntax at 1:3: "),
        ('1 "abc', "!! :reader/eof at 1:3: "),
        ("1 " + "(" * 150_000, "!! :limit at "),
    ],
)
def test_an_unreadable_rest_ends_it(cli: Cli, text: str, last: str) -> None:
    done = cli("eval", "--each", input=text)
    assert done.code == 2
    said = done.out.splitlines()
    assert said[0] == "1"
    assert said[-1].startswith(last)
    assert len(said) == 2


def test_each_of_nothing(cli: Cli) -> None:
    assert cli.ok("eval", "--each", input="").out == ""
    assert cli.ok("eval", "--each", input="; only a comment\n#_x\n").out == ""


def test_eval_gives_the_last_value(cli: Cli) -> None:
    assert cli.ok("eval", input="(def a 1) (println :out) (+ a 1)").out == "2\n"
    assert cli.ok("eval", cli.file("[:a 1]")).out == "[:a 1]\n"
    assert cli.ok("eval", input="").out == "nil\n"
    assert cli.ok("eval", "--json", input="{:a [1 nil]}").json()["result"] == {"a": [1, None]}


def test_eval_stops_at_the_first_error(cli: Cli) -> None:
    done = cli("eval", input="(println :one)\n(+ 1 :two)\n(println :three)")
    assert (done.code, done.out) == (1, "")
    assert ":one" in done.err
    assert ":three\n" not in done.err
    assert ":type" in done.err
    assert "<stdin>:2:1" in done.err
    assert cli("eval", input="(nope)").code == 2
    assert cli("eval", "missing.flow").code == 2
    assert cli("eval", input=b"\xff").code == 2


def test_eval_is_in_memory_whatever_the_environment_says(cli: Cli) -> None:
    done = cli("eval", input="(+ 1 1)", env={"FLOWMETAL_STORE": str(cli.folder / "no" / "such" / "x.duckdb")})
    assert (done.code, done.out) == (0, "2\n")
    assert not list(cli.folder.glob("*.duckdb*"))


def test_eval_in_a_store(cli: Cli) -> None:
    cli.ok("eval", "--store", cli.store.url, input="(def kept 5)")
    assert cli.ok("eval", "--store", cli.store.url, "--each", input="kept (inc kept)").out == "5\n6\n"


def test_eval_waits_for_what_flows_wait_for(cli: Cli) -> None:
    done = cli.ok("eval", input='(defflow f [x] (sleep #dur "10ms") (* 2 x)) @(start f 21)')
    assert done.out == "42\n"
