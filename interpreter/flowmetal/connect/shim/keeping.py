"""The store as a whole over HTTP: backup, and flows that come and go as files.

In: JSON, or a file. Out: a file, or what was done. The one rule: the answer comes when what was asked for is whole and on disk.
"""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.bodies import read_body, read_json_object, read_options
from flowmetal.connect.shim.context import By, Ctx

router = APIRouter(tags=["store"])
FLOWLOG = "application/vnd.flowmetal.flowlog"
"""The type of a file of flows: JSON lines."""


class BackupRequest(BaseModel):
    """Where to: an absolute path of a folder on the host's machine."""

    model_config = ConfigDict(extra="forbid", strict=True)
    directory: str = Field(min_length=1, max_length=4000)


class ArchiveRequest(BaseModel):
    """Which flows that are over: of an age, under a condition over the view `flows`. `keep` is the store's setting from now on."""

    model_config = ConfigDict(extra="forbid", strict=True)
    older_than: str | None = Field(default=None, max_length=100)
    where: str | None = Field(default=None, min_length=1, max_length=10_000)
    keep: str | None = Field(default=None, max_length=100)


class ExportRequest(BaseModel):
    """Which flows, by id or an unambiguous prefix."""

    model_config = ConfigDict(extra="forbid", strict=True)
    flows: list[str] = Field(min_length=1, max_length=100_000)


class MovedRequest(BaseModel):
    """Flows that were open when they were exported: each with the number of its last row in the file (`open` in its first line)."""

    model_config = ConfigDict(extra="forbid", strict=True)
    flows: dict[str, int]


@router.post("/v1/backup", summary="Copy the store", openapi_extra=json_body(BackupRequest.model_json_schema()))
async def backup(request: Request, context: Ctx) -> Response:
    """Copies the store, as it stands at this moment, into a folder of the host's machine; the path of the copy."""
    body = BackupRequest.model_validate(await read_json_object(request, context.limits))
    return json_response({"path": await context.engine.keeping.backup(body.directory)})


@router.post(
    "/v1/export",
    summary="Flows as a file",
    openapi_extra=json_body(ExportRequest.model_json_schema()),
    responses={200: {"content": {FLOWLOG: {}}}, 409: {"description": "A flow cannot leave what it waits for"}},
)
async def export(request: Request, context: Ctx) -> Response:
    """The file of these flows, their children and the definitions that they need. It changes nothing: see `/v1/export/moved`."""
    body = ExportRequest.model_validate(await read_json_object(request, context.limits))
    return Response(await context.engine.keeping.export(body.flows), media_type=FLOWLOG)


@router.post(
    "/v1/export/moved",
    summary="Exported flows go on elsewhere",
    openapi_extra=json_body(MovedRequest.model_json_schema()),
    responses={409: {"description": "A flow has gone on since it was exported: nothing was changed"}},
)
async def moved(request: Request, context: Ctx, by: By) -> Response:
    """Ends flows here as `moved`, when their file is in safe hands. All of them, or none."""
    body = MovedRequest.model_validate(await read_json_object(request, context.limits))
    await context.engine.keeping.mark_moved(body.flows, by=by)
    return json_response({"moved": list(body.flows)})


@router.post(
    "/v1/import",
    status_code=201,
    summary="Take the flows of a file",
    openapi_extra={"requestBody": {"required": True, "content": {FLOWLOG: {"schema": {"type": "string"}}}}},
    responses={200: {"description": "That file was imported here already"}, 409: {"description": "A flow of it is here"}},
)
async def import_flows(request: Request, context: Ctx, by: By) -> Response:
    """Takes the flows of a file: they go on here, under their ids and definitions. All of the file, or nothing."""
    data = await read_body(request, replace(context.limits, max_body=context.limits.max_file))
    taken = await context.engine.keeping.import_flows(data, by=by)
    return json_response(taken, 201 if taken["new"] else 200)


@router.post("/v1/archive", summary="Archive flows that are over", openapi_extra=json_body(ArchiveRequest.model_json_schema(), required=False))
async def archive(request: Request, context: Ctx, by: By) -> Response:
    """Moves flows that are over into Parquet files beside the store, where they answer as before; how many, and the store's setting."""
    body = ArchiveRequest.model_validate(await read_options(request, context.limits))
    return json_response(await context.engine.keeping.archive(older_than=body.older_than, where=body.where, keep=body.keep, by=by))
