"""`flowmetal lab`: JupyterLab with the kernel listed and the tour open.

In: a folder (or none). Out: JupyterLab in this process's place. The one rule: the notebooks' store is an
absolute path, so that every kernel of this Lab means the same one, wherever its notebook lies.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import click

from flowmetal.cli.kernelspec import ensure_installed
from flowmetal.cli.options import common
from flowmetal.cli.output import remark
from flowmetal.client.store_url import resolve
from flowmetal.errors import FlowmetalError

TOUR = "00-tour.ipynb"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", metavar="[DIR] [-- JUPYTER OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@common
def lab(arguments: tuple[str, ...], store: str | None) -> None:
    """Open JupyterLab on DIR, the tour first.

    DIR is a folder or a notebook: the notebooks of the installation where there are some, else the working directory.
    What stands after -- goes to `jupyter lab`.
    """
    folder, options = (arguments[0], arguments[1:]) if arguments and not arguments[0].startswith("-") else (None, arguments)
    if folder is not None and not Path(folder).expanduser().exists():
        raise click.BadParameter(f"there is no {folder}", param_hint="DIR")
    if importlib.util.find_spec("jupyterlab") is None:
        raise FlowmetalError("JupyterLab is not installed here", type="value", hint='pip install -e ".[lab]"')
    if not ensure_installed():
        remark("warning: the kernel could not be installed in this environment; `flowmetal kernel install --user` may help")
    root, notebook = _what_to_open(folder)
    named = store or os.environ.get("FLOWMETAL_STORE")
    where = resolve(named) if named else resolve(cwd=root)
    environment = {**os.environ, "FLOWMETAL_STORE": where.url}
    remark(f"store {environment['FLOWMETAL_STORE']}")
    command = [sys.executable, "-m", "jupyter", "lab", f"--ServerApp.root_dir={root}"]
    if notebook is not None:
        command.append(f"--LabApp.default_url=/lab/tree/{quote(notebook)}")
    if os.geteuid() == 0:
        command.append("--allow-root")  # whoever is root here has chosen to be, as in a container
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [*command, *options], environment)


def _what_to_open(folder: str | None) -> tuple[Path, str | None]:
    """The folder that Lab shows, and the notebook in it to open first."""
    chosen = Path(folder).expanduser() if folder is not None else _notebooks()
    if chosen.is_file():
        return chosen.resolve().parent, chosen.name
    root = chosen.resolve()
    return root, TOUR if (root / TOUR).is_file() else None


def _notebooks() -> Path:
    """Where the tour is: here, or in a checkout. An installation without one has a copy of it, which is copied here:
    notebooks and their store are the user's, and do not belong among a program's files."""
    here = Path.cwd()
    checkout = Path(__file__).resolve().parents[3]
    for folder in (here, here / "notebooks", checkout / "notebooks"):
        if (folder / TOUR).is_file():
            return folder
    installed = Path(sys.prefix) / "share" / "flowmetal" / "notebooks" / TOUR
    if not installed.is_file():
        return here
    (here / "notebooks").mkdir(exist_ok=True)
    shutil.copyfile(installed, here / "notebooks" / TOUR)
    return here / "notebooks"
