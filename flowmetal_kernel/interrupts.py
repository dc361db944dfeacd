"""What an interrupt does to a cell that waits.

In: the task that a cell awaits. Out: SIGINT cancels it, wherever the event loop is at that moment. The one rule: the loop is
woken for it, whichever thread took it; a handler of Python's own would be heard when something else happens.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = {
    "ename": "Interrupted",
    "evalue": "the flows that this cell started go on",
    "traceback": ["\x1b[31mInterrupted\x1b[0m: the flows that this cell started go on"],
}
"""What the notebook shows, as the content of a Jupyter error."""


@contextmanager
def interrupts(task: asyncio.Future[Any]) -> Iterator[None]:
    """While this lasts, SIGINT cancels the task, and nothing else. On another thread than the main one no signal is heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
