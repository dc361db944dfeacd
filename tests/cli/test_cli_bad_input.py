"""What a stranger does wrong on the command line: each mistake has its own clear error, and the store is as it was."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from command_line import Cli, Done
from forks import Forks
from processes import end_host
from stores import Stores

PROGRAM = """\
(defflow add [a b] (+ a b))
(defflow waits [] (receive))
(defflow nests [depth] (loop [n 0 v []] (if (= n depth) v (recur (inc n) [v]))))
"""
DEEP = 10_000
FACTS = """SELECT (SELECT array_agg(DISTINCT name ORDER BY name) FROM definitions WHERE ns = 'user') AS names,
    (SELECT count(*) FROM flows WHERE finished_at IS NULL) AS open"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, forks: Forks, module_stores: Stores) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("bad"), forks, module_stores)
    cli.ok("load", cli.file(PROGRAM))
    yield cli
    flow = cli.ok("start", "add", "20", "22").out.strip()
    assert cli.ok("result", flow).out == "42\n"
    end_host(cli.store)


@pytest.fixture
def cli(store: Cli) -> Iterator[Cli]:
    """The store; nothing is defined after a test that was not before, and nothing is under way."""
    yield store
    assert store.ok("sql", FACTS, "--format", "json").json() == {"names": ["add", "nests", "waits"], "open": 0}


def refused(done: Done, code: int, *words: str) -> None:
    """It ended with that code, said each of these words, and printed nothing for programs to read."""
    assert (done.code, done.out) == (code, ""), done
    for word in words:
        assert word in done.err, (word, done.err)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("(defflow f [x]\n  (+ x 1)", ("bad.flow:1:1", "never closed", "^")),
        ("(defflow f [x]\n  (+ x 1)))", ("bad.flow:2:11", "nothing to close", "^")),
        ("(defflow f [x]\n  (prinltn x))", ("bad.flow:2:4", "prinltn", "println", "^^^^^^^")),
        ("(defflow f [x)\n", ("bad.flow:1:", "]")),
        ("(defflow f 1)", ("bad.flow:1:",)),
        ("(def x (+ 1 :a))", ("bad.flow:1:8", "+ needs numbers")),
        ('(def x "abc', ("bad.flow:1:8", "never closed")),
        ("(" * DEEP + ")" * DEEP, ("bad.flow:1:", "nest")),
        ("[" * DEEP + "]" * DEEP, ("bad.flow:1:", "nest")),
        ("(" * 200_000, ("bad.flow:1:", "nest")),
    ],
)
def test_source_that_is_wrong(cli: Cli, source: str, words: tuple[str, ...]) -> None:
    refused(cli("load", cli.file(source, "bad.flow")), 2, *words)


def test_a_file_that_is_too_large(cli: Cli) -> None:
    refused(cli("load", cli.file("; a line\n" * 250_000, "large.flow")), 2, "1,048,576 bytes", "FLOWMETAL_MAX_BODY")


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("(+ 1 2", 2, (":reader/eof", "<stdin>:1:1", "never closed")),
        ("(reduc + [1 2])", 2, (":compile/unresolved", "reduc", "reduce", "<stdin>:1:2")),
        ("((fn [a b] a) 1)", 1, (":arity", "2 arguments", "given 1", "<stdin>:1:1")),
        ('(+ 1 "x")', 1, (":type", "+ needs numbers", '"x"', "<stdin>:1:1")),
        ("(nth [1 2] 5)", 1, (":index", "<stdin>:1:1")),
        ("(start nowhere 1)", 2, (":compile/unresolved", "nowhere")),
    ],
)
def test_forms_that_are_wrong(cli: Cli, source: str, code: int, words: tuple[str, ...]) -> None:
    refused(cli("eval", "--store", cli.store.url, input=source), code, *words)


def test_a_flow_that_does_not_exist(cli: Cli) -> None:
    refused(cli("start", "addd", "1", "2"), 2, "addd", "did you mean add")
    refused(cli("start", "quite-another", "1"), 2, "quite-another", "add")
    refused(cli("result", "no-such-flow"), 3, "no flow no-such-flow")


def test_arguments_that_do_not_fit_fail_the_flow(cli: Cli) -> None:
    few = cli.ok("start", "add", "1").out.strip()
    refused(cli("result", few), 1, ":arity", "add", "2 arguments")
    text = cli.ok("start", "add", "1", '"x"').out.strip()
    refused(cli("result", text), 1, ":type", "+ needs numbers", "orders.flow:1:20")


