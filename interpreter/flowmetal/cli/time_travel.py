"""Commands that go back in a flow's past, or change what it goes on with: `fork`, `upgrade`.

In: a flow and a step; flows, or an SQL condition. Out: the new flow's id; a line for each flow that was moved. The one rule:
`--dry-run` says what would be done, and does nothing.
"""

from __future__ import annotations

from typing import Any

import click

from flowmetal.cli.control import to_each
from flowmetal.cli.options import common_json, json_argument, with_client
from flowmetal.cli.output import print_json
from flowmetal.client.client import Client, Row


@click.command()
@click.argument("flow", metavar="FLOW")
@click.option("--at", "step", metavar="STEP", type=click.IntRange(min=1), required=True, help="What comes before this step is shared.")
@click.option("--with", "given", metavar="JSON", help="The step's outcome; without it the step is asked anew.")
@click.option("--upgrade", is_flag=True, help="Under the current definitions.")
@click.option("--adopt-rollbacks", is_flag=True, help="What the original did in a saga is undone by the fork, if that fails.")
@click.option("--dry-run", is_flag=True, help="Only say what would be shared, and what may be done again.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the history.")
@common_json
def fork(
    flow: str, step: int, given: str | None, upgrade: bool, adopt_rollbacks: bool, dry_run: bool, reason: str | None, store: str | None, as_json: bool
) -> None:
    """Make a new flow that shares the history of FLOW before a step; print its id.

    Nothing that is shared is sent again. What FLOW asked for after that, the new flow asks for itself.
    """
    outcome = () if given is None else (json_argument(given, "--with"),)

    async def body(client: Client) -> Row:
        flow_id = str((await client.flow(flow))["flow_id"])
        return await client.fork(
            flow_id, step, outcome=outcome, upgrade=upgrade, adopt_rollbacks=adopt_rollbacks, dry_run=dry_run, reason=reason
        )  # fmt: skip

    made = with_client(store, body)
    if as_json:
        print_json(made)
    elif dry_run:
        _show_plan(made)
    else:
        click.echo(made["flow_id"])


def _show_plan(plan: Row) -> None:
    click.echo(f"shares the steps up to {plan['shared']} of {plan['flow_id']}, under version {plan['definitions_version']} of the definitions")
    for what, steps in (("waits with the original for", plan["linked"]), ("may do again", plan["again"])):
        for each in steps:
            click.echo(f"{what} step {each['step']}: {' '.join(str(x) for x in (each['op'], each['target']) if x)}{_place(each)}")
    if plan["rollbacks"]:
        click.echo(f"rollbacks that stay with the original, unless --adopt-rollbacks: {plan['rollbacks']}")


def _place(step: Row) -> str:
    return f" ({step['source']}:{step['line']})" if step.get("source") else ""


@click.command()
@click.argument("flows", metavar="FLOW...", nargs=-1)
@click.option("--where", metavar="SQL", help="Flows for which this condition holds, over the view `flows`.")
@click.option("--dry-run", is_flag=True, help="Only say for which flows it can be done, and why not for others.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the history.")
@common_json
def upgrade(flows: tuple[str, ...], where: str | None, dry_run: bool, reason: str | None, store: str | None, as_json: bool) -> int:
    """Move flows to the current definitions, if these ask for all that a flow has asked for.

    A flow for which they do not is left as it is; where they differ is said, and which fork goes on from there.
    """

    async def act(client: Client, flow: str) -> None:
        report = await client.upgrade(str((await client.flow(flow))["flow_id"]), dry_run=dry_run, reason=reason)
        if as_json:
            print_json(report)
        else:
            click.echo(f"{report['flow_id']} {_said(report, dry_run=dry_run)}")

    return to_each(store, flows, where, act)


def _said(report: dict[str, Any], *, dry_run: bool) -> str:
    if report["from"] == report["to"]:
        return f"has version {report['to']} already"
    return f"{'can be upgraded' if dry_run else 'upgraded'} from version {report['from']} to {report['to']}: all {report['steps']} steps agree"
