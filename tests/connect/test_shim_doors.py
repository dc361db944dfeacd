"""The shim's doors over real HTTP: who may come in, how much, and what every refusal looks like."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from loopback import serving

from flowmetal.connect.json_text import NotJson, TooDeep, dump_json, parse_json
from flowmetal.connect.shim.app import create_app
from flowmetal.connect.shim.auth import host_name
from flowmetal.connect.shim.bodies import read_anything
from flowmetal.connect.shim.context import Ctx, Limits
from flowmetal.connect.shim.problems import Problem
from flowmetal.connect.shim.query import accepted, csv_text
from flowmetal.errors import FlowEnded, LispError, SourceError
from flowmetal.lang.spans import Source, Span

TOKEN = "t0ken"


def doors() -> FastAPI:
    """The shim, and beside it routes that show what came in and how errors go out."""
    app = create_app(SimpleNamespace(public_url="https://flows.example"), token=TOKEN, limits=Limits(max_body=2000))

    @app.post("/test/body")
    async def body(request: Request, context: Ctx) -> dict[str, Any]:
        return {"value": await read_anything(request, context.limits)}

    @app.get("/test/{kind}")
    async def fail(kind: str) -> None:
        span = Span(Source("a.flow", "(foo\n  bar)"), 2, 3, 2, 6)
        raise {
            "source": SourceError("bar is not defined", type="compile/unresolved", span=span, hint="define it"),
            "ended": FlowEnded("it has ended"),
            "lisp": LispError("no such index", type="index"),
            "bug": ZeroDivisionError("secret detail"),
        }[kind]

    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(doors()) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture(scope="module")
def anonymous(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as client:
        yield client


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status and body["title"] and body["type"]
    assert "Traceback" not in response.text
    return body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/flows"),
        ("GET", "/v1/flows"),
        ("GET", "/v1/flows/x"),
        ("GET", "/v1/flows/x/result"),
        ("GET", "/v1/flows/x/events"),
        ("GET", "/v1/flows/x/state"),
        ("POST", "/v1/flows/x/messages"),
        ("POST", "/v1/flows/x/cancel"),
        ("PUT", "/v1/definitions"),
        ("POST", "/v1/sql"),
        ("POST", "/v1/eval"),
        ("GET", "/v1/complete"),
        ("GET", "/v1/inspect"),
        ("GET", "/v1/host"),
        ("POST", "/v1/stop"),
        ("GET", "/metrics"),
    ],
)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic t0ken", f"Bearer {TOKEN}x", "Bearer \u00ff"])
def test_the_token_is_needed(anonymous: httpx.Client, method: str, path: str, header: str | None) -> None:
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    response = anonymous.request(method, path, headers=headers)
    problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


def test_health_needs_no_token(anonymous: httpx.Client) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:80", True),
        ("flows.example", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example:8421", False),
        ("", False),
        ("localhost@evil.example", False),
        ("[", False),
    ],
)
def test_hosts(anonymous: httpx.Client, host: str, known: bool) -> None:
    response = anonymous.get("/healthz", headers={"Host": host})
    if known:
        assert response.status_code == 200
    else:
        problem(response, 403)


def test_host_names() -> None:
    assert host_name("LocalHost.:80") == "localhost"


def test_unknown_paths_and_methods(client: httpx.Client) -> None:
    problem(client.get("/nothing"), 404)
    problem(client.post("/v1/flows/x/dance"), 404)
    response = client.delete("/v1/flows")
    assert "GET" in problem(response, 405)["detail"] or "POST" in response.headers["allow"]
    problem(client.get("/v1/callbacks/abc"), 405)


def test_validation(client: httpx.Client) -> None:
    for path in ("?limit=0", "?limit=x", "?limit=100000", "?status=happy"):
        assert problem(client.get(f"/v1/flows{path}"), 422)["errors"]
    problem(client.get("/v1/flows/a b"), 422)
    problem(client.get("/v1/flows/x/state?step=-1"), 422)
    problem(client.get("/v1/flows/x/result?wait=soon"), 422)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b'{"name": NaN}', 400),
        (b"[]", 422),
        (b'"x"', 422),
        (b"{}", 422),
        (b'{"name": 1}', 422),
        (b'{"name": ""}', 422),
        (b'{"name": "x", "args": {}}', 422),
        (b'{"name": "x", "id": "a b"}', 422),
        (b'{"name": "x", "colour": 1}', 422),
        (b'{"name": "x", "args": ' + b"[" * 80 + b"]" * 80 + b"}", 422),
        (b'{"name": "x", "args": ' + b"[" * 900, 422),
        (b'{"name": "x", "args": [' + b"9" * 1000 + b"]}", None),
    ],
)
def test_bodies_of_start(client: httpx.Client, body: bytes, status: int | None) -> None:
    response = client.post("/v1/flows", content=body)
    problem(response, status or 500)


def test_sixty_four_levels_are_allowed() -> None:
    assert parse_json("[" * 64 + "]" * 64)
    with pytest.raises(TooDeep):
        parse_json("[" * 65 + "]" * 65)
    with pytest.raises(TooDeep):
        parse_json('{"a":' * 65 + "1" + "}" * 65)
    assert len(parse_json('["' + "[" * 500 + '\\"' + "{" * 500 + '"]')) == 1
    assert len(parse_json(",".join(["[[]]"] * 100).join("[]"))) == 100


def test_numbers_are_bounded() -> None:
    with pytest.raises(TooDeep):
        parse_json("1" * 5000)
    with pytest.raises(NotJson):
        parse_json("NaN")
    assert parse_json("[1e999]", lenient=True) == [float("inf")]


def test_lone_surrogates_are_written_as_utf8() -> None:
    assert json.loads(dump_json(["\ud800", "é"]).encode()) == ["?", "é"]


def test_the_body_limit(url: str, client: httpx.Client) -> None:
    assert client.post("/test/body", content=b"x" * 2000).status_code == 200
    assert "2,000" in problem(client.post("/test/body", content=b"x" * 2001), 413)["detail"]
    problem(client.post("/test/body", content=b"x" * 5_000_000), 413)


def test_the_body_limit_counts_chunks(client: httpx.Client) -> None:
    problem(client.post("/test/body", content=(b"x" * 100 for _ in range(30))), 413)
    problem(client.post("/test/body", content=(b"x" * 100_000 for _ in range(50))), 413)
    assert client.post("/test/body", content=(b"x" * 100 for _ in range(20))).status_code == 200


def test_a_declared_length_over_the_limit_is_refused_before_it_is_sent(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/test/body")
    connection.putheader("Content-Length", "99999999999")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    ("content_type", "body", "value"),
    [
        ("application/json", b'{"a": [1, null]}', {"a": [1, None]}),
        ("application/vnd.x+json; charset=utf-8", b"1.5", 1.5),
        ("application/json", b"\xef\xbb\xbf1", 1),
        ("application/json", b"", None),
        ("application/x-www-form-urlencoded", b"a=1&b=%C3%A9+x&a=2&c=", {"a": ["1", "2"], "b": "é x", "c": ""}),
        ("application/x-www-form-urlencoded", b'{"tracking": "T=1"}', {"tracking": "T=1"}),
        ("application/x-www-form-urlencoded", b"hello", "hello"),
        ("application/x-www-form-urlencoded", b"42", 42),
        ("text/plain", b"42", "42"),
        ("text/plain", b'{"a": 1}', '{"a": 1}'),
        (None, b'{"a": 1}', {"a": 1}),
        (None, b"hello", "hello"),
        ("application/octet-stream", b"hello", "hello"),
    ],
)
def test_json_form_or_text(client: httpx.Client, content_type: str | None, body: bytes, value: Any) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = client.post("/test/body", content=body, headers=headers)
    assert response.status_code == 200, response.text
    assert response.json() == {"value": value}


def test_multipart(client: httpx.Client) -> None:
    value = client.post("/test/body", data={"a": "1"}, files={"f": ("x.txt", b"hi", "text/plain")}).json()["value"]
    assert value == {"a": "1", "f": {"filename": "x.txt", "content-type": "text/plain", "base64": "aGk="}}


def test_errors_of_ours_as_problems(client: httpx.Client) -> None:
    body = problem(client.get("/test/source"), 422)
    assert body["type"] == "urn:flowmetal:error:compile/unresolved"
    assert (body["file"], body["line"], body["column"], body["hint"]) == ("a.flow", 2, 3, "define it")
    assert body["error"] == {"type": "compile/unresolved", "message": "bar is not defined", "data": None}
    assert problem(client.get("/test/ended"), 410)["error"]["type"] == "flow/ended"
    assert problem(client.get("/test/lisp"), 422)["error"]["type"] == "index"


def test_a_bug_is_a_bare_500(client: httpx.Client) -> None:
    assert "secret" not in json.dumps(problem(client.get("/test/bug"), 500))


def test_openapi(client: httpx.Client) -> None:
    api = client.get("/openapi.json").json()
    assert api["openapi"].startswith("3.1")
    assert {"/v1/flows", "/v1/callbacks/{token}", "/v1/flows/{flow_id}/cancel", "/v1/sql"} <= set(api["paths"])
    assert "security" in api["paths"]["/v1/flows"]["post"]
    assert "security" not in api["paths"]["/v1/callbacks/{token}"]["post"]
    schema = api["paths"]["/v1/flows"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) >= {"name", "args", "id", "queue", "at", "tags"}
    assert "HTTPValidationError" not in json.dumps(api)
    ids = [op["operationId"] for path in api["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))


def test_headers_of_every_answer(client: httpx.Client) -> None:
    response = client.get("/healthz")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"


def test_stop_needs_a_host_that_can(client: httpx.Client) -> None:
    problem(client.post("/v1/stop"), 409)


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("application/json;q=0, text/csv;q=0.1", "text/csv"),
        ("image/png, text/csv", "text/csv"),
    ],
)
def test_accept(header: str, kind: str) -> None:
    assert accepted(header) == kind


def test_accept_nothing() -> None:
    with pytest.raises(Problem):
        accepted("image/png")


def test_csv() -> None:
    rows: list[list[Any]] = [[1, None, 'a "b", c'], [True, {"x": [1]}, ""]]
    assert csv_text(["a", "b", "c"], rows) == 'a,b,c\r\n1,,"a ""b"", c"\r\ntrue,"{""x"":[1]}",\r\n'
