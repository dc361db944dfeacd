"""An event loop whose time is virtual: it stands still while anything can run, and then asks what to do.

In: a function that is called when nothing can run, with the seconds until the next thing that is due
(None when nothing ever will be). Out: ordinary asyncio, with `sleep`, `timeout` and `call_later` on virtual time; so
engine and connectors run in tests as they are. The one rule: there are no sockets and no threads here.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

MICROS = 1_000_000
EARLY = 2e-7

Idle = Callable[["float | None"], None]


class ThreadlessLoop(asyncio.SelectorEventLoop):
    """A loop on which everything comes in the same order whenever it is done again, since nothing is done on other threads."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Calls the function at once: nothing may depend on how long a thread takes."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  it belongs to whoever awaits the future
            future.set_exception(error)
        return future


class VirtualLoop(ThreadlessLoop):
    """A loop that counts microseconds from zero; `idle` moves it, or sees to it that something can run."""

    def __init__(self, idle: Idle, every_turn: Callable[[], None] = lambda: None) -> None:
        self.micros = 0
        super().__init__(_IdleSelector(idle, every_turn))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.micros / MICROS

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        """Calls when the time has come; a hair earlier than it is written, since years of seconds leave a float less than a microsecond."""
        return super().call_at(when - EARLY, callback, *args, context=context)

    def move(self, seconds: float) -> None:
        """Moves time forward, to the nearest microsecond but by at least one."""
        self.micros += max(1, round(seconds * MICROS))


class _IdleSelector(selectors.SelectSelector):
    """Tells when the loop would sleep: then no event is on its way, since nothing here waits for a socket."""

    def __init__(self, idle: Idle, every_turn: Callable[[], None]) -> None:
        super().__init__()
        self._idle = idle
        self._every_turn = every_turn

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Never waits."""
        self._every_turn()
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self._idle(timeout)
        return ready
