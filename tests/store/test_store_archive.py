"""Flows in the archive answer as before, and the file that they leave stays small."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowmetal.errors import StoreError
from flowmetal.store.archive import FILES
from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.protocol import Commit, Row, Store, StoreConflict
from flowmetal.store.testing import T0, commit, row, started

VIEWS = ("events", "flows", "effects", "messages", "timers")


def said() -> Row:
    return row("$removed", "flows-archived")


def flow(store: DuckDBStore, flow_id: str, n: int = 0) -> None:
    """A flow that is over, with something of everything."""
    commit(
        store, started(flow_id, tags={"n": n}),
        row(flow_id, "effect-requested", {"op": "callback", "target": "", "args": []}, step=1, key=f"{flow_id}-token"),
        row(flow_id, "message-received", {"message_id": f"{flow_id}-m", "message": n}, key=f"{flow_id}/m"),
        row(flow_id, "effect-completed", {"result": "y" * 66_000, "message_id": f"{flow_id}-c"}, step=1, exact='{"result":"' + "z" * 70_000 + '"}'),
        row(flow_id, "effect-requested", {"op": "sleep", "due_at": "2026-01-01T00:00:00Z"}, step=2), row(flow_id, "effect-completed", {}, step=2),
        row(flow_id, "flow-completed", {"result": n}, at=T0 + n),
    )  # fmt: skip


def answers(store: Store, *flows: str) -> list[Any]:
    """What a store says of flows, in every way."""
    out: list[Any] = [store.query(f"SELECT * FROM {view} WHERE flow_id IN ({', '.join(map(repr, flows))}) ORDER BY ALL").rows for view in VIEWS]
    for each in flows:
        out += [store.rows(each), store.rows(each, 2, 2), store.rows(each, of=frozenset({"flow-completed"})), store.last_seq(each), store.flow_row(each)]
        out += [
            store.find("effect-requested", f"{each}-token"),
            store.find("message-received", f"{each}/m"),
            store.find_flows(each),
            store.find_flows(each[:-1], 9),
        ]
    out += [
        store.rows_of(dict.fromkeys(flows, 1)),
        store.flow_rows(),
        store.flow_rows("completed", "f", 2, flows[-1]),
        store.open_flows(),
        store.open_requests(),
    ]
    return out


@pytest.fixture
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., DuckDBStore]:
    def open_(name: str = "it's a store.duckdb", **more: Any) -> DuckDBStore:
        store = DuckDBStore(tmp_path / name, **more)
        request.addfinalizer(store.close)
        return store

    return open_


def test_an_archived_flow_answers_as_before(opened: Callable[..., DuckDBStore]) -> None:
    store = opened()
    for n, name in enumerate(("a1", "a2", "b1")):
        flow(store, name, n)
    commit(store, started("open"))
    before = answers(store, "a1", "a2", "b1", "open")
    pos = store.last_pos()
    assert store.ended_before(T0 + 2, 10) == ["a1", "a2"]
    assert store.archive(["a1", "a2"], said()) == 2
    assert store.archive(["a1", "nobody"], said()) == 0
    assert answers(store, "a1", "a2", "b1", "open") == before
    assert store.ended_before(T0 + 100, 10) == ["b1"]
    assert store._run("SELECT count(*) FROM fm.log WHERE flow_id IN ('a1', 'a2')") == [(0,)]
    assert store._run("SELECT count(*) FROM fm.blobs") == [(2,)], "b1 has the same large values"
    store.drop_derived()
    assert answers(store, "a1", "a2", "b1", "open") == before
    store.close()
    again = opened()
    assert answers(again, "a1", "a2", "b1", "open") == before
    assert again.last_pos() == pos + 1
    copied = DuckDBStore(again.backup(again.path.parent / "copy"))  # type: ignore[union-attr]
    assert answers(copied, "a1", "a2", "b1", "open") == before
    copied.close()


def test_its_id_stays_known(opened: Callable[..., DuckDBStore]) -> None:
    store = opened()
    flow(store, "a")
    store.archive(["a"], said())
    (outcome,) = store.commit_group([Commit([started("a")], {"a": 0})])
    assert isinstance(outcome, StoreConflict) and outcome.actual == 7


def test_a_flow_that_goes_on_after_it_was_archived_is_read_whole(opened: Callable[..., DuckDBStore]) -> None:
    store = opened()
    flow(store, "a")
    store.archive(["a"], said())
    store.close()
    store = opened()
    assert [r.seq for r in store.rows("a")] == list(range(1, 8))
    commit(store, row("a", "flow-retried", {"back": [7]}), row("a", "flow-waiting"))
    assert [r.seq for r in store.rows("a")] == list(range(1, 10)) and store.last_seq("a") == 9
    assert [r.seq for r in store.rows_of({"a": 6})["a"]] == [7, 8, 9]


def test_what_was_archived_can_be_removed(opened: Callable[..., DuckDBStore]) -> None:
    store = opened()
    for name in ("xa", "yb", "zc"):
        flow(store, name)
    store.archive(["xa", "yb", "zc"], said())
    before = answers(store, "yb", "zc")[:-5]
    commit(store, row("$removed", "flow-deleted"), remove={"xa": 7})
    assert store.rows("xa") == [] and store.last_seq("xa") == 0 and store.find("effect-requested", "xa-token") is None
    assert answers(store, "yb", "zc")[:-5] == before
    commit(store, started("xa"))
    assert [r.seq for r in store.rows("xa")] == [1]
    commit(store, row("$removed", "flow-deleted"), remove={"yb": 7, "zc": 7})
    assert store._cold.files == []


def test_many_small_files_become_one(opened: Callable[..., DuckDBStore]) -> None:
    store = opened()
    names = [f"f{n:02}" for n in range(FILES + 3)]
    for n, name in enumerate(names):
        flow(store, name, n)
    some = (names[0], names[9], names[-1])
    before = answers(store, *some)
    for name in names:
        store.archive([name], said())
    assert answers(store, *some) == before
    assert len(store._cold.files) <= FILES
    store.close()
    again = opened()
    assert {p.name for p in again._cold.folder.iterdir()} == set(again._cold.files)  # type: ignore[union-attr]


@pytest.mark.parametrize("point", ["commit:before", "commit:after"])
def test_an_archiving_that_fails_loses_nothing_and_shows_nothing_twice(opened: Callable[..., DuckDBStore], point: str) -> None:
    failing = False

    def fault(where: str) -> None:
        if failing and where == point:
            raise RuntimeError(where)

    store = opened(faults=fault)
    flow(store, "a")
    before = answers(store, "a")
    failing = True
    with pytest.raises(RuntimeError):
        store.archive(["a"], said())
    failing = False
    assert answers(store, "a") == before
    store.close()
    again = opened()
    assert answers(again, "a") == before
    assert again.archive(["a"], said()) == (1 if point == "commit:before" else 0)
    assert answers(again, "a") == before


def test_a_store_that_is_moved_takes_its_archive_along(opened: Callable[..., DuckDBStore], tmp_path: Path) -> None:
    store = opened()
    flow(store, "a")
    store.archive(["a"], said())
    before = answers(store, "a")
    store.close()
    (tmp_path / "there").mkdir()
    for path in tmp_path.glob("it's*"):
        path.rename(tmp_path / "there" / path.name)
    assert answers(opened("there/it's a store.duckdb"), "a") == before


def test_an_archive_that_is_gone_is_told(opened: Callable[..., DuckDBStore]) -> None:
    store = opened()
    flow(store, "a")
    store.archive(["a"], said())
    for path in store._cold.folder.iterdir():  # type: ignore[union-attr]
        path.unlink()
    for ask in (lambda: store.rows("a"), lambda: store.last_seq("a"), lambda: store.find("effect-requested", "a-token")):
        with pytest.raises(StoreError, match="the archive cannot be read"):
            ask()


LOADS = 8 if not os.environ.get("FLOWMETAL_LONG") else 300


def test_a_steady_load_does_not_grow_the_file(opened: Callable[..., DuckDBStore]) -> None:
    """Flows come and end, and the older ones go to the archive: the file grows to a size, and no further."""
    store = opened()
    sizes, names = [], (f"f{n}" for n in itertools.count())
    assert store.path is not None
    previous: list[str] = []
    for n in range(LOADS):
        batch = list(itertools.islice(names, 40))
        commits = []
        for name in batch:
            rows = [row(name, "log", {"text": os.urandom(400).hex()}) for _ in range(20)]
            commits.append(
                Commit([started(name), row(name, "info", os.urandom(40_000).hex() if name.endswith("0") else n), *rows, row(name, "flow-completed", {})])
            )
        assert not [o for o in store.commit_group(commits) if isinstance(o, Exception)]
        store.archive(previous, said())
        store.give_back()
        previous = batch
        sizes.append(store.path.stat().st_size)
    assert max(sizes[LOADS // 2 :]) <= 1.25 * max(sizes[: LOADS // 2]), [size // 1024 for size in sizes]
    assert len(store.flow_rows(limit=10_000)) == min(10_000, LOADS * 40)
