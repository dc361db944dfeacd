"""No crash and no refused commit makes a difference: every durable form, at every commit.

`programs.py` has the programs, `flowmetal.testing.check` the ways in which each is disturbed and what is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import PROGRAMS
from stores import Stores, both

from flowmetal.lang.library import OPS, prelude
from flowmetal.store.protocol import Store
from flowmetal.testing import Conditions, Faults, Program, check
from flowmetal.testing.crash import Hardship
from flowmetal.testing.faults import AFTER, BEFORE

pytestmark = pytest.mark.slow

FORMS = (
    "start start-with await async sleep sleep-until timer callback receive send now rand rand-int random-uuid shuffle log checkpoint "
    "set-info! select race all any all-settled pmap with-timeout pause! resume! cancel! terminate! status promise-status self"
).split()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_failure_makes_no_difference(name: str) -> None:
    outcomes = check(PROGRAMS[name])
    assert max(outcome.lives for outcome in outcomes) > 1, "no run was killed"


def test_the_programs_use_every_durable_form() -> None:
    text = " ".join(program.source for program in PROGRAMS.values()).replace("(", " ").replace(")", " ").split()
    assert [form for form in FORMS if form not in text] == []
    known = {name for ns, name in OPS if ns == "flow"} | {form.name for form in prelude().values() if form.ns == "flow"}
    assert [form for form in FORMS if form not in known] == [], "a form that does not exist"


def every_other(commits: int) -> Iterator[Hardship]:
    """A kill at each commit, before and after it in turn."""
    for n in range(1, commits + 1):
        when = BEFORE if n % 2 else AFTER
        yield f"killed {when} {n}", Faults([(n, when)]), Conditions(snapshots="always")
        yield f"refused {when} {n}", Faults([(n, when)], kill=False), Conditions()


@both
@pytest.mark.parametrize("name", ["steps", "cancelled"])
def test_on_disk_it_is_the_same(name: str, stores: Stores, tmp_path: Path) -> None:
    on_disk(PROGRAMS[name], stores, tmp_path)


@both
@pytest.mark.long
@pytest.mark.parametrize("name", PROGRAMS)
def test_on_disk_it_is_the_same_for_every_form(name: str, stores: Stores, tmp_path: Path) -> None:
    on_disk(PROGRAMS[name], stores, tmp_path)


def on_disk(program: Program, stores: Stores, folder: Path) -> None:
    """Disturbs the program on stores that each life opens anew."""
    files: dict[Faults, Path] = {}

    def open_again(faults: Faults) -> Store:
        return stores.open(files.setdefault(faults, folder / f"{len(files)}.duckdb"), faults=faults)

    outcomes = check(program, make_store=open_again, of=every_other)
    assert len(files) == len(outcomes) - 1
    assert max(outcome.lives for outcome in outcomes) > 1


def test_a_difference_is_noticed() -> None:
    """The simulation can fail: a program whose outside does not keep to one answer is told from one that does."""
    answers = iter(range(1000))
    program = Program(PROGRAMS["http"].source.replace("(:status r)", "(:n r)"), answer=lambda call: {"n": next(answers)})
    with pytest.raises(AssertionError, match=r"ended as|came to"):
        check(program)
