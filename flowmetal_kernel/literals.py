"""Python data to Lisp source: how a value of `%%python` or a result of `%%sql` gets a name in Flowmetal.

Plain data goes in, text that the reader reads back as that data comes out. The one rule: what is not data is refused with
the path to it, never turned into its `repr`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

MAX_DEPTH = 200
_KEYWORD = re.compile(r"[A-Za-z*!_?<>=.+-][\w*!?<>=.+-]*(/[A-Za-z*!_?<>=.+-][\w*!?<>=.+-]*)?")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class NotData(ValueError):
    """A value that has no Lisp literal; its message says which one and where."""


def lisp_literal(value: Any, path: str = "the value", depth: int = 0) -> str:
    """The literal of a Python value: dict → map with keyword keys, list and tuple → vector, set → set."""
    if depth > MAX_DEPTH:
        raise NotData(f"{path} is nested deeper than {MAX_DEPTH} levels")
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(c, c) for c in value) + '"'
    if isinstance(value, Mapping):
        pairs = (f"{_key(k, path, depth)} {lisp_literal(v, f'{path}[{k!r}]', depth + 1)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(lisp_literal(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "#{" + " ".join(sorted(lisp_literal(v, path, depth + 1) for v in value)) + "}"
    return _scalar(value, path)


def _scalar(value: Any, path: str) -> str:
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        if math.isfinite(value):
            return repr(float(value))
        return "##NaN" if math.isnan(value) else "##Inf" if value > 0 else "##-Inf"
    if isinstance(value, Decimal):
        return f"{value}M"
    if isinstance(value, UUID):
        return f'#uuid "{value}"'
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return f'#inst "{moment.astimezone(UTC).isoformat().replace("+00:00", "Z")}"'
    raise NotData(f"{path} is a Python {type(value).__name__}: only data (numbers, text, lists, dicts …) has a Lisp literal")


def _key(key: Any, path: str, depth: int) -> str:
    if isinstance(key, str) and _KEYWORD.fullmatch(key):
        return ":" + key
    return lisp_literal(key, f"a key of {path}", depth + 1)
