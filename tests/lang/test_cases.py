"""Tables of behaviour: `cases/*.txt` hold a form and what it prints on each line, by topic.

A line `form => printed` or `form => !! :type line:column message`; the lines of one file share a session.
Each file runs three ways, and all must print the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ways import FUEL_OF_ONE, STORED, STRAIGHT, Table, Way

pytestmark = pytest.mark.slow

LONG = os.environ.get("FLOWMETAL_LONG") == "1"
FILES = sorted((Path(__file__).parent / "cases").glob("*.txt"))
WAYS = (STRAIGHT, FUEL_OF_ONE, STORED)
SLOW = ("100000", "!! :stack-overflow")
"""What takes a hundred thousand transitions, or ten thousand frames, is not stored at each turn unless there is time."""


def cases(path: Path) -> list[tuple[int, str, str]]:
    """(line, form, printed) of each case of a file."""
    out = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip() and not line.startswith("; "):
            form, arrow, printed = line.rpartition(" => ") if " => !! " not in line else line.partition(" => ")
            assert arrow, f"{path.name}:{number} is no case"
            out.append((number, form, printed))
    return out


@pytest.mark.parametrize("way", WAYS, ids=lambda w: w.name)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_cases(path: Path, way: Way) -> None:
    table = Table(way)
    wrong = []
    for number, form, printed in cases(path):
        if way.store and not LONG and any(mark in form or mark in printed for mark in SLOW):
            continue
        found = table.line(form)
        if found != printed:
            wrong.append(f"{path.name}:{number}: {form}\n   expected {printed}\n   found    {found}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_there_are_cases() -> None:
    assert sum(len(cases(path)) for path in FILES) > 1000
