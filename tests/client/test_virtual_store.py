"""Stores that live in virtual time: a fortnight takes no time, for whoever opens them, and real ones refuse."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from stores import Stores

import flowmetal
from flowmetal.errors import LispError, StoreError

PROGRAM = """
(defflow nap [] (sleep #dur "14d") (now))
(defflow patient [] (try (await (callback) {:timeout #dur "30d"}) (catch :flow/timeout e (now))))
(defflow tick [due] due)
(defflow daily [] (schedule "daily" #dur "1d" tick :schedule/due))
(defflow later [n] n)
"""


@pytest.fixture
def store(stores: Stores, tmp_path: Path) -> str:
    (tmp_path / "p.flow").write_text(PROGRAM)
    return stores.at(tmp_path / "virtual.duckdb").url


def test_time_jumps_to_what_a_flow_waits_for(store: str, tmp_path: Path) -> None:
    with flowmetal.open(store, clock="virtual") as fm:
        fm.load(tmp_path / "p.flow")
        assert fm.start("nap").result(20) == "2026-01-15T00:00:00Z"
        assert fm.start("patient").result(20) == "2026-02-14T00:00:00Z"
        assert fm.start("later", 7, at=datetime.timedelta(days=900)).result(20) == 7


def test_the_clock_stays_with_the_store_and_goes_on_where_it_was(store: str, tmp_path: Path) -> None:
    with flowmetal.open(store, clock="virtual") as fm:
        fm.load(tmp_path / "p.flow")
        fm.start("nap").result(20)
    with flowmetal.open(store) as fm:
        assert fm.start("nap").result(20) == "2026-01-29T00:00:00Z"
    with pytest.raises(StoreError, match="lives in virtual time"):
        flowmetal.open(store, clock="real").close()


def test_a_schedule_alone_moves_no_time_and_advance_runs_it_on_the_way(store: str, tmp_path: Path) -> None:
    with flowmetal.open(store, clock="virtual") as fm:
        fm.load(tmp_path / "p.flow")
        fm.start("daily").result(20)
        before = len(fm.flows(name="tick"))
        assert fm.advance(datetime.timedelta(days=3)) >= "2026-01-04"
        ticks = fm.flows(name="tick")
        assert len(ticks) == before + 3
        assert all(row["status"] == "completed" for row in ticks)
        now = fm.advance("0s")
        assert fm.advance(60) > now


def test_real_time_is_moved_by_nobody(store: str) -> None:
    with flowmetal.open(store) as fm:
        with pytest.raises(LispError, match="real time"):
            fm.advance("1d")
        with pytest.raises(StoreError, match="lives in real time"):
            flowmetal.open(store, clock="virtual").close()
    with pytest.raises(StoreError, match="lives in real time"):
        flowmetal.open(store, clock="virtual").close()
