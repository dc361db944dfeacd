"""`flowmetal doctor`: what is here, which store is meant, who serves it, and what to do about what is amiss.

In: a store. Out: one line a finding. The one rule: it starts nothing and changes nothing.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from typing import Any

import click

from flowmetal import __version__
from flowmetal.cli.background import log_path
from flowmetal.cli.exits import DONE, NOT_FOUND
from flowmetal.cli.interrupts import run_async
from flowmetal.cli.kernelspec import spec_path
from flowmetal.cli.options import common_json
from flowmetal.cli.output import clean, one_line, print_json
from flowmetal.client.client import Client
from flowmetal.client.store_url import StoreUrl, resolve
from flowmetal.errors import FlowmetalError


@click.command()
@common_json
def doctor(store: str | None, as_json: bool) -> int:
    """Say what is installed, which store is meant, who serves it, and which of its flows are stuck."""
    where = resolve(store)
    findings = _environment()
    problems: list[str] = []
    findings |= {"store": str(where), "chosen_by": _chosen_by(store)} | run_async(_store(where, problems))
    if not findings["kernel"]:
        problems.append("Jupyter does not find the kernel in this environment: flowmetal kernel install")
    if as_json:
        print_json({**findings, "problems": problems})
    else:
        stuck = findings.pop("stuck", [])
        others = findings.pop("interpreters", [])
        for key, value in findings.items():
            click.echo(f"{key:>14}  {_shown(value)}")
        for each in others:
            click.echo(f"{'interpreter':>14}  process {each['pid']} at {each['url']} on {each['machine']}")
        for flow in stuck:
            step = "" if flow["step"] is None else f" at step {flow['step']}"
            click.echo(f"{'stuck':>14}  {clean(flow['flow_id'])} {clean(str(flow['name']))}{step}: {clean(one_line(flow['detail'], 400))}")
            click.echo(f"{'':>14}  → {clean(one_line(flow['do'], 400))}")
        for problem in problems:
            click.echo(f"{'problem':>14}  {problem}")
    return NOT_FOUND if findings.get("host") == "silent" or findings.get("reachable") is False else DONE


def _environment() -> dict[str, Any]:
    kernel = spec_path()
    return {
        "flowmetal": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()}",
        "jupyterlab": importlib.util.find_spec("jupyterlab") is not None,
        "kernel": str(kernel) if kernel.exists() else None,
    }


def _chosen_by(store: str | None) -> str:
    if store:
        return "--store"
    return "FLOWMETAL_STORE" if os.environ.get("FLOWMETAL_STORE") else "nearest flowmetal.duckdb"


async def _store(where: StoreUrl, problems: list[str]) -> dict[str, Any]:
    findings: dict[str, Any] = {}
    if where.kind == "http":
        return findings | await _attached(where, problems)
    if where.kind == "postgresql":
        found = await _host(where, problems)
        return findings | found | ({} if found["host"] == "silent" else _members(where))
    if where.kind != "duckdb":
        return findings
    file = where.file
    findings["exists"] = file.exists()
    if file.exists():
        findings["bytes"] = file.stat().st_size
    findings["log"] = str(log_path(where)) if log_path(where).exists() else None
    return findings | await _host(where, problems)


async def _host(where: StoreUrl, problems: list[str]) -> dict[str, Any]:
    from flowmetal.client.discovery import look_for_host

    try:
        info = await look_for_host(where)
    except FlowmetalError as error:
        problems.append(error.render().replace("\n", "; "))
        return {"host": "silent"}
    if info is None:
        return {"host": None}
    return {"host": info.pid} | await _attached(where, problems)


def _members(where: StoreUrl) -> dict[str, Any]:
    """Who has the store, the newest first."""
    from flowmetal.client.host_row import members

    return {"interpreters": [{"pid": each.info.pid, "url": each.info.url, "machine": each.machine} for each in members(where)]}


async def _attached(where: StoreUrl, problems: list[str]) -> dict[str, Any]:
    from flowmetal.client.discovery import connect

    client = await connect(where)
    try:
        said = await client.host()
        problems += await _failing_sources(client)
        stuck = await client.stuck()
    except FlowmetalError as error:
        problems.append(error.render().replace("\n", "; "))
        return {"reachable": False}
    finally:
        await client.aclose()
    keys = ("url", "background", "started_at", "version", "flows")
    return {"reachable": True} | {("open_flows" if key == "flows" else key): said.get(key) for key in keys if key in said} | {"stuck": stuck}


async def _failing_sources(client: Client) -> list[str]:
    rows = await client.sql("SELECT name, error->>'$.message' FROM sources WHERE error IS NOT NULL ORDER BY name")
    return [f"the source {name} cannot be read, and is tried again: {message}" for name, message in rows.fetchall()]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
