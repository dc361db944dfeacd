"""`fm`, the store of the notebook in its `%%python` cells: the object that `flowmetal.open` gives, opened when it is first used.

The one rule: a notebook attaches to its store and never hosts it; functions that it provides are answered until the kernel ends.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from typing import Any


class NotebookStore:
    """Stands for a `flowmetal.Flowmetal` on the notebook's store."""

    def __init__(self) -> None:
        self._opened: Any = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by whoever shows or completes the object
            raise AttributeError(name)
        return getattr(self._open(), name)

    def __dir__(self) -> list[str]:
        from flowmetal.client.api import Flowmetal

        return [name for name in dir(Flowmetal) if not name.startswith("_")]

    def __repr__(self) -> str:
        return "<fm: the flows of this notebook's store>"

    def _open(self) -> Any:
        with self._lock:
            if self._opened is None:
                from flowmetal.client.api import connected

                self._opened = connected(None, host_here=False, by="notebook")
                atexit.register(self._close)
            return self._opened

    def _close(self) -> None:
        with contextlib.suppress(Exception):  # at exit there is nobody left to tell
            self._opened.close()
