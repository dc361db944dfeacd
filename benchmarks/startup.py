"""How long it takes until something is there: the command line, a program's first result, the kernel."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator

from measure import Figure, Place

FLOW = "(defflow main [] (inc 41))"


def command(place: Place) -> Iterator[Figure]:
    """Commands, from the process's start to its end; and Python's own start, which is in each."""
    store = str(place.directory / "command.duckdb")
    program = place.directory / "command.flow"
    program.write_text(FLOW)
    yield Figure("starting Python", _run("-c", "pass"), "ms")
    yield Figure("import flowmetal", _run("-c", "import flowmetal"), "ms")
    yield Figure("flowmetal --help", _run("-m", "flowmetal", "--help"), "ms")
    yield Figure("flowmetal eval '(inc 41)'", _run("-m", "flowmetal", "eval", "-", text="(inc 41)"), "ms")
    first = _run("-m", "flowmetal", "run", str(program), "--store", store)
    yield Figure("flowmetal run, on a new store", first, "ms")
    yield Figure("flowmetal run, on one that is there", _run("-m", "flowmetal", "run", str(program), "--store", store), "ms")


def _run(*arguments: str, text: str = "") -> float:
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return (time.perf_counter() - begun) * 1e3


def kernel(place: Place) -> Iterator[Figure]:
    """The Jupyter kernel, from the process's start to its first answer, beside IPython's."""
    if importlib.util.find_spec("jupyter_client") is None:
        return
    yield Figure("the flowmetal kernel's start", _kernel("flowmetal_kernel"), "ms")
    yield Figure("the python3 kernel's start", _kernel("ipykernel_launcher"), "ms")


def _kernel(module: str) -> float:
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    class Manager(KernelManager):  # type: ignore[misc, unused-ignore]  # jupyter_client has no types
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=[sys.executable, "-m", module, "-f", "{connection_file}"], display_name=module, language="")

    manager = Manager()
    begun = time.perf_counter()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        return (time.perf_counter() - begun) * 1e3
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
