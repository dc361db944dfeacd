"""`POST /v1/topics/{topic}`: an event from outside, plain JSON or CloudEvents, signed where the topic says so.

In: an event, or a batch. Out: 202 with the event's id, after its commit. The one rule: a repetition,
known by its key, is answered with the first one's id and published to nobody.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials
from starlette.responses import Response

from flowmetal.connect import cloud_events, signatures
from flowmetal.connect.cloud_events import Event, NotAnEvent
from flowmetal.connect.secrets import SecretOf
from flowmetal.connect.shim.answers import json_response
from flowmetal.connect.shim.auth import bearer, require_token
from flowmetal.connect.shim.bodies import FORM, anything, json_value, read_body
from flowmetal.connect.shim.context import By, Context, Ctx
from flowmetal.connect.shim.problems import RESPONSES, Problem
from flowmetal.errors import LispError
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.lang.secrets import Secret
from flowmetal.lang.values import Duration, kw

router = APIRouter(tags=["topics"])
MAX_BATCH = 1000
_KEYS = ("idempotency-key", "webhook-id", "x-github-delivery")
_KINDS = ("application/json", cloud_events.STRUCTURED, cloud_events.BATCH, FORM, "text/plain")

TopicName = Annotated[str, Path(min_length=1, max_length=200, description="the topic")]
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


@router.post(
    "/v1/topics/{topic:path}",
    status_code=202,
    summary="Publish an event",
    responses={401: RESPONSES[401], 413: RESPONSES[413]},
    openapi_extra={"requestBody": {"content": {kind: {} for kind in _KINDS}}},
)
async def publish(topic: TopicName, request: Request, context: Ctx, by: By, credentials: Credentials = None) -> Response:
    """Publishes plain JSON, a CloudEvent (structured or binary) or a batch of them.

    `Idempotency-Key`, `webhook-id` or a CloudEvent's `source` and `id` make a repetition harmless. A topic that was declared
    with a signature scheme takes signed requests without the bearer token.
    """
    verify = context.engine.topics.declared.get(topic, EMPTY_MAP).get(kw("verify"))
    if verify is None or credentials is not None:
        await require_token(context, credentials)
        verify = None
    body = await read_body(request, context.limits)
    if verify is not None:
        _check_signature(verify, request, body, context)
    events = _events(request, body, context)
    header = next((request.headers[name] for name in _KEYS if request.headers.get(name)), None)
    if header is not None and len(header) > 500:
        raise Problem(422, "a key of more than 500 characters")
    batch = _media_type(request) == cloud_events.BATCH
    done = await asyncio.gather(*(_publish(context, topic, event, event.key if batch else header or event.key, by) for event in events))
    answer: dict[str, Any] = {"message_id": done[0][0] if done else None, "duplicate": bool(done) and all(again for _, again in done)}
    if batch:
        answer["message_ids"] = [message_id for message_id, _ in done]
    return json_response(answer, 202)


async def _publish(context: Context, topic: str, event: Event, key: str | None, by: str) -> tuple[str, bool]:
    source = "http" if event.attributes is None else event.attributes["source"]
    published: tuple[str, bool] = await context.engine.topics.publish(topic, from_plain(event.value), key=key, source=source, envelope=event.attributes, by=by)
    return published


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def _events(request: Request, body: bytes, context: Context) -> list[Event]:
    kind = _media_type(request)
    try:
        if kind in (cloud_events.STRUCTURED, cloud_events.BATCH):
            parsed = json_value(body.decode("utf-8", "replace"), context.limits)
            events = cloud_events.batch(parsed) if kind == cloud_events.BATCH else [cloud_events.structured(parsed)]
            if len(events) > MAX_BATCH:
                raise Problem(413, f"a batch of more than {MAX_BATCH} events")
            return events
        value = anything(request, body, context.limits)
        return [cloud_events.binary(request.headers, value) if cloud_events.is_binary(request.headers) else Event(value)]
    except NotAnEvent as error:
        raise Problem(422, str(error)) from None


def _check_signature(verify: Map, request: Request, body: bytes, context: Context) -> None:
    """Refuses a body that is not signed as the topic says."""
    try:
        secret = _secret(verify.get(kw("secret")), context.secret_of)
    except LispError:
        raise Problem(503, "the topic's secret is not set where the interpreter runs", headers={"Retry-After": "60"}) from None
    try:
        signatures.verify(scheme_of(verify), secret, request.headers, body, context.engine.clock.now() / 1e6)
    except signatures.BadSignature as error:
        raise Problem(401, f"{error}; or send `Authorization: Bearer TOKEN`") from None


def _secret(value: Any, secret_of: SecretOf) -> str:
    return value.fill(secret_of) if isinstance(value, Secret) else secret_of(str(value))


def scheme_of(verify: Map) -> signatures.Scheme:
    """The scheme that a topic's `:verify` names."""
    given = {name: verify.get(kw(name)) for name in ("header", "algorithm", "encoding", "prefix")}
    known: dict[str, Any] = {name: str(to_plain(value)[0]) for name, value in given.items() if value is not None}
    tolerance = verify.get(kw("tolerance"))
    if isinstance(tolerance, Duration):
        known["tolerance"] = tolerance.seconds
    return signatures.Scheme(verify.get(kw("scheme")).name, **known)
