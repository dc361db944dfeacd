"""`flowmetal worker MODULE[:OBJECT]`: serves Python functions to the flows of a store.

In: a module, found from the working directory. Out: answers to foreign calls, until it is interrupted. The
one rule: what it was doing when it dies is given to another worker, under the same idempotency key.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from flowmetal.cli.exits import DONE, INTERRUPTED
from flowmetal.cli.options import client_of, common
from flowmetal.cli.output import remark
from flowmetal.client.aio import lisp_name
from flowmetal.client.worker import CONCURRENCY, LEASE, Function, Worker

GRACE = 10.0
"""Seconds that calls under way have to end after an interrupt."""


@click.command()
@click.argument("module", metavar="MODULE[:OBJECT]")
@click.option("--concurrency", metavar="N", type=click.IntRange(1, 1000), default=CONCURRENCY, show_default=True, help="Calls at the same time.")
@click.option("--queue", "queues", metavar="Q", multiple=True, help="Only calls with this :queue; may be given several times.")
@click.option("--lease", metavar="S", type=click.FloatRange(0.1, 86_400), default=LEASE, help="Seconds until a dead worker's calls go to others.")
@common
def worker(module: str, concurrency: int, queues: tuple[str, ...], lease: float, store: str | None) -> None:
    """Serve the functions of a Python module to the flows of the store, until interrupted.

    Without OBJECT, the module's own public functions: `charge_card` answers `charge-card`. OBJECT may be a function, a
    mapping of names to functions, or any other object, whose public methods are served.
    """
    functions = functions_of(module)
    if not asyncio.run(_serve(functions, concurrency, list(queues) or None, lease, store)):
        remark("calls under way were left: they are done again by another worker, under their keys")
        os._exit(DONE)  # their threads would keep this process


async def _serve(functions: Mapping[str, Function], concurrency: int, queues: list[str] | None, lease: float, store: str | None) -> bool:
    """Serves until interrupted; whether all that was under way has ended. A second interrupt ends the process at once."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(INTERRUPTED)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with client_of(store) as client:
        serving = Worker(client, concurrency=concurrency, queues=queues, lease=lease)
        for name, function in functions.items():
            await serving.provide(name, function)
        click.echo(f"serving {', '.join(functions)} to {client.store}")
        sys.stdout.flush()
        await stopping.wait()
        return await serving.stop(GRACE)


def functions_of(place: str) -> dict[str, Function]:
    """The functions that `MODULE[:OBJECT]` names, by their names in the language; a usage error where there are none."""
    name, _, wanted = place.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(name.removesuffix(".py"))
    except ModuleNotFoundError as error:
        raise click.BadParameter(f"there is no module {error.name} here or on PYTHONPATH", param_hint="MODULE") from error
    except Exception as error:  # whatever a module does when it is imported is its own
        raise click.BadParameter(f"{name} cannot be imported: {type(error).__name__}: {error}", param_hint="MODULE") from error
    for part in filter(None, wanted.split(".")):
        if not hasattr(found, part):
            raise click.BadParameter(f"{name} has no {wanted}", param_hint="OBJECT")
        found = getattr(found, part)
    functions = _functions(found)
    if not functions:
        raise click.BadParameter(f"{place} has no public functions", param_hint="MODULE")
    return functions


def _functions(found: Any) -> dict[str, Function]:
    if inspect.isfunction(found):
        return {lisp_name(found): found}
    if isinstance(found, Mapping):
        return {str(name): function for name, function in found.items() if callable(function)}
    if inspect.ismodule(found):
        own = inspect.getmembers(found, lambda x: inspect.isfunction(x) and x.__module__ == found.__name__)
    else:
        own = inspect.getmembers(found, inspect.ismethod)
    return {lisp_name(function): function for name, function in own if not name.startswith("_")}
