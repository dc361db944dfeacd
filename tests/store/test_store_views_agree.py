"""The views are written twice, in two dialects: over any log they give the same answers."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_server import Server

from flowmetal.store import kinds
from flowmetal.store.memory import MemoryStore
from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.protocol import Commit, CommitResult, Row, Store
from flowmetal.store.testing import T0, row

VIEWS = ["flows", "events", "effects", "messages", "timers", "definitions", "schedules", "sources"]
LONG = settings.get_current_profile_name() == "long"
STEPPED = sorted(kind for kind in kinds.ALL if kind.startswith(("effect-", "attempt-", "value-")))
OFTEN = [kinds.EFFECT_REQUESTED, kinds.EFFECT_CANCELLED, kinds.EFFECT_FAILED, kinds.FLOW_RETRIED, kinds.MESSAGE_RECEIVED]
FLOWS = ["a", "b"]
STREAMS = {
    kinds.DEFINITIONS_STREAM: [kinds.DEFINED, kinds.ENGINE],
    kinds.SCHEDULES_STREAM: sorted(kind for kind in kinds.ALL if kind.startswith("schedule-")),
    kinds.SOURCES_STREAM: [kinds.SOURCE_DECLARED],
    "$source/s": [kinds.SOURCE_READ],
    "$topic/t": [kinds.PUBLISHED],
}
TEXTS = st.sampled_from(["x", "y", "1", "é\0"])
NUMBERS = st.integers(0, 3)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXTS, "kind": TEXTS, "parent": TEXTS, "forked_from": TEXTS, "forked_at": NUMBERS, "definitions": NUMBERS, "version": NUMBERS,
    "args": st.lists(TEXTS, max_size=2), "tags": st.dictionaries(TEXTS, NUMBERS, max_size=2), "op": st.sampled_from(["sleep", "timer", "receive"]),
    "target": TEXTS, "result": st.none() | NUMBERS | st.fixed_dictionaries({"value": NUMBERS}), "error": st.dictionaries(TEXTS, TEXTS, max_size=1),
    "attempts": NUMBERS | TEXTS, "attempt": NUMBERS, "line": NUMBERS, "source": st.sampled_from(["s", "client"]),
    "due_at": st.sampled_from(["2026-01-31T09:30:00.25Z", "2026-01-31T09:30:00Z", "soon"]), "message_id": st.sampled_from(["m1", "m2"]),
    "topic": TEXTS, "message": NUMBERS, "idempotency_key": TEXTS, "data": NUMBERS, "hash": TEXTS, "ns": TEXTS, "flow": TEXTS, "flow_id": TEXTS,
    "next_due_at": st.sampled_from(["2026-01-31T09:30:00Z", "2027-01-31T09:30:00Z"]), "rows": NUMBERS,
    "value": st.fixed_dictionaries({"cursor": NUMBERS}),
    "options": st.fixed_dictionaries({"cron": TEXTS}) | st.fixed_dictionaries({"every": NUMBERS, "tz": TEXTS}) | st.fixed_dictionaries({"topic": TEXTS}),
}  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> Row:
    flow_id = draw(st.sampled_from([*FLOWS * 4, *STREAMS]))
    kind = draw(st.sampled_from(STREAMS.get(flow_id) or [*sorted(kinds.ALL), *STEPPED * 5, *OFTEN * 6]))
    step = draw(st.sampled_from([1, 1, 2])) if kind in STEPPED else None
    keys = draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=10))
    data = {key: draw(VALUES[key]) for key in sorted(keys)}
    return row(flow_id, kind, data, T0 + draw(st.integers(0, 3)) * 1_000, step=step, fiber=step, key=draw(st.none() | TEXTS))


def answers(store: Store, view: str) -> list[dict[str, Any]]:
    return sorted(store.query(f"SELECT * FROM {view}").plain(), key=repr)


@settings(max_examples=1_000 if LONG else 8, suppress_health_check=list(HealthCheck))
@given(log=st.lists(rows(), max_size=40))
def test_both_dialects_give_the_same(postgres: Server, log: list[Row]) -> None:
    database = postgres.store()
    shared, memory = PostgresStore(database), MemoryStore()
    begun = [row(flow_id, kinds.FLOW_STARTED, {"name": "f", "kind": "flow"}) for flow_id in FLOWS]
    try:
        for store in (shared, memory):
            (outcome,) = store.commit_group([Commit([*begun, *log])])
            assert isinstance(outcome, CommitResult)
        for view in VIEWS:
            assert answers(shared, view) == answers(memory, view), view
        assert shared.flow_rows() == memory.flow_rows()
        assert shared.open_requests() == memory.open_requests()
        assert shared.orphans() == memory.orphans()
    finally:
        shared.close()
        memory.close()
        postgres.give_back(database)
