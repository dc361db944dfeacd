"""`flowmetal allow`."""

from __future__ import annotations

from command_line import Cli


def test_allow_names_notebooks_takes_it_back_and_lists(cli: Cli) -> None:
    assert "no notebook" in cli.ok("allow").err
    assert cli.ok("allow", "notebooks/orders.ipynb").out == "orders\n"
    assert cli.ok("allow", "--json").rows() == [{"notebook": "orders"}]
    assert cli.ok("allow", "orders", "--revoke").out == ""
    assert cli("allow", "--revoke").code == 2
