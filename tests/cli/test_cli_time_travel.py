"""`fork` and `upgrade`."""

from __future__ import annotations

import time

from command_line import Cli

OLD = "(defflow quote [n] (let [a (receive) b (receive)] {:n n :a a :b b}))\n(defflow other [] (receive))\n"
NEW = OLD.replace("{:n n", "{:new true :n n")
UNLIKE = OLD.replace("a (receive) b", 'a (receive) _ (sleep #dur "1h") b')


def waits_for(cli: Cli, flow: str, step: int) -> None:
    """Returns when the flow has asked for a step."""
    deadline = time.monotonic() + 20
    while cli.ok("show", flow, "--json").json()["steps"] < step:
        assert time.monotonic() < deadline


def started(cli: Cli) -> str:
    """A flow that waits at its second step."""
    cli.ok("load", cli.file(OLD))
    flow = cli.ok("start", "quote", "7").out.strip()
    cli.ok("send", flow, '"first"')
    waits_for(cli, flow, 2)
    return flow


def test_fork(cli: Cli) -> None:
    flow = started(cli)
    made = cli.ok("fork", flow[:12], "--at", "1", "--with", '"other"').out.strip()
    cli.ok("send", made, '"second"')
    assert cli.ok("result", made).json() == {"n": 7, "a": "other", "b": "second"}
    row = cli.ok("fork", flow, "--at", "2", "--with", "null", "--reason", "what if", "--json").json()
    assert (row["forked_from"], row["forked_at"], row["name"]) == (flow, 2, "quote")
    assert cli.ok("result", row["flow_id"]).json() == {"n": 7, "a": "first", "b": None}
    assert "what if" in cli.ok("log", row["flow_id"], "--json").out
    plan = cli.ok("fork", flow, "--at", "2", "--dry-run")
    assert plan.out.startswith(f"shares the steps up to 1 of {flow}, under version ")
    assert cli.ok("fork", flow, "--at", "2", "--dry-run", "--json").json()["again"] == []
    late = cli("fork", flow, "--at", "9")
    assert late.code == 2 and "has no step 9 to be forked at: its present run has the steps 1 to 2" in late.err
    assert cli("fork", flow).code == 2
    assert cli("fork", flow, "--at", "0").code == 2
    assert "is not JSON" in cli("fork", flow, "--at", "1", "--with", "bare").err
    assert cli("fork", "nobody", "--at", "1").code == 3


def test_upgrade(cli: Cli) -> None:
    flow = started(cli)
    other = cli.ok("start", "other").out.strip()
    cli.ok("load", cli.file(UNLIKE))
    refused = cli("upgrade", flow, "--dry-run")
    assert refused.code == 2
    assert f"step 2 of {flow} is recorded as receive at orders.flow:1:40, but now asks for sleep at orders.flow:1:40" in refused.err
    assert f"step 1 agrees; a fork goes on from there under the current definitions: flowmetal fork {flow} --at 2 --upgrade" in refused.err
    cli.ok("load", cli.file(NEW))
    assert "can be upgraded from version" in cli.ok("upgrade", flow, "--dry-run").out
    rows = cli.ok("upgrade", "--where", "status = 'waiting'", "--json").rows()
    assert {row["flow_id"] for row in rows} == {flow, other} and all(row["upgraded"] for row in rows)
    assert "already" in cli.ok("upgrade", flow).out
    cli.ok("send", flow, '"second"')
    assert cli.ok("result", flow).json() == {"new": True, "n": 7, "a": "first", "b": "second"}
    ended = cli("upgrade", flow, "nobody")
    assert ended.code != 0 and "has ended: it is completed" in ended.err and "there is no flow nobody" in ended.err
    assert cli("upgrade").code == 2
