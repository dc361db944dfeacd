"""The whole shim over real HTTP, on a real engine, once on the memory store and once on DuckDB; on PostgreSQL with --store."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import nanoarrow as na  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI
from loopback import serving
from stores import Stores

from flowmetal.connect.http_request import HttpConnector
from flowmetal.connect.shim.app import create_app
from flowmetal.connect.shim.context import Limits
from flowmetal.runtime.engine import Engine
from flowmetal.store.protocol import Store

pytestmark = pytest.mark.stores("memory", "duckdb")
TOKEN = "t0ken"
PROGRAM = """
(defflow add [a b] (+ a b))
(defflow greet [who] {:greeting (str "hello " (:name who)) :tags [:a :b]})
(defflow fail [] (throw (ex-info "out of stock" {:type :shop/out-of-stock :sku "A"})))
(defflow hook [] (let [c (callback)] (set-info! {:token (:token c)}) {:got (await c)}))
(defflow hook-then-wait [] (let [c (callback)] (set-info! {:token (:token c)}) (await c) (receive)))
(defflow mail [] (let [a (receive) b (receive)] [a b]))
(defflow doze [] (sleep #dur "1h"))
(defflow fetch [url] (:json (http/get url)))
(defflow post-to [url] (:json (http/post url {:json {:a 1}})))
"""


@contextlib.asynccontextmanager
async def engine_app(store: Store, stops: list[int]) -> AsyncIterator[FastAPI]:
    engine = Engine(store, connectors=[HttpConnector()])
    await engine.open()
    app = create_app(
        engine,
        token=TOKEN,
        limits=Limits(keep_alive=0.3),
        on_stop=lambda: stops.append(1),
        info=lambda: {"pid": 1, "store": ":memory:"},
    )
    try:
        yield app
    finally:
        app.state.context.closing.set()
        await engine.close()
        store.close()


@pytest.fixture(scope="module")
def stops() -> list[int]:
    return []


@pytest.fixture(scope="module")
def client(module_stores: Stores, tmp_path_factory: Any, stops: list[int]) -> Iterator[httpx.Client]:
    stops.clear()
    store = module_stores.open(tmp_path_factory.mktemp("store") / "flowmetal.duckdb")
    with serving(engine_app(store, stops)) as url:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
            response = client.put("/v1/definitions?file=shop.flow", content=PROGRAM)
            assert response.status_code == 200, response.text
            assert "add" in str(response.json()["names"]) and response.json()["version"] > 0
            yield client


def start(client: httpx.Client, name: str, *args: Any, **more: Any) -> str:
    response = client.post("/v1/flows", json={"name": name, "args": list(args), **more})
    assert response.status_code == 201, response.text
    flow_id: str = response.json()["flow_id"]
    return flow_id


def ended(client: httpx.Client, flow_id: str) -> dict[str, Any]:
    response = client.get(f"/v1/flows/{flow_id}/result?wait=15")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def until(client: httpx.Client, flow_id: str, status: str) -> dict[str, Any]:
    """The flow's row, as soon as it has that status."""
    deadline = time.monotonic() + 15
    while True:
        row: dict[str, Any] = client.get(f"/v1/flows/{flow_id}").json()
        if row["status"] == status:
            return row
        assert time.monotonic() < deadline, row
        time.sleep(0.01)


def callback_of(client: httpx.Client, flow_id: str) -> str:
    row = until(client, flow_id, "waiting")
    info = row["info"] if isinstance(row["info"], dict) else json.loads(row["info"])
    return str(info["token"])


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    return body


def test_start_and_result(client: httpx.Client) -> None:
    found = ended(client, start(client, "add", 1, 2))
    assert (found["status"], found["result"]) == ("completed", 3)
    flow_id = start(client, "add", 1, 2)
    ended(client, flow_id)
    assert client.get(f"/v1/flows/{flow_id}/result").json()["result"] == 3
    found = ended(client, start(client, "greet", {"name": "Ann"}))
    assert found["result"] == {"greeting": "hello Ann", "tags": ["a", "b"]}
    assert client.get("/v1/flows/" + start(client, "add", 1, 2)).json()["name"] == "add"


def test_a_failed_flow(client: httpx.Client) -> None:
    found = ended(client, start(client, "fail"))
    assert found["status"] == "failed" and "result" not in found
    error = found["error"]
    assert (error["type"], error["message"]) == ("shop/out-of-stock", "out of stock")
    assert error["data"]["sku"] == "A"


def test_the_same_id_is_the_same_flow(client: httpx.Client) -> None:
    assert start(client, "add", 1, 5, id="order-1") == "order-1"
    response = client.post("/v1/flows", json={"name": "add", "args": [1, 5], "id": "order-1"})
    assert (response.status_code, response.json()) == (200, {"flow_id": "order-1"})
    problem(client.post("/v1/flows", json={"name": "add", "args": [1, 6], "id": "order-1"}), 409)
    problem(client.post("/v1/flows", json={"name": "fail", "args": [], "id": "order-1"}), 409)


def test_the_same_idempotency_key_is_the_same_flow(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "req-1"}
    first = client.post("/v1/flows", json={"name": "add", "args": [1, 1]}, headers=headers)
    again = client.post("/v1/flows", json={"name": "add", "args": [1, 1]}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


def test_unknown_program_and_flow(client: httpx.Client) -> None:
    assert "no-such" in problem(client.post("/v1/flows", json={"name": "no-such"}), 422)["detail"]
    for path in ("", "/result", "/events", "/state", "/result?wait=1"):
        problem(client.get(f"/v1/flows/no-such-flow{path}"), 404)
    problem(client.get("/v1/flows/no-such-flow/events", headers={"Accept": "text/event-stream"}), 404)
    problem(client.post("/v1/flows/no-such-flow/cancel"), 404)
    problem(client.post("/v1/flows/no-such-flow/messages", json=1), 404)


def test_callback(client: httpx.Client) -> None:
    flow_id = start(client, "hook")
    url = f"/v1/callbacks/{callback_of(client, flow_id)}"
    assert client.get(f"/v1/flows/{flow_id}/result").json() == {"status": "waiting"}
    with httpx.Client(base_url=client.base_url) as anonymous:
        problem(anonymous.post(url, content="{", headers={"Content-Type": "application/json"}), 400)
        response = anonymous.post(url, json={"tracking": "T-1"})
        assert response.status_code == 202 and response.json()["message_id"]
        assert ended(client, flow_id)["result"] == {"got": {"tracking": "T-1"}}
        again = anonymous.post(url, json={"tracking": "T-1"})
        assert (again.status_code, again.json()) == (200, response.json())
        problem(anonymous.post(url, json={"tracking": "T-2"}), 409)
        problem(anonymous.post("/v1/callbacks/no-such-token", json=1), 404)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"data": {"a": "1"}}, {"a": "1"}),
        ({"content": b"plain", "headers": {"Content-Type": "text/plain"}}, "plain"),
        ({"content": b'{"a": [1]}', "headers": {"Content-Type": "application/x-www-form-urlencoded"}}, {"a": [1]}),
        ({"content": b""}, None),
    ],
)
def test_callback_takes_json_form_and_text(client: httpx.Client, given: dict[str, Any], value: Any) -> None:
    flow_id = start(client, "hook")
    assert client.post(f"/v1/callbacks/{callback_of(client, flow_id)}", **given).status_code == 202
    assert ended(client, flow_id)["result"] == {"got": value}


