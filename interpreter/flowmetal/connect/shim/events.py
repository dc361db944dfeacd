"""The history of a flow: as JSON, or live as server-sent events.

In: a flow and the last `seq` that the reader has seen. Out: the rows after it. The one rule: a row
is sent once and in order, so a stream that broke goes on from its `Last-Event-ID`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from flowmetal.connect.json_text import dump_json
from flowmetal.connect.shim.answers import json_response
from flowmetal.connect.shim.context import Context, Ctx
from flowmetal.connect.shim.flows import FlowId
from flowmetal.connect.shim.problems import Problem
from flowmetal.store import kinds

router = APIRouter(tags=["flows"])
STREAM = "text/event-stream"
_END = object()


@router.get(
    "/v1/flows/{flow_id}/events",
    summary="The history of a flow",
    responses={
        200: {"content": {"application/json": {}, STREAM: {}}},
        204: {"description": "The flow has ended, and the stream has nothing more"},
    },
)
async def events(
    flow_id: FlowId,
    request: Request,
    context: Ctx,
    after: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Rows of the view `events`; with `Accept: text/event-stream` goes on live until the flow ends."""
    row = await context.engine.flow(flow_id)
    if STREAM not in request.headers.get("accept", ""):
        return json_response(await context.engine.events(row["flow_id"], after))
    if last_event_id is not None:
        after = _seen(last_event_id)
    if row["status"] in kinds.ENDED and not await context.engine.events(row["flow_id"], after):
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(context, row["flow_id"], after), media_type=STREAM, headers=headers)


def _seen(last_event_id: str) -> int:
    if not last_event_id.isdecimal() or len(last_event_id) > 18:
        raise Problem(422, "Last-Event-ID must be the id of an event of this stream")
    return int(last_event_id)


async def _stream(context: Context, flow_id: str, after: int) -> AsyncIterator[str]:
    """Each row as one event, a comment in silence so that both sides notice a dead connection."""
    ticks = aiter(context.engine.watch(flow_id))
    closing = asyncio.create_task(context.closing.wait())
    tick: asyncio.Task[Any] | None = None
    try:
        while not context.closing.is_set():
            tick = tick or asyncio.ensure_future(_next(ticks))
            await asyncio.sleep(0)
            rows = await context.engine.events(flow_id, after)
            for row in rows:
                after = row["seq"]
                yield event_text(row)
            if rows and rows[-1]["kind"] in kinds.ENDING:
                return
            done, _ = await asyncio.wait({tick, closing}, timeout=context.limits.keep_alive, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                yield ": still here\n\n"
            if tick in done:
                if tick.result() is _END:
                    return
                tick = None
    finally:
        closing.cancel()
        if tick is not None:
            tick.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await tick
        close = getattr(ticks, "aclose", None)
        if close is not None:
            await close()


async def _next(ticks: AsyncIterator[Any]) -> Any:
    return await anext(ticks, _END)


def event_text(row: dict[str, Any]) -> str:
    """A row in the format of server-sent events."""
    return f"id: {row['seq']}\nevent: {row['kind']}\ndata: {dump_json(row)}\n\n"
