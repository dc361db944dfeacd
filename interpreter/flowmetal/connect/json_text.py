"""JSON from outside, read with its bounds checked before it costs anything.

In: text that anybody may have sent. Out: plain Python values. The one rule: depth, and the digits
of a number, are limited here, so that neither the stack nor the processor can be exhausted.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 64
MAX_DIGITS = 4_300
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


class NotJson(ValueError):
    """The text is not JSON; the message says where."""


class TooDeep(ValueError):
    """The text is nested deeper, or has a number with more digits, than the limit in the message."""


def parse_json(text: str, *, max_depth: int = MAX_DEPTH, lenient: bool = False) -> Any:
    """The value of a JSON text. `lenient` also takes NaN and Infinity, which many servers write."""
    check_depth(text, max_depth)
    try:
        return json.loads(text, parse_int=_bounded_int, parse_constant=float if lenient else _refuse_constant)
    except json.JSONDecodeError as error:
        raise NotJson(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise TooDeep(f"JSON nested deeper than {max_depth} levels") from None


def check_depth(text: str, max_depth: int) -> None:
    """Raises TooDeep when brackets outside strings are nested deeper than `max_depth`."""
    if text.count("[") + text.count("{") <= max_depth:
        return
    depth = 0
    for match in _TOKENS.finditer(text):
        first = match.group()[0]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                raise TooDeep(f"JSON nested deeper than {max_depth} levels")
        elif first in "]}":
            depth -= 1


def dump_json(plain: Any) -> str:
    """Plain values as compact JSON text, valid UTF-8 whatever they hold."""
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode("utf-8")


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise TooDeep(f"a number of more than {MAX_DIGITS} digits; send it as a string")
    return int(digits)


def _refuse_constant(name: str) -> Any:
    raise NotJson(f"not JSON: {name} is no JSON number")
