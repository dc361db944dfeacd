"""Starts commands without the time that importing takes: a process that has imported the program forks them.

Each command is a process of its own, with its own streams, folder and environment; only the imports are shared.
As a program (`python forks.py SOCKET`) it is that process; as a module it is the way to ask it.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

MODULES = (
    "flowmetal.cli.main", "flowmetal.cli.run", "flowmetal.cli.evaluate", "flowmetal.cli.flows", "flowmetal.cli.control", "flowmetal.cli.query",
    "flowmetal.cli.serve", "flowmetal.cli.doctor", "flowmetal.cli.kernelspec", "flowmetal.client.discovery", "flowmetal.client.host",
    "flowmetal.runtime.engine", "flowmetal.store.duckdb_store", "flowmetal.store.memory", "flowmetal.connect.http_request",
    "flowmetal.connect.shim.app", "uvicorn", "anyio._backends._asyncio", "httpcore._async.http11", "rich.box", "rich.console", "rich.table",
)  # fmt: skip


class Forks:
    """A process that forks commands when it is asked to."""

    def __init__(self, env: dict[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket = ours
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def run(self, args: list[str], stdin: bytes, cwd: Path, env: dict[str, str]) -> tuple[int, bytes, bytes]:
        """Runs a command to its end: exit code, stdout, stderr."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            self._ask({"args": args, "cwd": str(cwd), "env": env}, [given, out, err])
            code = int(self._socket.recv(16))
            for stream in (out, err):
                stream.seek(0)
            return code, out.read(), err.read()

    def _ask(self, request: dict[str, Any], streams: list[IO[bytes]]) -> None:
        text = json.dumps(request).encode()
        fds = array.array("i", [stream.fileno() for stream in streams])
        self._socket.sendmsg([len(text).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        self._socket.sendall(text)

    def close(self) -> None:
        """Ends the process."""
        self._socket.close()
        self._process.wait(timeout=30)


def serve(connection: socket.socket) -> None:
    """Forks commands until the other side is gone."""
    import importlib

    for module in MODULES:
        importlib.import_module(module)
    while True:
        head, fds, _, _ = socket.recv_fds(connection, 4, 3)
        if len(head) < 4:
            return
        text = b""
        while len(text) < int.from_bytes(head, "big"):
            text += connection.recv(65536)
        pid = os.fork()
        if pid == 0:
            connection.close()
            become(json.loads(text), fds)
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def become(request: dict[str, Any], fds: list[int]) -> None:
    """The child: it is the command. Never returns."""
    from flowmetal.cli.main import main

    code = 1
    try:
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        main(request["args"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
