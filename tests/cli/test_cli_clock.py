"""Virtual time on the command line: it belongs to the store, and whoever attaches lives in it."""

from __future__ import annotations

from command_line import Cli


def test_a_store_made_in_virtual_time_stays_there(cli: Cli) -> None:
    (cli.folder / "nap.flow").write_text('(defflow main [] (sleep #dur "14d") (now))')
    run = ("run", "nap.flow", "--store", cli.store.url)
    cli.ok("serve", "--background", "--idle-seconds", "0.2", "--clock", "virtual")
    assert cli.ok(*run, "--clock", "virtual").json() == "2026-01-15T00:00:00Z"
    assert cli.ok(*run).json() == "2026-01-29T00:00:00Z"
    flow = cli.ok("start", "main").out.strip()
    assert cli.ok("result", flow, "--timeout", "20").json() == "2026-02-12T00:00:00Z"
    assert cli.ok("stop").code == 0
    refused = cli("serve", "--clock", "real", "--port", "0")
    assert (refused.code, "lives in virtual time" in refused.err) == (3, True)


def test_a_store_in_real_time_refuses(cli: Cli) -> None:
    (cli.folder / "nap.flow").write_text('(defflow main [] (sleep #dur "14d") (now))')
    cli.ok("ps")
    refused = cli("run", "nap.flow", "--clock", "virtual", "--store", cli.store.url)
    assert (refused.code, "lives in real time" in refused.err) == (2, True)
