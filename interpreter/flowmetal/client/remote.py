"""The client of an engine in another process, by HTTP.

In: the same calls as `local`. Out: the same answers. The one rule: a call whose host went away is sent again,
with the same request id, to the host that `relocate` finds or starts; only what no host can answer reaches the
caller as a `StoreError`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from flowmetal.client.client import ENDED, ENDING_KINDS, SILENCE, Row, new_request_id
from flowmetal.client.problems import error_of
from flowmetal.client.relation import Relation
from flowmetal.client.store_url import StoreUrl
from flowmetal.errors import FlowNotFound, StoreError

ATTEMPTS = 5
"""How many hosts in a row one call may lose before it gives up."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine answers, and the token that it wants. `pid` is 0 where nobody said."""

    url: str
    token: str
    pid: int = 0


_FLOW_ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")

T = TypeVar("T")
Relocate = Callable[[], Awaitable[Endpoint]]


class RemoteClient:
    """A `Client` by HTTP. Without `relocate` (an `http://` store) there is one address, and nothing to start there."""

    def __init__(self, store: StoreUrl, endpoint: Endpoint, relocate: Relocate | None = None) -> None:
        self.store = store
        self._endpoint = endpoint
        self._relocate = relocate
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=SILENCE),
            trust_env=not _is_loopback(endpoint.url),  # a proxy of the environment is no way to one's own machine
            verify=endpoint.url.startswith("https:"),  # reading all certificates takes longer than a call
            limits=httpx.Limits(max_connections=64),
        )
        self._moving = asyncio.Lock()

    async def start_flow(
        self, name: str, args: Sequence[Any], *, flow_id: str | None = None, request_id: str | None = None, options: Row | None = None
    ) -> tuple[str, bool]:
        """See `Client`."""
        body: Row = {"name": name, "args": list(args), **(options or {})}
        if flow_id is not None:
            body["id"] = flow_id
        answer = await self._call("POST", "/v1/flows", body, key=request_id or new_request_id())
        return str(answer.json()["flow_id"]), answer.status_code == 201

    async def eval(self, source: str, *, ns: str = "user", file: str = "cell", request_id: str | None = None) -> str:
        """See `Client`."""
        body = {"source": source, "ns": ns, "file": file}
        answer = await self._call("POST", "/v1/eval", body, key=request_id or new_request_id())
        return str(answer.json()["flow_id"])

    async def load(self, source: str, *, file: str, request_id: str | None = None) -> Row:
        """See `Client`."""
        query = {"file": file}
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        content = source.encode("utf-8", "surrogatepass")
        key = request_id or new_request_id()
        return _object(await self._call("PUT", "/v1/definitions", content, query=query, headers=headers, key=key))

    async def result(self, flow_id: str, timeout: float | None = None) -> Row | None:
        """See `Client`."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            left = 30.0 if deadline is None else max(0.0, min(30.0, deadline - loop.time()))
            answer = await self._call("GET", _path(flow_id, "result"), query={"wait": f"{left:.3f}"})
            if answer.status_code != 202:
                return _object(answer)
            if deadline is not None and loop.time() >= deadline:
                return None
            await asyncio.sleep(0.02)  # a host that is about to end answers before the time is up

    async def flow(self, flow_id: str) -> Row:
        """See `Client`."""
        return _object(await self._call("GET", _path(flow_id)))

    async def flows(self, status: str | None = None, name: str | None = None, limit: int = 100, after: str | None = None) -> Row:
        """See `Client`."""
        query = {"status": status, "name": name, "limit": str(limit), "after": after}
        return _object(await self._call("GET", "/v1/flows", query={k: v for k, v in query.items() if v is not None}))

    async def events(self, flow_id: str, after: int = 0) -> list[Row]:
        """See `Client`."""
        answer = (await self._call("GET", _path(flow_id, "events"), query={"after": str(after)})).json()
        return list(answer["items"] if isinstance(answer, dict) else answer)

    async def follow(self, flow_id: str, after: int = 0) -> AsyncIterator[Row]:
        """See `Client`."""
        losses = 0
        while losses < ATTEMPTS:
            try:
                async for row in self._stream(flow_id, after):
                    losses, after = 0, row["seq"]
                    yield row
                    if row["kind"] in ENDING_KINDS and not await self.events(flow_id, after):  # one that is retried goes on after its end
                        return
            except httpx.TransportError:
                await self._move(self._endpoint)
            losses += 1
            ended = (await self.flow(flow_id))["status"] in ENDED
            for row in await self.events(flow_id, after):
                losses, after = 0, row["seq"]
                yield row
            if ended:
                return
        raise StoreError(f"{self.store} keeps breaking off the events of {flow_id}")

    async def _stream(self, flow_id: str, after: int) -> AsyncIterator[Row]:
        endpoint = self._endpoint
        headers = {**_authorization(endpoint), "Accept": "text/event-stream", "Last-Event-ID": str(after)}
        url = endpoint.url + _path(flow_id, "events")
        async with self._http.stream("GET", url, params={"after": str(after)}, headers=headers) as answer:
            if answer.status_code >= 400:
                await answer.aread()
                raise error_of(answer.status_code, answer.content)
            data: list[str] = []
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    data.append(line[5:].lstrip())
                elif not line and data:
                    row = json.loads("\n".join(data))
                    data = []
                    if isinstance(row, dict) and "seq" in row:
                        yield row

    async def state(self, flow_id: str, step: int | None = None, transition: int | None = None) -> Row:
        """See `Client`."""
        return _object(await self._call("GET", _path(flow_id, "state"), query=_given(step=step, transition=transition)))

    async def diff(self, flow_id: str, old: int, new: int | None = None) -> Row:
        """See `Client`."""
        return _object(await self._call("GET", _path(flow_id, "diff"), query=_given(**{"from": old, "to": new})))

    async def stuck(self, after: float = 60.0) -> list[Row]:
        """See `Client`."""
        return list(_object(await self._call("GET", "/v1/stuck", query={"after": f"{after:g}"}))["items"])

    async def send(self, flow_id: str, message: Any, *, key: str | None = None) -> str:
        """See `Client`."""
        answer = await self._call("POST", _path(flow_id, "messages"), message, key=key or new_request_id())
        return str(answer.json()["message_id"])

    async def publish(self, topic: str, data: Any, *, key: str | None = None) -> str:
        """See `Client`."""
        answer = await self._call("POST", f"/v1/topics/{quote(topic)}", data, key=key or new_request_id())
        return str(answer.json()["message_id"])

    async def lease_tasks(
        self, functions: Sequence[str], *, queues: Sequence[str] | None = None, most: int = 1, wait: float = 0.0, lease: float = 60.0
    ) -> list[Row]:
        """See `Client`."""
        body: Row = {"functions": list(functions), "max": most, "wait": wait, "lease": lease}
        if queues is not None:
            body["queues"] = list(queues)
        return list(_object(await self._call("POST", "/v1/tasks/lease", body))["tasks"])

    async def complete_task(self, task_id: str, result: Any) -> None:
        """See `Client`."""
        await self._call("POST", _task(task_id, "complete"), {"result": result})

    async def fail_task(self, task_id: str, error: Row, *, retry: bool | None = None) -> None:
        """See `Client`."""
        body: Row = {"error": error} if retry is None else {"error": error, "retry": retry}
        await self._call("POST", _task(task_id, "fail"), body)

    async def heartbeat_task(self, task_id: str) -> None:
        """See `Client`."""
        await self._call("POST", _task(task_id, "heartbeat"), {})

    async def control(self, flow_id: str, action: str, *, reason: str | None = None) -> Row:
        """See `Client`."""
        body = {} if reason is None else {"reason": reason}
        return _object(await self._call("POST", _path(flow_id, action), body, key=new_request_id()))

    async def delete(self, flow_id: str) -> list[str]:
        """See `Client`."""
        return list(_object(await self._call("DELETE", _path(flow_id), {}, key=new_request_id()))["deleted"])

    async def backup(self, directory: str) -> str:
        """See `Client`."""
        return str(_object(await self._call("POST", "/v1/backup", {"directory": directory}, once=True))["path"])

    async def archive(self, *, older_than: str | None = None, where: str | None = None, keep: str | None = None) -> Row:
        """See `Client`."""
        body = {name: value for name, value in (("older_than", older_than), ("where", where), ("keep", keep)) if value is not None}
        return _object(await self._call("POST", "/v1/archive", body))

    async def export(self, flows: Sequence[str]) -> bytes:
        """See `Client`."""
        return (await self._call("POST", "/v1/export", {"flows": list(flows)})).content

    async def mark_moved(self, flows: dict[str, int]) -> None:
        """See `Client`."""
        await self._call("POST", "/v1/export/moved", {"flows": flows})

    async def import_flows(self, data: bytes) -> Row:
        """See `Client`."""
        return _object(await self._call("POST", "/v1/import", data, headers={"Content-Type": "application/vnd.flowmetal.flowlog"}))

    async def fork(
        self,
        flow_id: str,
        at: int,
        *,
        outcome: Sequence[Any] = (),
        upgrade: bool = False,
        adopt_rollbacks: bool = False,
        dry_run: bool = False,
        reason: str | None = None,
    ) -> Row:
        """See `Client`."""
        body: Row = {"at": at, "upgrade": upgrade, "adopt_rollbacks": adopt_rollbacks, "dry_run": dry_run, "reason": reason}
        if outcome:
            body["with"] = outcome[0]
        return _object(await self._call("POST", _path(flow_id, "fork"), body, key=new_request_id()))

    async def upgrade(self, flow_id: str, *, dry_run: bool = False, reason: str | None = None) -> Row:
        """See `Client`."""
        body = {"dry_run": dry_run, "reason": reason}
        return dict(_object(await self._call("POST", _path(flow_id, "upgrade"), body, key=new_request_id()))["upgrade"])

    async def schedules(self) -> list[Row]:
        """See `Client`."""
        return list(_object(await self._call("GET", "/v1/schedules"))["items"])

    async def control_schedule(self, name: str, action: str) -> Row:
        """See `Client`."""
        return _object(await self._call("POST", f"/v1/schedules/{quote(name, safe='')}/{action}", {}, key=new_request_id()))

    async def schedule_times(self, name: str, since: str, until: str) -> list[str]:
        """See `Client`."""
        query = f"from={quote(since, safe='')}&to={quote(until, safe='')}"
        return list(_object(await self._call("GET", f"/v1/schedules/{quote(name, safe='')}/times?{query}"))["times"])

    async def begin_scheduled(self, name: str, at: str) -> str:
        """See `Client`."""
        answer = await self._call("POST", f"/v1/schedules/{quote(name, safe='')}/begin", {"at": at}, key=new_request_id())
        return str(_object(answer)["flow_id"])

    async def allowed_notebooks(self) -> list[str]:
        """See `Client`."""
        return list(_object(await self._call("GET", "/v1/notebooks/allowed"))["notebooks"])

    async def allow_notebook(self, notebook: str, allowed: bool = True) -> list[str]:
        """See `Client`."""
        answer = await self._call("POST", "/v1/notebooks/allowed", {"notebook": notebook, "allowed": allowed})
        return list(_object(answer)["notebooks"])

    async def sql(self, sql: str, params: Sequence[Any] | None = None) -> Relation:
        """See `Client`."""
        body: Row = {"sql": sql}
        if params is not None:
            body["params"] = list(params)
        answer = (await self._call("POST", "/v1/sql", body)).json()
        return Relation.from_json(answer["columns"], answer.get("types") or [], answer["rows"])

    async def complete(self, prefix: str, ns: str = "user") -> list[str]:
        """See `Client`."""
        answer = (await self._call("GET", "/v1/complete", query={"prefix": prefix, "ns": ns})).json()
        return list(answer["items"] if isinstance(answer, dict) else answer)

    async def inspect(self, name: str, ns: str = "user") -> Row | None:
        """See `Client`."""
        answer = await self._call("GET", "/v1/inspect", query={"name": name, "ns": ns}, missing=True)
        return None if answer.status_code == 404 else answer.json()

    async def advance(self, by: float | str) -> str:
        """See `Client`."""
        return str(_object(await self._call("POST", "/v1/clock/advance", {"by": by}))["now"])

    async def near(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """See `Client`."""
        return await coroutine

    async def host(self) -> Row:
        """See `Client`."""
        return _object(await self._call("GET", "/v1/host"))

    async def stop(self) -> None:
        """See `Client`."""
        await self._call("POST", "/v1/stop", {}, once=True)

    async def aclose(self) -> None:
        """See `Client`."""
        await self._http.aclose()

    async def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        key: str | None = None,
        missing: bool = False,
        once: bool = False,
    ) -> httpx.Response:
        """One call, to as many hosts as it takes; a problem answered by a host is raised as its error."""
        sent = dict(headers or {})
        if isinstance(body, bytes):
            content: bytes | None = body
        else:
            content = None if method == "GET" else json.dumps(body, allow_nan=False).encode()
            sent["Content-Type"] = "application/json"
        if key is not None:
            sent["Idempotency-Key"] = key
        for attempt in range(ATTEMPTS):
            endpoint = self._endpoint
            request = self._http.build_request(method, endpoint.url + path, params=query, content=content, headers={**sent, **_authorization(endpoint)})
            try:
                answer = await self._answer(request, endpoint)
            except httpx.TransportError as error:
                if once or attempt == ATTEMPTS - 1:
                    raise StoreError(f"{self.store} is not reachable: {_reason(error)}") from error
                await self._move(endpoint)
                continue
            if answer.status_code < 400 or (missing and answer.status_code == 404):
                return answer
            raise error_of(answer.status_code, answer.content)
        raise AssertionError("unreachable")

    async def _answer(self, request: httpx.Request, endpoint: Endpoint) -> httpx.Response:
        """Waits for an answer as long as the host is alive; asks whether it is after each silence."""
        sending = asyncio.ensure_future(self._http.send(request))
        try:
            while True:
                done, _ = await asyncio.wait({sending}, timeout=SILENCE)
                if done:
                    return sending.result()
                await self._check_alive(endpoint)
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _check_alive(self, endpoint: Endpoint) -> None:
        try:
            await self._http.get(endpoint.url + "/healthz", timeout=SILENCE)
        except httpx.TimeoutException as error:
            raise silent_host(self.store, endpoint.pid) from error

    async def _move(self, dead: Endpoint) -> None:
        """After `dead` did not answer: the host to speak to now."""
        if self._relocate is None:
            raise StoreError(f"nothing answers at {dead.url}", hint="is `flowmetal serve` running there, and is the port right?")
        async with self._moving:
            if self._endpoint is dead:
                self._endpoint = await self._relocate()


def silent_host(store: StoreUrl, pid: int) -> StoreError:
    """The error for a host that holds the store and says nothing."""
    who = f"process {pid}" if pid else "a process"
    return StoreError(
        f"{store} is held by {who}, which does not answer",
        hint=f"if it is stuck, end it (kill {pid or 'PID'}) and try again; its flows go on",
    )


def _is_loopback(url: str) -> bool:
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")


def _path(flow_id: str, *rest: str) -> str:
    if not _FLOW_ID.fullmatch(flow_id):
        raise FlowNotFound(f"there is no flow {flow_id[:80]!r}", hint="a flow id is 1 to 200 of A-Z a-z 0-9 . _ : -")
    return "/".join(["/v1/flows", flow_id, *rest])


def _given(**asked: object) -> dict[str, str]:
    """The part of a query that was given."""
    return {name: str(value) for name, value in asked.items() if value is not None}


def _task(task_id: str, action: str) -> str:
    return f"/v1/tasks/{quote(task_id, safe='~')}/{action}"


def _authorization(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}


def _object(answer: httpx.Response) -> Row:
    data = answer.json()
    if not isinstance(data, dict):
        raise StoreError(f"{answer.url} answered what is no object; is it a Flowmetal server?")
    return data


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
