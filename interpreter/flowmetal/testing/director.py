"""The director of a test: it answers for the outside world, and says when time moves.

In: steps of the test (`test/…`), and the calls of flows under test: foreign functions, HTTP requests, processes,
queries. Out: answers, given by functions of the test itself. The one rule: what nobody answers fails with `:test/unanswered`;
nothing reaches the network.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fnmatch
import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx

from flowmetal.connect.http_request import HttpConnector
from flowmetal.errors import FlowmetalError
from flowmetal.lang.persistent import EMPTY_MAP, Map, Vector
from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.lang.values import Duration, ErrorValue, kw
from flowmetal.runtime import history
from flowmetal.runtime.connector import Call, Completed, Failed, Outcome
from flowmetal.runtime.process import loader
from flowmetal.runtime.retries import NO_RETRY, RetryPolicy, parse_retry, seconds
from flowmetal.runtime.rows import Draft, to_draft
from flowmetal.store import kinds
from flowmetal.testing.virtual_loop import MICROS, VirtualLoop

START = 1_767_225_600 * MICROS
"""When a test begins: 2026-01-01T00:00:00Z."""
UNANSWERED = "test/unanswered"


class LoopClock:
    """The clock of an engine on a virtual loop."""

    virtual = False
    """For the engine this is a clock like any other: its timers are the loop's."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop

    def now(self) -> int:
        """Microseconds since the epoch."""
        return START + self.loop.micros


@dataclass(slots=True)
class Server:
    """Functions of the test that answer calls by name; what was called and not yet taken; who waits for a call."""

    number: int
    kind: str
    names: list[str]
    calls: deque[Map] = field(default_factory=deque)
    waiting: deque[asyncio.Future[Map]] = field(default_factory=deque)

    def put(self, call: Map) -> None:
        """A call has come."""
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(call)
                return
        self.calls.append(call)

    def name_for(self, name: str) -> str | None:
        """The name under which this server answers a call."""
        if self.kind == "foreign":
            return name if name in self.names else None
        return next((pattern for pattern in self.names if request_matches(pattern, name)), None)


def request_matches(pattern: str, request: str) -> bool:
    """Whether `METHOD /path` (or `METHOD url`) of an answer is meant for the request `METHOD url`."""
    method, _, url = request.partition(" ")
    wanted, _, place = pattern.strip().partition(" ")
    if wanted.upper() != method:
        return False
    parsed = httpx.URL(url)
    bare = str(parsed.copy_with(query=None, fragment=None))
    return any(fnmatch.fnmatchcase(text, place.strip()) for text in (parsed.path, bare, str(parsed)))


def stand_in(name: str) -> str:
    """What stands for a secret in a test: never the real one."""
    return f"secret {name}"


