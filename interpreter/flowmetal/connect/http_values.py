"""Request maps into HTTP, and responses into response maps: pure, no I/O.

In: the map that a program gave to `http/request`, `{:method :url :headers :query :json :form :body
:timeout :attempt-timeout :retry :throw …}`; httpx responses. Out: a checked `Request`; the map
`{:status :headers :body :json}`. The one rule: what is wrong with a request is said before anything is sent.
"""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx

from flowmetal.connect.json_text import NotJson, TooDeep, dump_json, parse_json
from flowmetal.errors import LispError
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Set, Vector
from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.lang.secrets import Secret
from flowmetal.lang.values import Keyword, kw
from flowmetal.runtime.connector import Call
from flowmetal.runtime.retries import DEFAULT_ATTEMPTS, RetryPolicy, parse_retry, seconds

ATTEMPT_SECONDS = 60.0
MAX_BODY = 10 * 1024 * 1024
MAX_RESPONSE_DEPTH = 200
MAX_RETRY_AFTER = 86_400.0
_RETRIED_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_TEXT_TYPES = re.compile(r"text/|application/(?:.*\+)?(?:json|xml|javascript|x-www-form-urlencoded|yaml|x-ndjson|graphql)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BODY_KEYS = ("json", "form", "body")


@dataclass(slots=True)
class Request:
    """A request that has been checked. Times are seconds; `timeout` covers everything, None is unlimited."""

    method: str
    url: httpx.URL
    headers: list[tuple[str, str]]
    content: bytes | None
    timeout: float | None
    attempt_timeout: float
    retry: RetryPolicy
    throw: bool
    at_most_once: bool
    follow_redirects: bool
    max_body: int
    public: httpx.URL | None = None
    """The address as others may see it, where the true one holds secrets."""

    @property
    def title(self) -> str:
        """Method and address without query and password, for messages."""
        return f"{self.method} {self.shown_url}"

    @property
    def shown_url(self) -> str:
        """The address without its query, user and password, which may be private."""
        return str((self.public or self.url).copy_with(query=None, fragment=None, username="", password=""))


def build_request(call: Call) -> Request:
    """Checks a call's request map. Raises LispError that says what is wrong."""
    given = call.args[0] if call.args else None
    if not isinstance(given, Map):
        raise LispError("an HTTP request must be a map with :method and :url", type="type")
    options = _Options(given, call.options)
    method = _method(options.get("method"))
    url = _url(options.get("url"), options.get("query"))
    content, content_type = _content(options)
    headers = _headers(options.get("headers"))
    once = options.flag("at-most-once", False)
    _default_header(headers, "Content-Type", content_type)
    _default_header(headers, "Idempotency-Key", options.get("idempotency-key") or call.idempotency_key)
    default = RetryPolicy(max_attempts=DEFAULT_ATTEMPTS if method in _RETRIED_METHODS and not once else 1)
    timeout = options.get("timeout")
    total = None if timeout is None else seconds(timeout, ":timeout", 0.0)
    return Request(
        method=method,
        url=url,
        headers=headers,
        content=content,
        timeout=total,
        attempt_timeout=seconds(options.get("attempt-timeout"), ":attempt-timeout", total or ATTEMPT_SECONDS),
        retry=parse_retry(options.get("retry"), default),
        throw=options.flag("throw", True),
        at_most_once=once,
        follow_redirects=options.flag("follow-redirects", not once),
        max_body=_size(options.get("max-body")),
    )


def decode_body(response: httpx.Response, body: bytes) -> str | bytes:
    """A body of text as a string, any other as bytes."""
    kind = content_type(response)
    if kind and not _TEXT_TYPES.match(kind) and "charset=" not in response.headers.get("content-type", "").lower():
        return body
    try:
        return body.decode(response.charset_encoding or "utf-8")
    except (UnicodeDecodeError, LookupError):
        return body


def parse_body(response: httpx.Response, body: str | bytes) -> Any:
    """The body's JSON as a language value; nil when it is not JSON. A LispError when it is nested too deep."""
    kind = content_type(response)
    declared = kind == "application/json" or kind.endswith("+json") or not kind
    if not isinstance(body, str) or not (declared or body.lstrip()[:1] in ("{", "[")):
        return None
    try:
        return from_plain(parse_json(body, max_depth=MAX_RESPONSE_DEPTH, lenient=True))
    except NotJson:
        return None
    except TooDeep as error:
        raise LispError(f"the response is refused: {error}", type="limit") from None


def content_type(response: httpx.Response) -> str:
    """The media type in lower case without parameters, or the empty string."""
    return str(response.headers.get("content-type", "")).split(";")[0].strip().lower()


def response_value(response: httpx.Response, body: str | bytes, parsed: Any) -> Map:
    """The response map: `:headers` has lower-case keywords as keys, and one string for repeated headers."""
    headers = Map.of((Keyword.of(name), value) for name, value in _merged(response.headers.multi_items()))
    return Map.of([(kw("status"), response.status_code), (kw("headers"), headers), (kw("body"), body), (kw("json"), parsed)])


def failure_data(request: Request, **more: Any) -> Map:
    """The data of an error: the address, the method and what else is known."""
    pairs = [(kw(name), value) for name, value in more.items() if value is not None]
    return Map.of([*pairs, (kw("url"), str(request.public or request.url)), (kw("method"), request.method)])


def retry_after(response: httpx.Response, now: int) -> float:
    """Seconds that the server asks to wait (a number or a date), 0 when it does not; `now` in microseconds."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return 0.0
    if text.isdecimal() and len(text) < 12:
        return min(float(text), MAX_RETRY_AFTER)
    try:
        until = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(0.0, until - now / 1e6), MAX_RETRY_AFTER)


class _Options:
    """A request map over the options of the call: the map's own entries win."""

    def __init__(self, given: Map, options: Map | None) -> None:
        self._maps = (given, options if isinstance(options, Map) else EMPTY_MAP)

    def has(self, name: str) -> bool:
        return any(kw(name) in m for m in self._maps)

    def get(self, name: str) -> Any:
        for m in self._maps:
            if kw(name) in m:
                return m.get(kw(name))
        return None

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        return default if value is None else value is not False


def _method(value: Any) -> str:
    text = "GET" if value is None else value.name if isinstance(value, Keyword) else value
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise LispError(":method must be a keyword such as :get or :post", type="value")
    return text.upper()


def _url(value: Any, query: Any) -> httpx.URL:
    if isinstance(value, Secret):
        value = value.to_plain().replace("#secret", "secret")
    if not isinstance(value, str):
        raise LispError(":url must be a string", type="type")
    try:
        url = httpx.URL(value)
        if url.scheme not in ("http", "https") or not url.host:
            raise LispError(f":url must begin with http:// or https:// and a host: {value[:200]!r}", type="value")
        return url if query is None else url.copy_merge_params(list(_pairs(query, ":query")))
    except httpx.InvalidURL as error:
        raise LispError(f":url is not valid: {error}", type="value") from None


def _content(options: _Options) -> tuple[bytes | None, str | None]:
    """The body to send and its default media type."""
    given = [name for name in _BODY_KEYS if options.has(name)]
    if len(given) > 1:
        raise LispError(f"give only one of :json :form :body, not :{' and :'.join(given)}", type="value")
    if not given:
        return None, None
    value = options.get(given[0])
    if given[0] == "json":
        return dump_json(to_plain(value)[0]).encode(), "application/json"
    if given[0] == "form":
        return urlencode(_pairs(value, ":form")).encode(), "application/x-www-form-urlencoded"
    if value is None:
        return None, None
    if isinstance(value, bytes):
        return value, "application/octet-stream"
    if isinstance(value, str):
        return value.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    raise LispError(":body must be a string or bytes; :json takes any value", type="type")


def _pairs(value: Any, name: str) -> Sequence[tuple[str, str]]:
    """Entries of a map as text; a collection gives its key once for each element, nil gives none."""
    if not isinstance(value, Map):
        raise LispError(f"{name} must be a map", type="type")
    result: list[tuple[str, str]] = []
    for key, item in value.items():
        many = list(item) if isinstance(item, (Vector, List, Set)) else [item]
        result.extend((_text(key), _text(one)) for one in many if one is not None)
    return result


def _headers(value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    headers = list(_pairs(value, ":headers"))
    for name, text in headers:
        if not _TOKEN.fullmatch(name):
            raise LispError(f"{name!r} is not the name of a header", type="value")
        if any(ord(c) > 255 or c in "\r\n\0" for c in text):
            raise LispError(f"the header {name} holds a character that HTTP does not allow", type="value")
    return headers


def _default_header(headers: list[tuple[str, str]], name: str, value: Any) -> None:
    if value and all(given.lower() != name.lower() for given, _ in headers):
        headers.append((name, _text(value)))


def _text(value: Any) -> str:
    """A value as it stands in a query, a form or a header."""
    if isinstance(value, str):
        return value
    if isinstance(value, Keyword):
        return value.text
    plain = to_plain(value)[0]
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _size(value: Any) -> int:
    if value is None:
        return MAX_BODY
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise LispError(":max-body must be a number of bytes", type="value")
    return value


def _merged(items: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    merged: dict[str, str] = {}
    for name, value in items:
        key = name.lower()
        merged[key] = f"{merged[key]}, {value}" if key in merged else value
    return list(merged.items())
