"""The namespace `time`: instants and durations.

What goes in: instants and durations. What comes out: the same. The one rule: nothing here reads a
clock; `(now)` does, and is recorded. `time/format` and `time/parse` take Java's pattern letters.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from flowmetal.lang.maps import Map
from flowmetal.lang.primitives.checks import NUMBERS, bad, number, shown, text, wrong
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.values import Duration, Instant, Keyword, kw

_UNITS: Final = {
    "weeks": 604_800_000_000, "days": 86_400_000_000, "hours": 3_600_000_000, "minutes": 60_000_000, "seconds": 1_000_000, "millis": 1_000, "micros": 1,
}  # fmt: skip


def _time(who: str, x: Any) -> Instant:
    if type(x) is not Instant:
        raise wrong(who, "an instant", x)
    return x


def _duration(who: str, x: Any) -> Duration:
    if type(x) is not Duration:
        raise wrong(who, "a duration", x)
    return x


@primitive("time", "plus", "([t & durations])", "An instant or duration with durations added.", '(time/plus #dur "1h" #dur "30m") ;=> #dur "1h30m"')
def plus(t: Any, *durations: Any) -> Any:
    """`time/plus`."""
    if type(t) is Duration and len(durations) == 1 and type(durations[0]) is Instant:
        t, durations = durations[0], (t,)
    if type(t) not in (Instant, Duration):
        raise wrong("time/plus", "an instant or a duration", t)
    return type(t)(t.micros + sum(_duration("time/plus", d).micros for d in durations))


@primitive(
    "time",
    "minus",
    "([t & durations])",
    "An instant or duration less durations; the duration between two instants.",
    '(time/minus #dur "1h" #dur "30m") ;=> #dur "30m"',
)
def minus(t: Any, *durations: Any) -> Any:
    """`time/minus`."""
    if type(t) is Instant and len(durations) == 1 and type(durations[0]) is Instant:
        return Duration(t.micros - durations[0].micros)
    if type(t) not in (Instant, Duration):
        raise wrong("time/minus", "an instant or a duration", t)
    if type(t) is Duration and not durations:
        return Duration(-t.micros)
    return type(t)(t.micros - sum(_duration("time/minus", d).micros for d in durations))


@primitive("time", "between", "([from to])", "The duration from one instant to another.", '(time/between #inst "2026-01-01" #inst "2026-01-02") ;=> #dur "1d"')
def between(start: Any, end: Any) -> Duration:
    """`time/between`."""
    return Duration(_time("time/between", end).micros - _time("time/between", start).micros)


@primitive("time", "times", "([duration n])", "A duration n times.", '(time/times #dur "10m" 3) ;=> #dur "30m"')
def times(d: Any, n: Any) -> Duration:
    """`time/times`."""
    return Duration(round(_duration("time/times", d).micros * number("time/times", n)))


@primitive("time", "seconds", "([duration])", "A duration's length in seconds.", '(time/seconds #dur "1m30s") ;=> 90')
def seconds(d: Any) -> int | float:
    """`time/seconds`."""
    return _duration("time/seconds", d).seconds


@primitive(
    "time", "millis", "([duration-or-instant])", "A duration's length, or an instant's distance from 1970, in milliseconds.", '(time/millis #dur "2s") ;=> 2000'
)
def millis(x: Any) -> int | float:
    """`time/millis`."""
    if type(x) not in (Instant, Duration):
        raise wrong("time/millis", "a duration or an instant", x)
    return x.micros // 1000 if x.micros % 1000 == 0 else x.micros / 1000  # type: ignore[no-any-return]


@primitive(
    "time",
    "duration",
    "([text] [n unit])",
    "A duration of its text, or of a number of :weeks :days :hours :minutes :seconds :millis :micros.",
    '(time/duration 90 :minutes) ;=> #dur "1h30m"',
)
def duration(n: Any, unit: Any = None) -> Duration:
    """`time/duration`."""
    if unit is None:
        return n if type(n) is Duration else Duration.parse(text("time/duration", n))
    size = _UNITS.get(unit.name if type(unit) is Keyword else "")
    if size is None:
        raise bad(f"time/duration needs a unit such as :seconds, but was given {shown(unit)}")
    return Duration(round(number("time/duration", n) * size))


@primitive(
    "time", "instant", "([millis])", "The instant a number of milliseconds after 1970 in UTC.", '(time/instant 0) ;=> #inst "1970-01-01T00:00:00.000-00:00"'
)
def instant(ms: Any) -> Instant:
    """`time/instant`."""
    if type(ms) not in NUMBERS or not abs(ms) < 1e18:
        raise wrong("time/instant", "a number of milliseconds", ms)
    return Instant(round(ms * 1000))


@primitive("core", "inst-ms", "([t])", "An instant's distance from 1970 in milliseconds.", '(inst-ms #inst "1970-01-01T00:00:01Z") ;=> 1000')
def inst_ms(t: Any) -> int:
    """`inst-ms`."""
    return _time("inst-ms", t).micros // 1000


def zone_of(who: str, name: Any) -> tzinfo:
    """A time zone by its name (`Europe/Berlin`, `UTC`) or offset (`+02:00`)."""
    m = re.fullmatch(r"([-+])([0-9]{2}):?([0-9]{2})", text(who, name))
    if m is not None:
        return timezone((1 if m[1] == "+" else -1) * timedelta(hours=int(m[2]), minutes=int(m[3])))
    try:
        return ZoneInfo("UTC" if name == "Z" else name)
    except (KeyError, ValueError, OSError):
        raise bad(f"{who}: there is no time zone {name!r}") from None


_LETTERS: Final = re.compile(r"'((?:[^']|'')*)'|yyyy|uuuu|yy|MMMM|MMM|MM|M|dd|d|HH|H|hh|h|mm|m|ss|s|SSSSSS|SSS|EEEE|EEE|XXX|a|Z|[A-Za-z]+")
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def _offset(t: datetime, colon: str) -> str:
    minutes = round((t.utcoffset() or timedelta()).total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{colon}{abs(minutes) % 60:02d}"


def _field(letters: str, t: datetime) -> str:
    hour = t.hour % 12 or 12
    fields = {
        "yyyy": f"{t.year:04d}", "uuuu": f"{t.year:04d}", "yy": f"{t.year % 100:02d}", "MMMM": _MONTHS[t.month - 1], "MMM": _MONTHS[t.month - 1][:3],
        "MM": f"{t.month:02d}", "M": str(t.month), "dd": f"{t.day:02d}", "d": str(t.day), "HH": f"{t.hour:02d}", "H": str(t.hour),
        "hh": f"{hour:02d}", "h": str(hour), "mm": f"{t.minute:02d}", "m": str(t.minute), "ss": f"{t.second:02d}", "s": str(t.second),
        "SSS": f"{t.microsecond // 1000:03d}", "SSSSSS": f"{t.microsecond:06d}", "EEEE": _DAYS[t.weekday()], "EEE": _DAYS[t.weekday()][:3],
        "a": "AM" if t.hour < 12 else "PM", "XXX": "Z" if not t.utcoffset() else _offset(t, ":"), "Z": _offset(t, ""),
    }  # fmt: skip
    if letters not in fields:
        raise bad(f"time/format: unknown pattern letters {letters!r}")
    return fields[letters]


def _literal(quoted: str) -> str:
    return quoted.replace("''", "'") or "'"


@primitive(
    "time",
    "format",
    "([t] [t pattern] [t pattern zone])",
    "An instant as text: ISO 8601, or by a pattern such as yyyy-MM-dd HH:mm, in a zone (UTC).",
    '(time/format #inst "2026-01-31T09:30:00Z" "yyyy-MM-dd HH:mm" "Europe/Berlin") ;=> "2026-01-31 10:30"',
)
def format_(t: Any, pattern: Any = None, zone: Any = "UTC") -> str:
    """`time/format`."""
    if pattern is None:
        return _time("time/format", t).format()
    local = _time("time/format", t).to_datetime().astimezone(zone_of("time/format", zone))
    return _LETTERS.sub(lambda m: _literal(m[1]) if m[1] is not None else _field(m[0], local), text("time/format", pattern))


_READ: Final = {
    "yyyy": "%Y", "uuuu": "%Y", "yy": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "M": "%m", "dd": "%d", "d": "%d", "HH": "%H", "H": "%H",
    "hh": "%I", "h": "%I", "mm": "%M", "m": "%M", "ss": "%S", "s": "%S", "SSS": "%f", "SSSSSS": "%f", "EEEE": "%A", "EEE": "%a", "a": "%p",
    "XXX": "%z", "Z": "%z",
}  # fmt: skip


@primitive(
    "time",
    "parse",
    "([s] [s pattern] [s pattern zone])",
    "The instant that text writes: ISO 8601, or by a pattern, in a zone (UTC).",
    '(time/parse "2026-01-31" "yyyy-MM-dd") ;=> #inst "2026-01-31T00:00:00.000-00:00"',
)
def parse(s: Any, pattern: Any = None, zone: Any = "UTC") -> Instant:
    """`time/parse`."""
    if pattern is None:
        return Instant.parse(text("time/parse", s))

    def directive(m: re.Match[str]) -> str:
        if m[1] is not None:
            return _literal(m[1]).replace("%", "%%")
        if m[0] not in _READ:
            raise bad(f"time/parse: unknown pattern letters {m[0]!r}")
        return _READ[m[0]]

    try:
        moment = datetime.strptime(text("time/parse", s), _LETTERS.sub(directive, text("time/parse", pattern)))
    except ValueError:
        raise bad(f"time/parse: {shown(s)} is not written as {pattern}") from None
    return Instant.from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=zone_of("time/parse", zone)))


@primitive("time", "fields", "([t] [t zone])", "The parts of an instant in a zone (UTC), as a map.", '(:hour (time/fields #inst "2026-01-31T09:30:00Z")) ;=> 9')
def fields(t: Any, zone: Any = "UTC") -> Map:
    """`time/fields`."""
    local = _time("time/fields", t).to_datetime().astimezone(zone_of("time/fields", zone))
    names = ("year", "month", "day", "hour", "minute", "second")
    parts = [(kw(name), getattr(local, name)) for name in names]
    return Map.of([*parts, (kw("micros"), local.microsecond), (kw("weekday"), local.isoweekday())])


@primitive("time", "before?", "([a b])", "Whether an instant is before another.", '(time/before? #inst "2026" #inst "2027") ;=> true')
def is_before(a: Any, b: Any) -> bool:
    """`time/before?`."""
    return _time("time/before?", a).micros < _time("time/before?", b).micros


@primitive("time", "after?", "([a b])", "Whether an instant is after another.", '(time/after? #inst "2026" #inst "2027") ;=> false')
def is_after(a: Any, b: Any) -> bool:
    """`time/after?`."""
    return _time("time/after?", a).micros > _time("time/after?", b).micros
