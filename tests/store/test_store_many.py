"""Questions that come together are one; positions take little room."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from flowmetal.store import positions
from flowmetal.store.memory import MemoryStore
from flowmetal.store.positions import Positions
from flowmetal.store.protocol import Row
from flowmetal.store.testing import commit, row, started
from flowmetal.store.writer import Writer


class Counting(MemoryStore):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[list[str]] = []

    def many(self, flow_ids: list[str]) -> dict[str, list[Row]]:
        self.questions.append(flow_ids)
        if "bad" in flow_ids:
            raise ValueError("bad")
        return self.rows_of(dict.fromkeys(flow_ids, 0))


def test_questions_that_come_together_are_one() -> None:
    store = Counting()
    for n, flow_id in enumerate("abc", 1):
        commit(store, started(flow_id), *[row(flow_id, "log", {"n": k}) for k in range(n)])

    async def ask(flow_ids: Sequence[str]) -> list[object]:
        writer = Writer(store)
        writer.start()
        answers = await asyncio.gather(*[writer.ask(store.many, flow_id) for flow_id in flow_ids], return_exceptions=True)
        await writer.stop()
        return list(answers)

    for flow_ids in (["a"], ["a", "b", "a", "nobody"] * 100):
        assert asyncio.run(ask(flow_ids)) == [store.rows(flow_id) or None for flow_id in flow_ids]
    assert sum(map(len, store.questions)) < 100
    assert all(isinstance(answer, ValueError) for answer in asyncio.run(ask(["bad"])))


@given(st.lists(st.integers(0, 400), max_size=300), st.integers(1, 20), st.integers(1, 100))
def test_positions_are_lower_bounds(names: list[int], fresh: int, largest: int) -> None:
    before = positions.FRESH, positions.LARGEST
    positions.FRESH, positions.LARGEST = fresh, largest  # type: ignore[misc]
    try:
        index = Positions()
        first: dict[int, int] = {}
        for pos, name in enumerate(names, 1):
            index.add(name, pos)
            first.setdefault(name, pos)
        loaded = Positions()
        loaded.load((name, pos) for pos, name in enumerate(names, 1))
        for name in range(401):
            assert index.get(name) == loaded.get(name) == first.get(name)
    finally:
        positions.FRESH, positions.LARGEST = before  # type: ignore[misc]
