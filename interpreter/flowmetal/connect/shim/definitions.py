"""Programs over HTTP: add definitions, evaluate a cell, complete and inspect names.

In: source text. Out: a version and names, or the id of the cell's flow. The one rule: an error of
the source says its line and column, and nothing of a text that has one is defined.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.bodies import read_json_object, read_text
from flowmetal.connect.shim.context import By, Ctx
from flowmetal.connect.shim.flows import RequestId
from flowmetal.connect.shim.problems import Problem

router = APIRouter(tags=["definitions"])
Namespace = Annotated[str, Query(min_length=1, max_length=500)]


class EvalRequest(BaseModel):
    """A cell: its text, the namespace it is read in, and the name that its errors show."""

    model_config = ConfigDict(extra="forbid", strict=True)
    source: str
    ns: str = Field(default="user", min_length=1, max_length=500)
    file: str = Field(default="cell", max_length=1000)
    request_id: str | None = Field(default=None, min_length=1, max_length=500)


@router.put(
    "/v1/definitions",
    summary="Add definitions",
    openapi_extra={"requestBody": {"required": True, "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def define(request: Request, context: Ctx, by: By, file: Annotated[str, Query(max_length=1000)] = "definitions.flow") -> Response:
    """Adds the definitions of a source text. `file` is the name that errors show."""
    source = await read_text(request, context.limits)
    return json_response(await context.engine.load(source, file=file, by=by))


@router.post(
    "/v1/eval",
    status_code=202,
    summary="Evaluate a cell",
    openapi_extra=json_body(EvalRequest.model_json_schema()),
)
async def evaluate(request: Request, context: Ctx, by: By, key: RequestId = None) -> Response:
    """Starts a flow of kind `cell`; its result gives the value of the last form."""
    body = EvalRequest.model_validate(await read_json_object(request, context.limits))
    flow_id = await context.engine.eval(body.source, ns=body.ns, file=body.file, request_id=body.request_id or key, by=by)
    return json_response({"flow_id": flow_id}, 202, {"Location": f"/v1/flows/{flow_id}"})


@router.get("/v1/complete", summary="Complete a name")
async def complete(context: Ctx, prefix: Annotated[str, Query(max_length=500)] = "", ns: Namespace = "user") -> Response:
    """Names that begin with the prefix, as seen from a namespace."""
    return json_response({"items": await context.engine.complete(prefix, ns)})


@router.get("/v1/inspect", summary="Look up a name")
async def inspect(context: Ctx, name: Annotated[str, Query(min_length=1, max_length=500)], ns: Namespace = "user") -> Response:
    """What a name is: its arguments, documentation and source. 404 when it names nothing."""
    found = await context.engine.inspect(name, ns)
    if found is None:
        raise Problem(404, f"{name} names nothing in {ns}")
    return json_response(found)