@pytest.mark.parametrize("depth", [DEEP, 100])
def test_json_that_is_too_deep(cli: Cli, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    refused(cli("start", "add", "1", deep), 2, "nested")
    waiting = cli.ok("start", "waits").out.strip()
    refused(cli("send", waiting, deep), 2, "nested")
    cli.ok("terminate", waiting)


def test_data_that_a_flow_nests_deep_is_kept(cli: Cli) -> None:
    flow = cli.ok("start", "nests", str(DEEP)).out.strip()
    assert cli.ok("result", flow).out.startswith("[[[[")
    assert cli.ok("sql", f"SELECT status FROM flows WHERE flow_id = '{flow}'", "--format", "json").json() == {"status": "completed"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("DROP TABLE flows", ("only a SELECT", "DROP")),
        ("INSERT INTO events VALUES (1)", ("only a SELECT", "INSERT")),
        ("UPDATE flows SET status = 'x'", ("only a SELECT",)),
        ("COPY flows TO 'stolen.csv'", ("only a SELECT", "COPY")),
        ("SELECT * FROM read_text('/etc/passwd')", ("read_text",)),
        ("SELECT * FROM '/etc/passwd'", ()),
        ("SELECT * FROM 'other.parquet'", ()),
        ("ATTACH 'other.duckdb'", ("only a SELECT", "ATTACH")),
        ("SELECT 1; DROP TABLE flows", ("one SELECT is wanted",)),
        ("SELECT * FROM fm.log", ("fm.log",)),
        ("SELECT * FROM flow", ("flow", "flows")),
        ("SELECT no_such FROM flows", ("no_such",)),
        ("SELEC 1", ("SELEC",)),
    ],
)
def test_sql_that_does_more_than_ask(cli: Cli, query: str, words: tuple[str, ...]) -> None:
    refused(cli("sql", query), 2, "error: ", *words)
    assert not (cli.folder / "stolen.csv").exists()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("no/such/folder/x.duckdb", ("does not exist",)),
        ("ftp://host/x", ("ftp://host/x", "PATH.duckdb")),
        ("http://", ("names no host",)),
    ],
)
def test_a_store_that_is_none(cli: Cli, written: str, words: tuple[str, ...]) -> None:
    refused(cli("ps", "--store", written), 3, *words)


@pytest.mark.parametrize(
    "command", [["ps"], ["start", "add", "1"], ["run", "orders.flow"], ["serve", "--port", "0"], ["eval"], ["token"], ["doctor"], ["stop"]]
)
def test_a_store_that_is_a_folder(cli: Cli, command: list[str]) -> None:
    refused(cli(*command, "--store", ".", input="1"), 3, "is a folder, not a store", "flowmetal.duckdb")


GARBAGE = {"text": b"not a database\n" * 1000, "short": b"\x00" * 5, "nearly": b"\x00" * 8 + b"DUCK" + random.Random(1).randbytes(20_000)}


@pytest.mark.one_store("a file of garbage is no database of a server")
@pytest.mark.parametrize("kind", GARBAGE)
def test_a_store_file_of_garbage_stays_as_it_is(cli: Cli, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "garbage.duckdb"
    file.write_bytes(GARBAGE[kind])
    for command in (["ps"], ["run", "orders.flow"]):
        refused(cli(*command, "--store", str(file)), 3, "garbage.duckdb", "not a DuckDB database")
    assert file.read_bytes() == GARBAGE[kind]


@pytest.mark.one_store("files of other databases")
def test_a_database_of_another_kind_is_named(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "other.duckdb"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE t (n INTEGER)")
    refused(cli("ps", "--store", str(file)), 3, "is an SQLite database")
    with duckdb.connect(str(tmp_path / "plain.duckdb")) as other:
        other.execute("CREATE TABLE t (n INTEGER)")
    refused(cli("ps", "--store", str(tmp_path / "plain.duckdb")), 3, "not a Flowmetal store")


def test_unknown_commands_and_options(cli: Cli) -> None:
    refused(cli("strat", "add"), 2, "strat", "start")
    refused(cli("fork", "x"), 2, "fork")
    refused(cli("start"), 2, "NAME")
    refused(cli("ps", "--colour"), 2, "--colour")
    refused(cli("result", "x", "--timeout", "soon"), 2, "--timeout")


def test_errors_as_json_are_errors_too(cli: Cli) -> None:
    flow = cli.ok("start", "add", "1").out.strip()
    done = cli("result", flow, "--json")
    assert done.code == 1
    assert json.loads(done.out)["error"]["type"] == "arity"


def test_a_fault_shows_its_traceback_only_when_asked(cli: Cli) -> None:
    bad = cli.command("load", cli.file("(", "bad.flow"), "--debug")
    done = subprocess.run(bad, capture_output=True, text=True, cwd=cli.folder, env=cli.env, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
