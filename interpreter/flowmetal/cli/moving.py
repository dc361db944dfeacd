"""Flows between stores: `export`, `import`.

In: flows, or a file. Out: a file, or flows that go on. The one rule: what has moved is named.
"""

from __future__ import annotations

import click

from flowmetal.cli.options import common_json, with_client
from flowmetal.cli.output import print_json, remark
from flowmetal.client.moving import export_to, import_from


@click.command()
@click.argument("flows", metavar="FLOW...", nargs=-1, required=True)
@click.option("-o", "--output", "path", metavar="F.flowlog", required=True, type=click.Path(dir_okay=False), help="The file to write; a new one.")
@common_json
def export(flows: tuple[str, ...], path: str, store: str | None, as_json: bool) -> None:
    """Write flows into a file, with their children and the definitions that they need.

    Flows that are over stay as they are. An open flow has moved when its file is on disk: it is not run here any more, its callbacks answer
    410, and it goes on where the file is imported. Keep the file as you keep the token: whoever has it can go on with the flows, and if it
    is imported into two stores, both do.
    """
    done = with_client(store, lambda client: export_to(client, flows, path))
    if as_json:
        print_json(done)
        return
    for flow_id in done["flows"]:
        click.echo(f"{flow_id} {'moved' if flow_id in done['moved'] else 'exported'}")


@click.command("import")
@click.argument("path", metavar="F.flowlog", type=click.Path(dir_okay=False))
@common_json
def import_(path: str, store: str | None, as_json: bool) -> None:
    """Take the flows of a file that `export` wrote: they go on here, under the ids and definitions that they had.

    All of the file is taken, or nothing. Importing it again changes nothing. Its flows run their code as you: import only what you trust.
    """
    done = with_client(store, lambda client: import_from(client, path))
    if not done["new"]:
        remark("that file was imported here already: nothing was changed")
    if as_json:
        print_json(done)
        return
    for flow_id in done["flows"]:
        click.echo(flow_id)
