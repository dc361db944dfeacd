"""Tagged literals: what `#inst "…"` and the like stand for.

What goes in: a tag's name and the form after it. What comes out: a value. The one rule: a tag makes
data and runs nothing; an unknown one is an error.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from flowmetal.errors import LispError
from flowmetal.lang.maps import Map
from flowmetal.lang.tokens import BadToken
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, kw

_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def parse_uuid(text: str) -> UUID | None:
    """A UUID of the form 8-4-4-4-12, or None."""
    return UUID(text) if _UUID.fullmatch(text) else None


def _uuid(text: str) -> UUID:
    found = parse_uuid(text)
    if found is None:
        raise BadToken(f"{text!r} is not a UUID")
    return found


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as e:
        raise BadToken(f"#b64 needs base64: {e}") from None


_OF_STRINGS: Final[dict[str, Callable[[str], Any]]] = {
    "inst": Instant.parse,
    "dur": Duration.parse,
    "uuid": _uuid,
    "b64": _bytes,
}


def read_tagged(tag: str, form: Any, unknown: Callable[[str, Any], Any] | None = None) -> Any:
    """The value of `#tag form`; of a tag that is not known here, what `unknown` gives."""
    if tag == "error":
        return _error(form)
    make = _OF_STRINGS.get(tag)
    if make is None and unknown is not None:
        return unknown(tag, form)
    if make is None:
        known = " ".join(f"#{name}" for name in _OF_STRINGS)
        raise BadToken(f"unknown tag #{tag}; known are {known}")
    if type(form) is not str:
        raise BadToken(f"#{tag} needs a string")
    try:
        return make(form)
    except LispError as e:
        raise BadToken(e.message) from None


def _error(form: Any) -> ErrorValue:
    type_, message, data, cause = (form.get(kw(k)) for k in ("type", "message", "data", "cause")) if isinstance(form, Map) else (None,) * 4
    if not isinstance(type_, Keyword) or not isinstance(message, str):
        raise BadToken("#error needs a map with a keyword :type and a string :message")
    if not (data is None or isinstance(data, Map)) or not (cause is None or isinstance(cause, ErrorValue)):
        raise BadToken("#error needs a map as :data and an #error as :cause")
    return ErrorValue(type_, message, data, cause)
