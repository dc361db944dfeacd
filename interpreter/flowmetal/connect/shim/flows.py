"""Flows over HTTP: start, list, look, wait for the result, send a message, control.

In: JSON. Out: rows of the view `flows`, results, ids. The one rule: 2xx is answered after the commit.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.bodies import read_json, read_json_object, read_options
from flowmetal.connect.shim.context import FLOW_ID, By, Context, Ctx

router = APIRouter(tags=["flows"])

FlowId = Annotated[str, Path(pattern=FLOW_ID, description="the flow's id")]
RequestId = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=500)]
Status = Literal["running", "waiting", "paused", "completed", "failed", "cancelled", "moved"]


class StartRequest(BaseModel):
    """Which program to start, with which arguments, under which id, when and how."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(min_length=1, max_length=500)
    args: list[Any] = Field(default_factory=list)
    id: str | None = Field(default=None, pattern=FLOW_ID)
    queue: str | None = Field(default=None, min_length=1, max_length=200)
    priority: int | None = Field(default=None, description="what comes first in its queue: the greater number")
    at: str | float | None = Field(default=None, description="when it begins: a time, or seconds (or 1h30m) from now")
    tags: dict[str, Any] | None = None
    timeout: str | float | None = Field(default=None, description="how long it may take, from its beginning: seconds, or 1h30m")
    on_failure: Literal["pause"] | None = Field(default=None, description="it stops where it failed, until it is retried or resumed")


class ControlRequest(BaseModel):
    """Why a flow is paused, resumed, retried or cancelled."""

    model_config = ConfigDict(extra="forbid", strict=True)
    reason: str | None = Field(default=None, max_length=10_000)


@router.post(
    "/v1/flows",
    status_code=201,
    summary="Start a flow",
    responses={200: {"description": "That id runs this very call already"}, 409: {"description": "… another call"}},
    openapi_extra=json_body(StartRequest.model_json_schema()),
)
async def start(request: Request, context: Ctx, by: By, request_id: RequestId = None) -> Response:
    """Starts a flow under the newest definitions. The same `Idempotency-Key` never starts a second one."""
    body = StartRequest.model_validate(await read_json_object(request, context.limits))
    options = body.model_dump(exclude={"name", "args", "id"}, exclude_none=True)
    flow_id, created = await context.engine.start_flow(body.name, body.args, flow_id=body.id, request_id=request_id, by=by, options=options)
    return json_response({"flow_id": flow_id}, 201 if created else 200, {"Location": f"/v1/flows/{flow_id}"})


@router.get("/v1/flows", summary="List flows")
async def listing(
    context: Ctx,
    status: Status | None = None,
    name: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: str | None = None,
) -> Response:
    """Rows of the view `flows`, newest first; `next` is the `after` of the next page, null on the last."""
    return json_response(await context.engine.flows(status=status, name=name, limit=limit, after=after))


@router.get("/v1/stuck", summary="Flows that are stuck")
async def stuck(context: Ctx, after: Annotated[float, Query(ge=0)] = 60.0) -> Response:
    """Flows that wait for what cannot arrive, or for a call that nobody has asked for in `after` seconds: each with what to do."""
    return json_response({"items": await context.engine.stuck(after)})


@router.get("/v1/flows/{flow_id}", summary="One flow")
async def one(flow_id: FlowId, context: Ctx) -> Response:
    """The flow's row of the view `flows`."""
    return json_response(await context.engine.flow(flow_id))


@router.get(
    "/v1/flows/{flow_id}/result",
    summary="The result of a flow",
    responses={202: {"description": "It has not ended yet"}},
)
async def result(flow_id: FlowId, context: Ctx, wait: Annotated[float, Query(ge=0)] = 0) -> Response:
    """The result or the error of an ended flow; waits up to `wait` seconds for the end."""
    ended = await context.unless_closing(context.engine.result(flow_id, min(wait, context.limits.max_wait)))
    if ended is not None:
        return json_response(ended)
    row = await context.engine.flow(flow_id)
    return json_response({"status": row["status"]}, 202)


