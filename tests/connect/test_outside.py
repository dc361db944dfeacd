"""Processes, queries, secrets and questions: what a flow asks of the world, and what it is told."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pytest
from engines import Door, door
from processes import wait_until_ended
from stores import Stores

from flowmetal.connect.secrets import secrets_of
from flowmetal.errors import LispError

PROGRAM = """
(defflow run [command options] (sh command options))
(defflow run-timed [command ms] (sh command {:timeout (/ ms 1000.0)}))
(defflow select [url query params] (sql/query url query params))
(defflow server [n] (dotimes [_ n] (let [m (receive)] (reply m (* 2 (:n m))))) :done)
(defflow asker [h message] (ask h message {:timeout #dur "10s"}))
(defflow hasty [h] (try (ask h {:n 1} {:timeout #dur "50ms"}) (catch :flow/timeout e :nobody)))
(defflow deaf [] (receive {:match :stop}))
(defflow presumptuous [] (try (reply (receive) 1) (catch :value e (ex-message e))))
(defflow send-secret [url] (http/get url {:headers {:Authorization (str "Bearer " (secret "TOKEN")) :X-Key (secret "TOKEN")} :query {:k (secret "TOKEN")}}))
(defflow fail-secret [url] (http/get (str url "/" (secret "TOKEN")) {:retry false}))
(defflow no-secret [] (http/get "http://127.0.0.1:9/" {:headers {:a (secret "MISSING")}}))
(defflow look-into [f] (let [s (secret "TOKEN")] [(str s) (pr-str s) (= s (secret "TOKEN"))
  (mapv (fn [g] (try (g s) (catch :secret/used e :used))) [count str/upper-case (fn [x] (subs x 0 1)) (fn [x] (str/join "" [x])) (fn [x] (+ 1 x)) first])]))
"""
HIDDEN = "hush-7e1f"


@pytest.fixture(scope="module")
def http(module_stores: Stores) -> Iterator[Door]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWMETAL_SECRET_TOKEN", HIDDEN)
        with door(module_stores.quick(), PROGRAM) as client:
            yield client


# Processes


def test_a_process_is_its_exit_code_and_its_output(http: Door) -> None:
    script = "cat; echo oops >&2; echo $WHO; pwd; exit 3"
    flow = http.start("run", ["sh", "-c", script], {"stdin": "in ", "env": {"WHO": "me"}, "cwd": "/"})
    assert http.result(flow) == {"exit": 3, "out": "in me\n/\n", "err": "oops\n"}
    kinds = [e["kind"] for e in http.get(f"/v1/flows/{flow}/events").json()]
    assert kinds.index("attempt-started") < kinds.index("effect-completed"), "at most once by default"


def test_a_process_that_takes_too_long_is_ended_with_its_children(http: Door, tmp_path: Path) -> None:
    flow = http.start("run-timed", ["sh", "-c", f"sleep 60 & echo $$ $! > {tmp_path}/pids; wait; echo no"], 300)
    assert http.ended(flow)["error"]["type"] == "flow/timeout"
    for pid in (tmp_path / "pids").read_text().split():
        wait_until_ended(int(pid))


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        (["no-such-program"], {}, "No such file"),
        (["ls"], {"cwd": "/no/such"}, "No such file"),
        ([], {}, "vector of strings"),
        (["ls"], {"shell": True}, ":shell"),
    ],
)
def test_a_process_that_cannot_run_says_why(http: Door, command: list[str], options: Any, said: str) -> None:
    assert said in http.ended(http.start("run", command, options))["error"]["message"]


def test_a_process_sees_no_secrets_of_the_interpreter(http: Door) -> None:
    assert HIDDEN not in http.result(http.start("run", ["env"], {}))["out"]


# Queries


def test_rows_of_another_database_are_maps(http: Door, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as lite:
        lite.execute("CREATE TABLE t (id INTEGER, name TEXT, b BLOB)")
        lite.execute("INSERT INTO t VALUES (1, 'x', x'00ff'), (2, NULL, NULL)")
    lite.close()
    found = http.result(http.start("select", f"sqlite:///{tmp_path}/a.db", "SELECT * FROM t WHERE id >= ? ORDER BY id", [1]))
    assert found == [{"id": 1, "name": "x", "b": "AP8="}, {"id": 2, "name": None, "b": None}]
    with duckdb.connect(str(tmp_path / "b.duckdb")) as duck:
        duck.execute("CREATE TABLE t AS SELECT 1.50::DECIMAL(9,2) AS price, TIMESTAMPTZ '2024-01-02 03:04:05+00' AS at, [1, 2] AS list")
    found = http.result(http.start("select", f"duckdb:///{tmp_path}/b.duckdb", "SELECT *, $p AS p FROM t", {"p": "q"}))
    assert found == [{"price": 1.5, "at": "2024-01-02T03:04:05Z", "list": [1, 2], "p": "q"}]


@pytest.mark.parametrize("query", ["DELETE FROM t", "DROP TABLE t", "SELECT nonsense", "INSERT INTO t VALUES (1)"])
@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_query_reads_only(http: Door, tmp_path: Path, kind: str, query: str) -> None:
    path = tmp_path / f"a.{kind}"
    connection: Any = sqlite3.connect(path) if kind == "sqlite" else duckdb.connect(str(path))
    connection.execute("CREATE TABLE t (id INTEGER)")
    connection.close()
    assert http.ended(http.start("select", f"{kind}:///{path}", query, []))["error"]["type"] in ("sql/failed", "sql/refused")


def test_a_database_of_another_kind_is_named(http: Door) -> None:
    assert "sqlite" in http.ended(http.start("select", "mysql://x", "SELECT 1", []))["error"]["message"]


# Questions


def test_a_flow_asks_and_another_replies(http: Door) -> None:
    server = http.start("server", 2)
    askers = [http.start("asker", server, {"n": n}) for n in (4, 5)]
    assert [http.result(a) for a in askers] == [8, 10]
    assert http.result(server) == "done"
    assert http.ended(http.start("asker", server, {"n": 1}))["error"]["type"] == "flow/ended"


def test_a_message_over_http_may_wait_for_the_reply(http: Door) -> None:
    server = http.start("server", 1)
    first = http.post(f"/v1/flows/{server}/messages?wait=10", json={"n": 21}, headers={"Idempotency-Key": "q"})
    assert (first.status_code, first.json()["reply"]) == (200, 42)
    assert http.post(f"/v1/flows/{http.start('deaf')}/messages?wait=0.05", json={}).status_code == 202


def test_a_question_repeated_with_its_key_gets_the_same_reply(http: Door) -> None:
    server = http.start("server", 2)

    def post(_: int) -> Any:
        return http.post(f"/v1/flows/{server}/messages?wait=10", json={"n": 3}, headers={"Idempotency-Key": "same"}).json()["reply"]

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(post, range(3))) == [6, 6, 6]
    assert http.get(f"/v1/flows/{server}").json()["status"] == "waiting", "it was one question"


def test_a_question_has_a_time_and_nobody_else_can_be_answered(http: Door) -> None:
    deaf = http.start("deaf")
    assert http.result(http.start("hasty", deaf)) == "nobody"
    asking = http.start("asker", deaf, {"n": 1})
    http.waits_for(asking, "ask")
    http.post(f"/v1/flows/{deaf}/cancel", json={})
    assert http.ended(asking)["error"]["type"] == "flow/ended"
    flow = http.start("presumptuous")
    http.post(f"/v1/flows/{flow}/messages", json={"n": 1})
    assert "nobody waits for a reply" in http.result(flow)


# Secrets


@pytest.fixture
def mirror() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    seen: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, dict(self.headers)))
            self.send_response(404 if "hush" in self.path and "?" not in self.path else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_secret_is_sent_and_is_in_no_log(http: Door, mirror: Any) -> None:
    url, seen = mirror
    sent, failed = http.start("send-secret", url), http.start("fail-secret", url)
    assert http.result(sent)["status"] == 204
    error = http.ended(failed)["error"]
    path, headers = next((p, h) for p, h in seen if "?" in p)
    assert (headers["Authorization"], headers["X-Key"], path) == (f"Bearer {HIDDEN}", HIDDEN, f"/?k={HIDDEN}")
    assert error["type"] == "http/status" and f"/{HIDDEN}" in [p for p, _ in seen]
    store = http.engine.store
    everything = "".join(f"{row.data}{row.exact}" for flow in (sent, failed) for row in store.rows(flow))  # type: ignore[attr-defined]
    assert HIDDEN not in everything and HIDDEN not in str(error) and "secret[TOKEN]" in everything


def test_a_secret_that_is_not_there_is_named(http: Door) -> None:
    error = http.ended(http.start("no-secret"))["error"]
    assert error["type"] == "secret/missing" and "FLOWMETAL_SECRET_MISSING" in error["message"]


def test_nobody_can_look_into_a_secret(http: Door) -> None:
    shown, printed, same, used = http.result(http.start("look-into", None))
    assert (shown, printed, same) == ("#secret[TOKEN]", "#secret[TOKEN]", True)
    assert used == ["used"] * 6


def test_secrets_in_a_file_are_taken_only_when_nobody_else_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "flowmetal.duckdb.secrets"
    file.write_text("# mine\nKEY = a=b \n")
    file.chmod(0o644)
    with pytest.raises(LispError, match="chmod 600"):
        secrets_of(file)("KEY")
    file.chmod(0o600)
    assert secrets_of(file)("KEY") == "a=b"
    with pytest.raises(LispError, match="no secret OTHER"):
        secrets_of(file)("OTHER")
