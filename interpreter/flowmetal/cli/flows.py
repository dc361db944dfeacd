"""Commands that look at flows: `ps`, `show`, `log`.

In: filters, or a flow's id. Out: tables, or JSON lines. The one rule: a table that names flows names the store
that they are in.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from flowmetal.cli.options import common_json, with_client
from flowmetal.cli.output import clean, moment, one_line, print_json, print_rows, print_table, remark
from flowmetal.cli.states import show_diff, show_state
from flowmetal.client.client import ENDED, STATUSES, Client, Row


@click.command()
@click.option("--status", metavar="S", type=click.Choice(STATUSES), help=f"Only these: {', '.join(STATUSES)}.")
@click.option("--name", metavar="N", help="Only flows of this program.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@click.option("--all", "cells", is_flag=True, help="Notebook cells as well.")
@common_json
def ps(status: str | None, name: str | None, limit: int, cells: bool, store: str | None, as_json: bool) -> None:
    """List flows, newest first."""

    async def body(client: Client) -> tuple[list[Row], bool, str]:
        rows, more = await _page(client, status, name, limit, cells or as_json)
        return rows, more, str(client.store)

    rows, more, where = with_client(store, body)
    if as_json:
        print_rows(rows)
        return
    remark(f"store {where}")
    if not rows:
        remark("no flows" if not (status or name) else "no such flows")
        return
    columns = ["flow", "name", "status", "steps", "created", "updated"]
    print_table(columns, [_line(row) for row in rows])
    if more:
        remark(f"and more: --limit {limit * 2} shows them")


async def _page(client: Client, status: str | None, name: str | None, limit: int, cells: bool) -> tuple[list[Row], bool]:
    """The first `limit` rows, and whether there are more."""
    rows: list[Row] = []
    after: str | None = None
    while True:
        page = await client.flows(status, name, max(limit, 50), after)
        rows.extend(row for row in page["items"] if cells or row["kind"] != "cell")
        after = page.get("next")
        if not after or len(rows) > limit:
            return rows[:limit], len(rows) > limit or bool(after)


def _line(row: Row) -> list[Any]:
    created, updated = moment(row["created_at"]), moment(row["updated_at"])
    return [row["flow_id"], row["name"], row["status"], row["steps"], created, updated]


@click.command()
@click.argument("flow", metavar="FLOW")
@click.option("--at", "step", metavar="STEP", type=click.IntRange(min=0), help="As it was when it waited for this step.")
@click.option("--transition", metavar="N", type=click.IntRange(min=0), help="With --at: so many transitions of its machine later.")
@click.option("--diff", "other", metavar="STEP", help="With --at: what has changed at this step, or `now`.")
@common_json
def show(flow: str, step: int | None, transition: int | None, other: str | None, store: str | None, as_json: bool) -> None:
    """Show FLOW: its row, where it stands (or failed), and its steps so far."""
    if step is None and (transition is not None or other is not None):
        raise click.UsageError("--transition and --diff go on from a step: give --at too")
    if transition is not None and other is not None:
        raise click.UsageError("give --transition or --diff")
    if other is not None:
        _show_diff(flow, step or 0, other, store, as_json=as_json)
        return

    async def body(client: Client) -> tuple[Row, Row | None, list[Row]]:
        row = await client.flow(flow)
        flow_id = str(row["flow_id"])
        stands = row["status"] not in ENDED or row["status"] == "failed"
        state = await client.state(flow_id, step, transition) if step is not None or stands else None
        events = [] if step is not None else await client.events(flow_id)
        return row, state, events

    row, state, events = with_client(store, body)
    if as_json:
        print_json(state if step is not None else {**row, "state": state})
        return
    _show_row(row)
    if state is not None:
        show_state(state)
    if events:
        click.echo()
        for event in events:
            click.echo(event_line(event))


def _show_diff(flow: str, step: int, other: str, store: str | None, *, as_json: bool) -> None:
    if other != "now" and not other.isdecimal():
        raise click.BadParameter(f"{other!r} is neither a step nor now", param_hint="--diff")

    async def body(client: Client) -> Row:
        flow_id = str((await client.flow(flow))["flow_id"])
        return await client.diff(flow_id, step, None if other == "now" else int(other))

    diff = with_client(store, body)
    if as_json:
        print_json(diff)
    else:
        show_diff(diff)


def _show_row(row: Row) -> None:
    keys = ["flow_id", "name", "kind", "status", "parent_id", "definitions_version", "steps", "args", "info", "tags"]
    for key in keys:
        if row.get(key) not in (None, [], {}):
            click.echo(f"{key:>20}  {clean(one_line(row[key]))}")
    for key in ("created_at", "updated_at", "finished_at"):
        if row.get(key):
            click.echo(f"{key:>20}  {moment(row[key])}")
    for key in ("result", "error"):
        if row.get(key) is not None or (key == "result" and row["status"] == "completed"):
            click.echo(f"{key:>20}  {clean(one_line(row.get(key), 2000))}")


@click.command()
@click.argument("flow", metavar="FLOW")
@click.option("--follow", "-f", is_flag=True, help="Go on live until the flow ends.")
@common_json
def log(flow: str, follow: bool, store: str | None, as_json: bool) -> None:
    """Print the history of FLOW, one line an event."""

    async def body(client: Client) -> None:
        flow_id = str((await client.flow(flow))["flow_id"])
        if not follow:
            for row in await client.events(flow_id):
                _print_event(row, as_json=as_json)
            return
        async for row in client.follow(flow_id):
            _print_event(row, as_json=as_json)

    with_client(store, body)


def _print_event(row: Row, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        click.echo(event_line(row))
    sys.stdout.flush()


def event_line(row: Row) -> str:
    """One event: seq, time, kind, step, and the gist of its data."""
    step = "" if row.get("step") is None else str(row["step"])
    return f"{row['seq']:>4}  {moment(row['at'])}  {row['kind']:<17} {step:>4}  {clean(_gist(row))}".rstrip()


def _gist(row: Row) -> str:
    data = row.get("data") or {}
    kind = row["kind"]
    if kind in ("effect-requested", "value-recorded"):
        target = data.get("target")
        what = str(data.get("op") or "") if target in (None, "", data.get("op")) else f"{data.get('op')} {target}"
        place = f"  (line {data['line']})" if data.get("line") else ""
        result = f" = {one_line(data['result'])}" if kind == "value-recorded" and "result" in data else ""
        return f"{what} {one_line(data.get('args') or [])}{result}{place}"
    if kind in ("effect-completed", "flow-completed", "await-settled") and "result" in data:
        return one_line(data["result"])
    if "error" in data and isinstance(data["error"], dict):
        return f":{data['error'].get('type')} {one_line(str(data['error'].get('message')))}"
    if kind == "flow-started":
        return f"{data.get('name')} {one_line(data.get('args') or [])}"
    if kind == "output":
        return one_line(str(data.get("text", "")))
    return one_line(data) if data else ""