@router.get("/v1/flows/{flow_id}/state", summary="The state of a flow")
async def state(
    flow_id: FlowId, context: Ctx, step: Annotated[int | None, Query(ge=0)] = None, transition: Annotated[int | None, Query(ge=0)] = None
) -> Response:  # fmt: skip
    """Stack and locals: now (of a flow that has failed: where it failed), as it waited for a step, or so many transitions of its machine later."""
    return json_response(await context.engine.state(flow_id, step, transition))


@router.get("/v1/flows/{flow_id}/diff", summary="What changed between two steps")
async def diff(
    flow_id: FlowId, context: Ctx, old: Annotated[int, Query(alias="from", ge=0)], new: Annotated[int | None, Query(alias="to", ge=0)] = None
) -> Response:  # fmt: skip
    """Frames left and entered, locals old and new, promises opened and settled, from one step to another, or to now."""
    return json_response(await context.engine.diff(flow_id, old, new))


@router.post(
    "/v1/flows/{flow_id}/messages",
    status_code=202,
    summary="Send a message",
    responses={200: {"description": "The flow has replied within `wait`"}},
    openapi_extra=json_body({}),
)
async def send(
    flow_id: FlowId,
    request: Request,
    context: Ctx,
    by: By,
    key: RequestId = None,
    webhook_id: Annotated[str | None, Header(max_length=500)] = None,
    wait: Annotated[float, Query(ge=0)] = 0,
) -> Response:
    """Puts a JSON value into the flow's mailbox; with `wait`, answers with the flow's reply when it comes in so many seconds.

    `Idempotency-Key` (or `webhook-id`) makes a repetition harmless: sent again with `wait`, it asks for the same reply.
    """
    message = await read_json(request, context.limits)
    message_id = await context.engine.send(flow_id, message, key=key or webhook_id, source="http", by=by, ask=wait > 0)
    if wait > 0:
        asked = context.engine.reply(flow_id, message_id, min(wait, context.limits.max_wait))
        replied, value = await context.unless_closing(asked) or (False, None)
        if replied:
            return json_response({"message_id": message_id, "reply": value})
    return json_response({"message_id": message_id}, 202)


@router.delete("/v1/flows/{flow_id}", summary="Delete a flow that is over", responses={409: {"description": "It is open, or needed"}})
async def delete(flow_id: FlowId, context: Ctx, by: By, key: RequestId = None) -> Response:
    """Deletes the flow's history and that of the flows which belong to it. The same `Idempotency-Key` again is answered as the first was."""
    return json_response({"deleted": await context.engine.keeping.delete(flow_id, by=by, request_id=key)})


async def control(context: Context, request: Request, flow_id: str, action: str, by: str, key: str | None) -> Response:
    """One control action; gives the flow's row. The same `Idempotency-Key` again changes nothing."""
    reason = ControlRequest.model_validate(await read_options(request, context.limits)).reason
    return json_response(await context.engine.control(flow_id, action, reason=reason, by=by, request_id=key))


def _add_control(action: str, summary: str) -> None:
    async def route(flow_id: FlowId, request: Request, context: Ctx, by: By, key: RequestId = None) -> Response:
        return await control(context, request, flow_id, action, by, key)

    router.add_api_route(
        f"/v1/flows/{{flow_id}}/{action}",
        route,
        methods=["POST"],
        name=action,
        summary=summary,
        openapi_extra=json_body(ControlRequest.model_json_schema(), required=False),
    )


_add_control("pause", "Stop consuming, go on recording")
_add_control("resume", "Go on after a pause")
_add_control("step", "Go on to the next request of a paused flow")
_add_control("retry", "Ask the step that failed anew")
_add_control("cancel", "Cancel: the flow's clean-up runs")
_add_control("terminate", "End without running anything more")
