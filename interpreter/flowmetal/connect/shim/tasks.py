"""`/v1/tasks`: any program that speaks HTTP leases foreign calls and answers them.

In: names of functions, results, errors. Out: tasks, under a lease. The one rule: 200 for an answer is
sent when it is on disk; 409 says that the lease was lost, and that the answer changed nothing.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.bodies import decode, json_value, read_body, read_json_object
from flowmetal.connect.shim.context import Context, Ctx
from flowmetal.connect.shim.problems import RESPONSES, Problem

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

TaskId = Annotated[str, Path(max_length=300, description="the task's id, as it was leased")]
_LOST: dict[int | str, dict[str, Any]] = {409: {**RESPONSES["default"], "description": "The lease was lost"}}
_Name = Annotated[str, Field(min_length=1, max_length=500)]


class LeaseRequest(BaseModel):
    """What a worker can do, and how much of it it asks for. `wait` and `lease` are seconds."""

    model_config = ConfigDict(extra="forbid")
    functions: list[_Name] = Field(min_length=1, max_length=1000)
    queues: list[_Name] | None = Field(default=None, max_length=1000)
    max: int = Field(default=1, ge=1, le=1000)
    wait: float = Field(default=0, ge=0, allow_inf_nan=False)
    lease: float = Field(default=60, gt=0, le=86_400, allow_inf_nan=False)


class TaskError(BaseModel):
    """How an attempt failed: `type` is the text of the keyword that a program catches."""

    model_config = ConfigDict(extra="ignore")
    type: str = Field(default="user", min_length=1, max_length=200)
    message: str = ""
    data: Any = None


class Failure(BaseModel):
    """A failed attempt. `retry` false forbids another; true allows it where the call says how often."""

    model_config = ConfigDict(extra="forbid")
    error: TaskError
    retry: bool | None = None


@router.post("/lease", summary="Lease foreign calls", openapi_extra=json_body(LeaseRequest.model_json_schema()))
async def lease(request: Request, context: Ctx) -> Response:
    """Up to `max` open calls of these functions; waits up to `wait` seconds for the first. An unanswered lease runs out."""
    body = LeaseRequest.model_validate(await read_json_object(request, context.limits))
    wait = min(body.wait, context.limits.max_wait)
    asked = context.engine.foreign.lease(body.functions, queues=body.queues, most=body.max, wait=wait, lease=body.lease)
    return json_response({"tasks": await _while_connected(request, context, asked) or []})


async def _while_connected(request: Request, context: Context, work: Any) -> Any:
    """What the work gives; None when the client has gone or the server is about to stop: nothing is leased to nobody."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    closing = asyncio.ensure_future(context.closing.wait())
    try:
        await asyncio.wait({task, gone, closing}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, gone, closing):
            each.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.post("/{task_id}/complete", summary="Answer a call", responses=_LOST, openapi_extra=json_body({"type": "object", "properties": {"result": {}}}))
async def complete(task_id: TaskId, request: Request, context: Ctx) -> Response:
    """The call's value, which its flow gets. The same lease answers once; the same answer again is 200 too."""
    body = await read_json_object(request, context.limits)
    unknown = set(body) - {"result"}
    if unknown:
        raise Problem(422, f"a completed task has a result, and no {sorted(unknown)[0]}")
    await context.engine.foreign.complete(task_id, body.get("result"))
    return json_response({})


@router.post("/{task_id}/fail", summary="Say that an attempt failed", responses=_LOST, openapi_extra=json_body(Failure.model_json_schema()))
async def fail(task_id: TaskId, request: Request, context: Ctx) -> Response:
    """The attempt failed. It is made again as `:retry` of the call says, else the error is thrown in the flow."""
    body = Failure.model_validate(await read_json_object(request, context.limits))
    await context.engine.foreign.fail(task_id, body.error.model_dump(), body.retry)
    return json_response({})


@router.post("/{task_id}/heartbeat", summary="Extend a lease", responses=_LOST)
async def heartbeat(task_id: TaskId, request: Request, context: Ctx) -> Response:
    """The worker is still at it: the lease begins anew."""
    text = decode(await read_body(request, context.limits))
    if text.strip():
        json_value(text, context.limits)
    await context.engine.foreign.heartbeat(task_id)
    return json_response({})
