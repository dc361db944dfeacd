"""`flowmetal kernel install`, and the same done quietly by the first command.

In: a place that Jupyter looks in. Out: the kernel's folder there. The one rule: what is there is left alone by
every command but `kernel install`, and looking costs one `stat`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flowmetal.cli.options import debug_option
from flowmetal.errors import FlowmetalError


@click.group()
def kernel() -> None:
    """The Jupyter kernel."""


@kernel.command()
@click.option("--user", "place", flag_value="user", help="For this user, in every environment.")
@click.option("--sys-prefix", "place", flag_value="sys-prefix", help="In this Python environment (the default).")
@click.option("--prefix", metavar="P", type=click.Path(file_okay=False), help="Below this folder.")
@debug_option
def install(place: str | None, prefix: str | None) -> None:
    """Put the kernel where Jupyter finds it."""
    if place is not None and prefix is not None:
        raise click.UsageError(f"--{place} and --prefix name two places")
    try:
        from flowmetal_kernel.install import install as write

        target = write(user=place == "user", prefix=prefix)
    except ImportError as error:
        raise FlowmetalError("Jupyter is not installed here", type="value", hint='pip install -e ".[lab]"') from error
    click.echo(f"installed kernel flowmetal in {target}")


def spec_path() -> Path:
    """Where this environment's kernel spec stands, if it does."""
    return Path(sys.prefix) / "share" / "jupyter" / "kernels" / "flowmetal" / "kernel.json"


def ensure_installed() -> bool:
    """Adds the kernel to this environment if it is missing; whether it is there now. Never fails."""
    if spec_path().exists():
        return True
    try:
        from flowmetal_kernel.install import install as write

        write()
    except (FlowmetalError, ImportError):
        return False  # no Jupyter, or somebody else's environment: `kernel install` says what can be done
    return True
