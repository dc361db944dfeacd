"""Problem details (RFC 9457) that an HTTP shim answered, turned back into the error that they came from.

In: a status and a body. Out: a `FlowmetalError` of the same class, type, message and data as the engine raised.
The one rule: an answer that is no problem document becomes a clear error too, never a traceback.
"""

from __future__ import annotations

import json
from typing import Any

from flowmetal.errors import (
    FlowCancelled,
    FlowConflict,
    FlowEnded,
    FlowFailed,
    FlowmetalError,
    FlowNotFound,
    FlowTimeout,
    LeaseLost,
    LispError,
    SourceError,
    StoreError,
)


def error_of(status: int, body: bytes) -> FlowmetalError:
    """The error that an answer of that status and body stands for."""
    problem = _document(body)
    detail = problem.get("detail") or problem.get("title") or f"the interpreter answered HTTP {status}"
    error = problem.get("error")
    if not isinstance(error, dict):
        error = problem
    type_ = _type_of(error, problem)
    message = str(error.get("message") or detail)
    kind = _class_of(status, type_)
    if status in (401, 403):
        return StoreError(
            "the interpreter does not accept the token",
            type=type_,
            hint="set FLOWMETAL_TOKEN to what `flowmetal token` prints where the store is",
        )
    return kind(message, type=type_, hint=_hint_of(error, problem, message), data=error.get("data"))


def failure_of(outcome: dict[str, Any], flow_id: str) -> FlowmetalError:
    """The error with which a flow ended, from what `Client.result` gave."""
    error = outcome.get("error") or {}
    type_ = str(error.get("type") or "flow/failed")
    message = str(error.get("message") or f"flow {flow_id} {outcome.get('status', 'failed')}")
    cancelled = outcome.get("status") == "cancelled"
    kind: type[FlowmetalError] = FlowCancelled if cancelled else FlowFailed
    if not cancelled and is_source_type(type_):
        kind = SourceError
    return kind(message, type=type_, hint=_rest(error.get("rendered"), message), data=error.get("data"))


def is_source_type(type_: str) -> bool:
    """Whether errors of that type stand in the source text, before anything ran."""
    return type_.startswith(("reader/", "compile/"))


def _class_of(status: int, type_: str) -> type[FlowmetalError]:
    if is_source_type(type_):
        return SourceError
    known: dict[str, type[FlowmetalError]] = {
        "flow/not-found": FlowNotFound,
        "flow/conflict": FlowConflict,
        "flow/ended": FlowEnded,
        "flow/failed": FlowFailed,
        "flow/cancelled": FlowCancelled,
        "flow/timeout": FlowTimeout,
        "store": StoreError,
        "task/lease-lost": LeaseLost,
        "replay/mismatch": LispError,
    }
    if type_ in known:
        return known[type_]
    if type_.startswith("store/") or status >= 500:
        return StoreError
    if status == 404:
        return FlowNotFound
    return LispError if status in (400, 422) else FlowmetalError


def _document(body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        return {"detail": body[:500].decode("utf-8", "replace").strip()} if body else {}
    return problem if isinstance(problem, dict) else {}


def _type_of(error: dict[str, Any], problem: dict[str, Any]) -> str:
    for value in (error.get("type"), problem.get("code"), problem.get("type")):
        if isinstance(value, str) and value and value != "about:blank":
            return value.rsplit("#", 1)[-1].removeprefix("urn:flowmetal:error:")
    return "value"


def _hint_of(error: dict[str, Any], problem: dict[str, Any], message: str) -> str | None:
    rendered = error.get("rendered") or problem.get("rendered")
    if rendered:
        return _rest(rendered, message)
    hint = error.get("hint") or problem.get("hint")
    return str(hint) if hint else None


def _rest(rendered: Any, message: str) -> str | None:
    """What the rendered error says beyond its message: the place, the caret line, what to do."""
    if not isinstance(rendered, str) or rendered == message:
        return None
    return rendered.removeprefix(message).lstrip("\n") or None
