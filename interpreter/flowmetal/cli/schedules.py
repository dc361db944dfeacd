"""Commands for what happens by the calendar: `schedules`, and `backfill` for times that have passed.

In: names, dates. Out: one line a schedule, or a flow. The one rule: a flow's id is made of its name and its time,
so that a backfill that is repeated begins only what is not there yet.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import click

from flowmetal.cli.exits import DONE, FAILED
from flowmetal.cli.options import common_json, with_client
from flowmetal.cli.output import clean, moment, one_line, print_json, print_table, remark
from flowmetal.client.client import Client
from flowmetal.errors import FlowmetalError, LispError

_COLUMNS = ("name", "flow", "when", "zone", "args", "next", "last flow")


@click.command()
@click.argument("action", type=click.Choice(["pause", "resume", "trigger"]), required=False)
@click.argument("name", metavar="NAME", required=False)
@common_json
def schedules(action: str | None, name: str | None, store: str | None, as_json: bool) -> None:
    """List schedules; or pause, resume or trigger the one of that NAME."""
    if (action is None) != (name is None):
        raise click.UsageError("name the schedule after pause, resume or trigger")

    if action is None:
        rows = with_client(store, lambda client: client.schedules())
        if as_json:
            for row in rows:
                print_json(row)
        elif not rows:
            remark("no schedules")
        else:
            print_table(_COLUMNS, [
                (clean(r["name"]), clean(r["flow_name"]), clean(r["spec"]), r["timezone"], clean(one_line(r["args"])),
                 "paused" if r["paused"] else moment(r["next_due_at"]), r["last_flow_id"] or "")
                for r in rows
            ])  # fmt: skip
        return
    answer = with_client(store, lambda client: client.control_schedule(str(name), action))
    if as_json:
        print_json(answer)
    elif action == "trigger":
        click.echo(answer["flow_id"])
    else:
        click.echo(f"{clean(str(name))} {'paused' if answer['paused'] else 'next due ' + moment(answer['next_due_at'])}")


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--from", "since", metavar="DATE", required=True, help="The first date (2026-01-31) or instant.")
@click.option("--to", "until", metavar="DATE", required=True, help="The last date, included, or instant.")
@click.option("--max", "most", metavar="N", type=click.IntRange(1), default=4, show_default=True, help="How many run at once.")
@common_json
def backfill(name: str, since: str, until: str, most: int, store: str | None, as_json: bool) -> int:
    """Begin the flows of times that have passed, and wait for them.

    NAME is a schedule, whose times are meant, or a flow, which is begun once a day with the date as its argument. A flow that is there
    already is not begun again; one that has failed is retried.
    """
    first, last = _moment(since, "--from"), _moment(until, "--to")
    if len(until) == len("2026-01-31"):
        last += timedelta(days=1, microseconds=-1)
    return with_client(store, lambda client: _backfill(client, name, first, last, most, as_json=as_json))


def _moment(text: str, option: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no date such as 2026-01-31", param_hint=option) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


async def _backfill(client: Client, name: str, first: datetime, last: datetime, most: int, *, as_json: bool) -> int:
    scheduled = any(row["name"] == name for row in await client.schedules())
    if scheduled:
        times = await client.schedule_times(name, first.isoformat(), last.isoformat())
    else:
        times = [(first + timedelta(days=n)).date().isoformat() for n in range((last - first).days + 1)]
    if not times:
        remark("no time of it lies there")
    turns = asyncio.Semaphore(most)

    async def one(at: str) -> int:
        async with turns:
            flow_id = f"{name.rpartition('/')[2]}:{at}"
            try:
                if scheduled:
                    flow_id = await client.begin_scheduled(name, at)
                else:
                    flow_id, _ = await client.start_flow(name, [at], flow_id=flow_id)
                if (await client.flow(flow_id))["status"] == "failed":
                    await client.control(flow_id, "retry", reason="backfill")
                answer = await client.result(flow_id) or {"status": "running"}
            except LispError:
                raise
            except FlowmetalError as error:
                answer = {"status": "failed", "error": {"message": error.render()}}
            if as_json:
                print_json({"flow_id": flow_id, "at": at, "status": answer["status"]})
            else:
                click.echo(f"{flow_id} {answer['status']}{'' if 'error' not in answer else ': ' + clean(one_line(answer['error']['message']))}")
            return DONE if answer["status"] == "completed" else FAILED

    return max(await asyncio.gather(*(one(at) for at in times)), default=DONE)
