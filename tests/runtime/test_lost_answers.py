"""A commit whose answer is lost is on disk: what it declared is known at once, and is declared once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from lives import HandClock, life, play
from stores import Stores

from flowmetal.errors import StoreError
from flowmetal.runtime.engine import Engine
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Outcome

DECLARATIONS: dict[str, tuple[str, Callable[[Engine], bool]]] = {
    kinds.TOPIC_DECLARED: ('(topic "t" {:retain #dur "1d"})', lambda engine: "t" in engine.topics.declared),
    kinds.QUEUE_DECLARED: ("(queue :q {:concurrency 3})", lambda engine: engine.queues.queues["q"].concurrency == 3),
    kinds.SCHEDULE_DECLARED: ('(do (defflow f [] 1) (schedule "s" #dur "1d" f) nil)', lambda engine: "s" in engine.schedules.known),
    kinds.SOURCE_DECLARED: ('(defsource s {:url "sqlite:///x" :sql "SELECT 1"})', lambda engine: "s" in engine.sources.known),
}


class Deaf:
    """A store that loses the answer to the first commit with a row of some kind."""

    def __init__(self, store: Any, kind: str) -> None:
        self.store = store
        self.kind = kind

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def commit_group(self, commits: Sequence[Commit]) -> list[Outcome]:
        outcomes = list(self.store.commit_group(commits))
        for n, commit in enumerate(commits):
            if any(row.kind == self.kind for row in commit.rows):
                self.kind, outcomes[n] = "", StoreError("the answer is lost")
        return outcomes


@pytest.mark.parametrize("kind", DECLARATIONS)
def test_a_declaration_is_known_at_once_and_made_once(stores: Stores, kind: str) -> None:
    source, known = DECLARATIONS[kind]
    store = Deaf(stores.quick(), kind)

    async def scene() -> None:
        async with life(store, HandClock(), retry_seconds=0.0) as engine:
            assert await engine.result(await engine.eval(source), 10) is not None
            assert store.kind == "", "its answer was lost"
            assert known(engine)
            assert (await engine.sql("SELECT count(*) FROM events WHERE kind = ?", [kind])).rows == [(1,)]

    play(scene)
