"""What machines do to a host: the disk is full, read-only, or forgets; the file goes away. Nothing acknowledged is lost, nothing is made up."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from outside import Served, strike

pytestmark = pytest.mark.slow

PROGRAM = """
(defflow work [n] (loop [i 0] (if (= i n) n (do (log (apply str (repeat 500 "x"))) (sleep #dur "1ms") (recur (inc i))))))
(defflow patient [n] (dotimes [_ n] (rand)) (inc (receive)))
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    served.start()
    assert served.call("PUT", "/v1/definitions", PROGRAM.encode())[0] == 200
    yield served
    strike(served.pid)
    served.reap()


def begin(served: Served, flow_id: str, name: str = "work", n: int = 20) -> tuple[int, str]:
    status, answer = served.call("POST", "/v1/flows", {"name": name, "args": [n], "id": flow_id})
    return status, str(answer)


def result(served: Served, flow_id: str) -> object:
    status, answer = served.call("GET", f"/v1/flows/{flow_id}/result?wait=30")
    assert status == 200, answer
    return answer.get("result", answer)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: the limit of a running process")
def test_a_full_disk_refuses_what_it_cannot_keep_and_flows_go_on_when_there_is_room(served: Served) -> None:
    import resource

    size = max(file.stat().st_size for file in served.folder.glob("flowmetal.duckdb*"))
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (size + 40_000, resource.RLIM_INFINITY))
    acknowledged, refused = [], ""
    for n in range(200):
        status, answer = begin(served, f"f{n}")
        if status != 201:
            refused = f"{status} {answer}"
            break
        acknowledged.append(f"f{n}")
    assert refused.startswith("503"), refused
    assert served.call("GET", "/healthz")[0] == 200, "it answers, and can be looked at"
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert begin(served, "after")[0] == 201
    assert [result(served, flow_id) for flow_id in [*acknowledged, "after"]] == [20] * (len(acknowledged) + 1)


def test_a_file_that_is_taken_away_is_written_to_no_more_and_found_again(served: Served) -> None:
    file, away = served.folder / "flowmetal.duckdb", served.folder / "away.duckdb"
    begin(served, "before", "patient", 3)
    file.rename(away)
    status, answer = begin(served, "lost")
    assert (status, "was deleted, moved or replaced" in answer) == (503, True), answer
    file.touch()
    assert begin(served, "lost")[0] == 503, "another file in its place is not the store"
    file.unlink()
    away.rename(file)
    assert begin(served, "found")[0] == 201
    assert served.call("POST", "/v1/flows/before/messages", 1)[0] == 202
    assert [result(served, "before"), result(served, "found")] == [2, 20]
    assert served.call("GET", "/v1/flows/lost")[0] == 404


def test_a_store_whose_file_is_deleted_for_good_stops_in_order_and_the_next_host_begins_anew(served: Served) -> None:
    begin(served, "before", "patient", 3)
    for file in served.folder.glob("flowmetal.duckdb*"):
        if file.suffix in (".duckdb", ".wal"):
            file.unlink()
    assert begin(served, "lost")[0] == 503
    served.kill()
    served.start()
    assert served.call("GET", "/v1/flows")[1]["items"] == []


def test_corrupt_snapshots_are_made_again_from_the_log(served: Served) -> None:
    begin(served, "waits", "patient", 400)
    while served.call("GET", "/v1/flows/waits")[1]["status"] != "waiting":
        pass
    served.stop()
    with duckdb.connect(str(served.folder / "flowmetal.duckdb")) as connection:
        counted = connection.execute("UPDATE fm.snapshots SET body = 'no snapshot at all'::BLOB").fetchone()
        assert counted is not None
        assert counted[0] > 0
    served.start()
    assert served.call("POST", "/v1/flows/waits/messages", 41)[0] == 202
    assert result(served, "waits") == 42


def test_a_torn_end_of_the_log_leaves_whole_flows_that_go_on(served: Served) -> None:
    for n in range(5):
        begin(served, f"f{n}", n=15)
    served.kill()
    wal = served.folder / "flowmetal.duckdb.wal"
    whole, chance = wal.read_bytes(), random.Random(7)
    database = (served.folder / "flowmetal.duckdb").read_bytes()
    for _ in range(2):
        (served.folder / "flowmetal.duckdb").write_bytes(database)
        wal.write_bytes(whole[: chance.randrange(len(whole) // 2, len(whole))])
        served.start()
        there = [row["flow_id"] for row in served.call("GET", "/v1/flows")[1]["items"]]
        assert [result(served, flow_id) for flow_id in there] == [15] * len(there)
        served.kill()
    served.start()


@pytest.fixture
def frozen(served: Served) -> Iterator[None]:
    """The store's folder can be read only, until the end."""
    served.stop()
    if os.geteuid() == 0:  # to whom permissions mean nothing
        mounted = subprocess.run(["mount", "--bind", str(served.folder), str(served.folder)], capture_output=True, check=False)
        again = subprocess.run(["mount", "-o", "remount,ro,bind", str(served.folder)], capture_output=True, check=False)
        if mounted.returncode or again.returncode:
            pytest.skip("root may read everything, and nothing can be mounted here")
        try:
            yield
        finally:
            subprocess.run(["umount", str(served.folder)], check=True)
    else:
        (served.folder / "flowmetal.duckdb").chmod(0o400)
        served.folder.chmod(0o500)
        try:
            yield
        finally:
            served.folder.chmod(0o700)
            (served.folder / "flowmetal.duckdb").chmod(0o600)
    served.start()
    assert begin(served, "again")[0] == 201
    assert result(served, "again") == 20


def test_a_read_only_store_is_refused_with_its_name_and_served_again_when_it_can_be_written(served: Served, frozen: None) -> None:
    command = [sys.executable, "-m", "flowmetal", "serve", "--store", served.store.url, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", check=False)
    assert done.returncode == 3, done
    assert str(served.folder) in done.stderr
    assert "Traceback" not in done.stderr
