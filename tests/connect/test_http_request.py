"""The HTTP request connector against a real server on a loopback port."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from loopback import free_port, serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from flowmetal.connect.http_request import HttpConnector
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.lang.values import Duration, kw
from flowmetal.runtime.connector import Call, Completed, Connector, Failed, Outcome


class Peer:
    """The server that the connector speaks to; it notes what it saw."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.failures = 0
        self.status = 503
        self.headers: dict[str, str] = {}
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        self.app = Starlette(
            routes=[
                Route("/echo", self.echo, methods=methods),
                Route("/flaky", self.flaky, methods=methods),
                Route("/slow", self.slow, methods=methods),
                Route("/big", self.big),
                Route("/bomb", self.bomb),
                Route("/text", self.text),
                Route("/bytes", self.binary),
                Route("/deep", self.deep),
                Route("/move", self.move, methods=methods),
                Route("/cookie", self.cookie),
            ]
        )
        self.url = ""

    async def note(self, request: Request) -> dict[str, Any]:
        seen = {
            "method": request.method,
            "query": request.url.query,
            "headers": dict(request.headers),
            "body": (await request.body()).decode("utf-8"),
        }
        self.seen.append(seen)
        return seen

    async def echo(self, request: Request) -> Response:
        return JSONResponse(await self.note(request), headers={"X-Two": "a"})

    async def flaky(self, request: Request) -> Response:
        await self.note(request)
        if len(self.seen) <= self.failures:
            return PlainTextResponse("not now", self.status, self.headers)
        return JSONResponse({"attempts": len(self.seen)})

    async def slow(self, request: Request) -> Response:
        await self.note(request)
        await asyncio.sleep(2)
        return PlainTextResponse("late")

    async def big(self, request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 10_000

        return StreamingResponse(parts())

    async def bomb(self, request: Request) -> Response:
        return Response(gzip.compress(b"0" * 20_000_000), headers={"Content-Encoding": "gzip"})

    async def text(self, request: Request) -> Response:
        return Response("caf\u00e9".encode("latin-1"), media_type="text/plain; charset=latin-1")

    async def binary(self, request: Request) -> Response:
        return Response(b"\x00\xff", media_type="image/png")

    async def deep(self, request: Request) -> Response:
        return Response("[" * 100_000, media_type="application/json")

    async def move(self, request: Request) -> Response:
        await self.note(request)
        return RedirectResponse("/echo", 303)

    async def cookie(self, request: Request) -> Response:
        await self.note(request)
        return PlainTextResponse("ok", headers={"Set-Cookie": "who=me"})


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with serving(peer.app) as url:
        peer.url = url
        yield peer


class Record:
    """What the connector asked to be recorded, and the waits it made without waiting."""

    def __init__(self) -> None:
        self.failed: list[tuple[int, str, int]] = []
        self.started: list[int] = []
        self.waits: list[float] = []
        self.time = 1_000_000_000_000_000

    async def attempt_failed(self, attempt: int, error: Failed, next_at: int) -> None:
        self.failed.append((attempt, error.type, next_at))

    async def attempt_started(self, attempt: int) -> None:
        self.started.append(attempt)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += int(seconds * 1e6)


async def _perform(request: Any, record: Record, **more: Any) -> Outcome:
    connector = HttpConnector(now=lambda: record.time, sleep=record.sleep)
    assert isinstance(connector, Connector)
    call = Call(
        op="http/request",
        target="",
        args=(request,),
        idempotency_key="RUN/1",
        attempt_failed=record.attempt_failed,
        attempt_started=record.attempt_started,
        **more,
    )
    try:
        return await connector.perform(call)
    finally:
        await connector.close()


def perform(request: Any, record: Record | None = None, **more: Any) -> Outcome:
    value = from_plain(request) if isinstance(request, dict) else request
    return asyncio.run(_perform(value, record or Record(), **more))


def completed(outcome: Outcome) -> dict[str, Any]:
    assert isinstance(outcome, Completed), outcome
    plain = to_plain(outcome.value)[0]
    assert isinstance(plain, dict)
    return plain


def failed(outcome: Outcome) -> Failed:
    assert isinstance(outcome, Failed), outcome
    return outcome


def test_response_map(peer: Peer) -> None:
    outcome = perform({"method": "get", "url": f"{peer.url}/echo"})
    assert isinstance(outcome, Completed) and outcome.attempts == 1
    response = outcome.value
    assert response.get(kw("status")) == 200
    assert response.get(kw("headers")).get(kw("x-two")) == "a"
    assert response.get(kw("json")).get(kw("method")) == "GET"
    assert isinstance(response.get(kw("body")), str)


@pytest.mark.parametrize(
    ("given", "content_type", "body"),
    [
        ({"json": {"a": [1, None, "é"]}}, "application/json", '{"a":[1,null,"é"]}'),
        ({"json": None}, "application/json", "null"),
        ({"form": {"a": "1 2", "b": [1, 2]}}, "application/x-www-form-urlencoded", "a=1+2&b=1&b=2"),
        ({"body": "text"}, "text/plain; charset=utf-8", "text"),
        ({"body": "<a/>", "headers": {"content-type": "text/xml"}}, "text/xml", "<a/>"),
    ],
)
def test_bodies(peer: Peer, given: dict[str, Any], content_type: str, body: str) -> None:
    completed(perform({"method": "post", "url": f"{peer.url}/echo", **given}))
    assert peer.seen[0]["body"] == body
    assert peer.seen[0]["headers"]["content-type"] == content_type


def test_query_joins_the_url(peer: Peer) -> None:
    query = Map.of([(kw("b"), 2), (kw("c"), True), (kw("d"), None), ("e f", kw("x/y"))])
    request = Map.of([(kw("method"), kw("get")), (kw("url"), f"{peer.url}/echo?a=1"), (kw("query"), query)])
    completed(perform(request))
    assert peer.seen[0]["query"] == "a=1&b=2&c=true&e+f=x%2Fy"


def test_idempotency_key_is_the_same_on_every_attempt(peer: Peer) -> None:
    peer.failures = 3
    record = Record()
    response = completed(perform({"method": "put", "url": f"{peer.url}/flaky", "json": 1}, record))
    assert response["json"] == {"attempts": 4}
    assert [s["headers"]["idempotency-key"] for s in peer.seen] == ["RUN/1"] * 4
    assert [s["body"] for s in peer.seen] == ["1"] * 4


def test_a_key_that_the_program_gives_wins(peer: Peer) -> None:
    completed(perform({"url": f"{peer.url}/echo", "headers": {"idempotency-key": "mine"}}))
    completed(perform({"url": f"{peer.url}/echo", "idempotency-key": "other"}))
    assert [s["headers"]["idempotency-key"] for s in peer.seen] == ["mine", "other"]


@pytest.mark.parametrize(("method", "attempts"), [("get", 5), ("put", 5), ("delete", 5), ("post", 1), ("patch", 1)])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_default_retries(peer: Peer, method: str, attempts: int, status: int) -> None:
    peer.failures, peer.status = 99, status
    error = failed(perform({"method": method, "url": f"{peer.url}/flaky"}))
    assert (error.type, error.attempts, len(peer.seen)) == ("http/status", attempts, attempts)
    data = to_plain(error.data)[0]
    assert (data["status"], data["body"], data["url"]) == (status, "not now", f"{peer.url}/flaky")


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_client_error_is_final(peer: Peer, status: int) -> None:
    peer.failures, peer.status = 99, status
    assert failed(perform({"url": f"{peer.url}/flaky"})).attempts == 1


def test_long_waits_are_recorded_before_they_begin(peer: Peer) -> None:
    peer.failures = 4
    record = Record()
    retry = {"max-attempts": 5, "initial": 0.25, "backoff": 4, "max": 3, "jitter": 0}
    start = record.time
    completed(perform({"url": f"{peer.url}/flaky", "retry": retry}, record))
    assert record.waits == [0.25, 1.0, 3.0, 3.0]
    first = start + 250_000 + 1_000_000
    assert record.failed == [
        (2, "http/status", first),
        (3, "http/status", first + 3_000_000),
        (4, "http/status", first + 6_000_000),
    ]


def test_retry_takes_durations_and_names_of_errors(peer: Peer) -> None:
    peer.failures, peer.status = 2, 404
    record = Record()
    retry = Map.of([(kw("initial"), Duration(2_000_000)), (kw("jitter"), 0), (kw("on"), from_plain([404]))])
    request = Map.of([(kw("method"), kw("post")), (kw("url"), f"{peer.url}/flaky"), (kw("retry"), retry)])
    assert completed(perform(request, record))["json"] == {"attempts": 3}
    assert record.waits == [2.0, 4.0]


def test_retry_after_is_honoured(peer: Peer) -> None:
    peer.failures, peer.status, peer.headers = 1, 429, {"Retry-After": "7"}
    record = Record()
    completed(perform({"url": f"{peer.url}/flaky"}, record))
    assert record.waits == [7.0]
    assert record.failed[0][0] == 1


def test_retry_after_a_date(peer: Peer) -> None:
    peer.failures, peer.headers = 1, {"Retry-After": "Sun, 09 Sep 2001 01:46:50 GMT"}
    record = Record()
    completed(perform({"url": f"{peer.url}/flaky"}, record))
    assert record.waits == [10.0]


def test_throw_false_gives_the_response_after_the_retries(peer: Peer) -> None:
    peer.failures = 99
    outcome = perform({"url": f"{peer.url}/flaky", "throw": False, "retry": {"max-attempts": 2}})
    assert completed(outcome)["status"] == 503
    assert outcome.attempts == 2


def test_resumes_with_the_recorded_attempt_and_time(peer: Peer) -> None:
    peer.failures = 99
    record = Record()
    outcome = perform({"url": f"{peer.url}/flaky"}, record, attempt=5, not_before=record.time + 3_000_000)
    assert failed(outcome).attempts == 5
    assert record.waits == [3.0] and len(peer.seen) == 1


def test_nobody_listens() -> None:
    error = failed(perform({"url": f"http://127.0.0.1:{free_port()}/"}))
    assert (error.type, error.attempts) == ("http/connect", 5)
    error = failed(perform({"method": "post", "url": f"http://127.0.0.1:{free_port()}/"}))
    assert (error.type, error.attempts) == ("http/connect", 1)


def test_attempt_timeout_and_timeout(peer: Peer) -> None:
    request = {"url": f"{peer.url}/slow", "attempt-timeout": 0.1, "retry": {"max-attempts": 2}}
    error = failed(perform(request))
    assert (error.type, error.attempts) == ("http/timeout", 2)
    error = failed(perform({"url": f"{peer.url}/slow", "timeout": 0.1}))
    assert (error.type, error.attempts) == ("http/timeout", 1)


def test_timeout_counts_from_the_request(peer: Peer) -> None:
    """A call that is taken up after a restart has only what is left of its time; with nothing left, nothing is sent."""
    args = (from_plain({"url": f"{peer.url}/echo", "timeout": 30}),)

    async def scene() -> Outcome:
        connector = HttpConnector()
        try:
            return await connector.perform(Call("http/get", args[0].get(kw("url")), args, elapsed=31.0))
        finally:
            await connector.close()

    before = len(peer.seen)
    error = failed(asyncio.run(scene()))
    assert error.type == "http/timeout"
    assert len(peer.seen) == before


def test_timeout_covers_the_retries(peer: Peer) -> None:
    peer.failures = 99

    async def run() -> Outcome:
        connector = HttpConnector()
        args = from_plain({"url": f"{peer.url}/flaky", "timeout": 0.4, "retry": {"initial": 0.1, "max-attempts": 99}})
        try:
            return await connector.perform(Call(op="http/request", target="", args=(args,)))
        finally:
            await connector.close()

    error = failed(asyncio.run(run()))
    assert error.type == "http/timeout" and error.attempts > 1
    assert to_plain(error.data)[0]["last"]["type"] == "http/status"


def test_at_most_once_is_recorded_first_and_sent_once(peer: Peer) -> None:
    peer.failures = 99
    record = Record()
    error = failed(perform({"url": f"{peer.url}/flaky", "at-most-once": True, "retry": {"max-attempts": 3}}, record))
    assert (error.type, len(peer.seen), record.started) == ("http/status", 1, [1])
    record = Record()
    request = {"url": f"http://127.0.0.1:{free_port()}", "at-most-once": True, "retry": {"max-attempts": 3}}
    assert failed(perform(request, record)).attempts == 3
    assert record.started == [1, 2, 3]


def test_options_of_the_call_stand_behind_the_map(peer: Peer) -> None:
    options = Map.of([(kw("throw"), False), (kw("retry"), False)])
    peer.failures = 99
    assert completed(perform({"url": f"{peer.url}/flaky"}, options=options))["status"] == 503
    assert len(peer.seen) == 1


def test_limits_on_responses(peer: Peer) -> None:
    assert failed(perform({"url": f"{peer.url}/big", "max-body": 1000})).type == "limit"
    assert failed(perform({"url": f"{peer.url}/bomb"})).type == "limit"
    assert failed(perform({"url": f"{peer.url}/deep"})).type == "limit"
    assert len(completed(perform({"url": f"{peer.url}/big"}))["body"]) == 1_000_000


def test_text_and_bytes(peer: Peer) -> None:
    assert completed(perform({"url": f"{peer.url}/text"}))["body"] == "café"
    outcome = perform({"url": f"{peer.url}/bytes"})
    assert isinstance(outcome, Completed) and outcome.value.get(kw("body")) == b"\x00\xff"


def test_redirects(peer: Peer) -> None:
    response = completed(perform({"method": "post", "url": f"{peer.url}/move", "json": 1}))
    assert response["json"]["method"] == "GET"
    assert completed(perform({"url": f"{peer.url}/move", "follow-redirects": False}))["status"] == 303


def test_cookies_do_not_travel(peer: Peer) -> None:
    async def run() -> None:
        connector = HttpConnector()
        for _ in range(2):
            args = from_plain({"url": f"{peer.url}/cookie"})
            assert isinstance(await connector.perform(Call(op="http/request", target="", args=(args,))), Completed)
        await connector.close()

    asyncio.run(run())
    assert all("cookie" not in s["headers"] for s in peer.seen)


@pytest.mark.parametrize(
    ("request_map", "type"),
    [
        ({}, "type"),
        ({"url": "example.com"}, "value"),
        ({"url": "ftp://example.com"}, "value"),
        ({"url": "http://"}, "value"),
        ({"url": "http://a b/\x00"}, "value"),
        ({"url": "http://x", "method": "GE T"}, "value"),
        ({"url": "http://x", "json": 1, "body": "2"}, "value"),
        ({"url": "http://x", "body": 2}, "type"),
        ({"url": "http://x", "headers": {"a": "b\r\nc: d"}}, "value"),
        ({"url": "http://x", "headers": {"a b": "c"}}, "value"),
        ({"url": "http://x", "query": 1}, "type"),
        ({"url": "http://x", "timeout": "soon"}, "value"),
        ({"url": "http://x", "timeout": -1}, "value"),
        ({"url": "http://x", "retry": {"max-attempts": 0}}, "value"),
        ({"url": "http://x", "retry": {"max": "x"}}, "value"),
        ({"url": "http://x", "retry": {"atempts": 1}}, "value"),
        ({"url": "http://x", "retry": {"on": [1.5]}}, "value"),
        ({"url": "http://x", "retry": "often"}, "value"),
        (None, "type"),
        (EMPTY_MAP, "type"),
    ],
)
def test_wrong_requests_are_outcomes(request_map: Any, type: str) -> None:
    assert failed(perform(request_map)).type == type
