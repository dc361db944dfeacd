"""The DuckDB file: opening, reopening, what is wrong with a path, kills, full disks."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.protocol import Commit, CommitResult, Row, Snapshot, StoreConflict, StoreError
from flowmetal.store.testing import commit, row, started

pytestmark = pytest.mark.slow


def test_reopening(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    store = DuckDBStore(path)
    store_id = store.get_meta("store_id")
    commit(store, started("a"), row("a", "effect-requested", {"op": "x"}, step=1, key="k"), snapshots=[Snapshot("a", 2, 1, "1", b"x")])
    commit(store, Row("a", "log", '"' + "x" * 100_000 + '"', 0))
    before = store.rows("a")
    store.close()
    store = DuckDBStore(str(path))
    assert store.get_meta("store_id") == store_id
    assert store.rows("a") == before and store.last_pos() == 3
    found = store.find("effect-requested", "k")
    assert found is not None and found.pos == 2
    assert store.snapshot("a") == Snapshot("a", 2, 1, "1", b"x")
    assert isinstance(store.commit_group([Commit([started("a")], {"a": 0})])[0], StoreConflict)
    assert commit(store, row("a", "log"), expect={"a": 3})[0].pos == 4
    store.close()


def test_large_values_stand_once(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    store = DuckDBStore(path)
    big = '"' + "x" * 100_000 + '"'
    for i in range(5):
        commit(store, Row(f"f{i}", "log", big, 0, exact=big))
    store.close()
    with duckdb.connect(str(path)) as raw:
        assert raw.execute("SELECT count(*), max(octet_length(body)) FROM fm.blobs").fetchall() == [(1, len(big))]
        assert raw.execute("SELECT max(length(data)), max(length(exact)) FROM fm.log").fetchall() == [(65, 65)]


def refused(path: Path, says: str, type_: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        DuckDBStore(path)
    error = caught.value
    assert says in error.message and str(path.name) in error.message, error.message
    assert error.type == type_ and error.hint
    return error


def test_a_directory(tmp_path: Path) -> None:
    refused(tmp_path, "is a directory", "store/path")


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no directory"):
        DuckDBStore(tmp_path / "nowhere" / "s.duckdb")


@pytest.mark.parametrize("content", [b"garbage\n" * 1000, b"x", b"PK\x03\x04" + bytes(8192)])
def test_a_file_of_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.duckdb"
    path.write_bytes(content)
    refused(path, "is not a DuckDB database", "store/path")
    assert path.read_bytes() == content


def test_somebody_elses_database(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    with duckdb.connect(str(path)) as raw:
        raw.execute("CREATE TABLE precious (x INTEGER)")
    refused(path, "not a Flowmetal store", "store/path")
    with duckdb.connect(str(path)) as raw:
        assert raw.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("precious",)]


def test_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    DuckDBStore(path).close()
    with duckdb.connect(str(path)) as raw:
        raw.execute("UPDATE fm.meta SET value = '99' WHERE key = 'format'")
    error = refused(path, "its format is 99", "store/format")
    assert error.hint is not None and "upgrade" in error.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    DuckDBStore(path).close()
    path.chmod(0)
    refused(path, "may not be read", "store/path")


def test_twice_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    store = DuckDBStore(path)
    refused(path, "open in this process already", "store/locked")
    store.close()
    DuckDBStore(path).close()


CHILD = """
import sys, json
from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.protocol import Commit, Row, Snapshot
store = DuckDBStore(sys.argv[1])
print("ready", flush=True)
size = int(sys.argv[2])
n = store.last_pos()
while True:
    flow = f"f{n}"
    rows = [Row(flow, "flow-started", '{"name":"f"}', 0)] + [Row(flow, "log", json.dumps("x" * size), 0) for _ in range(2)]
    (outcome,) = store.commit_group([Commit(rows, {flow: 0}, [Snapshot(flow, 3, 0, "1", b"s")])])
    n = outcome.pos
    print(n, flush=True)
