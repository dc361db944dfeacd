"""`export` and `import`, between two stores that are served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from command_line import ORDERS, Cli
from processes import end_host


def test_flows_move_from_one_store_to_another(cli: Cli) -> None:
    cli.ok("load", cli.file(ORDERS))
    waits, done = cli.ok("start", "waits").out.strip(), cli.ok("start", "main").out.strip()
    cli.ok("result", done)
    there = ("--store", cli.at("other.duckdb").url)
    assert sorted(cli.ok("export", waits, done, "-o", "f.flowlog").out.splitlines()) == sorted([f"{waits} moved", f"{done} exported"])
    file = cli.folder / "f.flowlog"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in cli.folder.glob(".f*")] == []
    moved = cli("result", waits)
    assert moved.code == 1 and ":flow/moved" in moved.err
    assert cli("send", waits, "1").code == 2 and cli.ok("result", done).out == "3\n"
    again = cli("export", done, "-o", "f.flowlog")
    assert again.code == 3 and "is there already" in again.err
    try:
        assert set(cli.ok("import", "f.flowlog", *there).out.split()) == {waits, done}
        twice = cli.ok("import", "f.flowlog", *there, "--json")
        assert "already" in twice.err and twice.json()["new"] is False
        cli.ok("send", waits, '"there"', *there)
        assert cli.ok("result", waits, *there).json() == {"got": "there"}
        assert cli.ok("result", done, *there).out == "3\n"
        cut = file.read_bytes()[:-30]
        Path(cli.folder / "cut.flowlog").write_bytes(cut)
        refused = cli("import", "cut.flowlog", *there)
        assert refused.code == 2 and "cut off" in refused.err
        assert cli("import", "none.flowlog", *there).code == 2
        assert cli("import", "orders.flow", *there).code == 2
        assert cli("export", "nobody", "-o", "g.flowlog").code == 3
        assert not (cli.folder / "g.flowlog").exists()
    finally:
        end_host(cli.at("other.duckdb"))


def test_python_says_what_moved(cli: Cli) -> None:
    cli.ok("load", cli.file(ORDERS))
    flow = cli.ok("start", "naps").out.strip()
    program = f"""
import flowmetal, json
with flowmetal.open({cli.store.url!r}) as fm:
    print(json.dumps(fm.flow({flow!r}).export("n.flowlog")))
with flowmetal.open(":memory:") as fm:
    (flow,) = fm.import_flows("n.flowlog")
    print(json.dumps([flow, fm.status(flow)]))
"""
    (cli.folder / "p.py").write_text(program)
    done = subprocess.run([sys.executable, "p.py"], cwd=cli.folder, env=cli.env, capture_output=True, text=True, timeout=60, check=True)
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["moved"] == [flow] and second == [flow, "waiting"]


def test_recorded_histories_are_done_again_under_new_code(cli: Cli) -> None:
    old = '(defflow order [n] (receive) (sleep #dur "10ms") (* 2 n))'
    cli.ok("load", cli.file(old))
    flow = cli.ok("start", "order", "4").out.strip()
    cli.ok("send", flow, "1")
    cli.ok("result", flow)
    cli.ok("export", flow, "-o", "f.flowlog")
    agreed = cli.ok("test", "--replay", "f.flowlog", "orders.flow")
    assert f"✓ order {flow}" in agreed.out and "1 flow done again: all agree" in agreed.out
    cli.file(old.replace("sleep", "timer"), "new.flow")
    differs = cli("test", "--replay", "f.flowlog", "new.flow")
    assert differs.code == 1
    assert f"step 2 of {flow} is recorded as sleep" in differs.out and "orders.flow:1" in differs.out and "new.flow:1" in differs.out
    (row,) = cli("test", "--replay", "f.flowlog", "new.flow", "--json").rows()
    assert row["ok"] is False and row["flow_id"] == flow and "recorded as sleep" in row["difference"]
    assert cli("test", "--replay", "f.flowlog", "-k", "nothing", "new.flow").code == 2
    assert cli("test", "--replay", "none.flowlog", "new.flow").code == 2
    assert cli("test", "--replay", "new.flow", "new.flow").code == 2
    cli.file("(defflow order [", "broken.flow")
    assert cli("test", "--replay", "f.flowlog", "broken.flow").code == 2
