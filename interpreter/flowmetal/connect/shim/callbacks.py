"""`POST /v1/callbacks/{token}`: an outside program settles a promise, once.

In: any JSON, form or text. Out: 202 with the message's id, after the commit; the same body again
200, another 409, an unknown token 404, an ended flow 410. The one rule: the token is the permission.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_response
from flowmetal.connect.shim.bodies import read_anything
from flowmetal.connect.shim.context import Ctx
from flowmetal.connect.shim.problems import RESPONSES, Problem

router = APIRouter(tags=["callbacks"])
_KINDS = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The same body was delivered before"},
    409: {**RESPONSES["default"], "description": "Another body was delivered before"},
    404: {**RESPONSES["default"], "description": "No such callback"},
    410: {**RESPONSES["default"], "description": "Its flow has ended"},
}


@router.post(
    "/v1/callbacks/{token}",
    status_code=202,
    summary="Deliver a callback",
    responses=_ANSWERS,
    openapi_extra={"requestBody": {"content": {kind: {} for kind in _KINDS}}},
)
async def deliver(token: str, request: Request, context: Ctx) -> Response:
    """Settles the promise that this token belongs to. No bearer token is needed: the URL is unguessable."""
    value = await read_anything(request, context.limits)
    outcome, message_id = await context.engine.settle_callback(token, value, source="http")
    if outcome == "accepted":
        return json_response({"message_id": message_id}, 202)
    if outcome == "again":
        return json_response({"message_id": message_id}, 200)
    if outcome == "conflict":
        raise Problem(409, "this callback has been delivered already, with another body")
    if outcome == "ended":
        raise Problem(410, "the flow that made this callback has ended")
    raise Problem(404, "no callback has this token")
