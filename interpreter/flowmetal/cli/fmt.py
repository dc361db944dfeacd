"""`flowmetal fmt`: lays out source files.

In: files, folders, or `-`. Out: the files rewritten where their layout was another; with `--check`, their names. The one
rule: what cannot be read is left as it is, and only white space ever changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flowmetal.cli.exits import DONE, FAILED, USAGE
from flowmetal.cli.options import debug_option
from flowmetal.cli.output import remark
from flowmetal.errors import FlowmetalError, LispError
from flowmetal.lang.layout import layout


@click.command()
@click.argument("files", metavar="[FILE|FOLDER|-]...", nargs=-1, type=click.Path(allow_dash=True))
@click.option("--check", is_flag=True, help="Change nothing; name the files that would be, and exit with 1 if there are any.")
@click.option("--store", metavar="STORE", expose_value=False, help="Taken and not used.")
@debug_option
def fmt(files: tuple[str, ...], check: bool) -> int:
    """Lay out .flow files (of this folder, without arguments); - reads standard input and writes standard output.

    Indentation and spaces become regular; line breaks, comments and alignment within a line stay.
    """
    changed, code = 0, DONE
    for path in _files(files or (".",)):
        try:
            changed += _one(path, check)
        except FlowmetalError as error:
            remark(f"error: {error.render()}")
            code = USAGE
        except (OSError, UnicodeDecodeError) as error:
            remark(f"error: {path}: {error}")
            code = USAGE
    return code or (FAILED if check and changed else DONE)


def _files(paths: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for path in paths:
        folder = Path(path)
        if path != "-" and folder.is_dir():
            found += [str(p) for p in sorted(folder.rglob("*.flow")) if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
        elif path != "-" and not folder.exists():
            raise LispError(f"there is no file {path}", type="value")
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _one(path: str, check: bool) -> bool:
    """Lays out one file; whether it changed, or would."""
    if path == "-":
        text = sys.stdin.buffer.read().decode("utf-8")
        laid_out = layout(text, "stdin")
        if not check:
            sys.stdout.write(laid_out)
        return laid_out != text
    text = Path(path).read_bytes().decode("utf-8")
    laid_out = layout(text, path)
    if laid_out == text:
        return False
    if check:
        click.echo(path)
    else:
        Path(path).write_bytes(laid_out.encode("utf-8"))
        remark(f"laid out {path}")
    return True
