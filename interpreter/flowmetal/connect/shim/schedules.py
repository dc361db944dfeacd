"""Schedules over HTTP: list, pause, resume, trigger; the times of one, and the flow of one time.

In: a schedule's name. Out: JSON. The one rule: 2xx is answered after the commit.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.bodies import read_json_object
from flowmetal.connect.shim.context import By, Ctx
from flowmetal.lang.values import Instant

router = APIRouter(tags=["schedules"])
Name = Annotated[str, Path(min_length=1, max_length=200, description="the schedule's name")]
RequestId = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=500)]


class BeginRequest(BaseModel):
    """For which time a flow is to begin."""

    model_config = ConfigDict(extra="forbid", strict=True)
    at: str


@router.get("/v1/schedules", summary="List schedules")
async def listing(context: Ctx) -> Response:
    """The rows of the view `schedules`, by name."""
    result = await context.engine.sql("SELECT * FROM schedules ORDER BY name")
    return json_response({"items": result.plain()})


@router.get("/v1/schedules/{name}/times", summary="The times of a schedule")
async def times(name: Name, context: Ctx, since: Annotated[str, Query(alias="from")], until: Annotated[str, Query(alias="to")]) -> Response:
    """When the schedule was or is due from one instant to another, both included; 10,000 times at most."""
    found = context.engine.schedules.times(name, Instant.parse(since).micros, Instant.parse(until).micros)
    return json_response({"times": [Instant(at).format() for at in found]})


@router.post("/v1/schedules/{name}/begin", summary="Begin the flow of one time", openapi_extra=json_body(BeginRequest.model_json_schema()))
async def begin(name: Name, request: Request, context: Ctx, by: By) -> Response:
    """Begins the flow that the schedule would begin for a time; one that there is already is left as it is."""
    body = BeginRequest.model_validate(await read_json_object(request, context.limits))
    flow_id, created = await context.engine.schedules.begin_for(name, Instant.parse(body.at).micros, by)
    return json_response({"flow_id": flow_id}, 201 if created else 200)


@router.post("/v1/schedules/{name}/{action}", summary="Pause, resume or trigger a schedule")
async def control(name: Name, action: Literal["pause", "resume", "trigger"], context: Ctx, by: By, request_id: RequestId = None) -> Response:
    """`trigger` begins a flow now, whatever the calendar says; the same `Idempotency-Key` never begins a second one."""
    answer: dict[str, Any] = await context.engine.schedules.control(name, action, by, request_id)
    return json_response(answer)
