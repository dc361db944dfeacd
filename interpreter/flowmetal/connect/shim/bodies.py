"""Bodies of requests, read with their limits: size while they stream, depth before they are parsed.

In: a request. Out: plain values. The one rule: a body over the limit is never held in memory, and
a refusal names the limit and how to raise it.
"""

from __future__ import annotations

import asyncio
import base64
import email.parser
import email.policy
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request

from flowmetal.connect.json_text import NotJson, TooDeep, parse_json
from flowmetal.connect.shim.context import Limits
from flowmetal.connect.shim.problems import Problem

FORM = "application/x-www-form-urlencoded"
_DRAIN_BYTES = 16 * 1024 * 1024
_DRAIN_SECONDS = 5.0


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body, or 413 as soon as it is known to be over the limit."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limits.max_body:
        await _drain(request, 0)
        raise _too_large(limits)
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "the connection was closed in the middle of the body")
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > limits.max_body:
            parts.clear()
            if more:
                await _drain(request, size)
            raise _too_large(limits)
        parts.append(part)
    return b"".join(parts)


async def read_text(request: Request, limits: Limits) -> str:
    """The body as text; 400 when it is not UTF-8."""
    return decode(await read_body(request, limits))


async def read_json(request: Request, limits: Limits) -> Any:
    """The body as JSON, whatever its declared type: 400 when it is none, 422 when it is too deep."""
    text = await read_text(request, limits)
    if not text.strip():
        raise Problem(400, "the body is empty; it must be JSON")
    return json_value(text, limits)


async def read_json_object(request: Request, limits: Limits) -> dict[str, Any]:
    """The body as a JSON object; 422 when it is another JSON value."""
    value = await read_json(request, limits)
    if not isinstance(value, dict):
        raise Problem(422, "the body must be a JSON object")
    return value


async def read_options(request: Request, limits: Limits) -> dict[str, Any]:
    """The same of a body that may be left out: then there are none."""
    text = await read_text(request, limits)
    value = json_value(text, limits) if text.strip() else {}
    if not isinstance(value, dict):
        raise Problem(422, "the body must be a JSON object")
    return value


async def read_anything(request: Request, limits: Limits) -> Any:
    """JSON, a form or text, as the body's type says; an empty body is null."""
    return anything(request, await read_body(request, limits), limits)


def anything(request: Request, body: bytes, limits: Limits) -> Any:
    """The value of a body that was read: JSON, a form or text."""
    header = request.headers.get("content-type", "")
    kind = header.split(";")[0].strip().lower()
    if not body:
        return None
    if kind == "multipart/form-data":
        return _multipart(header, body)
    text = decode(body)
    if kind == "application/json" or kind.endswith("+json"):
        return json_value(text, limits)
    if kind == FORM:
        return _form(text, limits)
    return text if kind.startswith("text/") else _guessed(text, limits)


def json_value(text: str, limits: Limits) -> Any:
    """The value of a JSON text, or a problem."""
    try:
        return parse_json(text, max_depth=limits.max_depth)
    except NotJson as error:
        raise Problem(400, str(error)) from None
    except TooDeep as error:
        raise Problem(422, str(error)) from None


def decode(body: bytes) -> str:
    """UTF-8 as text; 400 when it is not."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8 text (at byte {error.start})") from None


def _guessed(text: str, limits: Limits) -> Any:
    """JSON when it is JSON, else the text."""
    try:
        return json_value(text, limits)
    except Problem as problem:
        if problem.status == 400:
            return text
        raise


def _form(text: str, limits: Limits) -> Any:
    """A form's fields, a repeated one as an array. What many clients send as a form unasked, JSON, is taken as JSON."""
    if text.lstrip()[:1] in ("{", "[", '"') or "=" not in text:
        return _guessed(text, limits)
    try:
        return _fields(parse_qsl(text, keep_blank_values=True, max_num_fields=10_000, errors="replace"))
    except ValueError:
        raise Problem(422, "a form of more than 10,000 fields") from None


def _multipart(header: str, body: bytes) -> Any:
    """The fields of a multipart form; a file is an object of its name, type and base64."""
    head = f"Content-Type: {header}\r\n\r\n".encode("latin-1", "replace")
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if not message.is_multipart():
        raise Problem(400, "the body is not the multipart form that its type says")
    fields: list[tuple[str, Any]] = []
    for part in message.iter_parts():
        name = str(part.get_param("name", "", header="content-disposition"))
        content = part.get_payload(decode=True)
        data = content if isinstance(content, bytes) else b""
        file = part.get_filename()
        if file is None:
            fields.append((name, data.decode("utf-8", "replace")))
        else:
            encoded = base64.b64encode(data).decode()
            fields.append((name, {"filename": file, "content-type": part.get_content_type(), "base64": encoded}))
    return _fields(fields)


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    grouped: dict[str, list[Any]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in grouped.items()}


def _too_large(limits: Limits) -> Problem:
    hint = "send less, or start the interpreter with a greater FLOWMETAL_MAX_BODY (bytes)"
    return Problem(413, f"the body is over the limit of {limits.max_body:,} bytes", extra={"hint": hint})


async def _drain(request: Request, seen: int) -> None:
    """Takes and drops the rest within reason: a client in the middle of sending then sees the answer."""
    if "expect" in request.headers:
        return
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while seen < _DRAIN_BYTES:
                message = await request.receive()
                seen += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
