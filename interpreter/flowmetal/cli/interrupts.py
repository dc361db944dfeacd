"""Running a command's coroutine so that Ctrl-C always reaches it.

In: a coroutine. Out: its result; `CancelledError` once it was interrupted. The one rule: whichever thread the
kernel gives the signal to, the loop wakes for it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(body: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, of which the first Ctrl-C cancels `body` and the second ends everything at once.

    asyncio's own handling runs in the main thread when that next goes on: a signal that another thread took (an interpreter
    in this process has several) would find it asleep. A handler of the loop writes to a file that the loop waits for.
    """
    return asyncio.run(_interruptible(body))


async def _interruptible(body: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        if task.cancelling():
            raise KeyboardInterrupt
        task.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        return await body
    finally:
        loop.remove_signal_handler(signal.SIGINT)