class Director:
    """A connector for everything that a test may ask for."""

    ops = frozenset({
        "foreign", "sh", "sql/query", "http/request", "test/advance!", "test/calls", "test/results", "test/result", "test/serve*", "test/unserve*",
        "test/next-call*", "test/answer*",
    })  # fmt: skip

    def __init__(self) -> None:
        self.loop = VirtualLoop(self.idle, self._check_deadline)
        self.clock = LoopClock(self.loop)
        self.engine: Any = None
        self.stuck = asyncio.Event()
        """Set when the test waits for something that can never come."""
        self.deadline = math.inf
        """When the test must be over, on the machine's own clock."""
        self.late = False
        self.fault: BaseException | None = None
        """What went wrong in the engine itself."""
        self.unanswered: list[str] = []
        self._servers: list[Server] = []
        self._numbers = 0
        self._answers: dict[int, asyncio.Future[Outcome]] = {}
        self._seen: list[tuple[str, Vector]] = []
        self._advances: list[tuple[int, asyncio.Future[None]]] = []
        self._http = HttpConnector(now=self.clock.now, transport=_Transport(self), secret_of=stand_in)
        self._doors: httpx.AsyncBaseTransport | None = None

    # Time

    def idle(self, until_next: float | None) -> None:
        """Nothing can run. Time moves: to what is due next, or to where an advance! ends."""
        loop = self.loop
        waiting = [entry for entry in self._advances if not entry[1].done()]
        if waiting:
            end, future = min(waiting, key=lambda entry: entry[0])
            left = (end - loop.micros) / MICROS
            if until_next is None or round(until_next * MICROS) > end - loop.micros:
                if left > 0:
                    loop.move(left)
                future.set_result(None)
                return
        if until_next is None:
            self.stuck.set()
        else:
            loop.move(until_next)

    def note_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A task of the engine failed: the test cannot go on."""
        self.fault = self.fault or context.get("exception") or RuntimeError(context.get("message"))
        self.stuck.set()

    def _check_deadline(self) -> None:
        if not self.late and time.monotonic() > self.deadline:
            self.late = True
            self.stuck.set()

    async def _advance(self, d: Duration) -> None:
        future: asyncio.Future[None] = self.loop.create_future()
        entry = (self.loop.micros + d.micros, future)
        self._advances.append(entry)
        try:
            await future
        finally:
            self._advances.remove(entry)

    # Calls

    async def perform(self, call: Call) -> Outcome:
        """Performs one call."""
        op = call.op
        if op.startswith("test/"):
            done: Outcome = await self._steps[op[5:]](self, call)
            return done
        if op.startswith("http/"):
            return await self._request(call)
        return await self._foreign(call)

    async def close(self) -> None:
        """Closes what carries requests."""
        await self._http.close()

    async def _request(self, call: Call) -> Outcome:
        try:
            return await self._http.perform(call)
        except _Refused as refused:
            return refused.failure

    async def _foreign(self, call: Call) -> Outcome:
        """A foreign call, with its retries and time-outs."""
        options = call.options
        try:
            policy = dataclasses.replace(parse_retry(options.get(kw("retry")), NO_RETRY), jitter=0.0)
            total = options.get(kw("timeout"))
            async with asyncio.timeout(None if total is None else seconds(total, ":timeout", 0.0)):
                return await self._attempts(call, policy)
        except TimeoutError:
            return Failed("flow/timeout", f"{call.target} gave no answer in time")
        except FlowmetalError as error:
            return Failed(error.type, error.message)

    async def _attempts(self, call: Call, policy: RetryPolicy) -> Outcome:
        limit = call.options.get(kw("attempt-timeout"))
        name = call.target if call.op == "foreign" else call.op
        args = [call.args[0], call.target, *call.args[1:]] if call.op == "sql/query" else list(call.args)
        attempt = call.attempt
        while True:
            try:
                async with asyncio.timeout(None if limit is None else seconds(limit, ":attempt-timeout", 0.0)):
                    outcome = await self.answer("foreign", name, Vector.of(args))
            except TimeoutError:
                outcome = Failed("flow/timeout", f"{name} gave no answer in time")
            if isinstance(outcome, Completed) or attempt >= policy.max_attempts or not _may_retry(policy, outcome):
                return dataclasses.replace(outcome, attempts=attempt)
            delay = policy.delay(attempt)
            await call.attempt_failed(attempt, outcome, self.clock.now() + round(delay * MICROS))
            await asyncio.sleep(delay)
            attempt += 1

    async def answer(self, kind: str, name: str, args: Vector) -> Outcome:
        """What the test answers to a call: the innermost answer for the name counts."""
        for server in reversed(self._servers):
            found = server.name_for(name) if server.kind == kind else None
            if found is not None:
                self._numbers += 1
                number = self._numbers
                self._seen.append((found, args))
                self._answers[number] = future = self.loop.create_future()
                try:
                    server.put(Map.of([(kw("id"), number), (kw("name"), found), (kw("args"), args)]))
                    outcome: Outcome = await future
                    return outcome
                finally:
                    self._answers.pop(number, None)
        self.unanswered.append(name)
        return Failed(UNANSWERED, f"{name} was called, and nothing in this test answers it: {_how(kind, name)}")

    async def doors(self, request: httpx.Request) -> httpx.Response:
        """A request to the interpreter's own address: its HTTP doors, without a socket."""
        if self._doors is None:
            from flowmetal.connect.shim.app import create_app

            self._doors = httpx.ASGITransport(create_app(self.engine, token="test"))
        return await self._doors.handle_async_request(request)

    # Steps of the test

    async def _step_advance(self, call: Call) -> Outcome:
        await self._advance(call.args[0])
        return Completed(None)

    async def _step_calls(self, call: Call) -> Outcome:
        return Completed(Vector.of([args for name, args in self._seen if name == call.target]))

    async def _step_serve(self, call: Call) -> Outcome:
        self._numbers += 1
        self._servers.append(Server(self._numbers, call.args[0].name, list(call.args[1])))
        return Completed(self._numbers)

    async def _step_unserve(self, call: Call) -> Outcome:
        self._servers = [s for s in self._servers if s.number != call.args[0]]
        return Completed(None)

    async def _step_next_call(self, call: Call) -> Outcome:
        server = next((s for s in self._servers if s.number == call.args[0]), None)
        if server is not None and server.calls:
            return Completed(server.calls.popleft())
        future: asyncio.Future[Map] = self.loop.create_future()
        if server is not None:
            server.waiting.append(future)
        return Completed(await future)

    async def _step_answer(self, call: Call) -> Outcome:
        number, outcome = call.args
        future = self._answers.get(number)
        if future is not None and not future.done():
            error = outcome.get(kw("error"))
            if isinstance(error, ErrorValue):
                future.set_result(Failed(error.type.text.lstrip(":"), error.message, error.data))
            else:
                future.set_result(Completed(outcome.get(kw("value"))))
        return Completed(None)

    async def _step_result(self, call: Call) -> Outcome:
        try:
            flow_id = await self.engine.resolve(call.target)
        except FlowmetalError as error:
            return Failed(error.type, error.message)
        row = history.result_row(self.engine.store, flow_id)
        if row is None:
            status = (await self.engine.flow(flow_id))["status"]
            return Failed("value", f"flow {flow_id} has no result yet: it is {status} (advance! moves time, @ waits)")
        draft = to_draft(row, loader(self.engine.definitions.registry))
        if draft.error is not None:
            return Failed(draft.error.type.text.lstrip(":"), draft.error.message, draft.error.data)
        return Completed(draft.values.get("result"))

    async def _step_results(self, call: Call) -> Outcome:
        try:
            flow_id = await self.engine.resolve(call.target)
        except FlowmetalError as error:
            return Failed(error.type, error.message)
        load = loader(self.engine.definitions.registry)
        return Completed(outcomes_of([to_draft(row, load) for row in self.engine.store.rows(flow_id)], call.args[0]))

    _steps: ClassVar[dict[str, Callable[[Director, Call], Any]]] = {
        "advance!": _step_advance, "calls": _step_calls, "serve*": _step_serve, "unserve*": _step_unserve, "next-call*": _step_next_call,
        "answer*": _step_answer, "result": _step_result, "results": _step_results,
    }  # fmt: skip


