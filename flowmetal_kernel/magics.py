"""The notebook's own magics: `%flows %store %clock %shim %help` and the table of `%%sql`. A line goes in, a MIME bundle comes out.

The one rule: a magic asks the engine what any outsider may ask; it knows nothing that SQL or HTTP would not say.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from flowmetal.client.client import Client
from flowmetal.errors import FlowmetalError, FlowNotFound
from flowmetal_kernel import display
from flowmetal_kernel.display import Bundle
from flowmetal_kernel.session import Session
from flowmetal_kernel.widgets.texts import duration, short_id

FLOWS = 50
TIMERS = 20
_NAME = re.compile(r"[A-Za-z*!_?<>=.+-][\w*!?<>=.+/-]*")

HELP = """\
| write | and it |
| --- | --- |
| `(…)` | runs Lisp: a cell is itself a flow, so it may wait for anything |
| `%%sql SELECT …` | asks the log: the views `flows events effects messages timers definitions` |
| `%%sql name << SELECT …` | and names the rows, in Lisp (a vector of maps) and in Python |
| `%%python` | runs Python in the notebook's own process; `fm` is the store, `@fm.function("name")` answers foreign calls |
| `%%python name <<` | and gives the last expression's value to Lisp as `name` |
| `%%again` | runs a cell anew that still runs (an unchanged one is attached to) |
| `%flows [STATUS]` | lists the newest flows |
| `%flow FLOW` | shows a flow's history, live; FLOW is an id, its beginning, or a name that holds a handle |
| `%replay FLOW [STEP]` | shows the flow as it was when it asked for a step, and lets you scrub from there |
| `%store` | says where the flows are kept and who runs them |
| `%clock` | says what time it is in the store, and which timers are next; `%clock 1d` moves a virtual clock |
| `%shim` | says where the outside world reaches the flows by HTTP |

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
    named = {"store": str(client.store), "interpreter": host.get("url"), "process": host.get("pid"), "version": host.get("version")}
    return _facts({**named, "started by a notebook or command": host.get("background"), "open flows": host.get("flows")})


async def clock(client: Client, argument: str) -> Bundle:
    """What time it is in the store, and the timers that are next; with a duration, a virtual clock is moved by it first."""
    if argument:
        await client.advance(argument)
    host = await client.host()
    found = await client.sql(
        "SELECT t.due_at, f.name, t.flow_id, t.step FROM timers t JOIN effects e USING (flow_id, step) JOIN flows f USING (flow_id) "
        f"WHERE e.status = 'requested' AND f.status IN ('running', 'waiting', 'paused') ORDER BY t.due_at LIMIT {TIMERS}"
    )
    now = datetime.fromisoformat(str(host["now"]))
    rows = [["now", _moment(host["now"]), f"{host['clock']} time, UTC"]]
    for due, name, flow_id, step in found.fetchall():
        rows.append([f"in {duration((due - now).total_seconds() * 1000)}", due, f"step {step} of {name} {short_id(flow_id)}"])
    return display.table(["", "at", "what"], rows)


async def shim(client: Client, _argument: str) -> Bundle:
    """Where the outside world reaches the flows, and how."""
    host = await client.host()
    url = host.get("public_url") or host.get("url")
    if not url:
        raise FlowmetalError("this store listens nowhere", type="value", hint="a store in memory is reached from its own process only")
    opened = await client.sql(
        "SELECT count(*) FROM effects e JOIN flows f USING (flow_id) "
        "WHERE e.op = 'callback' AND e.status = 'requested' AND f.status IN ('running', 'waiting', 'paused')"
    )
    token = "the token is what `flowmetal token` prints"
    return _facts(
        {
            "address": url,
            "callbacks": f"POST {url}/v1/callbacks/…   open: {opened.fetchall()[0][0]}",
            "start a flow": f'POST {url}/v1/flows   {{"name": …, "args": […]}}',
            "all calls": f"{url}/openapi.json",
            "authorization": f"Bearer …   {token}; callbacks need none",
        }
    )


def help_() -> Bundle:
    """What may be written in a cell."""
    return {"text/markdown": HELP, "text/plain": HELP}


LINES: dict[str, Callable[[Client, str], Awaitable[Bundle]]] = {"flows": flows, "store": store, "clock": clock, "shim": shim}
"""The magics that answer with a table."""


async def sql(client: Client, query: str) -> tuple[Bundle, list[dict[str, Any]]]:
    """The rows of a SELECT, as a table to show and as data to name."""
    if not query:
        raise FlowmetalError("%%sql needs a SELECT", type="value", hint="try: %%sql SELECT name, status FROM flows")
    relation = await client.sql(query)
    return display.table(relation.columns, relation.fetchall()), relation.dicts()


async def find_flow(session: Session, text: str) -> str:
    """The flow that a magic's argument means: its id, the beginning of its id, or a name that holds its handle."""
    client = await session.client()
    wanted = text.strip("\"'")
    if not wanted:
        raise FlowmetalError("which flow?", type="value", hint="an id, the beginning of one, or a name that holds a handle; %flows lists them")
    try:
        return str((await client.flow(wanted))["flow_id"])
    except FlowNotFound:
        if not _NAME.fullmatch(wanted) or await client.inspect(wanted, session.ns) is None:
            raise
    cell = await session.begin(wanted, "magic", again=True)
    handle = (await session.wait(cell, lambda _output: None)).get("handle")
    if not handle:
        raise FlowmetalError(f"{wanted} holds no flow's handle", type="value", hint=f"(def {wanted} (start …)) would give it one")
    return str(handle)


def step_of(text: str) -> int | None:
    """The step that a magic's second argument names; None where there is none."""
    if text and not text.isdecimal():
        raise FlowmetalError(f"{text} is no step", type="value", hint="a step is a number: the first column of the history")
    return int(text) if text else None


def _facts(facts: dict[str, Any]) -> Bundle:
    return display.table(["", ""], [[name, value] for name, value in facts.items() if value is not None], widest=1_000)


def _moment(text: Any) -> str:
    return str(text).replace("T", " ")[:19]
