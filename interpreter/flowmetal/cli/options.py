"""Options that every command has, and how a command gets its client.

In: what stands on the command line. Out: a `Client` for as long as the command runs. The one rule: the command
line attaches; only `run` and `eval` may host.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import click

from flowmetal.cli.interrupts import run_async
from flowmetal.client.client import Client
from flowmetal.client.store_url import StoreUrl, resolve

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def store_option(function: F) -> F:
    """`--store`."""
    return click.option(
        "--store",
        metavar="STORE",
        help="PATH.duckdb, :memory:, postgresql://… or http://host:port. Else FLOWMETAL_STORE, else the nearest flowmetal.duckdb, else one made here.",
    )(function)


def debug_option(function: F) -> F:
    """`--debug`; read by `main`, which catches the errors."""
    return click.option("--debug", is_flag=True, expose_value=False, help="Show Python tracebacks.")(function)


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="JSON lines, one object a row.")(function)


def common(function: F) -> F:
    """`--store` and `--debug`."""
    return store_option(debug_option(function))


def common_json(function: F) -> F:
    """`--store`, `--json` and `--debug`."""
    return store_option(json_option(debug_option(function)))


@asynccontextmanager
async def client_of(store: str | None, *, host_here: bool = False) -> AsyncIterator[Client]:
    """A client of the store, let go of at the end."""
    from flowmetal.client.discovery import connect

    client = await connect(store_for_command(store), host_here=host_here, by="cli")
    try:
        yield client
    finally:
        await client.aclose()


def store_for_command(store: str | None) -> StoreUrl:
    """The store that is meant."""
    return resolve(store)


def with_client(store: str | None, body: Callable[[Client], Coroutine[Any, Any, T] | Awaitable[T]], *, host_here: bool = False) -> T:
    """Runs the body of a command with a client of the store."""

    async def run() -> T:
        async with client_of(store, host_here=host_here) as client:
            return await body(client)

    return run_async(run())


TAKES_JSON: Final = {"ignore_unknown_options": True}
"""Settings of a command with JSON arguments: `-5` is a number there, and no option."""


def json_argument(text: str, what: str) -> Any:
    """A JSON value from the command line; a usage error says how to write a string."""
    if text.startswith("-") and not text[1:2].isdigit():
        raise click.NoSuchOption(text)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        plain = text.strip().replace("-", "").replace("_", "").isalnum()
        hint = f"; a string needs its quotes: '{json.dumps(text)}'" if plain else ""
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise click.BadParameter(f"{shorten(text)} is not JSON ({reason}){hint}", param_hint=what) from error


def shorten(text: str, width: int = 60) -> str:
    """At most `width` characters of a text, in quotes."""
    return repr(text if len(text) <= width else text[: width - 1] + "…")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
