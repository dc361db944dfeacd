"""What `protocol` promises, asked of every store by the kit that others run on theirs."""

from __future__ import annotations

import pytest

from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Commit, Faults, Outcome, Row, Store
from flowmetal.store.testing import PROMISES, MakeStore, Promise, check

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("promise", PROMISES.values(), ids=PROMISES.keys())
def test_promise(promise: Promise, make_store: MakeStore) -> None:
    promise(make_store)


class Forgetful(MemoryStore):
    """A store that gives every row back twice, and whose commits fail whole."""

    def rows(self, flow_id: str, after_seq: int = 0, limit: int | None = None, of: frozenset[str] | None = None) -> list[Row]:
        return super().rows(flow_id, after_seq, limit, of) * 2

    def commit_group(self, commits: list[Commit]) -> list[Outcome]:  # type: ignore[override]
        outcomes = super().commit_group(commits)
        return [next((o for o in outcomes if isinstance(o, Exception)), o) for o in outcomes]


def test_the_kit_says_which_promises_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, broken = "meta", {"a_row_comes_back_as_it_was_written", "a_failing_group_is_tried_one_by_one"}
    for name in set(PROMISES) - broken - {kept}:
        monkeypatch.delitem(PROMISES, name)
    made: list[Store] = []

    def make(faults: Faults | None = None) -> Store:
        made.append(Forgetful(faults=faults))
        return made[-1]

    with pytest.raises(ExceptionGroup, match="2 of 3 promises are not kept") as caught:
        check(make)
    assert {note.removeprefix("the promise: ") for error in caught.value.exceptions for note in error.__notes__} == broken
    assert len(made) == 3
