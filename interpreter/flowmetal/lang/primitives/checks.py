"""What the primitives ask of their arguments, and the errors that say what was wrong.

What goes in: the name of the function that asks and the value it was given. What comes out: the
value, or a LispError that names function, expectation and value. The one rule: no leniency; a value
of another kind is never converted.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from flowmetal.errors import LispError
from flowmetal.lang.equality import kind_name
from flowmetal.lang.printer import pr_str
from flowmetal.lang.secrets import Secret, used
from flowmetal.lang.values import Duration, Instant

NUMBERS: Final = frozenset({int, float, Decimal})
SMALL_KINDS: Final = NUMBERS | {str, bool, Duration, Instant, UUID}
LIMIT: Final = 10_000_000
"""The greatest number of elements or characters that one primitive makes."""


_FAR: Final = 1 << 60
"""More elements than there can be."""


def shown(x: Any) -> str:
    """`nil`, `the string "a"`, `the keyword :a`, `a vector`: how messages name a value."""
    if x is None:
        return "nil"
    if type(x) is Secret:
        return x.to_plain()[:80]
    words = kind_name(x)
    text = pr_str(x) if type(x) in SMALL_KINDS or words in ("a keyword", "a symbol") else ""
    if not text or len(text) > 60:
        return words
    return f"the {words.removeprefix('an ').removeprefix('a ')} {text}"


def wrong(who: str, needs: str, x: Any) -> LispError:
    """The error of an argument of the wrong kind."""
    if type(x) is Secret:
        return used(who, x)
    return LispError(f"{who} needs {needs}, but was given {shown(x)}", type="type")


def bad(message: str) -> LispError:
    """The error of an argument of the right kind with a value that makes no sense."""
    return LispError(message, type="value")


def too_large(who: str) -> LispError:
    """The error of a result over the limit."""
    return LispError(f"{who} would make more than {LIMIT} elements", type="limit")


def number(who: str, x: Any) -> Any:
    """`x`, which must be a number; booleans are none."""
    if type(x) not in NUMBERS:
        raise wrong(who, "a number", x)
    return x


def integer(who: str, x: Any) -> int:
    """`x`, which must be an integer."""
    if type(x) is not int:
        raise wrong(who, "an integer", x)
    return x


def count_of(who: str, x: Any) -> int:
    """A number of elements: an integer, or a float rounded up, as Clojure's `take` counts."""
    if type(x) is int:
        return x if -_FAR < x < _FAR else _FAR if x > 0 else -_FAR
    if type(x) in NUMBERS and x == x and abs(x) < 1e18:
        return -int(-x // 1)
    raise wrong(who, "a number", x)


def integer_of(who: str, x: Any) -> int:
    """An integer, or another number cut toward zero, as Clojure casts an index; NaN is 0."""
    if type(x) is int:
        return x
    if type(x) not in NUMBERS:
        raise wrong(who, "a number", x)
    if x != x:
        return 0
    if abs(x) > 1e18:
        raise LispError(f"{who}: {x} is out of range", type="index")
    return int(x)


def text(who: str, x: Any) -> str:
    """`x`, which must be a string."""
    if type(x) is not str:
        raise wrong(who, "a string", x)
    return x
