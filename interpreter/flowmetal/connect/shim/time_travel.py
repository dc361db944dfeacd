"""Forks and upgrades over HTTP.

In: JSON. Out: rows of the view `flows`, or what would be done. The one rule: 2xx is answered after the commit, and the same
`Idempotency-Key` never does anything twice.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.bodies import read_json_object, read_options
from flowmetal.connect.shim.context import By, Ctx
from flowmetal.connect.shim.flows import FlowId, RequestId
from flowmetal.lang.plain import from_plain
from flowmetal.runtime.fork import Wish

router = APIRouter(tags=["flows"])


class ForkRequest(BaseModel):
    """From which step on, and what is to be different there. `with`, also where it is null, is the step's outcome; without it the step is asked anew."""

    model_config = ConfigDict(extra="forbid", strict=True)
    at: int = Field(ge=1)
    given: Any = Field(default=None, alias="with")
    upgrade: bool = False
    adopt_rollbacks: bool = False
    dry_run: bool = False
    reason: str | None = Field(default=None, max_length=10_000)

    def wish(self) -> Wish:
        """The same for the engine."""
        outcome = (from_plain(self.given),) if "given" in self.model_fields_set else ()
        return Wish(self.at, outcome, self.upgrade, self.adopt_rollbacks)


class UpgradeRequest(BaseModel):
    """Whether it is only tried."""

    model_config = ConfigDict(extra="forbid", strict=True)
    dry_run: bool = False
    reason: str | None = Field(default=None, max_length=10_000)


@router.post("/v1/flows/{flow_id}/fork", summary="A new flow that shares the past of one", openapi_extra=json_body(ForkRequest.model_json_schema()))
async def fork(flow_id: FlowId, request: Request, context: Ctx, by: By, request_id: RequestId = None) -> Response:
    """The new flow. With `dry_run` nothing is made: what would be shared, and what the fork may do again."""
    body = ForkRequest.model_validate(await read_json_object(request, context.limits))
    forks = context.engine.forks
    if body.dry_run:
        return json_response(await forks.preview(flow_id, body.wish()))
    made = await forks.fork(flow_id, body.wish(), reason=body.reason, by=by, request_id=request_id)
    return json_response(await context.engine.flow(made), headers={"Location": f"/v1/flows/{made}"})


@router.post(
    "/v1/flows/{flow_id}/upgrade",
    summary="Move a flow to the current definitions",
    responses={409: {"description": "They would have asked for something else: `replay/mismatch`"}},
    openapi_extra=json_body(UpgradeRequest.model_json_schema(), required=False),
)
async def upgrade(flow_id: FlowId, request: Request, context: Ctx, by: By, request_id: RequestId = None) -> Response:
    """The flow, with `upgrade`: from which version to which, after how many steps, and whether it was done. With `dry_run` it is not."""
    body = UpgradeRequest.model_validate(await read_options(request, context.limits))
    report = await context.engine.upgrades.upgrade(flow_id, dry_run=body.dry_run, reason=body.reason, by=by, request_id=request_id)
    return json_response({**await context.engine.flow(report["flow_id"]), "upgrade": report})
