"""Which notebooks may run processes, over HTTP.

In: a notebook's name. Out: those that may. The one rule: 2xx is answered after the commit.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.bodies import read_json_object
from flowmetal.connect.shim.context import By, Ctx

router = APIRouter(tags=["notebooks"])


class AllowRequest(BaseModel):
    """Which notebook may run processes, or may no more."""

    model_config = ConfigDict(extra="forbid", strict=True)
    notebook: str = Field(min_length=1, max_length=500)
    allowed: bool = True


@router.get("/v1/notebooks/allowed", summary="Notebooks that may run processes")
async def listing(context: Ctx) -> Response:
    """Their names."""
    return json_response({"notebooks": sorted(context.engine.allowances.allowed)})


@router.post("/v1/notebooks/allowed", summary="Let a notebook run processes", openapi_extra=json_body(AllowRequest.model_json_schema()))
async def allow(request: Request, context: Ctx, by: By) -> Response:
    """Lets a notebook run processes with `sh`, or with `"allowed": false` no more."""
    body = AllowRequest.model_validate(await read_json_object(request, context.limits))
    return json_response({"notebooks": await context.engine.allowances.allow(body.notebook, body.allowed, by)})
