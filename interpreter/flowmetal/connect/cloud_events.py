"""CloudEvents 1.0 over HTTP: structured, binary and batch, into an event's value and its envelope.

In: headers and a parsed body. Out: `Event`s, or `NotAnEvent`. The one rule: the value of an event is its
`data`, whatever the mode it came in; its attributes are the envelope. What is no CloudEvent is plain JSON.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
REQUIRED = ("id", "source", "type", "specversion")
_BODY = frozenset({"data", "data_base64"})


class NotAnEvent(ValueError):
    """It says that it is a CloudEvent, and is none; the message says why."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event: its value, its attributes (None for plain JSON), and what makes a repetition known."""

    value: Any
    attributes: dict[str, Any] | None = None

    @property
    def key(self) -> str | None:
        """`source` and `id`, which name a CloudEvent."""
        return None if self.attributes is None else f"{self.attributes['source']} {self.attributes['id']}"


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether the attributes stand in headers."""
    return "ce-specversion" in headers


def binary(headers: Mapping[str, str], value: Any) -> Event:
    """The event of a request in binary mode: `value` is its body."""
    attributes: dict[str, Any] = {name[3:]: unquote(text) for name, text in headers.items() if name.startswith("ce-")}
    if "content-type" in headers:
        attributes["datacontenttype"] = headers["content-type"]
    _check(attributes)
    return Event(value, attributes)


def structured(body: Any) -> Event:
    """The event that an object of JSON is."""
    if not isinstance(body, dict):
        raise NotAnEvent("a CloudEvent is a JSON object")
    attributes = {name: value for name, value in body.items() if name not in _BODY}
    _check(attributes)
    if "data_base64" in body and "data" in body:
        raise NotAnEvent("a CloudEvent has data or data_base64, not both")
    if "data_base64" not in body:
        return Event(body.get("data"), attributes)
    try:
        base64.b64decode(body["data_base64"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise NotAnEvent("data_base64 is not base64") from None
    return Event(body["data_base64"], attributes)


def batch(body: Any) -> list[Event]:
    """The events of a batch, in order."""
    if not isinstance(body, list):
        raise NotAnEvent("a batch of CloudEvents is a JSON array")
    return [structured(each) for each in body]


def _check(attributes: Mapping[str, Any]) -> None:
    for name in REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise NotAnEvent(f"a CloudEvent needs the attribute {name}, a string")
    if not attributes["specversion"].startswith("1."):
        raise NotAnEvent(f"CloudEvents of version 1.0 are taken, not {attributes['specversion'][:20]}")
