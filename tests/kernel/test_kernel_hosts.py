"""Two kernels and the command line on one store at once, while its host is killed: nobody notices, nothing is done twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from kernel_driver import Cell, Notebook
from processes import kill_host

CELLS = 4


class Shell:
    """`flowmetal …` beside the notebooks; keeps what it said."""

    def __init__(self, nb: Notebook, folder: Path) -> None:
        self.store = nb.store.url
        self.folder = folder
        self.said: list[str] = []

    def __call__(self, *args: str) -> str:
        command = [sys.executable, "-m", "flowmetal", *args, "--store", self.store]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, timeout=120, check=False)
        self.said.append(done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def test_two_kernels_and_the_command_line_while_hosts_are_killed(opened: Any, tmp_path: Path) -> None:
    one, two = opened(), opened()
    shell = Shell(one, tmp_path)
    first = [one.send('(defflow job [n] (sleep #dur "20ms") (* n n))'), two.send("(+ 1 1)")]  # both look for a host, and so does the command line
    shell("ps")
    for nb, cell in zip((one, two), first, strict=True):
        nb.finish(cell)
    hosts = {one.host().pid}

    commands = threading.Thread(target=lambda: [shell("result", shell("start", "job", str(n))) for n in range(CELLS)])
    commands.start()
    cells: list[tuple[Notebook, Cell, int]] = []
    for n in range(CELLS):
        cells += [(nb, nb.send(f"@(start job {n})"), n) for nb in (one, two)]
        if n % 2 == 1:
            one.until(lambda message: message["msg_type"] == "execute_input")
            hosts.add(kill_host(one.store))
    commands.join()
    for nb, cell, n in cells:
        nb.finish(cell)
        assert not cell.of("error"), cell.traceback
        assert cell.value == str(n * n)
    hosts.add(one.host().pid)
    assert len(hosts) >= 3

    said = " ".join([*shell.said, *(cell.output + cell.remarks for _, cell, _ in cells)])
    assert "lock" not in said.lower()
    with one.open() as fm:
        counts = dict(fm.sql("SELECT name, count(*) FROM flows WHERE kind = 'flow' GROUP BY name").fetchall())
        assert counts == {"job": 3 * CELLS}
        assert {status for (status,) in fm.sql("SELECT DISTINCT status FROM flows WHERE kind = 'flow'").fetchall()} == {"completed"}


def test_a_kernel_that_is_killed_is_nothing_to_the_others(opened: Any, tmp_path: Path) -> None:
    one, two = opened(), opened()
    shell = Shell(one, tmp_path)
    two.ok("(defflow meets [] (:who (receive))) (def meeting (start meets))")
    waiting = two.send('(println "begun") @meeting')
    two.until_output("begun")
    flow = shell("sql", "SELECT flow_id FROM flows WHERE name = 'meets'", "--format", "csv").split()[-1]
    two.kill()
    assert one.ok("(+ 1 1)").value == "2"
    shell("send", flow, '{"who": "the command line"}')
    assert shell("result", flow) == '"the command line"'
    assert not waiting.of("error")
