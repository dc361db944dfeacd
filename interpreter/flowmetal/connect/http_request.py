"""The HTTP request connector: `http/request`, with retries, limits and time-outs, on httpx.

In: a `Call` whose one argument is the request map. Out: the response map `{:status :headers :body
:json}`, or a failure `http/timeout`, `http/connect`, `http/status`. The one rule: every attempt of
a call carries the same `Idempotency-Key`, and a wait of a second or more is on record before it begins.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http.cookiejar
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from flowmetal.connect.http_values import (
    Request,
    build_request,
    decode_body,
    failure_data,
    parse_body,
    response_value,
    retry_after,
)
from flowmetal.connect.secrets import SecretOf, filled, secrets_of
from flowmetal.errors import LispError
from flowmetal.lang.persistent import Map
from flowmetal.lang.values import kw
from flowmetal.runtime.connector import Call, Completed, Failed, Outcome

MAX_CONCURRENT = 256
CONNECT_SECONDS = 10.0
RECORDED_WAIT = 1.0
_RETRIED_ERRORS = frozenset({"http/connect", "http/timeout"})
_LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")


@dataclass(slots=True)
class _Attempt:
    """How one attempt ended. A response of 4xx or 5xx has both a value and an error.

    `sent` is false when nothing of the request can have arrived; `wait` is what the server asked for.
    """

    value: Map | None = None
    error: Failed | None = None
    status: int | None = None
    sent: bool = True
    final: bool = False
    wait: float = 0.0


@dataclass(slots=True)
class _Progress:
    """The number of the attempt under way, and how the one before it failed."""

    attempt: int
    last: Failed | None = None


class _NoCookies(http.cookiejar.DefaultCookiePolicy):
    """Cookies are never kept: what one flow was sent must not travel with another's request."""

    def set_ok(self, cookie: Any, request: Any) -> bool:
        """Refuses every cookie."""
        return False


