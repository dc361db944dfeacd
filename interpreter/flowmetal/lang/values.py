"""The values of the language that Python does not have: names, times, regexes, errors.

What goes in: their parts. What comes out: immutable values. nil, booleans, integers, floats,
strings, decimals, UUIDs and bytes are Python's own. The one rule: two keywords with one name are
one object, so a keyword is compared by identity.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError
from flowmetal.lang.structure import RECORD, Structure
from flowmetal.lang.times import Duration, Instant

if TYPE_CHECKING:
    from flowmetal.lang.maps import Map
    from flowmetal.lang.spans import Span


def split_name(text: str) -> tuple[str | None, str]:
    """`ns/name` into its two parts: the namespace ends at the first slash; `/` alone is a name."""
    at = text.find("/")
    return (None, text) if at <= 0 else (text[:at], text[at + 1 :])


class Keyword:
    """A keyword. Interned: make one with `Keyword.of`, `keyword` or `kw`, never directly."""

    __slots__ = ("__weakref__", "name", "ns")

    def __init__(self, ns: str | None, name: str) -> None:
        self.ns = ns
        self.name = name

    @staticmethod
    def of(text: str) -> Keyword:
        """From its text without the colon."""
        return kw(text)

    @property
    def text(self) -> str:
        """`name` or `ns/name`, without the colon."""
        return self.name if self.ns is None else f"{self.ns}/{self.name}"

    def __repr__(self) -> str:
        return f":{self.text}"

    def __reduce__(self) -> tuple[Any, ...]:
        return keyword, (self.ns, self.name)


_KEYWORDS: weakref.WeakValueDictionary[tuple[str | None, str], Keyword] = weakref.WeakValueDictionary()
_KEYWORDS_LOCK = threading.Lock()


def keyword(ns: str | None, name: str) -> Keyword:
    """The one keyword of that namespace and name."""
    found = _KEYWORDS.get((ns, name))
    if found is None:
        with _KEYWORDS_LOCK:
            found = _KEYWORDS.setdefault((ns, name), Keyword(ns, name))
    return found


@lru_cache(maxsize=16_384)
def kw(text: str) -> Keyword:
    """The one keyword with that text, `a` or `ns/a`."""
    return keyword(*split_name(text))


class Symbol:
    """A symbol; equal to any other of the same namespace and name."""

    __slots__ = ("meta", "name", "ns", "span")

    def __init__(self, ns: str | None, name: str, meta: Map | None = None, span: Span | None = None) -> None:
        self.ns = ns
        self.name = name
        self.meta = meta
        self.span = span

    @property
    def text(self) -> str:
        """`name` or `ns/name`."""
        return self.name if self.ns is None else f"{self.ns}/{self.name}"

    def with_meta(self, meta: Map | None) -> Symbol:
        """The same symbol with other metadata."""
        return Symbol(self.ns, self.name, meta, self.span)

    def __repr__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return type(other) is Symbol and self.name == other.name and self.ns == other.ns

    def __hash__(self) -> int:
        return hash((self.ns, self.name))


def sym(text: str) -> Symbol:
    """The symbol with that text, `a` or `ns/a`."""
    return Symbol(*split_name(text))


_QUOTE_PAIR = re.compile(r"\\(.)", re.DOTALL)


_HALF_PAIR = re.compile("[\ud800-\udfff]")
_NOT_LINEAR = re.compile(r"perl operator|escape sequence: \\[1-9]")
_LINEAR = "Patterns run in linear time: there is no look-around and there are no back-references."


class Regex:
    """A regular expression, matched in linear time; compiled when it is first used."""

    __slots__ = ("_compiled", "pattern")

    def __init__(self, pattern: str) -> None:
        # `\"` and `"` are one pattern: keeping the second makes printing and reading inverse.
        self.pattern = _QUOTE_PAIR.sub(lambda m: '"' if m[1] == '"' else m[0], pattern) if '\\"' in pattern else pattern
        self._compiled: Any = None

    @property
    def compiled(self) -> Any:
        """The compiled pattern; a pattern that RE2 refuses is a `:value` error."""
        if self._compiled is None:
            import re2

            options = re2.Options()
            options.log_errors = False
            if _HALF_PAIR.search(self.pattern):
                raise LispError("bad regular expression: half of a surrogate pair is no letter", type="value")
            try:
                self._compiled = re2.compile(self.pattern, options=options)
            except re2.error as e:
                reason = e.args[0].decode("utf-8", "replace") if e.args and isinstance(e.args[0], bytes) else str(e)
                raise LispError(
                    f"bad regular expression: {reason}",
                    type="value",
                    hint=_LINEAR if _NOT_LINEAR.search(reason) else None,
                ) from None
        return self._compiled

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is Regex and self.pattern == other.pattern

    def __hash__(self) -> int:
        return hash((Regex, self.pattern))


class ErrorValue(Structure):
    """What `catch` binds and `ex-info` makes: an error as data.

    `trace` is a tuple of frames (function, span or None), innermost first; like `span` it does not
    count in equality.
    """

    __slots__ = ("cause", "data", "message", "trace", "type")
    kind = RECORD

    def __init__(
        self,
        type: Keyword,
        message: str,
        data: Map | None = None,
        cause: ErrorValue | None = None,
        span: Span | None = None,
        trace: tuple[Any, ...] = (),
    ) -> None:
        self.type = type
        self.message = message
        self.data = data
        self.cause = cause
        self.span = span
        self.trace = trace
        self.meta = None
        self._hash = None

    def _parts(self) -> Iterable[Any]:
        return (self.type, self.message, self.data, self.cause)

    def __len__(self) -> int:
        return 4

    def __repr__(self) -> str:
        return f"ErrorValue({self.type!r}, {self.message!r})"


class Var:
    """A global name as a value; prints as `#'ns/name`."""

    __slots__ = ("name", "ns")

    def __init__(self, ns: str, name: str) -> None:
        self.ns = ns
        self.name = name

    def flowmetal_repr(self) -> str:
        """`#'ns/name`."""
        return f"#'{self.ns}/{self.name}"

    def __repr__(self) -> str:
        return self.flowmetal_repr()

    def __eq__(self, other: object) -> bool:
        return type(other) is Var and (self.ns, self.name) == (other.ns, other.name)

    def __hash__(self) -> int:
        return hash((Var, self.ns, self.name))


__all__ = [
    "Duration",
    "ErrorValue",
    "Instant",
    "Keyword",
    "Regex",
    "Symbol",
    "Var",
    "keyword",
    "kw",
    "split_name",
    "sym",
]
