"""The notebook's own magics: `%flows %store %help` and the table of `%%sql`. A line goes in, a MIME bundle comes out.

The one rule: a magic asks the engine what any outsider may ask; it knows nothing that SQL or HTTP would not say.
"""

from __future__ import annotations

from typing import Any

from flowmetal.client.client import Client
from flowmetal.errors import FlowmetalError

from flowmetal_kernel import display
from flowmetal_kernel.display import Bundle
from flowmetal_kernel.widgets.timeline import short_id

FLOWS = 50

HELP = """\
| write | and it |
| --- | --- |
| `(…)` | runs Lisp: a cell is itself a flow, so it may wait for anything |
| `%%sql SELECT …` | asks the log: the views `flows events effects messages timers definitions` |
| `%%sql name << SELECT …` | and names the rows, in Lisp (a vector of maps) and in Python |
| `%%python` | runs Python in the notebook's own process |
| `%%python name <<` | and gives the last expression's value to Lisp as `name` |
| `%%again` | runs a cell anew that still runs (an unchanged one is attached to) |
| `%flows [STATUS]` | lists the newest flows |
| `%flow ID` | shows a flow's history, live (the beginning of an id will do) |
| `%store` | says where the flows are kept and who runs them |

`Tab` completes, `Shift-Tab` shows documentation. *Interrupt* stops the cell, never the flows that it started.
"""


async def flows(client: Client, argument: str) -> Bundle:
    """The newest flows, or those of one status."""
    page = await client.flows(status=argument or None, limit=FLOWS)
    rows = [
        [row["name"] or row["kind"], short_id(row["flow_id"]), row["status"], row.get("steps"), _moment(row["created_at"])]
        for row in page["items"]
        if argument or row.get("kind") != "cell"
    ]
    if not rows:
        return {"text/plain": f"no flows{f' that are {argument}' if argument else ' yet'}"}
    return display.table(["name", "id", "status", "steps", "started"], rows)


async def store(client: Client, _argument: str) -> Bundle:
    """Where the flows are kept and who runs them."""
    host = await client.host()
    rows: list[list[Any]] = [["store", str(client.store)]]
    rows += [[name, host[name]] for name in ("url", "pid", "version", "background", "flows") if host.get(name) is not None]
    return display.table(["", ""], rows)


def help_() -> Bundle:
    """What may be written in a cell."""
    return {"text/markdown": HELP, "text/plain": HELP}


async def sql(client: Client, query: str) -> tuple[Bundle, list[dict[str, Any]]]:
    """The rows of a SELECT, as a table to show and as data to name."""
    if not query:
        raise FlowmetalError("%%sql needs a SELECT", type="value", hint="try: %%sql SELECT name, status FROM flows")
    relation = await client.sql(query)
    return display.table(relation.columns, relation.fetchall()), relation.dicts()


def _moment(text: Any) -> str:
    return str(text).replace("T", " ")[:19]
