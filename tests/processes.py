"""Hosts and other processes of tests: who they are, how they end. Waits for the event itself, never for a while."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path

import psutil

from flowmetal.client.host_file import lock_holder
from flowmetal.client.store_url import StoreUrl, resolve


def store_at(path: Path) -> StoreUrl:
    """The store in that file, whatever the environment says."""
    return resolve(path, environ={})


def wait_until_ended(pid: int, seconds: float = 30) -> None:
    """Returns once the process has ended, whoever its parent is and whether or not that one has noticed."""
    if not hasattr(os, "pidfd_open"):
        psutil.Process(pid).wait(seconds)
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], seconds)[0], f"process {pid} still runs after {seconds} s"
    finally:
        os.close(fd)


def has_ended(pid: int, seconds: float = 0) -> bool:
    """Whether the process ends within so many seconds."""
    try:
        wait_until_ended(pid, seconds)
    except (AssertionError, psutil.TimeoutExpired):
        return False
    return True


def kill(pid: int) -> None:
    """`kill -9`, and the end of it."""
    os.kill(pid, signal.SIGKILL)
    wait_until_ended(pid)


def kill_host(store: StoreUrl) -> int:
    """Kills the process that hosts the store; its id."""
    pid = lock_holder(store)
    assert pid, f"nobody hosts {store}"
    kill(pid)
    return pid


def end_host(store: StoreUrl) -> None:
    """Ends the process that hosts the store, or all of them, in order."""
    while pid := lock_holder(store):
        os.kill(pid, signal.SIGTERM)
        wait_until_ended(pid)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
