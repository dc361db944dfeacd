"""`flowmetal stop`: ends an interpreter of a store, or all of them.

In: a store. Out: who has been ended, and who goes on. The one rule: it ends those whom it names, and no other that might answer in their place.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from flowmetal.cli.exits import DONE, FAILED
from flowmetal.cli.interrupts import run_async
from flowmetal.cli.options import common
from flowmetal.cli.output import remark
from flowmetal.client.store_url import StoreUrl, resolve
from flowmetal.errors import FlowmetalError

if TYPE_CHECKING:
    from flowmetal.client.host_row import Member

SECONDS = 10.0
"""How long an interpreter that was asked to end is waited for."""


@click.command()
@click.option("--all", "every", is_flag=True, help="All that have the store, as far as they can be reached from here, and not the newest of them only.")
@common
def stop(every: bool, store: str | None) -> int:
    """End the store's interpreter; its flows stay in the store. Where several have it, the others go on with them."""
    where = resolve(store)
    if where.kind == "memory":
        raise click.UsageError("a store in memory ends with its program")
    if where.kind == "postgresql":
        return run_async(_stop_members(where, every))
    return run_async(_stop_host(where))


async def _stop_host(where: StoreUrl) -> int:
    from flowmetal.client.discovery import connect, look_for_host
    from flowmetal.client.host_file import lock_holder

    if where.is_hosted and await look_for_host(where) is None:
        remark(f"nobody serves {where}")
        return DONE
    client = await connect(where)
    try:
        pid = (await client.host())["pid"]
        await client.stop()
    finally:
        await client.aclose()
    deadline = asyncio.get_running_loop().time() + SECONDS
    while where.is_hosted and lock_holder(where) == pid and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)  # whoever comes next finds it gone
    remark(f"process {pid}, which served {where}, has ended or is about to")
    return DONE


async def _stop_members(where: StoreUrl, every: bool) -> int:
    from flowmetal.client.host_row import members

    there = members(where)
    near = [member for member in there if member.is_near]
    code = DONE
    if not near:
        remark(f"nobody serves {where}" if not there else f"nobody who can be reached from here serves {where}")
    for member in near if every else near[:1]:
        try:
            await _end(where, member)
            remark(f"{member}, which served {where}, has ended or is about to")
        except FlowmetalError as error:
            if not every:
                raise
            remark(f"{member} could not be ended: {error.message}")
            code = FAILED
    left = members(where)
    if left:
        others = "another interpreter has" if len(left) == 1 else f"{len(left)} other interpreters have"
        remark(f"{others} the store still: {', '.join(map(str, left))}")
        if not every and any(member.is_near for member in left):
            remark("flowmetal stop --all ends all that can be reached from here")
    return code


async def _end(where: StoreUrl, member: Member) -> None:
    from flowmetal.client.host_row import members
    from flowmetal.client.remote import Endpoint, RemoteClient

    client = RemoteClient(where, Endpoint(member.info.url, member.info.token, member.info.pid))
    try:
        await client.stop()
    finally:
        await client.aclose()
    deadline = asyncio.get_running_loop().time() + SECONDS
    while member in members(where) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
