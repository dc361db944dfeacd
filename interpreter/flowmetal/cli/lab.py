"""`flowmetal lab`: JupyterLab with the kernel listed and the tour open.

In: a folder (or none). Out: JupyterLab in this process's place. The one rule: the notebooks' store is an
absolute path, so that every kernel of this Lab means the same one, wherever its notebook lies.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from urllib.parse import quote

import click

from flowmetal.cli.kernelspec import ensure_installed
from flowmetal.cli.options import common
from flowmetal.cli.output import remark
from flowmetal.client.store_url import resolve
from flowmetal.errors import FlowmetalError

_TOUR = ("tour.ipynb", "00-tour.ipynb", "01-tour.ipynb")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", metavar="[DIR] [-- JUPYTER OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@common
def lab(arguments: tuple[str, ...], store: str | None) -> None:
    """Open JupyterLab on DIR, the tour first.

    DIR is a folder or a notebook: the notebooks of the installation where there are some, else the working directory.
    What stands after -- goes to `jupyter lab`.
    """
    folder, options = (arguments[0], arguments[1:]) if arguments and not arguments[0].startswith("-") else (None, arguments)
    if folder is not None and not Path(folder).exists():
        raise click.BadParameter(f"there is no {folder}", param_hint="DIR")
    if importlib.util.find_spec("jupyterlab") is None:
        raise FlowmetalError("JupyterLab is not installed here", type="value", hint='pip install -e ".[lab]"')
    if not ensure_installed():
        remark("warning: the kernel could not be installed in this environment; `flowmetal kernel install --user` may help")
    root, notebook = _what_to_open(folder)
    environment = {**os.environ, "FLOWMETAL_STORE": resolve(store, cwd=root).url}
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
    chosen = Path(folder) if folder is not None else _notebooks()
    if chosen.is_file():
        return chosen.resolve().parent, chosen.name
    root = chosen.resolve()
    return root, next((name for name in _TOUR if (root / name).is_file()), None)


def _notebooks() -> Path:
    """The notebooks of a checkout, here or of this installation; else the working directory."""
    here = Path.cwd()
    checkout = Path(__file__).resolve().parents[3]
    installed = Path(sys.prefix) / "share" / "flowmetal" / "notebooks"
    candidates = [here / "notebooks", checkout / "notebooks", installed]
    if any((here / name).is_file() for name in _TOUR):
        return here
    return next((c for c in candidates if any((c / name).is_file() for name in _TOUR)), here)
