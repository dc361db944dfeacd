"""Schedules and backfills on the command line."""

from __future__ import annotations

import uuid

import pytest
from command_line import Cli


@pytest.fixture
def cli(shared: Cli) -> Cli:
    return shared


@pytest.fixture
def nightly(cli: Cli) -> str:
    """A schedule of its own."""
    name = f"s-{uuid.uuid4().hex[:8]}"
    source = f'(defflow report-{name} [due] (str due)) (defflow make-{name} [] (schedule "{name}" "30 2 * * *" report-{name} :schedule/due))'
    cli.ok("load", cli.file(source, f"{name}.flow"))
    cli.ok("result", cli.ok("start", f"make-{name}").out.strip())
    return name


def of(cli: Cli, name: str) -> dict[str, object]:
    return next(row for row in cli.ok("schedules", "--json").rows() if row["name"] == name)


def test_schedules_are_listed_paused_and_go_on(cli: Cli, nightly: str) -> None:
    assert of(cli, nightly)["spec"] == "30 2 * * *"
    assert cli.ok("schedules", "pause", nightly).out == f"{nightly} paused\n"
    assert of(cli, nightly)["paused"] is True
    assert "next due" in cli.ok("schedules", "resume", nightly).out
    assert nightly in cli.ok("schedules").out


def test_trigger_begins_a_flow_now(cli: Cli, nightly: str) -> None:
    flow = cli.ok("schedules", "trigger", nightly).out.strip()
    assert cli.ok("result", flow).out.startswith('"20')
    assert of(cli, nightly)["last_flow_id"] == flow


def test_a_backfill_begins_one_flow_a_time_and_repeated_none(cli: Cli, nightly: str) -> None:
    dates = ("--from", "2026-01-01", "--to", "2026-01-03")
    expected = [f"{nightly}:2026-01-0{n}T02:30:00Z completed" for n in (1, 2, 3)]
    assert sorted(cli.ok("backfill", nightly, *dates, "--max", "2").out.splitlines()) == expected
    assert sorted(cli.ok("backfill", nightly, *dates).out.splitlines()) == expected
    assert len(cli.ok("ps", "--name", f"report-{nightly}", "--json").rows()) == 3


def test_a_backfill_retries_what_has_failed(cli: Cli) -> None:
    name = f"r-{uuid.uuid4().hex[:8]}"
    source = f"""
      (def open-{name} (atom false))
      (defflow fetch-{name} [day] (if @open-{name} day (throw (ex-info "not there yet" {{}}))))
      (defflow {name} [day] (fetch-{name} day))
      (defflow opens-{name} [] (reset! open-{name} true))"""
    cli.ok("load", cli.file(source, f"{name}.flow"))
    dates = ("--from", "2026-01-01", "--to", "2026-01-02")
    first = cli("backfill", name, *dates)
    assert first.code == 1
    assert sorted(first.out.splitlines()) == [f"{name}:2026-01-0{n} failed: not there yet" for n in (1, 2)]
    cli.ok("result", cli.ok("start", f"opens-{name}").out.strip())
    assert sorted(cli.ok("backfill", name, *dates).out.splitlines()) == [f"{name}:2026-01-0{n} completed" for n in (1, 2)]
    assert cli.ok("result", f"{name}:2026-01-02").json() == "2026-01-02"
    assert [row["kind"] for row in cli.ok("log", f"{name}:2026-01-01", "--json").rows()].count("flow-retried") == 1


def test_a_schedule_that_is_none_is_told(cli: Cli) -> None:
    answer = cli("schedules", "pause", "no-such")
    assert answer.code == 2
    assert "no schedule no-such" in answer.err
