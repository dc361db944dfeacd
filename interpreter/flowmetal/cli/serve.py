"""Commands about the host: `serve`, `token`.

In: a store, an address. Out: one line that says where it listens. The one rule: `serve` ends in order on
SIGTERM and SIGINT, and leaves every flow in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import click

from flowmetal.cli.exits import DONE, NOT_FOUND
from flowmetal.cli.options import common, common_json
from flowmetal.cli.output import print_json, remark
from flowmetal.client.store_url import StoreUrl, resolve
from flowmetal.errors import FlowmetalError, StoreError

if TYPE_CHECKING:
    from flowmetal.client.host import Host, HostOptions


@click.command()
@click.option("--host", "address", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="0: any. Else the store's own, else 8421.")
@click.option("--public-url", metavar="URL", help="The address in the URLs given out. Else FLOWMETAL_PUBLIC_URL.")
@click.option("--background", is_flag=True, help="Return when it listens; it ends some time after its last client.")
@click.option("--idle-seconds", type=click.FloatRange(min=0.1), default=300.0, show_default=True,
              help="With --background: how long it stays without clients and open flows.")  # fmt: skip
@click.option("--clock", type=click.Choice(["real", "virtual"]), help="virtual, for a new store: time jumps to what is due next. Else the store's own.")
@common
def serve(
    address: str, port: int | None, public_url: str | None, background: bool, idle_seconds: float,
    clock: Literal["real", "virtual"] | None, store: str | None,
) -> int:  # fmt: skip
    """Run an interpreter: flows, timers and the HTTP shim, without a notebook."""
    from flowmetal.client.host import HostOptions
    from flowmetal.client.listening import Listen
    from flowmetal.client.listening import public_url as chosen_url

    where = resolve(store)
    if where.kind == "http":
        raise click.UsageError("serve runs an interpreter on a store, and an http:// store has one")
    if background and port is None:
        port = 0
    listen = Listen(address, port, chosen_url(public_url))
    if background:
        from flowmetal.cli.background import serve_in_background

        return serve_in_background(where, HostOptions(listen, background=True, idle_seconds=idle_seconds, stoppable=True, clock=clock))
    return _serve(where, HostOptions(listen, stoppable=True, clock=clock))


def _serve(where: StoreUrl, options: HostOptions) -> int:
    listen = options.listen
    assert listen is not None
    if not listen.is_loopback:
        remark(f"warning: listening on {listen.host}: whoever has the token can run programs here")
    with Signals() as signals:
        host = _launch(where, options, signals)
        if host.ready:
            for text in host.warnings:
                remark(f"warning: {text}")
            click.echo(f"listening on {host.url}")
            sys.stdout.flush()
        while not (host.ended.done() or signals.stop):
            signals.wait()
        host.stop()
    return DONE


def _launch(where: StoreUrl, options: HostOptions, signals: Signals) -> Host:
    """A host that has started, unless a signal came first. Raises what it failed of."""
    from flowmetal.client.host import Host

    host = Host(where, claim(where), options)
    started = host.launch()
    started.add_done_callback(lambda _: signals.wake())
    host.ended.add_done_callback(lambda _: signals.wake())
    while not (started.done() or signals.stop):
        signals.wait()
    if started.done():
        started.result()
    return host


def claim(where: StoreUrl) -> Any:
    """The lock of the store; an error names the process that has it. None for a store that any number may have, or only its own program."""
    from flowmetal.client.discovery import look_for_host
    from flowmetal.client.host_file import StoreLock

    if where.kind in ("memory", "postgresql"):
        return None
    lock = StoreLock(where)
    while not lock.acquire():
        info = asyncio.run(look_for_host(where))
        if info is not None:
            raise StoreError(
                f"{where} is served already by process {info.pid}, at {info.url}",
                type="store/locked",
                hint="commands and programs attach to it by themselves; `flowmetal stop` ends it",
            )
    return lock


class Signals:
    """SIGTERM and SIGINT as something to wait for; a second one ends the process the usual way.

    The kernel may give a signal to any thread, and Python runs its handler in the main one only once that goes on. So the main
    thread waits for a byte that the signal itself writes (`signal.set_wakeup_fd`), whichever thread it came to.
    """

    def __init__(self) -> None:
        self.stop = False
        self._waking, self._woken = socket.socketpair()
        self._before: dict[int, Any] = {}
        self._fd_before = -1

    def __enter__(self) -> Signals:
        self._woken.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        """The sockets stay for whoever still calls `wake`; they are closed with this object."""
        self._restore()
        signal.set_wakeup_fd(self._fd_before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def wake(self) -> None:
        """Something else has happened: whoever waits looks again. From any thread."""
        with contextlib.suppress(BlockingIOError):  # full: whoever waits is woken already
            self._woken.send(b"\0")

    def wait(self, seconds: float | None = None) -> None:
        """Waits for a signal or `wake`, but no longer than that."""
        self._waking.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            self._waking.recv(4096)


@click.command()
@common_json
def token(store: str | None, as_json: bool) -> int:
    """Print the token that HTTP clients of the store need."""
    where = resolve(store)
    if where.is_hosted:
        from flowmetal.client.host_file import token_of

        value = token_of(where)
    elif where.kind == "http":
        value = os.environ.get("FLOWMETAL_TOKEN", "")
        if not value:
            remark("the token of an http:// store is printed where the store is; here it is read from FLOWMETAL_TOKEN")
            return NOT_FOUND
    else:
        raise FlowmetalError(f"{where.kind} stores have no token of their own", type="value")
    if as_json:
        print_json({"token": value})
    else:
        click.echo(value)
    return DONE
