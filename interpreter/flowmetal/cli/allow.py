"""`flowmetal allow`: which notebooks may run processes.

In: a notebook's name. Out: the names of those that may. The one rule: it is said here, in a terminal, because a notebook could say it for itself.
"""

from __future__ import annotations

import click

from flowmetal.cli.options import common_json, with_client
from flowmetal.cli.output import clean, print_json, remark


@click.command()
@click.argument("notebook", metavar="[NOTEBOOK]", required=False)
@click.option("--revoke", is_flag=True, help="It may not any more.")
@common_json
def allow(notebook: str | None, revoke: bool, store: str | None, as_json: bool) -> None:
    """Let NOTEBOOK (orders, or orders.ipynb) run processes with `sh` in this store; or list those that may.

    A notebook may come from somebody else: read what it runs before you allow it.
    """
    if notebook is None and revoke:
        raise click.UsageError("name the notebook that may not run processes any more")
    name = None if notebook is None else notebook.rpartition("/")[2].removesuffix(".ipynb")
    names = with_client(store, lambda client: client.allowed_notebooks() if name is None else client.allow_notebook(name, not revoke))
    if as_json:
        for each in names:
            print_json({"notebook": each})
    elif not names:
        remark("no notebook may run processes here")
    else:
        click.echo("\n".join(clean(each) for each in names))
