"""Schedules: flows begin by the calendar, once for each time, whatever happens on the way."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bench import Bench, scene
from lives import HandClock, life, play, settle
from stores import Stores, several

from flowmetal.errors import LispError
from flowmetal.lang.persistent import Map, Vector
from flowmetal.lang.values import Duration, Instant, kw
from flowmetal.runtime.calendars import calendar
from flowmetal.runtime.engine import Engine
from flowmetal.testing import run_source

REPORT = """
(defflow report [who due] [who due])
(defflow slow [] (sleep #dur "90m"))
(defn begun [name] (mapv :flow_id (reverse (flows {:name name}))))
"""


def held(test: str) -> None:
    (result,) = run_source(f"{REPORT}(deftest it {test})")
    assert result.ok, result
    assert result.passed


def test_a_flow_begins_at_each_time_with_its_arguments_and_the_time_that_it_is_for() -> None:
    held("""(schedule :nightly "30 2 * * *" report "Ada" :schedule/due)
      (advance! #dur "48h")
      (is (= ["nightly:2026-01-01T02:30:00Z" "nightly:2026-01-02T02:30:00Z"] (begun "report")))
      (is (= ["Ada" #inst "2026-01-02T02:30:00Z"] (result "nightly:2026-01-02T02:30:00Z")))""")


def test_a_duration_counts_from_when_the_schedule_was_made() -> None:
    held("""(sleep #dur "7m")
      (schedule "often" #dur "15m" report 1 2)
      (advance! #dur "31m")
      (is (= ["often:2026-01-01T00:22:00Z" "often:2026-01-01T00:37:00Z"] (begun "report")))""")


def test_declaring_the_same_again_changes_nothing_and_unschedule_ends_it() -> None:
    held("""(schedule "often" #dur "15m" report 1 2)
      (advance! #dur "10m")
      (schedule "often" #dur "15m" report 1 2)
      (advance! #dur "5m")
      (is (= 1 (count (begun "report"))))
      (is (= true (unschedule "often")))
      (is (= false (unschedule "often")))
      (advance! #dur "1h")
      (is (= 1 (count (begun "report"))))""")


@pytest.mark.parametrize(("overlap", "begun"), [(":skip", 2), (":all", 3), (":queue", 3)])
def test_overlap_says_what_becomes_of_a_time_while_the_last_flow_runs(overlap: str, begun: int) -> None:
    held(f"""(schedule "s" {{:every #dur "1h" :overlap {overlap}}} slow)
      (advance! #dur "3h")
      (is (= {begun} (count (begun "slow"))))""")


def test_with_queue_each_flow_waits_for_the_one_before() -> None:
    held("""(schedule "s" {:every #dur "1h" :overlap :queue} slow)
      (advance! #dur "2h")
      (unschedule "s")
      (advance! #dur "31m")
      (is (= [:completed :waiting] (mapv status (begun "slow"))))
      (advance! #dur "88m")
      (is (= [:completed :waiting] (mapv status (begun "slow"))))
      (advance! #dur "1m")
      (is (= [:completed :completed] (mapv status (begun "slow"))))""")


def test_only_a_program_can_be_scheduled() -> None:
    held("""(is (thrown-with-msg? :type #"program made by defflow" (schedule "s" "* * * * *" inc)))""")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ('"61 * * * *"', "no cron expression"), ('"* * *"', "no cron expression"), ('#dur "1ms"', "a second or more"),
        ('{:cron "* * * * *" :tz "Mars/Olympus"}', "no time zone"), ('{:cron "* * * * *" :overlap :maybe}', ":skip :queue :all"),
        ('{:every #dur "1h" :cron "* * * * *"}', "either :cron"), ('{:every #dur "1h" :when 1}', "does not know the option"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_the_schedule_is_made(spec: str, message: str) -> None:
    held(f'(is (thrown-with-msg? :value #"{message}" (schedule "s" {spec} report 1 2)))')


# The calendar


def at(zone: str, *when: int) -> int:
    return int(datetime(*when, tzinfo=ZoneInfo(zone)).timestamp() * 1e6)  # type: ignore[arg-type, misc]


def days(spec: Any, zone: str, start: int, count: int) -> list[str]:
    found, moment = [], start
    times = calendar(spec, zone, start)
    for _ in range(count):
        due = times.after(moment)
        assert due is not None
        assert times.until(due) == due
        assert times.until(due - 1) != due
        found.append(Instant(due).format())
        moment = due
    return found


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("spec", "start", "expected"),
    [
        # The clock goes from 2 to 3 on 29 March 2026: half past two does not exist, and is due once, right after the gap.
        ("30 2 * * *", (2026, 3, 28, 3), ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
        # It goes back from 3 to 2 on 25 October 2026: half past two is there twice, and is due once.
        ("30 2 * * *", (2026, 10, 24, 3), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
        ("0 * * * *", (2026, 10, 25, 1, 30), ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"]),
        ("0 9 * * MON-FRI", (2026, 10, 23, 10), ["2026-10-26T08:00:00Z", "2026-10-27T08:00:00Z"]),
        ("@daily", (2026, 1, 1, 1), ["2026-01-01T23:00:00Z", "2026-01-02T23:00:00Z"]),
        ("0 0 29 2 *", (2026, 1, 1), ["2028-02-28T23:00:00Z", "2032-02-28T23:00:00Z"]),
    ],
)
def test_cron_is_local_time_also_when_the_clock_is_changed(spec: str, start: tuple[int, ...], expected: list[str]) -> None:
    assert days(spec, BERLIN, at(BERLIN, *start), len(expected)) == expected


def test_a_period_has_the_same_length_whatever_the_clock_does() -> None:
    start = at(BERLIN, 2026, 3, 28, 12)
    assert days(Duration(86_400_000_000), BERLIN, start, 2) == ["2026-03-29T11:00:00Z", "2026-03-30T11:00:00Z"]


def test_a_date_that_never_comes_is_refused() -> None:
    with pytest.raises(LispError, match=r"Bad day-of-month|never due"):
        calendar("0 0 31 2 *", "UTC", 0)


# Restarts

MINUTES = 60.0


def begun(engine: Engine) -> list[str]:
    return [row["flow_id"].partition("T")[2] for row in reversed(engine.store.flow_rows(None, "report", 100))]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        (":none", ["01:00:00Z", "05:00:00Z"]),
        (":one", ["01:00:00Z", "04:00:00Z", "05:00:00Z"]),
        (":all", ["01:00:00Z", "02:00:00Z", "03:00:00Z", "04:00:00Z", "05:00:00Z"]),
    ],
)
@several
def test_catch_up_says_what_becomes_of_the_times_at_which_nobody_was_there(store: Any, catch_up: str, expected: list[str]) -> None:
    async def scene() -> None:
        clock = HandClock()
        async with life(store, clock) as engine:
            await engine.load(REPORT, file="report.flow")
            cell = await engine.eval(f'(schedule "s" {{:cron "0 * * * *" :catch-up {catch_up}}} report 1 2)')
            assert (await engine.result(cell) or {})["status"] == "completed"
            await settle(engine, 60 * MINUTES)
            assert begun(engine) == expected[:1]
        clock.move(210 * MINUTES)
        async with life(store, clock) as engine:
            await settle(engine)
            await settle(engine, 30 * MINUTES)
            assert begun(engine) == expected
            (row,) = engine.store.query("SELECT name, flow_name, spec, timezone, paused, next_due_at, last_flow_id FROM schedules").plain()
            assert row == {
                "name": "s", "flow_name": "report", "spec": "0 * * * *", "timezone": "UTC", "paused": False, "next_due_at": "2026-01-01T06:00:00Z",
                "last_flow_id": "s:2026-01-01T05:00:00Z",
            }  # fmt: skip

    play(scene)


@several
def test_a_paused_schedule_stays_paused_over_a_restart_and_its_times_are_not_caught_up(store: Any) -> None:
    async def scene() -> None:
        clock = HandClock()
        async with life(store, clock) as engine:
            await engine.load(REPORT, file="report.flow")
            await engine.result(await engine.eval('(schedule "s" #dur "1h" report 1 2)'))
            assert (await engine.schedules.control("s", "pause"))["paused"]
        clock.move(150 * MINUTES)
        async with life(store, clock) as engine:
            await settle(engine)
            assert begun(engine) == []
            assert (await engine.schedules.control("s", "resume"))["next_due_at"] == "2026-01-01T03:00:00Z"
            await settle(engine, 30 * MINUTES)
            assert begun(engine) == ["03:00:00Z"]

    play(scene)


@several
def test_a_trigger_begins_one_flow_now_and_a_repeated_request_none(store: Any) -> None:
    async def scene() -> None:
        async with life(store, HandClock()) as engine:
            await engine.load(REPORT, file="report.flow")
            await engine.result(await engine.eval('(schedule "s" #dur "1h" report 1 2)'))
            first = await engine.schedules.control("s", "trigger", request_id="r1")
            assert await engine.schedules.control("s", "trigger", request_id="r1") == first
            assert (await engine.result(first["flow_id"]) or {})["result"] == [1, 2]
            assert len(begun(engine)) == 1
            with pytest.raises(LispError, match="no schedule other; known are: s"):
                await engine.schedules.control("other", "trigger")

    play(scene)


def test_the_newest_definition_begins_also_after_the_schedule_was_made(stores: Stores) -> None:
    async def scene() -> None:
        async with life(stores.quick(), HandClock()) as engine:
            await engine.load("(defflow report [] :old)", file="report.flow")
            await engine.result(await engine.eval('(schedule "s" #dur "1h" report)'))
            await engine.load("(defflow report [] :new)", file="report.flow")
            await settle(engine, 60 * MINUTES)
            assert (await engine.result("s:2026-01-01T01:00:00Z") or {})["result"] == "new"

    play(scene)


async def declare(b: Bench, every: str, key: str) -> None:
    options = Map.of([(kw("every"), Duration.parse(every))])
    await b.engine.schedules.declare("s", options, "report", Vector.of([1, 2]), key, "flow")


@scene
async def test_what_is_declared_or_removed_once_more_under_its_key_does_not_undo_what_came_after_it(b: Bench) -> None:
    await b.load(REPORT)
    for every, key in (("1h", "k1"), ("2h", "k2"), ("1h", "k1")):
        await declare(b, every, key)
    await b.advance("119m")
    assert b.store.flow_rows(name="report") == []
    await b.engine.schedules.remove("s", "k3", "flow")
    await declare(b, "1h", "k1")
    assert b.engine.schedules.known == {}
    await declare(b, "3h", "k4")
    assert await b.engine.schedules.remove("s", "k3", "flow")
    await b.advance("3h")
    assert len(b.store.flow_rows(name="report")) == 1


def test_a_schedule_that_is_removed_while_somebody_triggers_it_is_gone(stores: Stores, tmp_path: Path) -> None:
    store = stores.open(tmp_path / "s.duckdb")

    async def scene() -> None:
        async with life(store, HandClock()) as engine:
            await engine.load(REPORT, file="report.flow")
            await engine.result(await engine.eval('(schedule "s" #dur "1h" report 1 2)'))
            _, fired = await asyncio.gather(engine.schedules.remove("s", "k", "cell"), engine.schedules.control("s", "trigger"))
            assert (await engine.result(fired["flow_id"]) or {})["result"] == [1, 2]
        async with life(store, HandClock()) as engine:
            assert engine.schedules.known == {}

    play(scene)
    store.close()
