"""Flowmetal in Jupyter: the kernel, its cells and magics, its live views. It speaks to a `Client` only."""

from __future__ import annotations

from typing import Any

_loaded: dict[int, Any] = {}


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext flowmetal_kernel` in a Python notebook: `%%flow`, `%%sql` and the live histories."""
    from flowmetal_kernel.ipython import Extension

    extension = _loaded[id(shell)] = Extension(shell)
    extension.load()


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext flowmetal_kernel`."""
    extension = _loaded.pop(id(shell), None)
    if extension is not None:
        extension.unload()
