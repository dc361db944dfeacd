"""Values to the plain JSON that outsiders see, and plain JSON to values.

What goes in: a value, or what `json.loads` gives. What comes out: dicts, lists, strings, numbers,
and whether reading them back gives an equal value of the same kinds; or maps with keyword keys and
vectors. The one rule: bounded by count and depth, so that any JSON library can write the result.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from flowmetal.errors import LispError
from flowmetal.lang.lists import List
from flowmetal.lang.maps import Map, Set
from flowmetal.lang.printer import display_str, pr_str
from flowmetal.lang.structure import Structure
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, Regex, Symbol, kw
from flowmetal.lang.vectors import Vector

MAX_NODES: Final = 1_000_000
MAX_DEPTH: Final = 200
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class _Walk:
    """One conversion: what is left of the budget, and whether it was faithful so far."""

    __slots__ = ("budget", "faithful", "truncate")

    def __init__(self, truncate: bool) -> None:
        self.budget = MAX_NODES
        self.faithful = True
        self.truncate = truncate

    def value(self, x: Any, depth: int) -> Any:
        t = type(x)
        if t is str:
            return self.text(x)
        if x is None or t is bool or t is int:
            return x
        if t is float:
            return self.float(x)
        if isinstance(x, Structure):
            return self.structure(x, depth)
        self.faithful = False
        if t in _NUMBERS:
            return _NUMBERS[t](x)
        if t in _TEXTS:
            return _clean(_TEXTS[t](x))
        own = getattr(x, "to_plain", None)
        return _clean(display_str(x)) if own is None else own()

    def text(self, x: str) -> str:
        clean = _clean(x)
        if clean is not x:
            self.faithful = False
        return clean

    def float(self, x: float) -> Any:
        if math.isfinite(x):
            return x
        self.faithful = False
        return display_str(x)

    def structure(self, x: Structure, depth: int) -> Any:
        self.budget -= len(x) + 1
        if self.budget < 0 or depth >= MAX_DEPTH:
            self.faithful = False
            if self.truncate:
                return "…"
            limit = f"{MAX_NODES} parts" if self.budget < 0 else f"{MAX_DEPTH} levels"
            raise LispError(f"a value of more than {limit} cannot be given to the outside", type="limit")
        if x.meta is not None:
            self.faithful = False
        if isinstance(x, Map):
            self.faithful = self.faithful and type(x) is Map
            return self.map(x, depth + 1)
        if type(x) is Vector:
            return [self.value(y, depth + 1) for y in x]
        self.faithful = False
        if isinstance(x, (List, Set)):
            return [self.value(y, depth + 1) for y in x]
        return self.error(x, depth + 1)

    def map(self, x: Map, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for k, v in x.items():
            name = self.key(k)
            if name in out:
                self.faithful = False
                name = _clean(pr_str(k))
            out[name] = self.value(v, depth)
        return out

    def key(self, k: Any) -> str:
        if type(k) is Keyword:
            text = k.text
            if kw(text) is k:
                return self.text(text)
        self.faithful = False
        return _clean(k if type(k) is str else k.text if type(k) in (Keyword, Symbol) else pr_str(k))

    def error(self, x: Any, depth: int) -> dict[str, Any]:
        assert isinstance(x, ErrorValue)
        out = {"type": x.type.text, "message": _clean(x.message), "data": self.value(x.data, depth)}
        return out if x.cause is None else {**out, "cause": self.value(x.cause, depth)}


def _clean(x: str) -> str:
    """Without what some databases cannot store: NUL and lone surrogates."""
    return _UNSTORABLE.sub("\ufffd", x) if _UNSTORABLE.search(x) else x


def _decimal(x: Decimal) -> Any:
    number = float(x)
    if not math.isfinite(number):
        return str(x)
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number


_TEXTS: Final[dict[type, Callable[[Any], str]]] = {
    Keyword: lambda x: x.text,
    Symbol: lambda x: x.text,
    Instant: lambda x: x.format(),
    UUID: str,
    Regex: lambda x: x.pattern,
    bytes: lambda x: base64.b64encode(x).decode("ascii"),
}
_NUMBERS: Final[dict[type, Callable[[Any], Any]]] = {Duration: lambda x: x.seconds, Decimal: _decimal}


def to_plain(x: Any, *, truncate: bool = False) -> tuple[Any, bool]:
    """The plain JSON of a value, and whether `from_plain` of it is an equal value of the same kinds.

    Too deep or too large is a `:limit` error; with `truncate`, what is too much becomes `"…"`.
    """
    walk = _Walk(truncate)
    return walk.value(x, 0), walk.faithful


def from_plain(data: Any) -> Any:
    """The value of plain JSON: objects are maps with keyword keys, arrays vectors."""
    return _from(data, 0)


def _from(data: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise LispError(f"JSON of more than {MAX_DEPTH} levels is not accepted", type="limit")
    if isinstance(data, dict):
        return Map.of([(kw(k), _from(v, depth + 1)) for k, v in data.items()])
    if isinstance(data, (list, tuple)):
        return Vector.of([_from(v, depth + 1) for v in data])
    return data
