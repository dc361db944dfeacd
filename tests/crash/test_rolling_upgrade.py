"""A rolling upgrade: interpreters of two builds on one store, of which the newer has another format and other primitives."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from outside import Served
from postgres_server import Server

import flowmetal
from flowmetal.client.store_url import resolve
from flowmetal.store.protocol import FORMAT_VERSION

pytestmark = pytest.mark.slow

FLOWS, STEPS = 30, 15
PROGRAM = """
(defflow worker [n] (reduce (fn [sum i] (sleep #dur "100ms") (+ sum i)) 0 (range n)))
(defflow waits [] (receive))
"""


@pytest.fixture
def next_build(tmp_path: Path) -> Path:
    """The program as it may be tomorrow: a format with one more migration, and primitives of another version."""
    there = tmp_path / "next" / "flowmetal"
    shutil.copytree(Path(flowmetal.__file__).parent, there, ignore=shutil.ignore_patterns("__pycache__"))
    new = FORMAT_VERSION + 1
    for file, old, text in (
        ("store/protocol.py", f"\nFORMAT_VERSION = {FORMAT_VERSION}\n", f"\nFORMAT_VERSION = {new}\n"),
        (
            "store/postgres_schema.py",
            "\nassert max(MIGRATIONS)",
            f"\nMIGRATIONS[{new}] = ('ALTER TABLE fm.log ADD COLUMN tomorrow text',)\nassert max(MIGRATIONS)",
        ),
        ("store/schema.py", "\nassert max(MIGRATIONS)", f"\nMIGRATIONS[{new}] = ()\nassert max(MIGRATIONS)"),
        ("lang/primitives/registry.py", "\nPRIMITIVES_VERSION = ", "\nPRIMITIVES_VERSION = 9"),
    ):
        source = (there / file).read_text(encoding="utf-8")
        assert source.count(old) == 1, file
        (there / file).write_text(source.replace(old, text), encoding="utf-8")
    return there.parent


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    yield postgres.new()  # its format changes: nobody has it afterwards


def test_flows_go_on_while_one_build_takes_the_place_of_the_other(database: str, next_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = resolve(database, environ={})
    old, new = Served(tmp_path, store), Served(tmp_path, store)
    old.start()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(next_build), os.environ.get("PYTHONPATH", "")]))
    with psycopg.connect(database, autocommit=True) as raw:
        try:
            assert old.call("PUT", "/v1/definitions?file=p.flow", PROGRAM.encode())[0] == 200
            flows = [old.call("POST", "/v1/flows", {"name": "worker", "args": [STEPS]})[1]["flow_id"] for _ in range(FLOWS)]
            waiting = old.call("POST", "/v1/flows", {"name": "waits", "args": []})[1]["flow_id"]
            new.start()
            while raw.execute("SELECT count(*) FROM fm.shares WHERE owner IS NOT NULL GROUP BY owner").fetchall() != [(32,), (32,)]:
                raw.execute("SELECT pg_sleep(0.02)")
            assert raw.execute("SELECT value FROM fm.meta WHERE key = 'format'").fetchone() == (str(FORMAT_VERSION + 1),)
            flows += [old.call("POST", "/v1/flows", {"name": "worker", "args": [STEPS]})[1]["flow_id"] for _ in range(5)]
            assert old.call("GET", f"/v1/flows/{flows[-1]}/result?wait=30")[1]["result"] == sum(range(STEPS))
            old.stop()
            for flow in flows:
                assert new.call("GET", f"/v1/flows/{flow}/result?wait=30")[1]["result"] == sum(range(STEPS))
            assert new.call("POST", f"/v1/flows/{waiting}/messages", {"x": 1})[0] == 202
            assert new.call("GET", f"/v1/flows/{waiting}/result?wait=30")[1]["result"] == {"x": 1}
            steps = "SELECT count(*), count(DISTINCT (flow_id, step)) FROM fm.log WHERE kind = 'effect-completed' AND flow_id <> %s"
            assert raw.execute(steps, (waiting,)).fetchone() == (len(flows) * STEPS, len(flows) * STEPS)
            engines = raw.execute("SELECT data->>'engine' FROM fm.log WHERE kind = 'engine' ORDER BY pos").fetchall()
            assert len(engines) == 2 and len(set(engines)) == 2
        finally:
            for served in (old, new):
                if served.running:
                    served.kill()
    monkeypatch.undo()
    refused = subprocess.run([sys.executable, "-m", "flowmetal", "serve", "--store", database, "--port", "0"], capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0 and re.search(rf"written by a newer Flowmetal: its format is {FORMAT_VERSION + 1}", refused.stderr)
