"""The HTTP shim as an ASGI application: routes only.

In: an engine, the store's token, limits. Out: a FastAPI application. The one rule: every answer of
2xx to a writing call is sent after its commit; every error is a problem (RFC 9457).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowmetal.connect.secrets import SecretOf, secrets_of
from flowmetal.connect.shim import allowances, callbacks, definitions, events, flows, health, keeping, problems, query, schedules, tasks, time_travel, topics
from flowmetal.connect.shim.auth import LOOPBACK_NAMES, host_name, require_token
from flowmetal.connect.shim.context import Context, Limits

_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


def create_app(
    engine: Any,
    *,
    token: str,
    limits: Limits | None = None,
    on_stop: Callable[[], None] | None = None,
    info: Callable[[], Mapping[str, Any] | Awaitable[Mapping[str, Any]]] = dict,
    hosts: Iterable[str] | None = LOOPBACK_NAMES,
    secret_of: SecretOf | None = None,
) -> FastAPI:
    """The application for one engine.

    `on_stop` is called by `POST /v1/stop`; `info` says what `GET /v1/host` answers; `hosts` are the
    names that a `Host` header may have besides that of `engine.public_url` (None: any, for a server
    that listens beyond loopback); `secret_of` finds the secrets of signed topics. Set `app.state.context.closing` before the server stops: live
    streams then end.
    """
    app = FastAPI(
        title="Flowmetal",
        version="1",
        summary="Durable flows over HTTP.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses=problems.RESPONSES,
    )
    app.state.context = Context(engine, token, limits or Limits(), on_stop, info, secret_of or secrets_of(None))
    app.state.metrics = health.Metrics()
    problems.install(app)
    for router in (callbacks.router, topics.router, health.public):
        app.include_router(router)
    own = (events, flows, time_travel, definitions, query, tasks, schedules, keeping, allowances)
    for router in (*(each.router for each in own), health.private):
        app.include_router(router, dependencies=[Depends(require_token)])
    app.add_middleware(Guard, state=app.state, hosts=None if hosts is None else frozenset(hosts))
    return app


class Guard:
    """Stands before all routes: refuses foreign hosts, counts answers, turns a bug into a bare 500."""

    def __init__(self, app: ASGIApp, *, state: Any, hosts: frozenset[str] | None) -> None:
        self.app = app
        self.state = state
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in _HEADERS if h[0] not in present)]
            await send(message)

        try:
            await self._serve(scope, receive, answer)
        except Exception as error:  # noqa: BLE001  a bug of ours becomes an answer
            problem = problems.unexpected(error, scope["method"], scope["path"])
            if status == 0:
                await problem.response(scope["path"])(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.state.metrics.note(scope["method"], route, status, time.perf_counter() - started)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
        if self._knows(host_name(header)):
            await self.app(scope, receive, send)
            return
        detail = "this server is not known by that name; `--public-url` adds one"
        await problems.Problem(403, detail).response(scope["path"])(scope, receive, send)

    def _knows(self, name: str) -> bool:
        if self.hosts is None or name in self.hosts:
            return True
        public = urlsplit(getattr(self.state.context.engine, "public_url", "") or "").hostname
        return public is not None and name == public.lower()