def test_callback_of_an_ended_flow_is_gone(client: httpx.Client) -> None:
    flow_id = start(client, "hook")
    token = callback_of(client, flow_id)
    assert client.post(f"/v1/flows/{flow_id}/terminate").status_code == 200
    problem(client.post(f"/v1/callbacks/{token}", json=1), 410)


def test_many_posts_at_once_settle_a_callback_once(client: httpx.Client) -> None:
    flow_id = start(client, "hook")
    url = f"{client.base_url}/v1/callbacks/{callback_of(client, flow_id)}"
    codes: list[int] = []
    threads = [threading.Thread(target=lambda n=n: codes.append(httpx.post(url, json={"n": n}, verify=False).status_code)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [202] + [409] * 7


def test_messages(client: httpx.Client) -> None:
    flow_id = start(client, "mail")
    until(client, flow_id, "waiting")
    path = f"/v1/flows/{flow_id}/messages"
    first = client.post(path, json={"n": 1}, headers={"Idempotency-Key": "m1"})
    again = client.post(path, json={"n": 1}, headers={"Idempotency-Key": "m1"})
    assert first.status_code == again.status_code == 202 and first.json() == again.json()
    problem(client.post(path, content="{"), 400)
    assert client.post(path, json=[1, "two"]).status_code == 202
    assert ended(client, flow_id)["result"] == [{"n": 1}, [1, "two"]]
    assert problem(client.post(path, json=1), 410)["error"]["type"] == "flow/ended"


def test_the_same_key_at_once_is_one_message(client: httpx.Client) -> None:
    flow_id = start(client, "mail")
    until(client, flow_id, "waiting")
    url = f"{client.base_url}/v1/flows/{flow_id}/messages"
    headers = {**client.headers, "Idempotency-Key": "once"}
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(httpx.post(url, json=1, headers=headers, verify=False).json()["message_id"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8 and len(set(ids)) == 1
    query = {"sql": "SELECT count(*) FROM messages WHERE flow_id = ?", "params": [flow_id]}
    assert client.post("/v1/sql", json=query).json()["rows"] == [[1]]
    client.post(f"/v1/flows/{flow_id}/terminate")


def test_looking_closer_and_helping_on(client: httpx.Client) -> None:
    flow_id = start(client, "mail")
    until(client, flow_id, "waiting")
    refused = problem(client.post(f"/v1/flows/{flow_id}/step"), 409)
    assert "only a paused flow" in refused["detail"] and refused["hint"] == f"flowmetal pause {flow_id}"
    problem(client.post(f"/v1/flows/{flow_id}/retry"), 409)
    client.post(f"/v1/flows/{flow_id}/pause")
    client.post(f"/v1/flows/{flow_id}/messages", json=1)
    for _ in range(2):
        assert client.post(f"/v1/flows/{flow_id}/step", headers={"Idempotency-Key": f"step {flow_id}"}).status_code == 200
    until(client, flow_id, "paused")
    assert [row["kind"] for row in client.get(f"/v1/flows/{flow_id}/events").json()].count("flow-stepped") == 1
    state = client.get(f"/v1/flows/{flow_id}/state", params={"step": 1, "transition": 0}).json()
    assert (state["step"], state["transition"]) == (1, 0) and state["transitions"] > 0
    problem(client.get(f"/v1/flows/{flow_id}/state", params={"step": 1, "transition": 10_000}), 422)
    problem(client.get(f"/v1/flows/{flow_id}/state", params={"transition": 1}), 422)
    problem(client.get(f"/v1/flows/{flow_id}/state", params={"step": 1, "transition": -1}), 422)
    diff = client.get(f"/v1/flows/{flow_id}/diff", params={"from": 1, "to": 2}).json()
    assert diff["fibers"][0]["changed"][0]["locals"] == [{"name": "a", "new": 1}]
    problem(client.get(f"/v1/flows/{flow_id}/diff"), 422)
    problem(client.get(f"/v1/flows/{flow_id}/diff", params={"from": 99}), 422)
    assert flow_id not in [each["flow_id"] for each in client.get("/v1/stuck", params={"after": 0}).json()["items"]]
    client.post(f"/v1/flows/{flow_id}/terminate")


def test_retry_of_a_flow_whose_code_failed_says_what_to_do(client: httpx.Client) -> None:
    flow_id = start(client, "fail")
    assert ended(client, flow_id)["error"]["type"] == "shop/out-of-stock"
    refused = problem(client.post(f"/v1/flows/{flow_id}/retry"), 409)
    assert "failed in its own code" in refused["detail"] and "flowmetal fork" in refused["hint"]
    state = client.get(f"/v1/flows/{flow_id}/state").json()
    assert state["error"]["type"] == "shop/out-of-stock" and state["stack"][0]["function"] == "fail"


def test_control(client: httpx.Client) -> None:
    flow_id = start(client, "mail")
    until(client, flow_id, "waiting")
    assert client.post(f"/v1/flows/{flow_id}/pause", json={"reason": "lunch"}).json()["status"] == "paused"
    problem(client.post(f"/v1/flows/{flow_id}/pause", json={"why": "x"}), 422)
    problem(client.post(f"/v1/flows/{flow_id}/pause", json=[]), 422)
    assert client.post(f"/v1/flows/{flow_id}/resume").json()["status"] in ("waiting", "running")
    assert client.post(f"/v1/flows/{flow_id}/cancel", json={"reason": "enough"}).status_code == 200
    assert ended(client, flow_id)["error"]["type"] == "flow/cancelled"
    flow_id = start(client, "doze")
    assert client.post(f"/v1/flows/{flow_id}/terminate").json()["status"] == "cancelled"
    assert ended(client, flow_id)["error"]["type"] == "flow/terminated"


def test_the_same_key_is_one_action(client: httpx.Client) -> None:
    flow_id = start(client, "mail")
    until(client, flow_id, "waiting")
    once = {"Idempotency-Key": "end-it"}
    assert client.post(f"/v1/flows/{flow_id}/terminate", headers=once).json()["status"] == "cancelled"
    assert client.post(f"/v1/flows/{flow_id}/terminate", headers=once).json()["status"] == "cancelled"
    problem(client.post(f"/v1/flows/{flow_id}/terminate"), 410)
    problem(client.post(f"/v1/flows/{flow_id}/terminate", headers={"Idempotency-Key": "another"}), 410)


def test_options_may_be_left_out(client: httpx.Client) -> None:
    without, empty = client.post("/v1/archive"), client.post("/v1/archive", json={})
    assert without.status_code == empty.status_code != 400
    assert without.json().get("title") == empty.json().get("title"), "a store in memory has no archive, and says so"


def test_listing_in_pages(client: httpx.Client) -> None:
    ids = {start(client, "greet", {"name": str(n)}) for n in range(5)}
    seen: list[str] = []
    after = None
    while True:
        params: dict[str, Any] = {"name": "greet", "limit": 2} | ({"after": after} if after else {})
        page = client.get("/v1/flows", params=params).json()
        seen += [row["flow_id"] for row in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert ids <= set(seen) and len(seen) == len(set(seen))
    row = client.get("/v1/flows", params={"limit": 1}).json()["items"][0]
    columns = "flow_id name kind status parent_id forked_from forked_at definitions_version created_at updated_at finished_at steps args tags info result error"
    assert set(columns.split()) <= set(row)
    assert client.get("/v1/flows", params={"status": "moved"}).json() == {"items": [], "next": None}


def test_events_as_json(client: httpx.Client) -> None:
    flow_id = start(client, "add", 1, 2)
    ended(client, flow_id)
    rows = client.get(f"/v1/flows/{flow_id}/events").json()
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["kind"] == "flow-started" and rows[-1]["kind"] == "flow-completed"
    assert set(rows[0]) == {"pos", "flow_id", "seq", "at", "kind", "step", "fiber", "data"}
    assert client.get(f"/v1/flows/{flow_id}/events?after=1").json() == rows[1:]


def read_stream(client: httpx.Client, flow_id: str, into: list[dict[str, str]], **headers: str) -> None:
    """Reads server-sent events to the end of the stream."""
    accept = {"Accept": "text/event-stream", **headers}
    with client.stream("GET", f"/v1/flows/{flow_id}/events", headers=accept, timeout=20) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in response.iter_lines():
            if line.startswith(":"):
                event["comment"] = line
            elif line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif event:
                into.append(event)
                event = {}


def test_events_live(client: httpx.Client) -> None:
    flow_id = start(client, "mail")
    until(client, flow_id, "waiting")
    seen: list[dict[str, str]] = []
    reader = threading.Thread(target=read_stream, args=(client, flow_id, seen))
    reader.start()
    deadline = time.monotonic() + 10
    while not any("comment" in e for e in seen) and time.monotonic() < deadline:
        time.sleep(0.01)
    before = [e for e in seen if "id" in e]
    assert before and before[0]["event"] == "flow-started"
    for n in (1, 2):
        client.post(f"/v1/flows/{flow_id}/messages", json=n)
    reader.join(15)
    assert not reader.is_alive()
    events = [e for e in seen if "id" in e]
    assert [int(e["id"]) for e in events] == list(range(1, len(events) + 1))
    assert events[-1]["event"] == "flow-completed"
    assert [json.loads(e["data"]) for e in events] == client.get(f"/v1/flows/{flow_id}/events").json()
    rest: list[dict[str, str]] = []
    read_stream(client, flow_id, rest, **{"Last-Event-ID": events[1]["id"]})
    assert [e["id"] for e in rest] == [e["id"] for e in events[2:]]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": events[-1]["id"]}
    assert client.get(f"/v1/flows/{flow_id}/events", headers=headers).status_code == 204
    problem(client.get(f"/v1/flows/{flow_id}/events", headers={**headers, "Last-Event-ID": "x"}), 422)


def test_state(client: httpx.Client) -> None:
    flow_id = start(client, "mail")
    until(client, flow_id, "waiting")
    state = client.get(f"/v1/flows/{flow_id}/state").json()
    assert {"step", "status", "stack", "waiting_for"} <= set(state)
    assert {"function", "line", "column", "source", "locals"} <= set(state["stack"][0])
    client.post(f"/v1/flows/{flow_id}/messages", json=7)
    assert client.get(f"/v1/flows/{flow_id}/state?step=1").json()["step"] == 1
    problem(client.get(f"/v1/flows/{flow_id}/state?step=99"), 422)


def test_definitions(client: httpx.Client) -> None:
    first = client.put("/v1/definitions", content="(def answer 42)").json()
    assert first["names"] and isinstance(first["version"], int)
    body = problem(client.put("/v1/definitions?file=x.flow", content="(def a 1)\n  (foo"), 422)
    assert (body["error"]["type"], body["file"], body["line"], body["column"]) == ("reader/eof", "x.flow", 2, 3)
    body = problem(client.put("/v1/definitions", content="(def a\n (no-such-name 1))"), 422)
    assert (body["error"]["type"], body["line"], body["column"]) == ("compile/unresolved", 2, 3)
    problem(client.put("/v1/definitions", content=b"\xff"), 400)
    problem(client.put("/v1/definitions", content="(" * 50_000), 422)


def test_eval_complete_inspect(client: httpx.Client) -> None:
    response = client.post("/v1/eval", json={"source": "(def x 20) (println :hi) (+ x 1)"})
    assert response.status_code == 202
    found = ended(client, response.json()["flow_id"])
    assert (found["status"], found["result"], found["printed"]) == ("completed", 21, "21")
    failing = client.post("/v1/eval", json={"source": "(nth [1] 5)"}).json()["flow_id"]
    error = ended(client, failing)["error"]
    assert error["type"] == "index" and "(nth [1] 5)" in error["rendered"]
    assert "gree" in " ".join(client.get("/v1/complete", params={"prefix": "gree"}).json()["items"])
    assert client.get("/v1/inspect", params={"name": "http/get"}).json()["doc"]
    problem(client.get("/v1/inspect", params={"name": "no-such-name"}), 404)


def test_the_same_eval_request_is_one_cell(client: httpx.Client) -> None:
    body = {"source": "(rand)", "request_id": "cell-1"}
    assert client.post("/v1/eval", json=body).json() == client.post("/v1/eval", json=body).json()


def test_sql(client: httpx.Client) -> None:
    flow_id = start(client, "add", 20, 22)
    ended(client, flow_id)
    query = "SELECT name, result, args, created_at FROM flows WHERE flow_id = ?"
    answer = client.post("/v1/sql", json={"sql": query, "params": [flow_id]}).json()
    assert answer["columns"] == ["name", "result", "args", "created_at"]
    assert answer["rows"][0][:3] == ["add", 42, [20, 22]]
    assert answer["rows"][0][3].endswith(("Z", "+00:00"))
    same = client.post("/v1/sql", json={"sql": "SELECT 1 AS a, 2 AS a, NULL AS b, 1.5::DECIMAL(5,2) AS d"}).json()
    assert (same["columns"], same["rows"]) == (["a", "a", "b", "d"], [[1, 2, None, 1.5]])
    named = client.post("/v1/sql", json={"sql": "SELECT $n + 1 AS n", "params": {"n": 1}}).json()
    assert named["rows"] == [[2]]


def test_sql_as_csv_and_arrow(client: httpx.Client) -> None:
    body = {"sql": "SELECT 1 AS n, 'a,b' AS s, ARRAY[1, 2] AS l UNION ALL SELECT NULL, NULL, NULL ORDER BY n"}
    text = client.post("/v1/sql", json=body, headers={"Accept": "text/csv"})
    assert text.headers["content-type"].startswith("text/csv")
    assert list(csv.reader(io.StringIO(text.text))) == [["n", "s", "l"], ["1", "a,b", "[1,2]"], ["", "", ""]]
    arrow = client.post("/v1/sql", json=body, headers={"Accept": "application/vnd.apache.arrow.stream"})
    rows = na.ArrayStream.from_readable(arrow.content).read_all().to_pylist()
    assert rows == [{"n": 1, "s": "a,b", "l": "[1,2]"}, {"n": None, "s": None, "l": None}]
    flows = {"sql": "SELECT * FROM flows"}
    arrow = client.post("/v1/sql", json=flows, headers={"Accept": "application/vnd.apache.arrow.stream"})
    assert len(na.ArrayStream.from_readable(arrow.content).read_all()) == len(client.post("/v1/sql", json=flows).json()["rows"])
    problem(client.post("/v1/sql", json=body, headers={"Accept": "image/png"}), 406)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM flows",
        "SELECT 1; SELECT 2",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM no_such_table",
        "SELEC",
        "",
    ],
)
def test_sql_that_is_refused(client: httpx.Client, sql: str) -> None:
    assert problem(client.post("/v1/sql", json={"sql": sql}), 422)["error"]["type"] == "sql/refused"


def test_http_requests_of_flows(client: httpx.Client) -> None:
    url = str(client.base_url) + "/healthz"
    assert ended(client, start(client, "fetch", url))["result"] == {"status": "ok"}
    found = ended(client, start(client, "post-to", str(client.base_url) + "/v1/callbacks/none"))
    error = found["error"]
    assert error["type"] == "http/status" and error["data"]["status"] == 404


def test_health_and_metrics(client: httpx.Client) -> None:
    assert client.get("/readyz").json() == {"status": "ready"}
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'flowmetal_flows{status="completed"}' in response.text
    assert "\nflowmetal_tasks " in response.text
    assert 'flowmetal_http_requests_total{method="POST",route="/v1/flows",status="201"}' in response.text


def test_host_and_stop(client: httpx.Client, stops: list[int]) -> None:
    assert client.get("/v1/host").json() == {"pid": 1, "store": ":memory:"}
    assert client.post("/v1/stop").status_code == 202
    deadline = time.monotonic() + 5
    while not stops and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stops == [1]
