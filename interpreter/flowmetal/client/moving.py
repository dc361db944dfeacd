"""Flows between stores, as files.

In: flows and a path, or a file. Out: a file that is whole and on disk, or flows that go on. The one rule: a flow is marked as moved only
when its file is safe; whatever happens before that, it goes on where it was.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from flowmetal.client.client import Client, Row
from flowmetal.errors import FlowConflict, LispError, StoreError
from flowmetal.store.disk import sync

ATTEMPTS = 10
"""How often a file is made anew because a flow has gone on while it was written."""


async def export_to(client: Client, flows: Sequence[str], path: str | os.PathLike[str]) -> Row:
    """Writes flows into a new file; those that are open have moved then: `{"path", "flows": [ids], "moved": [ids]}`.

    Raises FlowConflict where a flow cannot leave, or keeps going on; StoreError where the file cannot be written.
    """
    target = Path(path)
    if target.exists():
        raise StoreError(f"{target} is there already", type="store/path", hint="name another file")
    for attempt in range(ATTEMPTS):
        data = await client.export(flows)
        head = json.loads(data.partition(b"\n")[0])
        _write(target, data)
        try:
            if head["open"]:
                await client.mark_moved(head["open"])
        except FlowConflict:
            target.unlink()
            if attempt == ATTEMPTS - 1:
                raise
            continue
        except StoreError as error:
            error.hint = f"{target} is whole; whether its flows have moved is not known: import it only if `flowmetal ps` says so"
            raise
        return {"path": str(target), "flows": [flow["flow_id"] for flow in head["flows"]], "moved": list(head["open"])}
    raise AssertionError("unreachable")


async def import_from(client: Client, path: str | os.PathLike[str]) -> Row:
    """Takes the flows of a file: `{"flows": [ids], "new": bool}`. Raises LispError for what is no whole file; FlowConflict."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise LispError(f"cannot read {os.fspath(path)}: {error.strerror}", type="value") from error
    return await client.import_flows(data)


def _write(target: Path, data: bytes) -> None:
    """A file of mode 0600 that is whole, on disk, and new."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, target)
        sync(target.parent)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror}", type="store/path") from error
    finally:
        partial.unlink(missing_ok=True)
