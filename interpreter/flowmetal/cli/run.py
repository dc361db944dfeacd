"""Commands that begin flows and wait for them: `run`, `load`, `start`, `result`.

In: files, names, JSON. Out: ids, versions, results as JSON. The one rule: what was begun is durable; an
interrupt leaves it running, and says how to go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

import click

from flowmetal.cli.exits import DONE, INTERRUPTED, TIMED_OUT, outcome_code
from flowmetal.cli.interrupts import run_async
from flowmetal.cli.options import TAKES_JSON, common, common_json, json_argument, json_option, with_client
from flowmetal.cli.output import print_json, remark
from flowmetal.client.aio import read_source
from flowmetal.client.client import Client, Row
from flowmetal.client.problems import failure_of
from flowmetal.client.requires import load_with_requires
from flowmetal.client.store_url import StoreUrl, resolve
from flowmetal.errors import OtherClock


@click.command()
@click.argument("file", metavar="FILE.flow", type=click.Path(dir_okay=False))
@click.option("--main", "name", metavar="NAME", default="main", show_default=True, help="The flow to run.")
@click.option("--arg", "args", metavar="JSON", multiple=True, help="An argument, as JSON; again for each further one.")
@click.option("--clock", type=click.Choice(["real", "virtual"]), help="virtual: waiting takes no time. Else the store's own.")
@json_option
@common
def run(file: str, name: str, args: tuple[str, ...], clock: Literal["real", "virtual"] | None, store: str | None, as_json: bool) -> int:
    """Load FILE, run one of its flows to its end, and print its result as JSON.

    Ctrl-C leaves the flow in the store, and says how to go on.
    """
    arguments = [json_argument(text, "--arg") for text in args]
    source = read_source(file)
    where = resolve(":memory:" if clock == "virtual" and store is None else store)
    if clock == "virtual" and where.kind == "duckdb" and not where.file.exists():
        raise click.UsageError(
            f"{where} is not there: flowmetal serve --clock virtual makes a store that lives in virtual time (without --store, run has one in memory)"
        )
    return run_async(_run(where, source, file, name, arguments, clock=clock, as_json=as_json))


async def _run(where: StoreUrl, source: str, file: str, name: str, args: list[Any], *, clock: Literal["real", "virtual"] | None, as_json: bool) -> int:
    from flowmetal.client.discovery import connect

    try:
        client = await connect(where, host_here=True, by="cli", clock=clock)
    except OtherClock as error:
        raise click.UsageError(f"{error.message} (leave out --store for one of its own, in memory)") from None
    flow_id = ""
    try:
        loaded = await load_with_requires(client, source, file)
        flow_id, _ = await client.start_flow(_full_name(name, loaded["names"]), args)
        outcome = await _show_output_until(client, flow_id, client.result(flow_id, None))
        assert outcome is not None
        return show_outcome(outcome, flow_id, as_json=as_json)
    except asyncio.CancelledError:
        _say_how_to_go_on(where, flow_id)
        return INTERRUPTED
    finally:
        await client.aclose()


def _full_name(name: str, defined: list[str]) -> str:
    """`main` of a file that is in a namespace of its own is `its.namespace/main`."""
    here = [known for known in defined if known.endswith(f"/{name}")]
    return here[0] if name not in defined and len(here) == 1 else name


def _say_how_to_go_on(where: StoreUrl, flow_id: str) -> None:
    if where.kind == "memory" or not flow_id:
        remark("interrupted")
        return
    remark(f"interrupted; flow {flow_id} is in {where} and goes on whenever that store is open")
    remark(f"  wait for it:  flowmetal result {flow_id} --store {where}")
    remark(f"  or end it:    flowmetal cancel {flow_id} --store {where}")


async def _show_output_until(client: Client, flow_id: str, ending: Coroutine[Any, Any, Row | None]) -> Row | None:
    """Prints to stderr what the flow prints, as it comes, until `ending` is done; its outcome."""
    waiting = asyncio.ensure_future(ending)
    seen = 0
    try:
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        if not done:
            following = asyncio.ensure_future(_follow_output(client, flow_id))
            await asyncio.wait({waiting, following}, return_when=asyncio.ALL_COMPLETED)
            seen = following.result()
        outcome = waiting.result()
    finally:
        waiting.cancel()
    for row in await client.events(flow_id, seen):
        show_output(row)
    return outcome


async def _follow_output(client: Client, flow_id: str) -> int:
    seen = 0
    async for row in client.follow(flow_id):
        seen = int(row["seq"])
        show_output(row)
    return seen


def show_output(row: Row) -> None:
    """Prints an `output` event to stderr, and says that the flow is paused; other events are passed over."""
    data = row.get("data") or {}
    if row["kind"] in ("output", "truncated"):
        click.echo(str(data.get("text", "")), nl=False, err=True)
    elif row["kind"] == "flow-paused":
        remark(f"flow {row['flow_id']} is paused ({data.get('reason') or 'nobody said why'}); it goes on after: flowmetal resume {row['flow_id']}")


def show_outcome(outcome: Row, flow_id: str, *, as_json: bool) -> int:
    """Prints how a flow ended; the exit code for it."""
    code = outcome_code(outcome)
    if outcome.get("status") == "completed":
        print_json(outcome.get("result"))
        return code
    if as_json:
        print_json({"flow_id": flow_id, "status": outcome.get("status"), "error": _error_of(outcome)})
    error = failure_of(outcome, flow_id)
    remark(f"error: flow {flow_id} {outcome.get('status')}: :{error.type}: {error.render()}")
    return code


def _error_of(outcome: Row) -> Row:
    error = outcome.get("error") or {}
    return {key: error.get(key) for key in ("type", "message", "data")}


@click.command()
@click.argument("file", metavar="FILE.flow", type=click.Path(dir_okay=False))
@common_json
def load(file: str, store: str | None, as_json: bool) -> None:
    """Add FILE's definitions to the store; print the new version.

    Flows that run already keep the definitions that they started with.
    """
    source = read_source(file)
    answer = with_client(store, lambda client: load_with_requires(client, source, file))
    if as_json:
        print_json({"version": answer["version"], "names": answer["names"]})
    else:
        click.echo(answer["version"])


@click.command(context_settings=TAKES_JSON)
@click.argument("name")
@click.argument("args", metavar="[JSON]...", nargs=-1)
@click.option("--id", "flow_id", metavar="ID", help="The flow's id; the same id and call twice is the same flow.")
@click.option("--queue", metavar="QUEUE", help="The queue in which it waits for its turn.")
@click.option("--priority", metavar="N", type=int, help="What comes first there: the greater number.")
@click.option("--at", metavar="TIME", help="When it begins: a time (2026-01-31T09:00:00Z), or so long from now (90s, 1h30m, 2d).")
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True, help="A tag; again for each further one.")
@click.option("--timeout", metavar="D", help="How long it may take from its beginning: 90s, 1h30m, 2d.")
@click.option("--on-failure", type=click.Choice(["pause"]), help="It stops where it failed, until it is retried or resumed.")
@common_json
def start(name: str, args: tuple[str, ...], flow_id: str | None, tags: tuple[str, ...], store: str | None, as_json: bool, **options: Any) -> None:
    """Begin the flow NAME with JSON arguments; print its id."""
    arguments = [json_argument(text, "JSON") for text in args]
    given = {key: _seconds(value) if key in ("at", "timeout") else value for key, value in options.items() if value is not None}
    if tags:
        given["tags"] = dict(_tag(text) for text in tags)

    async def body(client: Client) -> tuple[str, bool]:
        return await client.start_flow(name, arguments, flow_id=flow_id, options=given)

    started, created = with_client(store, body)
    if as_json:
        print_json({"flow_id": started, "created": created})
    else:
        click.echo(started)


def _seconds(value: Any) -> Any:
    """A bare number is one of seconds; what else a text may be, the interpreter says."""
    return float(value) if isinstance(value, str) and value.replace(".", "", 1).isdecimal() else value


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is no tag such as env=prod", param_hint="--tag")
    return name, value


@click.command()
@click.argument("flow", metavar="FLOW")
@click.option("--timeout", metavar="S", type=click.FloatRange(min=0), help="Seconds to wait; without, as long as it takes.")
@common_json
def result(flow: str, timeout: float | None, store: str | None, as_json: bool) -> int:
    """Wait for FLOW (an id, or an unambiguous prefix) to end; print its result as JSON."""

    async def body(client: Client) -> int:
        flow_id = str((await client.flow(flow))["flow_id"])
        outcome = await client.result(flow_id, timeout)
        if outcome is None:
            status = (await client.flow(flow_id))["status"]
            remark(f"flow {flow_id} has not ended within {timeout:g} s: it is {status}")
            return TIMED_OUT
        return show_outcome(outcome, flow_id, as_json=as_json)

    return with_client(store, body) or DONE
