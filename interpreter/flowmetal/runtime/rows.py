"""Rows of the log as the engine writes and reads them.

A `Draft` holds JSON facts and language values side by side. In a row the values stand as plain JSON
for people, and, where that would lose something, once more in the lossless encoding (`exact`).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang import codec
from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.lang.values import ErrorValue, Keyword, Symbol, kw
from flowmetal.store.protocol import Row

_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_UNSTORABLE = re.compile(r"\\u(?:0000|d[89a-f])")
"""In JSON text: NUL and surrogates. A pair of surrogates is a character like any other, and is looked at in vain."""


@dataclass(slots=True)
class Draft:
    """A row before it is written, or after it was read. `values` are language values by field."""

    kind: str
    step: int | None = None
    fiber: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    at: int = 0
    seq: int = 0
    shown: bool = False
    """Its values are looked at and need not be read back: one that cannot be stored exactly is kept as what people see."""

    @property
    def error(self) -> ErrorValue | None:
        """The error of a failed outcome."""
        value = self.values.get("error")
        return value if isinstance(value, ErrorValue) else None


VALUE_FIELDS = frozenset({"args", "result", "error", "message", "options", "data", "value", "secret"})
"""Fields of `data` that hold language values."""


def plain_error(error: ErrorValue) -> dict[str, Any]:
    """An error as outsiders see it."""
    return {"type": error.type.text.lstrip(":"), "message": error.message, "data": to_plain(error.data, truncate=True)[0]}


def to_row(flow_id: str, pin: int, draft: Draft) -> Row:
    """The row of a draft; raises LispError where a value cannot be stored."""
    data = dict(draft.facts)
    exact: dict[str, str] = {}
    for name, value in draft.values.items():
        if name == "secret":
            exact[name] = codec.encode_value(value, flow_id, pin)
            continue
        if isinstance(value, ErrorValue) and name == "error":
            data[name], faithful = plain_error(value), False
        else:
            data[name], faithful = to_plain(value, truncate=True)
        if not faithful:
            try:
                exact[name] = codec.encode_value(value, flow_id, pin)
            except LispError:
                if not draft.shown:
                    raise
    text = _json(data)
    if _UNSTORABLE.search(text):
        text = _json(clean(data))
    return Row(flow_id, draft.kind, text, draft.at, draft.step, draft.fiber, _json(exact) if exact else None, draft.key, draft.seq)


def clean(x: Any) -> Any:
    """JSON facts without what some databases cannot store in a text: NUL and lone surrogates."""
    if isinstance(x, str):
        return to_plain(x)[0]
    if isinstance(x, dict):
        return {k: clean(v) for k, v in x.items()}
    return [clean(v) for v in x] if isinstance(x, list) else x


def to_draft(row: Row, load: codec.CodeLoader) -> Draft:
    """The draft of a row: its values decoded."""
    data = json.loads(row.data)
    exact = json.loads(row.exact) if row.exact else {}
    values = {name: codec.decode(text, load) for name, text in exact.items()}
    facts: dict[str, Any] = {}
    for name, plain in data.items():
        if name in VALUE_FIELDS:
            if name not in values:
                values[name] = error_from_plain(plain) if name == "error" else from_plain(plain)
        else:
            facts[name] = plain
    return Draft(row.kind, row.step, row.fiber, facts, values, row.key, row.at, row.seq)


def error_from_plain(plain: Any) -> ErrorValue:
    """The error value of an outcome that came from outside."""
    plain = plain if isinstance(plain, dict) else {"message": str(plain)}
    data = from_plain(plain.get("data"))
    return ErrorValue(kw(str(plain.get("type") or "user")), str(plain.get("message") or ""), data if hasattr(data, "assoc") else None)


def carried(value: Any, flow_id: str, pin: int, load: codec.CodeLoader) -> Any:
    """A value of one flow as it reaches another: the same, where it is plain data, else made anew from its encoding, so
    that promises are references to their flow, functions know their definitions, and nothing is shared that may change."""
    if not isinstance(value, ErrorValue) and to_plain(value, truncate=True)[1]:
        return value
    return codec.decode(codec.encode_value(value, flow_id, pin), load)


def request_hash(op: str, target: str, args: Any, flow_id: str, *, known_as: str | None = None) -> str:
    """What re-execution compares: the operation, its target and its arguments. Raises LispError where these cannot be stored.

    `known_as` is the flow that asked the same, as which `flow_id` stands here: a fork's original."""
    plain, faithful = to_plain(args, truncate=True)
    text = f"{op}\n{target}\n{_json(plain) if faithful else codec.encode_question(args, flow_id)}"
    if known_as is not None:
        text = text.replace(flow_id, known_as)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def plain_name(x: Any) -> str:
    """The name that an option gives as a keyword, a symbol or a string."""
    return x.text if isinstance(x, (Keyword, Symbol)) else str(x)