def outcomes_of(drafts: list[Draft], operation: str) -> Vector:
    """The outcomes of one operation, by its name or by what it was asked of, in the order in which they were asked for."""
    found: dict[int, Map] = {}
    for draft in drafts:
        step = draft.step
        if step is None:
            continue
        if draft.kind in kinds.ASKING and operation in _names(draft):
            found[step] = EMPTY_MAP
        if step in found and draft.kind in (kinds.EFFECT_COMPLETED, kinds.VALUE_RECORDED):
            found[step] = Map.of([(kw("value"), draft.values.get("result"))])
        elif step in found and draft.kind == kinds.EFFECT_FAILED:
            found[step] = Map.of([(kw("error"), draft.error)])
    return Vector.of([outcome for outcome in found.values() if len(outcome)])


def _names(draft: Draft) -> tuple[str, ...]:
    op, target = draft.facts["op"], draft.facts.get("target", "")
    return (op, f"flow/{op}", target, target.rpartition("/")[2] if op in ("call", "start") else target)


def _may_retry(policy: RetryPolicy, failed: Failed) -> bool:
    return failed.type != UNANSWERED and (policy.on is None or failed.type in policy.on)


def _how(kind: str, name: str) -> str:
    if kind == "foreign":
        return f"(with-foreign {{{name} (fn [& args] …)}} …)"
    method, _, url = name.partition(" ")
    return f'(with-http {{"{method} {httpx.URL(url).path}" {{:status 200}}}} …)'


class _Refused(Exception):
    """A request that the test does not answer, or answers with an error: on its way through the HTTP connector."""

    def __init__(self, failure: Failed) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _Transport(httpx.AsyncBaseTransport):
    """Carries requests to the test's answers instead of to the network."""

    def __init__(self, director: Director) -> None:
        self._director = director

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The test's answer to one request."""
        director = self._director
        await request.aread()
        if str(request.url).startswith(director.engine.public_url):
            return await director.doors(request)
        bare = str(request.url.copy_with(query=None, fragment=None))
        outcome = await director.answer("http", f"{request.method} {bare}", Vector.of([_request_value(request)]))
        if isinstance(outcome, Completed):
            return _response(request, outcome.value)
        if outcome.type == "http/timeout":
            raise httpx.ReadTimeout(outcome.message, request=request)
        if outcome.type == "http/connect":
            raise httpx.ConnectError(outcome.message, request=request)
        raise _Refused(outcome)


def _request_value(request: httpx.Request) -> Map:
    """A request as the functions of `with-http` see it."""
    text = request.content.decode("utf-8", "replace")
    try:
        body = json.loads(text) if text else None
    except ValueError:
        body = None
    plain = {"url": str(request.url), "path": request.url.path, "query": dict(request.url.params), "headers": dict(request.headers), "body": text, "json": body}
    value: Map = from_plain(plain)
    return value.assoc(kw("method"), kw(request.method.lower()))


def _response(request: httpx.Request, answer: Any) -> httpx.Response:
    """The response that a map of the test stands for."""
    if not isinstance(answer, Map):
        raise _Refused(Failed("type", f"the answer to {request.method} {request.url.path} must be a map such as {{:status 200 :json {{…}}}}"))
    status = answer.get(kw("status"), 200)
    if type(status) is not int or not 100 <= status <= 599:
        raise _Refused(Failed("type", f"the :status of an answer is a number from 100 to 599, not {status}"))
    headers = {str(to_plain(k)[0]): str(v) for k, v in (answer.get(kw("headers")) or EMPTY_MAP).items()}
    if kw("json") in answer:
        body = json.dumps(to_plain(answer.get(kw("json")))[0])
        return httpx.Response(status, headers={"content-type": "application/json", **headers}, content=body.encode())
    return httpx.Response(status, headers=headers, content=str(answer.get(kw("body")) or "").encode())


__all__ = ["START", "Director", "LoopClock", "Server", "outcomes_of", "request_matches"]
