"""Is it alive, is it ready, what does it do: `/healthz`, `/readyz`, `/metrics`, `/v1/host`, `/v1/stop`.

In: nothing. Out: a word, Prometheus' text, what the host says of itself. The one rule: a scrape
costs one grouped query, whatever the store holds.
"""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.background import BackgroundTask
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.bodies import read_json_object
from flowmetal.connect.shim.context import Ctx
from flowmetal.connect.shim.problems import Problem
from flowmetal.errors import FlowmetalError
from flowmetal.lang.values import Instant
from flowmetal.runtime.start_options import moved_by
from flowmetal.store import kinds

public = APIRouter(tags=["health"])
private = APIRouter(tags=["host"])


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("flowmetal_http_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram("flowmetal_http_seconds", "Time to an answer.", ("route",), registry=self.registry)
        self.flows = Gauge("flowmetal_flows", "Flows of the store by status.", ("status",), registry=self.registry)
        self.tasks = Gauge("flowmetal_tasks", "What the engine is at work on: turns of flows, calls that are being sent.", registry=self.registry)

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one answer."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)


@public.get("/healthz", summary="Alive?")
async def healthz() -> Response:
    """The process answers."""
    return json_response({"status": "ok"})


@public.get("/readyz", summary="Ready?")
async def readyz(context: Ctx) -> Response:
    """The store answers too; 503 when it does not."""
    if context.closing.is_set():
        raise Problem(503, "the interpreter is stopping")
    try:
        await context.engine.sql("SELECT 1")
    except FlowmetalError as error:
        raise Problem(503, f"the store does not answer: {error.message}") from None
    return json_response({"status": "ready"})


@private.get("/metrics", summary="Metrics", responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, context: Ctx) -> Response:
    """Prometheus text."""
    found: Metrics = request.app.state.metrics
    counts = dict((await context.engine.sql("SELECT status, count(*) FROM flows GROUP BY status")).rows)
    for status in dict.fromkeys(kinds.STATUS.values()):
        found.flows.labels(status).set(counts.get(status, 0))
    found.tasks.set(len(context.engine.tasks))
    return Response(generate_latest(found.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class AdvanceRequest(BaseModel):
    """By how much a virtual clock is moved: seconds, or `1h30m`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    by: float | str


@private.post("/v1/clock/advance", summary="Advance a virtual clock", openapi_extra=json_body(AdvanceRequest.model_json_schema()))
async def advance(request: Request, context: Ctx) -> Response:
    """Moves the clock of a virtual store through all that falls due on the way. 422 for a store in real time."""
    body = AdvanceRequest.model_validate(await read_json_object(request, context.limits))
    return json_response({"now": Instant(await context.engine.advance(moved_by(body.by))).format()})


@private.get("/v1/host", summary="The host")
async def host(context: Ctx) -> Response:
    """The process that hosts the store."""
    found = context.info()
    return json_response(dict(await found if isinstance(found, Awaitable) else found))


@private.post("/v1/stop", status_code=202, summary="Stop the host")
async def stop(context: Ctx) -> Response:
    """Ends the hosting process after this answer; flows go on when another begins."""
    if context.on_stop is None:
        raise Problem(409, "this interpreter lives inside another program, which ends it")
    return Response('{"stopping":true}', 202, media_type="application/json", background=BackgroundTask(context.on_stop))
