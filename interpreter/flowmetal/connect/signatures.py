"""Signatures of webhooks: Standard Webhooks, GitHub, Stripe, and a plain HMAC.

In: a scheme's options, the secret, headers and the body as it came. Out: nothing, or `BadSignature`. The
one rule: signatures are compared in constant time, and an old time stamp is refused like a wrong signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TOLERANCE = 300.0
"""Seconds that a signed time may lie in the past or in the future."""
ALGORITHMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha512": hashlib.sha512}


class BadSignature(Exception):
    """The body was not signed with the secret, or not recently; the message says what is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a topic's webhooks are signed. `header`, `algorithm`, `encoding` and `prefix` are for `hmac`; `tolerance` is in seconds."""

    name: str
    header: str = "x-signature"
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""
    tolerance: float = TOLERANCE


def verify(scheme: Scheme, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raises BadSignature unless `body` carries the scheme's signature. Names of `headers` are in lower case; `now` in seconds."""
    rule = SCHEMES.get(scheme.name)
    if rule is None:
        raise BadSignature(f"the topic is declared with a scheme that is not known: {scheme.name}; known are {', '.join(SCHEMES)}")
    rule(scheme, secret, headers, body, now)


def _standard_webhooks(scheme: Scheme, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    message_id, stamp = _header(headers, "webhook-id"), _header(headers, "webhook-timestamp")
    _check_time(stamp, scheme, now)
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = secret.encode()
    expected = base64.b64encode(hmac.digest(key, f"{message_id}.{stamp}.".encode() + body, "sha256")).decode()
    given = [part.partition(",")[2] for part in _header(headers, "webhook-signature").split() if part.startswith("v1,")]
    _check(expected, given)


def _github(scheme: Scheme, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    given = _header(headers, "x-hub-signature-256")
    _check(f"sha256={hmac.new(secret.encode(), body, 'sha256').hexdigest()}", [given])


def _stripe(scheme: Scheme, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    parts = [part.partition("=")[::2] for part in _header(headers, "stripe-signature").split(",")]
    stamp = next((value for name, value in parts if name.strip() == "t"), "")
    _check_time(stamp, scheme, now)
    expected = hmac.new(secret.encode(), stamp.encode() + b"." + body, "sha256").hexdigest()
    _check(expected, [value for name, value in parts if name.strip() == "v1"])


def _hmac(scheme: Scheme, secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    given = _header(headers, scheme.header.lower()).removeprefix(scheme.prefix)
    digest = hmac.new(secret.encode(), body, scheme.algorithm)
    _check(digest.hexdigest() if scheme.encoding == "hex" else base64.b64encode(digest.digest()).decode(), [given])


SCHEMES: dict[str, Callable[[Scheme, str, Mapping[str, str], bytes, float], None]] = {
    "standard-webhooks": _standard_webhooks, "github": _github, "stripe": _stripe, "hmac": _hmac,
}  # fmt: skip


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "").strip()
    if not value:
        raise BadSignature(f"the header {name} is missing")
    return value


def _check_time(stamp: str, scheme: Scheme, now: float) -> None:
    if not stamp.isdecimal() or len(stamp) > 15 or abs(now - int(stamp)) > scheme.tolerance:
        raise BadSignature(f"the signed time is more than {scheme.tolerance:g} s from now")


def _check(expected: str, given: list[str]) -> None:
    if not any(hmac.compare_digest(expected.encode(), each.encode("utf-8", "replace")) for each in given):
        raise BadSignature("the signature does not fit the body and the secret")
