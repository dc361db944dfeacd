"""`backup` and `delete`."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import ORDERS, Cli


@pytest.mark.one_store("a backup of PostgreSQL is its own tools' business")
def test_a_backup_of_a_store_that_is_served_opens_as_a_store(cli: Cli) -> None:
    cli.ok("load", cli.file(ORDERS))
    flow = cli.ok("start", "add", "1", "2").out.strip()
    waiting = cli.ok("start", "waits").out.strip()
    assert cli.ok("result", flow).out == "3\n"
    path = cli.ok("backup", "copies/today").out.strip()
    assert path == str((cli.folder / "copies/today/flowmetal.duckdb").resolve())
    assert [p.name for p in Path(path).parent.iterdir()] == ["flowmetal.duckdb"]
    again = cli("backup", "copies/today")
    assert again.code == 3 and "is there already" in again.err and "name another folder" in again.err
    try:
        assert cli.ok("result", flow, "--store", path).out == "3\n"
        cli.ok("send", waiting, "7", "--store", path)
        assert cli.ok("result", waiting, "--store", path).json() == {"got": 7}
        assert cli.ok("token", "--store", path).out != cli.ok("token").out
    finally:
        cli.ok("stop", "--store", path)
    assert cli.ok("ps", "--status", "waiting", "--json").rows()[0]["flow_id"] == waiting


def test_delete_names_what_is_gone_and_refuses_what_is_open(cli: Cli) -> None:
    cli.ok("load", cli.file(ORDERS))
    ended = [cli.ok("start", "main").out.strip() for _ in range(3)]
    for flow in ended:
        cli.ok("result", flow)
    open_ = cli.ok("start", "waits").out.strip()
    refused = cli("delete", open_, ended[0][:-1])
    assert refused.code == 2 and "is open: it is waiting" in refused.err and "cancel or terminate it first" in refused.err
    assert refused.out == f"{ended[0]} deleted\n"
    assert cli("show", ended[0]).code == 3
    assert cli("delete", "no-such-flow").code == 3
    assert cli("delete").code == 2
    rest = cli.ok("delete", "--where", "name LIKE '%'", "--json").rows()
    assert {row["flow_id"] for row in rest} >= set(ended[1:])
    assert cli.ok("ps", "--json").rows()[0]["flow_id"] == open_
    assert "no flow that is over fits" in cli.ok("delete", "--where", "name = 'none'").err
    assert cli("delete", "--where", "no such").code == 2