"""


def child(path: Path, size: int = 100) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(size)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_file_in_use_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    process = child(path)
    try:
        refused(path, f"in use by process {process.pid}", "store/locked")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("size", "after"), [(100, 0.05), (100, 0.4), (40_000, 0.3), (70_000, 0.3)])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, size: int, after: float) -> None:
    """Killed in the midst of commits, thrice over: each acknowledged commit is there whole, and none is there in part."""
    path = tmp_path / "s.duckdb"
    for _ in range(3):
        process = child(path, size)
        timer = threading.Timer(after, process.send_signal, [signal.SIGKILL])
        timer.start()
        acknowledged = process.communicate(timeout=60)[0].split()
        timer.join()
        assert process.returncode == -signal.SIGKILL
        store = DuckDBStore(path)
        last = store.last_pos()
        assert last >= int(acknowledged[-1] if acknowledged else 0) and last % 3 == 0
        rows = [(r[0], r[1], r[2]) for r in store.query("SELECT pos, flow_id, seq FROM events ORDER BY pos").rows]
        assert rows == [(n + 1, f"f{n // 3 * 3}", n % 3 + 1) for n in range(last)]
        for n in {0, last // 3 // 2 * 3, last - 3} if last else ():
            assert [len(r.data) for r in store.rows(f"f{n}")] == [12, size + 2, size + 2]
            assert store.snapshot(f"f{n}") is not None
        store.close()


def test_a_torn_end_of_the_log_loses_only_what_was_not_acknowledged(tmp_path: Path) -> None:
    """The write-ahead log cut off at any length: a prefix of the commits is there, each of them whole."""
    path = tmp_path / "s.duckdb"
    process = child(path)
    assert process.stdout is not None
    for _ in range(30):
        process.stdout.readline()
    process.kill()
    process.communicate()
    database, wal = path.read_bytes(), Path(f"{path}.wal").read_bytes()
    seen = set()
    for cut in range(0, len(wal), max(1, len(wal) // 40)):
        torn = tmp_path / f"torn{cut}.duckdb"
        torn.write_bytes(database)
        Path(f"{torn}.wal").write_bytes(wal[: len(wal) - cut])
        store = DuckDBStore(torn)
        assert store.last_pos() % 3 == 0
        seen.add(store.last_pos())
        assert commit(store, started("new"), expect={"new": 0})[0].pos == store.last_pos()
        store.close()
    assert len(seen) > 10


FULL_DISK = """
import resource, signal, sys
from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.protocol import Commit, CommitResult, Row, StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = DuckDBStore(sys.argv[1])
def commit(size):
    row = Row("a", "log", '"' + "x" * size + '"', 0)
    return store.commit_group([Commit([row], {"a": store.last_seq("a")})])[0]
good = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
failed = 0
for i in range(40):
    outcome = commit(30_000)
    if isinstance(outcome, CommitResult):
        good += 1
    else:
        assert isinstance(outcome, StoreError), repr(outcome)
        failed += 1
    assert store.last_pos() == good, (store.last_pos(), good, outcome)
assert failed and good, (good, failed)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for i in range(5):
    outcome = commit(30_000)
    assert isinstance(outcome, CommitResult), repr(outcome)
    good += 1
assert len(store.rows("a")) == good
print(good, failed)
import os; os._exit(0)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """What cannot be written fails with a StoreError; what was acknowledged stays; with room again it goes on."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    path = tmp_path / "s.duckdb"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    good = int(done.stdout.split()[0])
    store = DuckDBStore(path)
    assert [r.seq for r in store.rows("a")] == list(range(1, good + 1))
    assert isinstance(store.commit_group([Commit([row("a", "log")], {"a": good})])[0], CommitResult)
    store.close()


def test_a_checkpoint_works_behind_the_locks(tmp_path: Path) -> None:
    """The log outgrows the write-ahead log: DuckDB writes its own file though files are forbidden to queries."""
    path = tmp_path / "s.duckdb"
    store = DuckDBStore(path)
    for i in range(60):
        commit(store, *(Row(f"f{i}", "log", '"' + os.urandom(30_000).hex() + '"', 0) for _ in range(10)))
    assert path.stat().st_size > 10_000_000
    store.close()
    assert not Path(f"{path}.wal").exists()
