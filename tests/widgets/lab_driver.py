"""JupyterLab in a browser, for tests: a server on a folder of its own, a page, and what a person would do with it.

In: a folder with notebooks. Out: cells run, outputs read, pictures taken. The one rule: everything is asked of Lab's own
commands and model, or seen on the page; nothing reaches around it into the kernel.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
OUTPUTS = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells;
  return cells.filter((c) => c.cell_type === 'code').map((c) => c.toJSON());
}"""


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path, more: dict[str, str]) -> Iterator[str]:
    """`flowmetal lab FOLDER`, with settings and workspaces of its own, and more in its environment; its URL."""
    port = free_port()
    home = folder / ".jupyter-test"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("FLOWMETAL_STORE", "JUPYTER"))},
        "FLOWMETAL_HOME": str(home / "flowmetal"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **more,
    }
    command = [sys.executable, "-m", "flowmetal", "lab", str(folder), "--", "--no-browser", f"--port={port}", "--IdentityProvider.token="]
    command += ["--expose-app-in-browser", "--ServerApp.disable_check_xsrf=True"]
    home.mkdir(exist_ok=True)
    log = home / "lab.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}")


@contextmanager
def browser_page(width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A page of the system's chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(30_000)
        yield page
        browser.close()


class Notebook:
    """A notebook open in Lab; without a name, the one that Lab opens by itself."""

    def __init__(self, page: Any, url: str, name: str | None = None) -> None:
        self.page = page
        page.goto(url if name is None else f"{url}/lab/tree/{name}?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.context?.isReady")
        page.wait_for_function("() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")
        page.wait_for_function("() => window.jupyterapp.restored.then(() => true)")  # an earlier click is lost

    def command(self, name: str) -> None:
        """Runs one of Lab's own commands."""
        self.page.evaluate("(name) => { window.jupyterapp.commands.execute(name) }", name)

    def cells(self) -> list[dict[str, Any]]:
        """The code cells as they would be saved."""
        return list(self.page.evaluate(OUTPUTS))

    def run_all(self, timeout: float = 120) -> list[dict[str, Any]]:
        """Runs every cell; the code cells with their outputs."""
        return self._run("notebook:run-all-cells", timeout)

    def run_until(self, source: str, timeout: float = 60) -> list[dict[str, Any]]:
        """Runs the cells from the first to the one with that source."""
        self.page.evaluate(
            """(source) => {
              const notebook = window.jupyterapp.shell.currentWidget.content;
              const wanted = notebook.widgets.findIndex((cell) => cell.model.sharedModel.getSource() === source);
              if (wanted < 0) throw new Error(`no cell is ${source}`);
              notebook.deselectAll();
              notebook.activeCellIndex = wanted + 1;
            }""",
            source,
        )
        return self._run("notebook:run-all-above", timeout)

    def run_rest(self, timeout: float = 60) -> list[dict[str, Any]]:
        """Runs the active cell and all below it."""
        return self._run("notebook:run-all-below", timeout)

    def _run(self, command: str, timeout: float) -> list[dict[str, Any]]:
        self.page.evaluate("(command) => { window.ran = window.jupyterapp.commands.execute(command) }", command)
        self.page.wait_for_function("() => window.ran.then(() => true)", timeout=timeout * 1000)
        return self.cells()

    def add_and_start(self, source: str) -> None:
        """Writes a cell at the end and starts it."""
        self.page.evaluate(
            """async (source) => {
              const app = window.jupyterapp;
              const notebook = app.shell.currentWidget.content;
              const shared = notebook.model.sharedModel;
              shared.insertCell(shared.cells.length, {cell_type: 'code', source});
              notebook.activeCellIndex = shared.cells.length - 1;
              notebook.deselectAll();
              window.ran = app.commands.execute('notebook:run-cell');
            }""",
            source,
        )

    def last_cell(self, timeout: float = 30) -> dict[str, Any]:
        """The cell that was started last, once it has ended, with its outputs."""
        self.page.wait_for_function("() => window.ran.then(() => true)", timeout=timeout * 1000)
        return self.cells()[-1]

    def restart_kernel(self) -> None:
        """Restarts the kernel, as the menu does after its question."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")

    def save(self) -> None:
        """Saves the notebook."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")


def texts(cell: dict[str, Any]) -> str:
    """What a cell shows, as text."""
    out: list[str] = []
    for output in cell["outputs"]:
        text = output.get("text") or output.get("data", {}).get("text/plain") or "\n".join(output.get("traceback", []))
        out.append("".join(text) if isinstance(text, list) else str(text))
    return "\n".join(out)


def errors(cells: list[dict[str, Any]]) -> list[str]:
    """The errors among the outputs of cells."""
    return [
        f"{''.join(cell['source'])}\n{output['ename']}: {output['evalue']}" for cell in cells for output in cell["outputs"] if output["output_type"] == "error"
    ]
