"""Database sources on the command line."""

from __future__ import annotations

import time

from command_line import Cli


def test_doctor_names_a_source_that_cannot_be_read(cli: Cli) -> None:
    (cli.folder / "s.flow").write_text('(defflow main [] (defsource orders {:url "sqlite:///nowhere.db" :sql "SELECT * FROM t WHERE id > :cursor"}))')
    cli.ok("load", "s.flow")
    cli.ok("result", cli.ok("start", "main").out.strip(), "--timeout", "20")
    deadline = time.monotonic() + 20
    while not cli.ok("sql", "SELECT error FROM sources WHERE error IS NOT NULL", "--format", "json").rows() and time.monotonic() < deadline:
        time.sleep(0.05)
    (problem,) = [p for p in cli.ok("doctor", "--json").json()["problems"] if "kernel" not in p]
    assert problem == "the source orders cannot be read, and is tried again: unable to open database file"