class HttpConnector:
    """Performs `http/request` calls. One instance a process, used on one asyncio loop."""

    ops = frozenset({"http/request"})

    def __init__(
        self,
        *,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        transport: httpx.AsyncBaseTransport | None = None,
        secret_of: SecretOf | None = None,
    ) -> None:
        self._secret_of = secret_of or secrets_of(None)
        self._now = now
        self._sleep = sleep
        self._transport = transport
        """What carries requests in place of the network, in tests."""
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def perform(self, call: Call) -> Outcome:
        """Performs the call with its retries; every failure is an outcome."""
        try:
            request = self._request(call)
        except LispError as error:
            return Failed(error.type, error.message, error.data, attempts=call.attempt - 1)
        progress = _Progress(call.attempt)
        try:
            async with asyncio.timeout(None if request.timeout is None else max(0.0, request.timeout - call.elapsed)):
                return await self._attempts(call, request, progress)
        except TimeoutError:
            return _out_of_time(request, progress)

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    def _request(self, call: Call) -> Request:
        """The checked request, with its secrets filled in; errors show their names."""
        named = build_request(call)
        args = tuple(filled(arg, self._secret_of) for arg in call.args)
        if all(after is before for after, before in zip(args, call.args, strict=True)):
            return named
        try:
            return dataclasses.replace(build_request(dataclasses.replace(call, args=args)), public=named.url)
        except LispError as error:
            raise LispError(f"{named.title}: with its secrets filled in, it is no valid request", type=error.type) from None

    async def _attempts(self, call: Call, request: Request, progress: _Progress) -> Outcome:
        if call.not_before is not None:
            await self._sleep(max(0.0, (call.not_before - self._now()) / 1e6))
        while True:
            done = await self._one(call, request, progress.attempt)
            if done.error is None:
                return Completed(done.value, progress.attempt)
            progress.last = done.error
            if progress.attempt >= request.retry.max_attempts or not _may_retry(request, done):
                return _given_up(request, done, progress.attempt)
            delay = max(request.retry.delay(progress.attempt), done.wait)
            if delay >= RECORDED_WAIT:
                await call.attempt_failed(progress.attempt, done.error, self._now() + int(delay * 1e6))
            await self._sleep(delay)
            progress.attempt += 1

    async def _one(self, call: Call, request: Request, attempt: int) -> _Attempt:
        async with self._slots:
            if request.at_most_once:
                await call.attempt_started(attempt)
            return await self._exchange(request)

    async def _exchange(self, request: Request) -> _Attempt:
        """One request and its response; every way it can fail is an `_Attempt`."""
        try:
            async with asyncio.timeout(request.attempt_timeout):
                return await self._send(request)
        except TimeoutError:
            return _failed(request, "http/timeout", f"no answer within {request.attempt_timeout:g} s")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return _failed(request, "http/connect", _reason(error, "cannot connect"), sent=request.follow_redirects)
        except httpx.TimeoutException as error:
            return _failed(request, "http/timeout", _reason(error, "timed out"))
        except httpx.TooManyRedirects:
            return _failed(request, "http/connect", "too many redirects", final=True)
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            return _failed(request, "value", _reason(error, "not a valid request"), final=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return _failed(request, "http/connect", _reason(error, "the connection broke"))
        except LispError as error:
            return _failed(request, error.type, error.message, final=True)

    async def _send(self, request: Request) -> _Attempt:
        client = self._http()
        outgoing = client.build_request(request.method, request.url, headers=request.headers, content=request.content)
        response = await client.send(outgoing, stream=True, follow_redirects=request.follow_redirects)
        try:
            body = decode_body(response, await _read(response, request.max_body))
        finally:
            await response.aclose()
        value = response_value(response, body, parse_body(response, body))
        status = response.status_code
        if status < 400:
            return _Attempt(value=value, status=status)
        message = f"{request.title} answered {status} {response.reason_phrase}".rstrip()
        data = failure_data(request, status=status, body=body, headers=value.get(kw("headers")))
        error = Failed("http/status", message, data)
        return _Attempt(value=value, error=error, status=status, wait=retry_after(response, self._now()))

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=self._transport,
                mounts=dict.fromkeys(_LOOPBACK),
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
                cookies=http.cookiejar.CookieJar(_NoCookies()),
                headers={"User-Agent": "flowmetal"},
                max_redirects=10,
            )
        return self._client


async def _read(response: httpx.Response, limit: int) -> bytes:
    """The decoded body, refused as soon as it is over the limit."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > limit:
            raise LispError(f"the response is over the limit of {limit:,} bytes; :max-body raises it", type="limit")
        parts.append(part)
    return b"".join(parts)


def _may_retry(request: Request, done: _Attempt) -> bool:
    if done.error is None or done.final or (request.at_most_once and done.sent):
        return False
    if request.retry.on is not None:
        return done.error.type in request.retry.on or done.status in request.retry.on
    return done.error.type in _RETRIED_ERRORS or done.status == 429 or (done.status or 0) >= 500


def _given_up(request: Request, done: _Attempt, attempts: int) -> Outcome:
    """The last attempt's error, or with `:throw false` its response."""
    if done.value is not None and not request.throw:
        return Completed(done.value, attempts)
    assert done.error is not None
    return Failed(done.error.type, done.error.message, done.error.data, attempts)


def _failed(request: Request, type: str, message: str, *, sent: bool = True, final: bool = False) -> _Attempt:
    error = Failed(type, f"{request.title}: {message}", failure_data(request))
    return _Attempt(error=error, sent=sent, final=final)


def _out_of_time(request: Request, progress: _Progress) -> Failed:
    """The error of a call whose `:timeout` ran out, with the failure of the attempt before, if any."""
    message = f"{request.title}: not done within {request.timeout:g} s, in attempt {progress.attempt}"
    last = progress.last
    if last is None:
        return Failed("http/timeout", message, failure_data(request), progress.attempt)
    data = failure_data(request, last=Map.of([(kw("type"), kw(last.type)), (kw("message"), last.message)]))
    return Failed("http/timeout", f"{message} (before: {last.message})", data, progress.attempt)


def _reason(error: Exception, default: str) -> str:
    return f"{default}: {error}" if str(error) else default
