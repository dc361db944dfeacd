"""When a schedule is due: cron expressions in a time zone, or a fixed period.

In: a time. Out: the first due time after it, or the last one until it. Pure: nothing here reads a clock.
Cron's fields are local time. Where the clock is put forward, a time of day that does not exist is due once, right
after the gap; where it is put back, one that exists twice is due the first time only; expressions whose minute or hour
begins with `*` go on through both, as Debian's cron does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from flowmetal.errors import LispError
from flowmetal.lang.values import Duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
NICKNAMES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip


class Calendar(Protocol):
    """Due times, in microseconds since the epoch."""

    def after(self, moment: int) -> int | None:
        """The first due time after a moment; None when there will be none."""

    def until(self, moment: int) -> int | None:
        """The last due time that is not after a moment."""


@dataclass(frozen=True, slots=True)
class Every:
    """Due each so many microseconds from a beginning."""

    start: int
    period: int

    def after(self, moment: int) -> int | None:
        """The first due time after a moment."""
        return self.start + max(1, (moment - self.start) // self.period + 1) * self.period

    def until(self, moment: int) -> int | None:
        """The last due time that is not after a moment."""
        count = (moment - self.start) // self.period
        return self.start + count * self.period if count >= 1 else None


@dataclass(frozen=True, slots=True)
class Cron:
    """Due when a cron expression says so, in a time zone."""

    expression: str
    zone: tzinfo

    def after(self, moment: int) -> int | None:
        """The first due time after a moment."""
        for found in CronSim(self.expression, self._local(moment)):
            if (due := _micros(found)) > moment:
                return due
        return None

    def until(self, moment: int) -> int | None:
        """The last due time that is not after a moment."""
        for found in CronSim(self.expression, self._local(moment + 1_000_000), reverse=True):
            if (due := _micros(found)) <= moment:
                return due
        return None

    def _local(self, moment: int) -> datetime:
        return (_EPOCH + timedelta(microseconds=moment)).astimezone(self.zone)


def _micros(local: datetime) -> int:
    return (local.astimezone(UTC) - _EPOCH) // _MICRO


def calendar(spec: str | Duration, zone: str, start: int) -> Calendar:
    """The calendar of a cron expression or a duration; raises LispError for what is neither, or for a zone that nobody knows."""
    if isinstance(spec, Duration):
        if spec.micros < 1_000_000:
            raise LispError("a schedule's period is a second or more", type="value")
        return Every(start, spec.micros)
    cron = Cron(NICKNAMES.get(spec, spec), time_zone(zone))
    try:
        nothing = cron.after(start) is None
    except CronSimError as e:
        raise LispError(
            f"{spec!r} is no cron expression: {e}", type="value", hint='minute hour day month weekday, such as "30 2 * * *", or a duration'
        ) from None
    if nothing:
        raise LispError(f"{spec!r} is never due", type="value")
    return cron


def time_zone(name: str) -> tzinfo:
    """A time zone by its IANA name; raises LispError for one that nobody knows."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise LispError(f"there is no time zone {name!r}", type="value", hint='names are such as "Europe/Berlin" or "UTC"') from None
