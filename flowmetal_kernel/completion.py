"""Completion: a cell's text and the cursor go in, Jupyter's `complete_reply` comes out.

The one rule: names come from the engine, which alone knows what is defined.
"""

from __future__ import annotations

from typing import Any

from flowmetal.client.client import Client
from flowmetal_kernel.cells import LINE_MAGICS
from flowmetal_kernel.scanner import token_before

CELL_MAGICS = ("again", "python", "sql")


async def complete(client: Client, code: str, cursor: int, ns: str) -> dict[str, Any]:
    """The names that may stand at the cursor."""
    magic = _magic_before(code, cursor)
    if magic is not None:
        return reply(_magics(magic), cursor - len(magic), cursor)
    token = token_before(code, cursor)
    names = await client.complete(token, ns) if token else []
    return reply(names, cursor - len(token), cursor)


def reply(names: list[str], start: int, end: int) -> dict[str, Any]:
    """The message that offers `names` for the text from `start` to `end`."""
    return {"status": "ok", "matches": names, "cursor_start": start, "cursor_end": end, "metadata": {}}


def _magic_before(code: str, cursor: int) -> str | None:
    line = code[code.rfind("\n", 0, cursor) + 1 : cursor]
    return line if line.startswith("%") and " " not in line else None


def _magics(prefix: str) -> list[str]:
    names = [f"%{name}" for name in sorted(LINE_MAGICS)] + [f"%%{name}" for name in CELL_MAGICS]
    return [name for name in names if name.startswith(prefix)]
