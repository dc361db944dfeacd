"""The store as a whole over HTTP: backup.

In: JSON. Out: where the copy is. The one rule: the answer comes when the copy is whole and on disk.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.bodies import read_json_object
from flowmetal.connect.shim.context import Ctx

router = APIRouter(tags=["store"])


class BackupRequest(BaseModel):
    """Where to: an absolute path of a folder on the host's machine."""

    model_config = ConfigDict(extra="forbid", strict=True)
    directory: str = Field(min_length=1, max_length=4000)


@router.post("/v1/backup", summary="Copy the store", openapi_extra=json_body(BackupRequest.model_json_schema()))
async def backup(request: Request, context: Ctx) -> Response:
    """Copies the store, as it stands at this moment, into a folder of the host's machine; the path of the copy."""
    body = BackupRequest.model_validate(await read_json_object(request, context.limits))
    return json_response({"path": await context.engine.keeping.backup(body.directory)})
