"""What a stranger does wrong over HTTP: each mistake has its own clear problem, and the store is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from loopback import serving
from stores import Stores
from test_shim_engine import TOKEN, engine_app

PROGRAM = """
(defflow add [a b] (+ a b))
(defflow hook [] (let [c (callback)] (set-info! {:token (:token c)}) (await c)))
(defflow waits [] (receive))
"""
DEEP = b"[" * 10_000 + b"]" * 10_000
LARGE = b'"' + b"x" * (2 * 1024 * 1024) + b'"'


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory, module_stores: Stores) -> Iterator[httpx.Client]:
    store = module_stores.open(tmp_path_factory.mktemp("bad") / "flowmetal.duckdb")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with serving(engine_app(store, [])) as url, httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        assert client.put("/v1/definitions", content=PROGRAM).status_code == 200
        for name in ("hook", "waits"):
            assert client.post("/v1/flows", json={"name": name, "id": name}).status_code == 201
        yield client
        assert client.post(f"/v1/callbacks/{token_of(client)}", json={"still": "open"}).status_code == 202
        assert client.get("/v1/flows/hook/result?wait=30").json()["result"] == {"still": "open"}
        assert client.post("/v1/flows/waits/messages", json=[1]).status_code == 202
        assert client.get("/v1/flows/waits/result?wait=30").json()["result"] == [1]


def token_of(client: httpx.Client) -> str:
    """The open callback's token."""
    while True:
        row = client.get("/v1/flows/hook").json()
        if row["status"] != "running":
            return str(row["info"]["token"])


def row_count(client: httpx.Client) -> int:
    token_of(client)
    return int(client.post("/v1/sql", json={"sql": "SELECT count(*) FROM events"}).json()["rows"][0][0])


@pytest.fixture
def client(shim: httpx.Client) -> Iterator[httpx.Client]:
    """The shim, and a store that has not a row more afterwards."""
    before = row_count(shim)
    yield shim
    assert row_count(shim) == before


def problem(response: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """It is a problem of that status, which says each of these words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    for word in words:
        assert word in str([body["detail"], body.get("hint")]), body
    return body


def doors(client: httpx.Client) -> dict[str, str]:
    """Each address that takes a body from outside, and the method for it."""
    return {
        f"/v1/callbacks/{token_of(client)}": "POST",
        "/v1/flows/waits/messages": "POST",
        "/v1/flows": "POST",
        "/v1/flows/waits/pause": "POST",
        "/v1/sql": "POST",
        "/v1/eval": "POST",
        "/v1/definitions": "PUT",
    }


JSON = {"Content-Type": "application/json"}


def test_a_body_of_two_mebibytes(client: httpx.Client) -> None:
    for path, method in doors(client).items():
        problem(client.request(method, path, content=LARGE, headers=JSON), 413, "1,048,576 bytes", "FLOWMETAL_MAX_BODY")


def test_a_body_that_is_not_json(client: httpx.Client) -> None:
    for path, method in doors(client).items():
        if path != "/v1/definitions":
            problem(client.request(method, path, content=b'{"a": 1,}', headers=JSON), 400, "not JSON", "line 1, column 9")
            problem(client.request(method, path, content=b"\xff\xfe{", headers=JSON), 400, "UTF-8")
            problem(client.request(method, path, content=b'{"a": NaN}', headers=JSON), 400, "NaN")


def test_json_that_nests_ten_thousand_deep(client: httpx.Client) -> None:
    for path, method in doors(client).items():
        if path != "/v1/definitions":
            problem(client.request(method, path, content=DEEP, headers=JSON), 422, "64 levels")


@pytest.mark.parametrize(
    ("source", "type_", "place", "words"),
    [
        ("(defflow f [x]\n  (+ x 1)", "reader/eof", (1, 1), ("never closed",)),
        ("(defflow f [x]\n  (prinltn x))", "compile/unresolved", (2, 4), ("prinltn", "println")),
        ("(def x (+ 1 :a))", "type", (1, 8), ("+ needs numbers",)),
        ("(def x ((fn [a] a)))", "arity", (1, 8), ("1 argument",)),
        (DEEP.decode(), "limit", None, ("nest",)),
        ("(" * 200_000, "limit", None, ("nest",)),
    ],
)
def test_source_that_is_wrong(client: httpx.Client, source: str, type_: str, place: tuple[int, int] | None, words: tuple[str, ...]) -> None:
    found = problem(client.put("/v1/definitions?file=bad.flow", content=source), 422, *words)
    assert found["error"]["type"] == type_
    assert found["file"] == "bad.flow"
    assert place is None or (found["line"], found["column"]) == place


def test_a_name_that_is_none(client: httpx.Client) -> None:
    problem(client.post("/v1/flows", json={"name": "addd", "args": [1, 2]}), 422, "addd", "did you mean add")
    problem(client.post("/v1/flows", json={"name": "add", "args": {"a": 1}}), 422, "args")
    problem(client.post("/v1/flows", json={"name": "add", "id": "not an id"}), 422, "id")
    problem(client.get("/v1/flows/no-such-flow"), 404, "no-such-flow")
    problem(client.post("/v1/flows/no-such-flow/messages", json=1), 404, "no-such-flow")


def test_a_token_that_is_unknown(client: httpx.Client) -> None:
    problem(client.post("/v1/callbacks/nobody-made-this", json=1), 404, "token")
    problem(client.post(f"/v1/callbacks/{'x' * 5000}", json=1), 404, "token")


def test_a_token_that_is_used(shim: httpx.Client) -> None:
    flow = shim.post("/v1/flows", json={"name": "hook", "id": "used"}).json()["flow_id"]
    while (row := shim.get(f"/v1/flows/{flow}").json())["status"] == "running":
        pass
    url = f"/v1/callbacks/{row['info']['token']}"
    assert shim.post(url, json={"n": 1}).status_code == 202
    assert shim.get(f"/v1/flows/{flow}/result?wait=30").json()["result"] == {"n": 1}
    before = row_count(shim)
    assert shim.post(url, json={"n": 1}).status_code == 200
    problem(shim.post(url, json={"n": 2}), 409, "another body")
    assert row_count(shim) == before


def test_arguments_that_do_not_fit_fail_the_flow(shim: httpx.Client) -> None:
    for args, type_ in (([1], "arity"), ([1, "x"], "type")):
        flow = shim.post("/v1/flows", json={"name": "add", "args": args}).json()["flow_id"]
        found = shim.get(f"/v1/flows/{flow}/result?wait=30").json()
        assert (found["status"], found["error"]["type"]) == ("failed", type_)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO events VALUES (1)",
        "COPY flows TO '{folder}/stolen.csv'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT getenv('HOME')",
        "ATTACH '{folder}/other.duckdb'",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM fm.log",
        "EXPLAIN SELECT 1",
        "CHECKPOINT",
    ],
)
def test_sql_that_does_more_than_ask(client: httpx.Client, tmp_path: Path, sql: str) -> None:
    response = client.post("/v1/sql", json={"sql": sql.format(folder=tmp_path)})
    assert problem(response, 422)["error"]["type"] == "sql/refused"
    assert list(tmp_path.iterdir()) == []
