"""`flowmetal`: the commands, and what becomes of their errors.

In: arguments. Out: text on stdout, errors on stderr, an exit code. The one rule: a person sees what is wrong,
where, and what to do, never a Python traceback (unless `--debug` asks for it). A command's module is imported
only when that command is meant.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Sequence

import click

from flowmetal import __version__
from flowmetal.cli.exits import INTERRUPTED, USAGE, exit_code
from flowmetal.errors import FlowmetalError

COMMANDS = {
    "lab": "lab:lab",
    "serve": "serve:serve",
    "stop": "stop:stop",
    "run": "run:run",
    "eval": "evaluate:evaluate",
    "test": "test:test",
    "fmt": "fmt:fmt",
    "repl": "repl:repl",
    "load": "run:load",
    "start": "run:start",
    "result": "run:result",
    "ps": "flows:ps",
    "show": "flows:show",
    "log": "flows:log",
    "pause": "control:pause",
    "resume": "control:resume",
    "step": "control:step",
    "retry": "control:retry",
    "cancel": "control:cancel",
    "terminate": "control:terminate",
    "delete": "keeping:delete",
    "fork": "time_travel:fork",
    "upgrade": "time_travel:upgrade",
    "send": "control:send",
    "publish": "topics:publish",
    "schedules": "schedules:schedules",
    "backfill": "schedules:backfill",
    "worker": "worker:worker",
    "sql": "query:sql",
    "export": "moving:export",
    "import": "moving:import_",
    "archive": "keeping:archive",
    "backup": "keeping:backup",
    "token": "serve:token",
    "allow": "allow:allow",
    "kernel": "kernelspec:kernel",
    "doctor": "doctor:doctor",
}


class Commands(click.Group):
    """A group whose commands are imported when they are needed, in the order of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"flowmetal.cli.{module}"), name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant; for one that does not exist, the nearest is named."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"There is no command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="flowmetal")
def cli() -> None:
    """Flowmetal: a durable Lisp, at home in the notebook.

    Programs wait for days, survive restarts and keep their whole history. `flowmetal lab` opens the tour.

    Every command takes --store (else FLOWMETAL_STORE, else the nearest flowmetal.duckdb, else one made here).
    Exit codes: 0 done; 1 the flow failed or was cancelled; 2 bad usage or input; 3 no such flow, or store not
    reachable; 4 not ended within --timeout; 130 interrupted.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    arguments = list(sys.argv[1:] if args is None else args)
    sys.exit(run_command(arguments))


def run_command(arguments: list[str]) -> int:
    """Runs a command; its exit code."""
    debug = "--debug" in arguments
    if debug:
        log_to_stderr()
    try:
        _quietly_install_kernel(arguments)
        answer = cli.main(arguments, prog_name="flowmetal", standalone_mode=False)
        sys.stdout.flush()
        return answer if isinstance(answer, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE
    except (KeyboardInterrupt, click.Abort, asyncio.CancelledError):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_went_away()
    except FlowmetalError as error:
        if debug:
            raise
        click.echo(f"error: {error.render()}", err=True)
        return exit_code(error)
    except Exception as error:
        if debug:
            raise
        click.echo(
            f"error: {type(error).__name__}: {error}\nThis is a fault in Flowmetal; --debug shows where it stands.",
            err=True,
        )
        return 70


def log_to_stderr() -> None:
    """Faults are told with their tracebacks, on stderr."""
    import logging

    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("flowmetal").setLevel(logging.DEBUG)


def _reader_went_away() -> int:
    """Whoever read our output (`| head`) has enough: nothing more is written, not even at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return 0


def _quietly_install_kernel(arguments: list[str]) -> None:
    """The first command puts the kernel where Jupyter finds it; where it cannot, `kernel install` will say why."""
    from flowmetal.cli.kernelspec import ensure_installed

    if arguments[:1] != ["kernel"] and "--background" not in arguments:
        ensure_installed()
