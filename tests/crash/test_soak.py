"""The soak: ten minutes of load on a host that is killed every few seconds, and a short form of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from soak import soak
from soak_shapes import SHAPES


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
