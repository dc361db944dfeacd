"""A copy of a store that is in use."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.protocol import Snapshot, StoreError
from flowmetal.store.testing import commit, row, started


def test_a_copy_answers_as_the_store_did(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "s.duckdb")
    commit(store, started("a"), row("a", "info", "y" * 100_000, key="\0k"), snapshots=[Snapshot("a", 2, 0, "1", b"\0s")])
    store.set_meta("port", "8421")
    path = store.backup(tmp_path / "it's a copy")
    commit(store, row("a", "log"))
    copy = DuckDBStore(path)
    assert copy.rows("a") == store.rows("a")[:2]
    assert copy.snapshot("a") == store.snapshot("a") and copy.last_pos() == 2
    assert copy.find("info", "\0k") == store.find("info", "\0k")
    assert (copy.get_meta("port"), copy.get_meta("store_id")) == ("8421", store.get_meta("store_id"))
    assert copy.query("SELECT flow_id, status FROM flows").rows == [("a", "running")]
    assert [r.pos for r in commit(copy, row("a", "log"))] == [3]
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir() if "archive" in p.name or p.suffix == ".token") == []
    copy.close()
    store.close()


def test_a_copy_made_while_others_write_is_of_one_moment(tmp_path: Path) -> None:
    """Each commit has two rows: a copy has both, or neither."""
    store = DuckDBStore(tmp_path / "s.duckdb")
    commit(store, row("a", "log"), row("b", "log"))
    failed: list[BaseException] = []
    paths: list[Path] = []

    def copy() -> None:
        try:
            paths.extend(store.backup(tmp_path / f"copy{n}") for n in range(4))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=copy)
    thread.start()
    while thread.is_alive():
        commit(store, row("a", "log"), row("b", "log"))
    thread.join()
    store.close()
    assert not failed and len(paths) == 4
    for path in paths:
        opened = DuckDBStore(path)
        assert len(opened.rows("a")) == len(opened.rows("b")) >= 1
        assert opened.last_pos() == 2 * len(opened.rows("a"))
        opened.close()


def test_a_copy_never_replaces_what_is_there(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "s.duckdb")
    folder = tmp_path / "copies"
    store.backup(folder)
    with pytest.raises(StoreError, match="is there already"):
        store.backup(folder)
    assert [p.name for p in folder.iterdir()] == ["s.duckdb"]
    store.close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "s.duckdb")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be copied"):
        store.backup(tmp_path / "file" / "below")
    assert not (tmp_path / "s.duckdb.archive").exists()
    store.close()


def test_what_the_database_may_reach_has_not_grown(tmp_path: Path) -> None:
    """It may read and write beside the store, in a folder of its own; users' SQL nothing."""
    store = DuckDBStore(tmp_path / "s.duckdb")
    outside = tmp_path / "outside.csv"
    outside.write_text("a\n1\n")
    for sql in (f"SELECT * FROM read_csv('{outside}')", f"COPY (SELECT 1) TO '{tmp_path}/x.csv'"):
        with pytest.raises(StoreError, match="disabled by configuration"):
            store._run(sql)
    store.close()
