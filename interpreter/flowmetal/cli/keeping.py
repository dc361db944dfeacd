"""Commands that keep a store: `backup`, `delete`, `archive`.

In: a folder, or flows. Out: what was copied, is gone or archived. The one rule: nothing that is open is deleted, and every flow that is gone is named.
"""

from __future__ import annotations

import os

import click

from flowmetal.cli.control import OVER, to_each
from flowmetal.cli.options import common_json, with_client
from flowmetal.cli.output import print_json, remark
from flowmetal.client.client import Client
from flowmetal.errors import FlowNotFound


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@common_json
def backup(directory: str, store: str | None, as_json: bool) -> None:
    """Copy the store, as it stands at this moment, into the folder DIR.

    Flows go on meanwhile. The copy opens as a store: to restore it, name it with --store, or put it in the place of a store that nobody
    serves. The token and secrets are not in it.
    """
    path = with_client(store, lambda client: client.backup(os.path.realpath(directory)))
    if as_json:
        print_json({"path": path})
    else:
        click.echo(path)


@click.command()
@click.argument("flows", metavar="FLOW...", nargs=-1)
@click.option("--where", metavar="SQL", help="Flows that are over and for which this condition holds, over the view `flows`.")
@common_json
def delete(flows: tuple[str, ...], where: str | None, store: str | None, as_json: bool) -> int:
    """Delete flows that are over: their history, with that of the flows which belong to them.

    An open flow is refused. What a flow sent, started or published stays; the log says who deleted what.
    """
    gone = set[str]()

    async def act(client: Client, flow: str) -> None:
        if flow in gone:
            return
        try:
            ids = await client.delete(str((await client.flow(flow))["flow_id"]))
        except FlowNotFound:
            if where is None:
                raise
            return  # somebody else was faster
        gone.update(ids)
        if as_json:
            print_json({"flow_id": ids[0], "deleted": ids})
        else:
            click.echo(f"{ids[0]} deleted" + (f", with {', '.join(ids[1:])}" if ids[1:] else ""))

    return to_each(store, flows, where, act, OVER)


@click.command()
@click.option("--older-than", metavar="D", help="Flows that ended so long ago: 30d, 12h.")
@click.option("--where", metavar="SQL", help="Flows for which this condition holds, over the view `flows`.")
@click.option("--keep", metavar="D", help="Archive flows of that age now and from now on, by itself; `forever`: no more.")
@common_json
def archive(older_than: str | None, where: str | None, keep: str | None, store: str | None, as_json: bool) -> None:
    """Move flows that are over into Parquet files beside the store.

    They answer as before: results, histories, states, SQL. The store's own file stays small. Without options: all that are over.
    """
    done = with_client(store, lambda client: client.archive(older_than=older_than, where=where, keep=keep))
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done['archived']} flow{'' if done['archived'] == 1 else 's'} archived")
        if done["keep"] is not None:
            remark(f"flows that are over stay in the log for {done['keep']}")
