"""Values to text.

What goes in: any value. What comes out: `pr_str`, which reads back as an equal value (a function
prints as `#fn[name hash]`); `display_str`, what `str` gives of one value; `print_str`, what `print`
shows. The one rule: nesting costs heap, not stack, and the whole is bounded by a count.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from flowmetal.errors import LispError
from flowmetal.lang.lists import Cons, Link, Seq
from flowmetal.lang.maps import Map, Set
from flowmetal.lang.sorted import SortedMap, SortedSet
from flowmetal.lang.structure import Structure
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, Regex, Symbol, kw
from flowmetal.lang.vectors import Vector

MAX_PARTS: Final = 2_000_000
"""How many elements one text may have: a small value that shares its parts can be a huge text."""

_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\f": "\\f", "\b": "\\b"}
_ESCAPED: Final = re.compile('["\\\\\n\t\r\f\b\ud800-\udfff]')
_REGEX_PART: Final = re.compile(r'\\.|"', re.DOTALL)
_ERROR_KEYS: Final = tuple(map(kw, ("type", "message", "data", "cause")))


def quote_string(s: str) -> str:
    """A string as a literal."""
    return f'"{_ESCAPED.sub(_escape, s)}"'


def _escape(m: re.Match[str]) -> str:
    return _ESCAPES.get(m[0]) or f"\\u{ord(m[0]):04x}"


def float_str(x: float) -> str:
    """The shortest digits that read back, always with a point or an exponent: `1.0`, `1e+21`, `1e-7`."""
    text = repr(x)
    if "e" not in text:
        return text if text[-1].isdigit() and text != "nan" else _UNUSUAL.get(text, text)
    digits, exponent = text.split("e")
    power = int(exponent)
    if 0 < power < 21:
        return f"{Decimal(text):f}.0"
    if -7 < power < 0:
        return f"{Decimal(text):f}"
    return f"{digits}e{power:+d}"


_UNUSUAL: Final = {"inf": "##Inf", "-inf": "##-Inf", "nan": "##NaN"}


def _regex_str(x: Regex) -> str:
    return f'#"{_REGEX_PART.sub(lambda m: m[0] if m[0] != chr(34) else chr(92) + chr(34), x.pattern)}"'


_ATOMS: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda x: "nil",
    bool: lambda x: "true" if x else "false",
    int: str,
    float: float_str,
    Decimal: lambda x: f"{x}M",
    str: quote_string,
    Keyword: lambda x: ":" + x.text,
    Symbol: lambda x: x.text,
    bytes: lambda x: f'#b64 "{base64.b64encode(x).decode("ascii")}"',
    UUID: lambda x: f'#uuid "{x}"',
    Instant: lambda x: f'#inst "{x.literal()}"',
    Duration: lambda x: f'#dur "{x.format()}"',
    Regex: _regex_str,
}
_PLAIN_ATOMS: Final = {**_ATOMS, str: lambda x: x}
_DISPLAYED: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda x: "",
    str: lambda x: x,
    float: lambda x: {"##Inf": "Infinity", "##-Inf": "-Infinity", "##NaN": "NaN"}.get(t := float_str(x), t),
    Decimal: str,
    UUID: str,
    Instant: lambda x: x.format(),
    Duration: lambda x: x.format(),
    Regex: lambda x: x.pattern,
}
_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    Vector: ("[", "]"), Cons: ("(", ")"), Link: ("(", ")"), Seq: ("(", ")"), Set: ("#{", "}"), Map: ("{", "}"),
    SortedSet: ("#{", "}"), SortedMap: ("{", "}"),
    ErrorValue: ("#error {", "}"),
}  # fmt: skip


def pr_str(x: Any) -> str:
    """The text that reads back as `x`."""
    return _print(x, _ATOMS)


def print_str(x: Any) -> str:
    """The text for people: strings without quotes, inside collections too."""
    return _print(x, _PLAIN_ATOMS)


def display_str(x: Any) -> str:
    """What `str` gives of one value: nil is empty, a string is itself; inside collections as `pr_str`."""
    show = _DISPLAYED.get(type(x))
    return show(x) if show is not None else _print(x, _ATOMS)


def _print(x: Any, atoms: dict[type, Callable[[Any], str]]) -> str:
    show = atoms.get(type(x))
    if show is not None:
        return show(x)
    try:
        return "".join(_pieces(x, atoms))
    except RecursionError:
        raise LispError("an atom that holds itself, or too many levels of atoms, cannot be printed", type="limit") from None


def _pieces(root: Any, atoms: dict[type, Callable[[Any], str]]) -> list[str]:
    out: list[str] = []
    levels: list[tuple[Iterator[Any], str]] = [(iter((root,)), "")]
    budget = MAX_PARTS
    while levels:
        elements, end = levels[-1]
        for x in elements:
            show = atoms.get(type(x))
            if show is not None:
                out.append(show(x))
            elif isinstance(x, Structure):
                begin, close = _BRACKETS[type(x)]
                budget -= len(x) + 1
                if budget < 0:
                    raise LispError(f"a value of more than {MAX_PARTS} parts cannot be printed", type="limit")
                out.append(begin)
                levels.append((_elements(x, out), close))
                break
            else:
                out.append(_other(x))
        else:
            out.append(end)
            levels.pop()
    return out


def _elements(x: Structure, out: list[str]) -> Iterator[Any]:
    """The parts of a structure; writes what stands between two of them when the next is asked for."""
    if isinstance(x, (Map, ErrorValue)):
        entries = x._entries() if isinstance(x, Map) else _error_entries(x)
        return _spaced_entries(entries, out)
    return _spaced(x._parts(), out)


def _spaced(parts: Any, out: list[str]) -> Iterator[Any]:
    first = True
    for part in parts:
        if first:
            first = False
        else:
            out.append(" ")
        yield part


def _spaced_entries(entries: Any, out: list[str]) -> Iterator[Any]:
    first = True
    for k, v in entries:
        if first:
            first = False
        else:
            out.append(", ")
        yield k
        out.append(" ")
        yield v


def _error_entries(x: Any) -> Iterator[tuple[Any, Any]]:
    for key, part in zip(_ERROR_KEYS, x._parts(), strict=True):
        if part is not None:
            yield key, part


def _other(x: Any) -> str:
    """Functions, promises, handles, atoms: they say themselves how they print."""
    described = getattr(x, "flowmetal_repr", None)
    return f"#object[{type(x).__name__}]" if described is None else str(described())
