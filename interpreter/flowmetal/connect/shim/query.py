"""`POST /v1/sql`: read-only SQL over the views, as JSON, CSV or an Arrow stream.

In: `{"sql", "params"?}`. Out: the rows in the form that `Accept` names. The one rule: what may be
asked is decided by the store, by its database's own means; here it is only read and written.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from flowmetal.connect.json_text import dump_json
from flowmetal.connect.shim.answers import json_body, json_response
from flowmetal.connect.shim.arrow import arrow_stream
from flowmetal.connect.shim.bodies import read_json_object
from flowmetal.connect.shim.context import Ctx
from flowmetal.connect.shim.problems import Problem
from flowmetal.store.protocol import Result

router = APIRouter(tags=["sql"])
ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv"
JSON = "application/json"


class SqlRequest(BaseModel):
    """One SELECT, with parameters by position or by name."""

    model_config = ConfigDict(extra="forbid", strict=True)
    sql: str
    params: list[Any] | dict[str, Any] | None = None


@router.post(
    "/v1/sql",
    summary="Query the views",
    openapi_extra=json_body(SqlRequest.model_json_schema()),
    responses={200: {"content": {JSON: {}, CSV: {}, ARROW: {}}}, 406: {"description": "None of these types"}},
)
async def sql(request: Request, context: Ctx) -> Response:
    """Runs one SELECT over the views; `Accept` chooses JSON, CSV or an Arrow stream."""
    kind = accepted(request.headers.get("accept", ""))
    body = SqlRequest.model_validate(await read_json_object(request, context.limits))
    result = await context.engine.sql(body.sql, body.params)
    if kind == ARROW:
        return Response(arrow_stream(result.columns, result.types, result.rows), media_type=ARROW)
    rows = plain_lists(result)
    if kind == CSV:
        return Response(csv_text(result.columns, rows), media_type=f"{CSV}; charset=utf-8")
    return json_response({"columns": result.columns, "types": result.types, "rows": rows})


def accepted(header: str) -> str:
    """The first type of an `Accept` header that can be given, by weight; 406 when there is none."""
    weighed = []
    for order, part in enumerate(header.split(",")):
        kind, *params = (p.strip().lower() for p in part.split(";"))
        weight = next((p[2:] for p in params if p.startswith("q=")), "1")
        try:
            weighed.append((-float(weight), order, kind))
        except ValueError:
            weighed.append((-1.0, order, kind))
    for negative, _, kind in sorted(weighed):
        if negative == 0:
            continue
        if kind in ("", "*/*", "application/*", JSON):
            return JSON
        if kind in (CSV, "text/*"):
            return CSV
        if kind in (ARROW, "application/vnd.apache.arrow"):
            return ARROW
    raise Problem(406, f"ask for {JSON}, {CSV} or {ARROW}")


def plain_lists(result: Result) -> list[list[Any]]:
    """The rows as lists of plain values: two columns may have one name."""
    names = [str(i) for i in range(len(result.columns))]
    return [list(row.values()) for row in Result(names, result.types, result.rows).plain()]


def csv_text(columns: list[str], rows: list[list[Any]]) -> str:
    """RFC 4180 with a header; null is an empty field, arrays and objects are JSON."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_field(value) for value in row] for row in rows)
    return out.getvalue()


def _field(value: Any) -> Any:
    if value is None or type(value) in (str, int, float):
        return value
    return dump_json(value)
