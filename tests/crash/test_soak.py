"""The soaks: ten minutes of load on a host that is killed every few seconds, and on four that share a store; and a short form of both."""

from __future__ import annotations

from pathlib import Path

import pytest
from postgres_server import Server
from soak import soak
from soak_shapes import SHAPES
from soak_shared import soak_shared

pytestmark = pytest.mark.slow


def test_nothing_is_lost_or_done_twice_while_hosts_are_killed(tmp_path: Path) -> None:
    run = soak(tmp_path, seconds=7, seed=3, clients=2, calm=1)
    assert run.kills >= 1
    assert set(run.ended) == set(SHAPES)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nothing_is_lost_or_done_twice_in_ten_minutes(tmp_path: Path) -> None:
    run = soak(tmp_path, seconds=660, seed=4, clients=4, calm=60)
    assert run.kills >= 20
    assert min(run.ended[shape] for shape in SHAPES) >= 5


def test_nothing_is_lost_or_done_twice_while_several_interpreters_are_killed_and_stopped(tmp_path: Path, postgres: Server) -> None:
    run = soak_shared(tmp_path, postgres, seconds=9, seed=5, clients=1, interpreters=2)
    assert run.kills + run.stops + run.server_restarts >= 2
    assert set(run.ended) == set(SHAPES)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_nothing_is_lost_or_done_twice_by_four_interpreters_in_ten_minutes(tmp_path: Path, postgres: Server) -> None:
    run = soak_shared(tmp_path, postgres, seconds=660, seed=6, clients=4, interpreters=4)
    assert run.kills >= 20 and run.stops >= 3 and run.server_restarts >= 2
    assert min(run.ended[shape] for shape in SHAPES) >= 5
