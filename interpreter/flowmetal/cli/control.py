"""Commands that act on flows: `pause`, `resume`, `step`, `retry`, `cancel`, `terminate`, `send`.

In: flows' ids or prefixes, or an SQL condition over the view `flows`. Out: one line a flow with its status
afterwards. The one rule: each flow is acted on by itself; one that cannot be does not keep the others from it,
and the exit code tells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click

from flowmetal.cli.exits import DONE, exit_code
from flowmetal.cli.options import TAKES_JSON, common_json, json_argument, with_client
from flowmetal.cli.output import print_json, remark
from flowmetal.client.client import Client
from flowmetal.errors import FlowmetalError

_PAST = {"pause": "paused", "resume": "resumed", "step": "going on by one step", "retry": "retried", "cancel": "cancelling", "terminate": "terminated"}

_STOPPED = """SELECT p.flow_id FROM events p WHERE p.kind = 'flow-paused' AND p.data->>'failed' = 'true'
    AND NOT EXISTS (SELECT 1 FROM events l WHERE l.flow_id = p.flow_id AND l.kind = 'flow-paused' AND l.seq > p.seq)"""
Among = tuple[str, str]
"""For --where: the condition that flows must meet besides, and what those are called."""
OPEN: Among = ("finished_at IS NULL", "open flow")
OVER: Among = ("finished_at IS NOT NULL", "flow that is over")
_AMONG: dict[str, Among] = {
    "step": ("status = 'paused'", "paused flow"),
    "retry": (f"(status = 'failed' OR (status = 'paused' AND flow_id IN ({_STOPPED})))", "failed flow"),
}


def _command(action: str, help_text: str) -> click.Command:
    @click.command(action, help=help_text)
    @click.argument("flows", metavar="FLOW...", nargs=-1)
    @click.option("--where", metavar="SQL", help="Flows for which this condition holds, over the view `flows`.")
    @click.option("--reason", metavar="TEXT", help="Why; kept in the history.")
    @common_json
    def command(flows: tuple[str, ...], where: str | None, reason: str | None, store: str | None, as_json: bool) -> int:
        async def act(client: Client, flow: str) -> None:
            flow_id = str((await client.flow(flow))["flow_id"])
            row = await client.control(flow_id, action, reason=reason)
            if as_json:
                print_json(row)
            else:
                click.echo(f"{flow_id} {row['status'] if row['status'] != 'running' else _PAST[action]}")

        return to_each(store, flows, where, act, _AMONG.get(action, OPEN))

    return command


def to_each(store: str | None, flows: tuple[str, ...], where: str | None, act: Callable[[Client, str], Awaitable[None]], among: Among = OPEN) -> int:
    """Acts on each flow that is named, or for which a condition holds; the exit code is that of the first that could not be."""
    if bool(flows) == (where is not None):
        raise click.UsageError("name the flows, or give --where with a condition")

    async def body(client: Client) -> int:
        code = DONE
        for flow in flows if where is None else await _fitting(client, where, among):
            try:
                await act(client, flow)
            except FlowmetalError as error:
                remark(f"error: {flow}: {error.render()}")
                code = code or exit_code(error)
        return code

    return with_client(store, body)


async def _fitting(client: Client, where: str, among: Among) -> tuple[str, ...]:
    """The flows for which a condition holds, the oldest first."""
    those, called = among
    found = tuple(str(row[0]) for row in await client.sql(f"SELECT flow_id FROM flows WHERE {those} AND ({where}) ORDER BY created_at"))
    if not found:
        remark(f"no {called} fits")
    return found


pause: click.Command = _command("pause", "Pause flows: what arrives is kept, and nothing is done with it until `resume`.")
resume: click.Command = _command("resume", "Let paused flows go on.")
step: click.Command = _command("step", "Let paused flows go on to their next step, where they are paused again.")
retry: click.Command = _command("retry", "Ask the steps that flows failed of anew: they go on there, paused or ended as they are.")
cancel: click.Command = _command("cancel", "Cancel flows at their next wait; their `finally` blocks and rollbacks run.")
terminate: click.Command = _command("terminate", "End flows at once, without running any of their code.")


@click.command(context_settings=TAKES_JSON)
@click.argument("flow", metavar="FLOW")
@click.argument("message", metavar="JSON")
@click.option("--key", metavar="KEY", help="The same key twice is one message.")
@common_json
def send(flow: str, message: str, key: str | None, store: str | None, as_json: bool) -> None:
    """Put a JSON message into the mailbox of FLOW; print the message's id."""
    value: Any = json_argument(message, "JSON")

    async def body(client: Client) -> str:
        return await client.send(str((await client.flow(flow))["flow_id"]), value, key=key)

    message_id = with_client(store, body)
    if as_json:
        print_json({"message_id": message_id})
    else:
        click.echo(message_id)
