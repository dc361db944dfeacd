"""Any sequence of commits, groups, faults and reopenings, against the simplest model: a list."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from postgres_server import Server
from sqlite_store import SQLiteStore

from flowmetal.store import kinds
from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Commit, CommitResult, Duplicate, Row, Snapshot, Store, StoreConflict
from flowmetal.store.testing import T0, row

FLOWS = st.sampled_from(["a", "b", "c", "$requests"])
KINDS = st.sampled_from(["flow-started", "flow-waiting", "flow-running", "flow-completed", "effect-requested", "effect-completed", "log"])
KEYS = st.none() | st.sampled_from(["k1", "k2", "k3"])


@st.composite
def rows(draw: st.DrawFn) -> Row:
    kind = draw(KINDS)
    step = draw(st.integers(1, 3)) if kind.startswith("effect-") else None
    data = draw(st.dictionaries(st.sampled_from(["name", "result"]), st.text("ab", max_size=3)))
    return row(draw(FLOWS), kind, data, T0 + draw(st.integers(0, 9)), step=step, key=draw(KEYS))


@st.composite
def commits(draw: st.DrawFn) -> tuple[list[Row], dict[str, int], tuple[str, str] | None, bool]:
    """Rows, how far off each expectation is, what must be unique, whether there is a snapshot."""
    wrong = draw(st.dictionaries(FLOWS, st.sampled_from([0, 0, 0, 0, 1, -1]), max_size=2))
    unique = draw(st.none() | st.tuples(KINDS, st.sampled_from(["k1", "k2", "k3"])))
    return draw(st.lists(rows(), max_size=4)), wrong, unique, draw(st.booleans())


class LogMachine(RuleBasedStateMachine):
    """The store beside a list of rows."""

    def make(self) -> Store:
        raise NotImplementedError

    def fault(self, point: str) -> None:
        if self.failing == point:
            raise RuntimeError(point)

    @initialize()
    def begin(self) -> None:
        self.failing: str | None = None
        self.log: list[Row] = []
        self.snapshots: dict[str, tuple[int, bytes]] = {}
        self.store = self.make()

    def of(self, flow_id: str) -> list[Row]:
        return [r for r in self.log if r.flow_id == flow_id]

    @rule(group=st.lists(commits(), min_size=1, max_size=4), failing=st.sampled_from([None, None, None, "commit:before", "commit:after"]))
    def commit(self, group: list[tuple[list[Row], dict[str, int], tuple[str, str] | None, bool]], failing: str | None) -> None:
        built: list[Commit] = []
        for i, (new, wrong, unique, snap) in enumerate(group):
            copies = [row(r.flow_id, r.kind, None, r.at, step=r.step, key=r.key) for r in new]
            for copy, original in zip(copies, new, strict=True):
                copy.data = original.data
            expect = {flow: len(self.of(flow)) + off for flow, off in wrong.items()}
            snapshots = [Snapshot("a", len(self.of("a")), 0, "1", bytes([i]))] if snap and self.of("a") else []
            built.append(Commit(copies, expect, snapshots, unique))
        self.failing = failing
        outcomes = self.store.commit_group(built)
        self.failing = None
        for commit, outcome in zip(built, outcomes, strict=True):
            self.apply(commit, outcome, failing)

    def apply(self, commit: Commit, outcome: Any, failing: str | None) -> None:
        there = next((r for r in self.log if (r.kind, r.key) == commit.unique), None)
        stale = [f for f, seq in commit.expect.items() if len(self.of(f)) != seq]
        if there is not None:
            assert isinstance(outcome, Duplicate) and outcome.row == there
        elif stale:
            assert isinstance(outcome, StoreConflict) and outcome.flow_id in stale
        elif failing == "commit:before":
            assert str(outcome) == failing
        else:
            assert str(outcome) == failing if failing else isinstance(outcome, CommitResult), outcome
            for r in commit.rows:
                assert (r.pos, r.seq) == (len(self.log) + 1, len(self.of(r.flow_id)) + 1)
                self.log.append(r)
            for s in commit.snapshots:
                if s.seq >= self.snapshots.get(s.flow_id, (0, b""))[0]:
                    self.snapshots[s.flow_id] = (s.seq, s.body)

    @rule()
    def drop(self) -> None:
        self.store.drop_derived()
        self.snapshots.clear()

    @invariant()
    def the_same(self) -> None:
        store = getattr(self, "store", None)
        if store is None:
            return
        assert store.last_pos() == len(self.log)
        for flow in ("a", "b", "c", "$requests", "absent"):
            assert store.last_seq(flow) == len(self.of(flow))
            assert store.rows(flow) == self.of(flow)
        for key in ("k1", "k2", "k3"):
            first = next((r for r in self.log if r.key == key and r.kind == "effect-requested"), None)
            assert store.find("effect-requested", key) == first
        snapshot = store.snapshot("a")
        assert (None if snapshot is None else (snapshot.seq, snapshot.body)) == self.snapshots.get("a")

    @precondition(lambda self: len(self.log) > 0)
    @rule()
    def recovery_and_views(self) -> None:
        open_ = []
        for flow in dict.fromkeys(r.flow_id for r in self.log if r.kind == "flow-started"):
            if [r.kind for r in self.of(flow) if r.kind in kinds.STATUS][-1] not in kinds.ENDING:
                open_.append(flow)
        assert self.store.open_flows() == open_
        asked = [r for r in self.log if r.kind == "effect-requested" and r.flow_id in open_]
        closed = {(r.flow_id, r.step): r.pos for r in self.log if r.kind == "effect-completed" and r.step is not None}
        found = self.store.open_requests()
        assert found == [r for r in asked if closed.get((r.flow_id, r.step), 0) < r.pos]
        flows = self.store.query("SELECT * FROM flows ORDER BY flow_id").plain()
        assert [self.store.flow_row(f["flow_id"]) for f in flows] == flows
        assert self.store.query("SELECT count(*) FROM events").rows == [(len(self.log),)]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


class MemoryMachine(LogMachine):
    def make(self) -> Store:
        return MemoryStore(faults=self.fault)


class DuckDBMachine(LogMachine):
    def make(self) -> Store:
        self.folder = Path(tempfile.mkdtemp())
        return DuckDBStore(self.folder / "s.duckdb", faults=self.fault)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = DuckDBStore(self.folder / "s.duckdb", faults=self.fault)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(getattr(self, "folder", Path("/nonexistent")), ignore_errors=True)


class SQLiteMachine(LogMachine):
    def make(self) -> Store:
        return SQLiteStore(":memory:", faults=self.fault)


class PostgresMachine(LogMachine):
    server: Server

    def make(self) -> Store:
        from flowmetal.store.postgres_store import PostgresStore

        self.url = self.server.store()
        return PostgresStore(self.url, faults=self.fault)

    @rule()
    def reopen(self) -> None:
        from flowmetal.store.postgres_store import PostgresStore

        self.store.close()
        self.store = PostgresStore(self.url, faults=self.fault)

    @rule()
    def lose_the_connection(self) -> None:
        self.server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flowmetal'")

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "url"):
            self.server.give_back(self.url)


LONG = settings.get_current_profile_name() == "long"
TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = settings(max_examples=300 if LONG else 20, stateful_step_count=20 if LONG else 12)
TestSQLiteModel = SQLiteMachine.TestCase
TestSQLiteModel.settings = settings(max_examples=100 if LONG else 5, stateful_step_count=20 if LONG else 10)
TestDuckDBModel = DuckDBMachine.TestCase
TestDuckDBModel.settings = settings(
    max_examples=200 if LONG else 10, stateful_step_count=20 if LONG else 10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def test_postgres_model(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PostgresMachine, "server", postgres, raising=False)
    run_state_machine_as_test(PostgresMachine, settings=settings(max_examples=200 if LONG else 6, stateful_step_count=20 if LONG else 12))
