"""`serve --background`: a host that outlives the command that started it.

In: a store and how to listen. Out: an exit code, once the host answers or has said why it cannot. The one rule:
the process that was started tells its starter how it went through a pipe, and only then is left alone. It ends
by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowmetal.cli.exits import DONE, NOT_FOUND, exit_code
from flowmetal.cli.main import log_to_stderr
from flowmetal.client.store_url import StoreUrl
from flowmetal.errors import FlowmetalError

if TYPE_CHECKING:
    from flowmetal.client.host import HostOptions


def serve_in_background(where: StoreUrl, options: HostOptions) -> int:
    """Forks a host, waits until it answers, and says where. Whoever hosts the store already will do."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        _become_host(where, options, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    try:
        answer = json.loads(said)
    except ValueError:
        answer = {
            "error": f"the host ended before it answered\nwhat it said is in {log_path(where)}",
            "code": NOT_FOUND,
        }
    if "error" in answer:
        click.echo(f"error: {answer['error']}", err=True)
        return int(answer["code"])
    for text in answer["warnings"]:
        click.echo(f"warning: {text}", err=True)
    click.echo(f"listening on {answer['url']}")
    return DONE


def log_path(where: StoreUrl) -> Path:
    """Where a background host's own messages go."""
    home = Path(os.environ.get("FLOWMETAL_HOME") or Path.home() / ".flowmetal")
    digest = hashlib.sha256(where.url.encode()).hexdigest()[:8]
    stem = where.path.stem if where.path is not None else where.kind
    return home / "log" / f"{stem}-{digest}.log"


def _become_host(where: StoreUrl, options: HostOptions, writing: int) -> None:
    """The child: detached from the terminal, it hosts until it has nothing to do. Never returns."""
    code = 1
    try:
        os.setsid()
        _redirect(where)
        code = _host(where, options, writing)
    except BaseException as error:  # noqa: BLE001  whatever it is, the starter is told
        _tell(writing, {"error": f"{type(error).__name__}: {error}", "code": NOT_FOUND})
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _redirect(where: StoreUrl) -> None:
    """Standard streams: nothing to read, and a log to write to."""
    null = os.open(os.devnull, os.O_RDWR)
    log = null
    path = log_path(where)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        log = null  # no place for a log: the host works without one
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    log_to_stderr()
    if where.path is not None:
        os.chdir(where.path.parent)


def _host(where: StoreUrl, options: HostOptions, writing: int) -> int:
    from flowmetal.cli.serve import Signals
    from flowmetal.client.host import Host

    try:
        lock = _claim(where, writing)
        if lock is None and where.is_hosted:
            return DONE
        host = Host(where, lock, options)
        with Signals() as signals:
            host.launch().result()
            _tell(writing, {"url": host.url, "warnings": host.warnings})
            host.ended.add_done_callback(lambda _: signals.wake())
            while not (host.ended.done() or signals.stop):
                signals.wait()
            host.stop()
    except FlowmetalError as error:
        if where.kind == "postgresql" and error.type == "store/locked" and _claim(where, writing) is None:
            return DONE  # somebody else was quicker
        _tell(writing, {"error": error.render(), "code": exit_code(error)})
        print(error.render(), file=sys.stderr)
        return exit_code(error)
    return DONE


def _claim(where: StoreUrl, writing: int) -> Any:
    """The store's lock; None when somebody else answers for the store, which is then told."""
    import asyncio

    from flowmetal.client.discovery import look_for_host
    from flowmetal.client.host_file import StoreLock

    if not where.is_hosted:
        return None
    lock = StoreLock(where)
    while not lock.acquire():
        info = asyncio.run(look_for_host(where))
        if info is not None:
            _tell(writing, {"url": info.url, "warnings": []})
            return None
    return lock


def _tell(writing: int, message: dict[str, Any]) -> None:
    """Tells the starter, once; it may have gone."""
    try:
        os.write(writing, json.dumps(message).encode())
        os.close(writing)
    except OSError:
        return
