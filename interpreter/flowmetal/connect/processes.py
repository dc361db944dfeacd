"""Processes: `(sh ["cmd" "arg"] {…})`, run once and recorded.

In: a command as a vector, `:env :cwd :stdin :timeout`. Out: `{:exit :out :err}`, whatever the exit code. The
one rule: unless `:at-most-once false` says that running it twice does no harm, it is on record that it
starts before it does, and after a crash it is not started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import Any

from flowmetal.connect.secrets import SecretOf, filled, secrets_of
from flowmetal.errors import LispError
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.plain import to_plain
from flowmetal.lang.values import Keyword, kw
from flowmetal.runtime.connector import Call, Completed, Failed, Outcome
from flowmetal.runtime.retries import seconds

MAX_CONCURRENT = 32
MAX_OUTPUT = 10 * 1024 * 1024
"""Bytes of output that are kept of each stream; a process that writes more is ended."""
GRACE = 2.0
"""Seconds between asking a process to end and killing it."""


@dataclass(slots=True)
class _Output:
    """What a process has written to one stream."""

    text: bytearray
    over: bool = False


class ProcessConnector:
    """Performs `sh` calls. One instance a host, used on one asyncio loop."""

    ops = frozenset({"sh"})

    def __init__(self, *, secret_of: SecretOf | None = None) -> None:
        self._secret_of = secret_of or secrets_of(None)
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def perform(self, call: Call) -> Outcome:
        """Runs the process; its exit code is part of the value, only what keeps it from running is a failure."""
        options = call.options
        try:
            command = [str(part) for part in filled(call.args[0], self._secret_of)]
            limit = options.get(kw("timeout"))
            timeout = None if limit is None else seconds(limit, ":timeout", 0.0)
            stdin = _stdin(filled(options.get(kw("stdin")), self._secret_of))
            env = _env(filled(options.get(kw("env")) or EMPTY_MAP, self._secret_of))
        except LispError as error:
            return Failed(error.type, error.message, error.data, 0)
        async with self._slots:
            if options.get(kw("at-most-once"), True) is not False:
                await call.attempt_started(call.attempt)
            try:
                return await _run(command, stdin, env, options.get(kw("cwd")), timeout, call.attempt)
            except (OSError, ValueError) as error:
                return Failed("sh/failed", f"{command[0]} cannot be run: {_reason(error)}", None, call.attempt)

    async def close(self) -> None:
        """Nothing is held: processes end with the calls that run them."""


async def _run(command: list[str], stdin: bytes, env: dict[str, str], cwd: Any, timeout: float | None, attempt: int) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env, cwd=cwd, start_new_session=True,
    )  # fmt: skip
    out, err = _Output(bytearray()), _Output(bytearray())
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(_feed(process, stdin), _read(process, process.stdout, out), _read(process, process.stderr, err))
            code = await process.wait()
    except TimeoutError:
        return Failed("flow/timeout", f"{command[0]} did not end within {timeout:g} s, and was ended", _streams(None, out, err), attempt)
    finally:
        await _end(process)
    if out.over or err.over:
        return Failed("limit", f"{command[0]} wrote more than {MAX_OUTPUT:,} bytes: let it write to a file", None, attempt)
    return Completed(_streams(code, out, err), attempt)


async def _feed(process: asyncio.subprocess.Process, text: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it does not read to the end: its own affair
        process.stdin.write(text)
        await process.stdin.drain()
    process.stdin.close()


async def _read(process: asyncio.subprocess.Process, stream: asyncio.StreamReader | None, into: _Output) -> None:
    assert stream is not None
    while part := await stream.read(65536):
        if len(into.text) + len(part) > MAX_OUTPUT:
            into.over = True
            _signal(process, signal.SIGKILL)
            return
        into.text += part


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the process and its children, if they still run."""
    if process.returncode is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), GRACE)
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()
    except asyncio.CancelledError:
        _signal(process, signal.SIGKILL)
        raise


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _streams(code: int | None, out: _Output, err: _Output) -> Map:
    texts = [(kw("out"), out.text.decode("utf-8", "replace")), (kw("err"), err.text.decode("utf-8", "replace"))]
    return Map.of([(kw("exit"), code), *texts])


def _stdin(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    raise LispError("the :stdin of sh must be a string or bytes", type="type")


def _env(given: Any) -> dict[str, str]:
    """The environment: this process's own without secrets, and what was given over it."""
    if not isinstance(given, Map):
        raise LispError("the :env of sh must be a map of names and strings", type="type")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWMETAL_SECRET_", "FLOWMETAL_TOKEN"))}
    more = {k.text if isinstance(k, Keyword) else str(k): v if isinstance(v, str) else str(to_plain(v)[0]) for k, v in given.items()}
    return {**kept, **more}


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
