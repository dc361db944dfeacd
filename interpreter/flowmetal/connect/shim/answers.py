"""Answers: plain values as JSON responses, for every route the same way.

In: plain values. Out: a response. The one rule: nothing is answered that a strict JSON parser refuses.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from flowmetal.connect.json_text import dump_json


def json_response(plain: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(dump_json(plain), status, headers, "application/json")


def json_body(schema: dict[str, Any], required: bool = True) -> dict[str, Any]:
    """The OpenAPI description of a JSON body, for routes that read theirs with limits."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
