"""Commands on a store with a host that they started themselves."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import uuid

import pytest
from command_line import Cli

from flowmetal.client.host_file import token_of


@pytest.fixture
def cli(shared: Cli) -> Cli:
    return shared


@pytest.fixture
def waiting(cli: Cli) -> str:
    return cli.ok("start", "waits").out.strip()


def test_load_prints_the_version(cli: Cli) -> None:
    before = int(cli.ok("load", "orders.flow").out)
    more = cli.file("(defn double [x] (* 2 x))", f"{uuid.uuid4().hex}.flow")
    assert int(cli.ok("load", more).out) > before
    assert cli.ok("load", more, "--json").json()["names"] == ["user/double"]


def test_start_and_result(cli: Cli) -> None:
    flow = cli.ok("start", "add", "20", "22").out.strip()
    assert cli.ok("result", flow).out == "42\n"
    assert cli.ok("result", flow[:12]).out == "42\n"


def test_negative_numbers_are_no_options(cli: Cli, waiting: str) -> None:
    assert cli.ok("result", cli.ok("start", "add", "-5", "-1.5").out.strip()).out == "-6.5\n"
    cli.ok("send", waiting, "-7")
    assert cli.ok("result", waiting).json() == {"got": -7}
    unknown = cli("start", "add", "1", "--colour")
    assert (unknown.code, "No such option" in unknown.err) == (2, True)


def test_start_with_a_time_a_queue_tags_and_a_limit(cli: Cli) -> None:
    options = ("--at", "0.1s", "--queue", "q", "--priority", "2", "--tag", "env=prod", "--tag", "n=1", "--timeout", "90")
    flow = cli.ok("start", "add", "1", "2", *options).out.strip()
    assert cli.ok("result", flow, "--timeout", "20").json() == 3
    assert cli.ok("show", flow, "--json").json()["tags"] == {"env": "prod", "n": "1"}
    assert cli.ok("start", "boom", "--on-failure", "pause", "--id", "held").out == "held\n"
    for option, wrong, says in (("--at", "soon", "1h30m"), ("--tag", "x", "env=prod"), ("--timeout", "-1", "1h30m"), ("--on-failure", "stop", "pause")):
        refused = cli("start", "add", "1", "2", option, wrong)
        assert (refused.code, says in refused.err) == (2, True), refused


def test_start_twice_with_one_id(cli: Cli) -> None:
    name = f"order-{uuid.uuid4().hex}"
    assert cli.ok("start", "add", "1", "2", "--id", name).out.strip() == name
    assert cli.ok("start", "add", "1", "2", "--id", name, "--json").json() == {"flow_id": name, "created": False}
    other = cli("start", "add", "1", "3", "--id", name)
    assert other.code == 2
    assert name in other.err


def test_a_failed_flow_is_exit_1(cli: Cli) -> None:
    flow = cli.ok("start", "boom").out.strip()
    done = cli("result", flow)
    assert (done.code, done.out) == (1, "")
    assert "it broke" in done.err
    assert ":user" in done.err
    as_json = cli("result", flow, "--json")
    assert as_json.code == 1
    assert as_json.json()["error"]["message"] == "it broke"


def test_result_that_is_late_is_exit_4(cli: Cli, waiting: str) -> None:
    done = cli("result", waiting, "--timeout", "0.05")
    assert (done.code, done.out) == (4, "")
    assert "waiting" in done.err


def test_send_ends_the_wait(cli: Cli, waiting: str) -> None:
    assert cli.ok("send", waiting, '{"n": 1}').out.strip()
    assert cli.ok("result", waiting).json() == {"got": {"n": 1}}
    assert cli("send", waiting, "2").code == 2


def test_the_same_key_is_one_message(cli: Cli, waiting: str) -> None:
    first = cli.ok("send", waiting, "1", "--key", "k").out
    cli.ok("result", waiting)
    assert cli.ok("send", waiting, "1", "--key", "k").out == first


def test_pause_resume_cancel_terminate(cli: Cli, waiting: str) -> None:
    assert "paused" in cli.ok("pause", waiting, "--reason", "lunch").out
    assert cli.ok("ps", "--status", "paused", "--json").rows()[0]["flow_id"] == waiting
    cli.ok("resume", waiting)
    cli.ok("cancel", waiting)
    assert cli("result", waiting).code == 1
    assert cli("cancel", waiting).code == 2
    other = cli.ok("start", "naps").out.strip()
    assert "cancelled" in cli.ok("terminate", other).out
    done = cli("result", other)
    assert done.code == 1
    assert "flow/terminated" in done.err


def test_control_of_many(cli: Cli) -> None:
    flows = {cli.ok("start", "waits").out.strip() for _ in range(2)}
    ids = ", ".join(f"'{flow}'" for flow in flows)
    done = cli.ok("cancel", "--where", f"flow_id IN ({ids})", "--json")
    assert {row["flow_id"] for row in done.rows()} == flows
    assert cli("cancel").code == 2
    assert cli("cancel", "x", "--where", "true").code == 2
    assert cli("cancel", "--where", "no_such_column = 1").code == 2
    one_bad = cli("cancel", "no-such-flow", cli.ok("start", "waits").out.strip())
    assert one_bad.code == 3
    assert one_bad.out


def test_ps(cli: Cli, waiting: str) -> None:
    done = cli.ok("ps", "--name", "waits", "--status", "waiting")
    assert waiting in done.out
    assert str(cli.store) in done.err
    rows = cli.ok("ps", "--name", "waits", "--json").rows()
    assert waiting in {row["flow_id"] for row in rows}
    assert cli.ok("ps", "--name", "nothing-of-that-name", "--json").out == ""
    assert cli("ps", "--status", "asleep").code == 2


def test_show_and_log(cli: Cli, waiting: str) -> None:
    shown = cli.ok("show", waiting)
    assert "waiting" in shown.out
    assert "(receive)" in shown.out or "receive" in shown.out
    state = cli.ok("show", waiting, "--at", "1", "--json").json()
    assert state["stack"][0]["line"] == 3
    assert "flow-started" in cli.ok("log", waiting).out
    events = cli.ok("log", waiting, "--json").rows()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert cli("show", waiting, "--at", "99").code == 2


def test_log_follows_to_the_end(cli: Cli, waiting: str) -> None:
    with cli.popen("log", waiting, "--follow", "--json") as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["kind"] == "flow-started"
        cli.ok("send", waiting, "1")
        kinds = [json.loads(line)["kind"] for line in following.stdout]
        assert kinds[-1] == "flow-completed"
        following.communicate()
        assert following.returncode == 0


def test_sql(cli: Cli) -> None:
    query = "SELECT 1 AS a, 'x' AS b, DATE '2026-01-02' AS c, CAST('{\"k\": [1]}' AS JSON) AS d"
    assert cli.ok("sql", query, "--format", "json").json() == {"a": 1, "b": "x", "c": "2026-01-02", "d": {"k": [1]}}
    table = cli.ok("sql", query)
    assert table.out.split()[:4] == ["a", "b", "c", "d"]
    rows = list(csv.reader(io.StringIO(cli.ok("sql", query, "--format", "csv").out)))
    assert rows == [["a", "b", "c", "d"], ["1", "x", "2026-01-02", '{"k": [1]}']]


def test_sql_parquet(cli: Cli) -> None:
    import duckdb

    query = "SELECT flow_id, created_at, steps, args FROM flows ORDER BY created_at LIMIT 2"
    cli.ok("start", "main")
    done = subprocess.run(cli.command("sql", query, "--format", "parquet"), capture_output=True, cwd=cli.folder, env=cli.env, check=True)
    path = cli.folder / "rows.parquet"
    path.write_bytes(done.stdout)
    types = duckdb.sql(f"DESCRIBE SELECT * FROM '{path}'").fetchall()
    assert [row[:2] for row in types][:2] == [("flow_id", "VARCHAR"), ("created_at", "TIMESTAMP WITH TIME ZONE")]


@pytest.mark.parametrize("query", ["DROP TABLE log", "SELECT FROM WHERE", "SELECT 1; SELECT 2", "COPY flows TO 'x'", ""])
def test_sql_refused_is_exit_2(cli: Cli, query: str) -> None:
    done = cli("sql", query)
    assert done.code == 2, done
    assert done.err.startswith("error: ")


@pytest.mark.parametrize(
    "args",
    [
        ["result", "no-such-flow"],
        ["show", "no-such-flow"],
        ["log", "no-such-flow"],
        ["log", "no-such-flow", "--follow"],
        ["pause", "no-such-flow"],
        ["send", "no-such-flow", "1"],
        ["result", "not an id!"],
        ["result", ""],
    ],
)
def test_no_such_flow_is_exit_3(cli: Cli, args: list[str]) -> None:
    done = cli(*args)
    assert (done.code, done.out) == (3, "")
    assert "no flow" in done.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["start", "no-such-program"], "no-such-program"),
        (["start", "add", "one", "2"], "not JSON"),
        (["start", "add", "NaN", "2"], "not JSON"),
        (["start", "add", "1", "2", "--id", "a b"], "id"),
        (["send", "x", "{"], "not JSON"),
        (["load", "missing.flow"], "missing.flow"),
        (["nonsense"], "nonsense"),
        (["result"], "FLOW"),
        (["result", "x", "--timeout", "-1"], "timeout"),
        (["result", "x", "--timeout", "soon"], "timeout"),
        (["sql"], "SQL"),
        (["kernel", "install", "--user", "--prefix", "x"], "two places"),
    ],
)
def test_bad_input_is_exit_2_and_says_what(cli: Cli, args: list[str], words: str) -> None:
    done = cli(*args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_wrong_arity_fails_the_flow(cli: Cli) -> None:
    flow = cli("start", "add", "1")
    assert flow.code in (0, 2)
    if flow.code == 0:
        done = cli("result", flow.out.strip())
        assert done.code == 1
        assert "arity" in done.err


def test_a_source_error_shows_the_place(cli: Cli) -> None:
    done = cli("load", cli.file("(defn f [x]\n  (+ x nope))\n", f"{uuid.uuid4().hex}.flow"))
    assert done.code == 2
    assert ".flow:2:8" in done.err
    assert "^^^^" in done.err
    unclosed = cli("load", cli.file("(defn f [x]", f"{uuid.uuid4().hex}.flow"))
    assert unclosed.code == 2
    assert ":1:1" in unclosed.err


def test_an_ambiguous_prefix_is_refused(cli: Cli) -> None:
    prefix = f"twin-{uuid.uuid4().hex[:8]}-"
    for end in "ab":
        cli.ok("start", "waits", "--id", prefix + end)
    done = cli("result", prefix)
    assert done.code == 3
    assert prefix + "a" in done.err


def test_whoever_reads_us_may_stop_reading(cli: Cli, waiting: str) -> None:
    for _ in range(3):
        done = subprocess.run(
            " ".join(cli.command("sql", "'SELECT n FROM generate_series(0, 9000) AS t(n)'", "--format", "json")) + " | head -1",
            shell=True,
            capture_output=True,
            cwd=cli.folder,
            env=cli.env,
            text=True,
            check=True,
        )
        assert (done.stdout, done.stderr) == ('{"n": 0}\n', "")


def test_token_and_doctor(cli: Cli) -> None:
    token = cli.ok("token").out.strip()
    assert token == token_of(cli.store)
    said = cli.ok("doctor", "--json").json()
    assert (said["store"], said["host"]) == (str(cli.store), cli.host_pid())
    assert said["reachable"] is True
    assert str(cli.store) in cli.ok("doctor").out


def test_an_http_store(cli: Cli) -> None:
    url = cli.ok("doctor", "--json").json()["url"]
    token = cli.ok("token").out.strip()
    flow = cli.ok("start", "main").out.strip()
    done = cli("result", flow, "--store", url, env={"FLOWMETAL_TOKEN": token})
    assert (done.code, done.out) == (0, "3\n")
    for wrong in ({}, {"FLOWMETAL_TOKEN": "wrong"}):
        refused = cli("result", flow, "--store", url, env=wrong)
        assert refused.code == 3
        assert "FLOWMETAL_TOKEN" in refused.err


def test_nothing_at_that_address_is_exit_3(cli: Cli) -> None:
    done = cli("ps", "--store", "http://127.0.0.1:9")
    assert done.code == 3
    assert "127.0.0.1:9" in done.err
