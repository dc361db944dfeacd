"""Problem details (RFC 9457): the one form of every error that the shim answers.

In: an exception. Out: a response of type `application/problem+json` that says what is wrong, where,
and what to do. The one rule: nothing of the program's inside (tracebacks, paths, other people's data) is in it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from flowmetal import errors
from flowmetal.connect.json_text import dump_json
from flowmetal.lang.plain import to_plain

PROBLEM_TYPE = "application/problem+json"
log = logging.getLogger("flowmetal.shim")

_STATUS: tuple[tuple[type[errors.FlowmetalError], int], ...] = (
    (errors.FlowNotFound, 404),
    (errors.FlowConflict, 409),
    (errors.LeaseLost, 409),
    (errors.FlowEnded, 410),
    (errors.SourceError, 422),
    (errors.LispError, 422),
    (errors.StoreError, 503),
)
_STATUS_OF_TYPE = {"sql/refused": 422, "flow/ended": 410, "flow/not-found": 404, "flow/conflict": 409, "replay/mismatch": 409}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "description": "about:blank, or urn:flowmetal:error: and the error's keyword"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong"},
        "instance": {"type": "string", "description": "the path that was asked for"},
        "hint": {"type": "string", "description": "what to do"},
        "error": {
            "type": "object",
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}, "data": {}},
        },
        "file": {"type": "string"},
        "line": {"type": "integer"},
        "column": {"type": "integer"},
    },
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"description": text, "content": {PROBLEM_TYPE: {"schema": SCHEMA}}}
    for code, text in (
        (401, "The bearer token is missing or wrong"),
        (413, "The body is over the limit"),
        (422, "The input is not valid"),
        ("default", "Any other error"),
    )
}


class Problem(Exception):
    """An error answer. `extra` are further members of the problem object."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        type: str = "about:blank",
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.type = type
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def response(self, path: str) -> Response:
        """The answer to a request for `path`."""
        body = {
            "type": self.type,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": path,
            **self.extra,
        }
        return Response(dump_json(body), self.status, self.headers, PROBLEM_TYPE)


def problem_of(error: errors.FlowmetalError) -> Problem:
    """One of our own errors as a problem: its keyword, message, data, place and hint."""
    status = _STATUS_OF_TYPE.get(error.type) or next((s for kind, s in _STATUS if isinstance(error, kind)), 500)
    data = None if error.data is None else to_plain(error.data)[0]
    extra: dict[str, Any] = {"error": {"type": error.type, "message": error.message, "data": data}}
    if error.hint:
        extra["hint"] = error.hint
    if error.span is not None:
        extra |= {"file": error.span.source.name, "line": error.span.line, "column": error.span.column}
        extra["rendered"] = error.render()
    headers = {"Retry-After": "1"} if status == 503 else None
    return Problem(status, error.message, type=f"urn:flowmetal:error:{error.type}", headers=headers, extra=extra)


def invalid(error: ValidationError | RequestValidationError) -> Problem:
    """Input of the wrong shape: 422, with the place and the reason of each mistake."""
    found = [{"at": ".".join(str(part) for part in e["loc"]), "message": e["msg"]} for e in error.errors()[:20]]
    detail = "; ".join(f"{e['at']}: {e['message']}" if e["at"] else e["message"] for e in found)
    return Problem(422, detail, extra={"errors": found})


def unexpected(error: Exception, method: str, path: str) -> Problem:
    """A bug of ours: noted in the log, with its traceback at level debug, and a bare 500 for the caller."""
    log.error("%s %s failed: %s: %s", method, path, type(error).__name__, error)
    log.debug("the traceback", exc_info=error)
    return Problem(500, "an error inside Flowmetal; the interpreter's log has more")


def install(app: FastAPI) -> None:
    """Makes the application answer every error as a problem."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response(request.url.path)

    async def on_flowmetal(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.FlowmetalError)
        problem = problem_of(error)
        if problem.status >= 500:
            log.error("%s %s: %s", request.method, request.url.path, error.message)
        return problem.response(request.url.path)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = f"nothing at {request.url.path}" if error.status_code == 404 else str(error.detail)
        if error.status_code == 405:
            allowed = dict(error.headers or {}).get("Allow", "another method")
            detail = f"{request.method} is not allowed here; {allowed} is"
        return Problem(error.status_code, detail, headers=error.headers).response(request.url.path)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, (ValidationError, RequestValidationError))
        return invalid(error).response(request.url.path)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(errors.FlowmetalError, on_flowmetal)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(ValidationError, on_invalid)
