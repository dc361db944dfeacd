"""How a flow is begun from outside, besides its arguments: the options of `start-with`, as plain JSON.

In: `{"queue", "priority", "at", "tags", "timeout", "on_failure"}`, as HTTP, Python and the command line give them. Out: the options
as the language has them. The one rule: what is wrong is said in the words of `start-with`, before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.flow_ops import check_start_options
from flowmetal.lang.persistent import Map
from flowmetal.lang.plain import from_plain
from flowmetal.lang.values import Duration, Instant, Keyword, kw

NAMES = ("queue", "priority", "at", "tags", "timeout", "on_failure")


def start_options(plain: Mapping[str, Any]) -> Map:
    """The options of `start-with`; raises LispError for what they cannot be. Durations are numbers of
    seconds, or text such as `1h30m`; `at` is one from now, or a time in ISO 8601."""
    found: list[tuple[Keyword, Any]] = []
    for name, value in plain.items():
        if name not in NAMES:
            raise LispError(f"a flow cannot be started with {name}: it has {' '.join(NAMES)}", type="value")
        if value is not None:
            found.append((kw(name.replace("_", "-")), _READ.get(name, from_plain)(value)))
    options = Map.of(found)
    check_start_options(options)
    return options


def moved_by(x: Any) -> int:
    """The microseconds of a duration as outsiders give it: seconds, or text such as `1h30m`. Raises LispError."""
    found: Duration = _duration(x)
    return found.micros


def _duration(x: Any) -> Any:
    if isinstance(x, str):
        return Duration.parse(x)
    if type(x) not in (int, float) or not 0 <= x < 1e10:
        raise LispError(f"a duration must be seconds, or a duration such as 1h30m, but is {str(x)[:80]!r}", type="value")
    return Duration(round(x * 1e6))


def _moment(x: Any) -> Any:
    if isinstance(x, str):
        return Instant.parse(x) if x[:4].isdecimal() and "-" in x else Duration.parse(x)
    if type(x) not in (int, float) or not 0 <= x < 1e10:
        raise LispError(f"the at of a flow must be a time such as 2026-01-31T09:00:00Z, or seconds from now, but is {str(x)[:80]!r}", type="value")
    return Duration(round(x * 1e6))


_READ: dict[str, Callable[[Any], Any]] = {"timeout": _duration, "at": _moment, "on_failure": lambda x: kw(x) if isinstance(x, str) else x}
