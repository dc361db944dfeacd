"""Instants and durations, exact to the microsecond.

What goes in: numbers of microseconds, or ISO 8601 and `1h30m` texts. What comes out: ordered values
that print so that they read back. The one rule: nothing here reads a clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from flowmetal.errors import LispError

_UNITS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
    "µs": 1,
}
_PRINTED = ("d", "h", "m", "s", "ms", "us")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|w|d|h|m|s)")
_DURATION = re.compile(rf"([-+]?)((?:{_PART.pattern})+)")
_ISO_DURATION = re.compile(r"([-+]?)P(?=.)(?:([0-9]+)W)?(?:([0-9]+)D)?(?:T(?=.)(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+(?:\.[0-9]+)?)S)?)?")
_INSTANT = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:T([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?)?)?)?)?"
    r"(?:Z|([-+])([0-9]{2}):?([0-9]{2}))?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LONGEST = 10**20


class Duration:
    """A length of time in microseconds; may be negative."""

    __slots__ = ("micros",)

    def __init__(self, micros: int) -> None:
        if not -_LONGEST <= micros <= _LONGEST:
            raise LispError("a duration is at most three million years", type="value")
        self.micros = micros

    @staticmethod
    def parse(text: str) -> Duration:
        """From `1h30m`, `-2.5s` (units w d h m s ms us), or ISO 8601 `PT1H30M`."""
        m = _DURATION.fullmatch(text)
        if m is not None:
            total = sum(Fraction(n) * _UNITS[unit] for n, unit in _PART.findall(m[2]))
            return Duration(_sign(m[1]) * round(total))
        m = _ISO_DURATION.fullmatch(text)
        if m is not None:
            total = sum((Fraction(n) * _UNITS[u] for n, u in zip(m.groups()[1:], "wdhms", strict=True) if n), Fraction(0))
            return Duration(_sign(m[1]) * round(total))
        raise LispError(f"{text!r} is not a duration: write 1h30m, 14d, 250ms (units w d h m s ms us)", type="value")

    def format(self) -> str:
        """Its shortest exact text, such as `1h30m`; `0s` for none."""
        rest, out = abs(self.micros), ["-"] if self.micros < 0 else []
        for unit in _PRINTED:
            n, rest = divmod(rest, _UNITS[unit])
            if n:
                out.append(f"{n}{unit}")
        return "".join(out) if self.micros else "0s"

    @property
    def seconds(self) -> int | float:
        """Its length in seconds: an integer when it is whole."""
        whole, rest = divmod(self.micros, 1_000_000)
        return self.micros / 1_000_000 if rest else whole

    def __repr__(self) -> str:
        return f"Duration({self.format()!r})"

    def __hash__(self) -> int:
        return hash((Duration, self.micros))

    def __eq__(self, other: object) -> bool:
        return type(other) is Duration and self.micros == other.micros

    def __lt__(self, other: Duration) -> bool:
        return self.micros < other.micros if type(other) is Duration else NotImplemented

    def __le__(self, other: Duration) -> bool:
        return self.micros <= other.micros if type(other) is Duration else NotImplemented

    def __gt__(self, other: Duration) -> bool:
        return self.micros > other.micros if type(other) is Duration else NotImplemented

    def __ge__(self, other: Duration) -> bool:
        return self.micros >= other.micros if type(other) is Duration else NotImplemented


class Instant:
    """A point of time: microseconds since 1970 in UTC, of the years 1 to 9999."""

    __slots__ = ("micros",)

    def __init__(self, micros: int) -> None:
        if not _FIRST <= micros <= _LAST:
            raise LispError("an instant lies in the years 1 to 9999", type="value")
        self.micros = micros

    @staticmethod
    def parse(text: str) -> Instant:
        """From RFC 3339, from the right as short as a year; without an offset it is UTC."""
        m = _INSTANT.fullmatch(text)
        if m is None:
            raise LispError(f"{text!r} is not an instant: write 2026-01-31T09:30:00Z", type="value")
        year, month, day, hour, minute, second, fraction, sign, off_hours, off_minutes = m.groups()
        try:
            moment = datetime(
                int(year),
                int(month or 1),
                int(day or 1),
                int(hour or 0),
                int(minute or 0),
                int(second or 0),
                tzinfo=UTC,
            )
        except ValueError as e:
            raise LispError(f"{text!r} is not an instant: {e}", type="value") from None
        if sign and (int(off_hours) > 23 or int(off_minutes) > 59):
            raise LispError(f"{text!r} is not an instant: its offset is out of range", type="value")
        offset = _sign(sign) * (int(off_hours) * 60 + int(off_minutes)) * _UNITS["m"] if sign else 0
        return Instant((moment - _EPOCH) // _MICROSECOND + int((fraction or "0").ljust(6, "0")[:6]) - offset)

    @staticmethod
    def from_datetime(moment: datetime) -> Instant:
        """From an aware datetime."""
        return Instant((moment - _EPOCH) // _MICROSECOND)

    def to_datetime(self) -> datetime:
        """An aware datetime in UTC."""
        return _EPOCH + timedelta(microseconds=self.micros)

    def format(self) -> str:
        """ISO 8601 in UTC, with as much of a fraction as it has: `2026-01-31T09:30:00Z`."""
        fraction = self.micros % 1_000_000
        tail = "" if not fraction else f".{fraction:06d}" if fraction % 1000 else f".{fraction // 1000:03d}"
        return f"{self._to_second()}{tail}Z"

    def literal(self) -> str:
        """The text that `#inst` prints, as Clojure writes it: milliseconds always, offset `-00:00`."""
        fraction = self.micros % 1_000_000
        tail = f"{fraction:06d}" if fraction % 1000 else f"{fraction // 1000:03d}"
        return f"{self._to_second()}.{tail}-00:00"

    def _to_second(self) -> str:
        return self.to_datetime().replace(microsecond=0, tzinfo=None).isoformat()

    def __repr__(self) -> str:
        return f"Instant({self.format()!r})"

    def __hash__(self) -> int:
        return hash((Instant, self.micros))

    def __eq__(self, other: object) -> bool:
        return type(other) is Instant and self.micros == other.micros

    def __lt__(self, other: Instant) -> bool:
        return self.micros < other.micros if type(other) is Instant else NotImplemented

    def __le__(self, other: Instant) -> bool:
        return self.micros <= other.micros if type(other) is Instant else NotImplemented

    def __gt__(self, other: Instant) -> bool:
        return self.micros > other.micros if type(other) is Instant else NotImplemented

    def __ge__(self, other: Instant) -> bool:
        return self.micros >= other.micros if type(other) is Instant else NotImplemented


def _sign(text: str) -> int:
    return -1 if text == "-" else 1
