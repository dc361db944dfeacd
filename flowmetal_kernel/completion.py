"""Completion: a cell's text and the cursor go in, Jupyter's `complete_reply` comes out.

The one rule: names come from the engine, which alone knows what is defined.
"""

from __future__ import annotations

from typing import Any

from flowmetal.client.client import Client
from flowmetal.lang.complete import around
from flowmetal_kernel.cells import LINE_MAGICS
from flowmetal_kernel.scanner import token_before

CELL_MAGICS = ("again", "python", "sql")


def complete_magic(code: str, cursor: int) -> dict[str, Any] | None:
    """The notebook's magics that may stand at the cursor; None where no magic's name stands."""
    line = code[code.rfind("\n", 0, cursor) + 1 : cursor]
    if not line.startswith("%") or " " in line:
        return None
    names = [f"%{name}" for name in sorted(LINE_MAGICS)] + [f"%%{name}" for name in CELL_MAGICS]
    return reply([name for name in names if name.startswith(line)], cursor - len(line), cursor)


async def complete(client: Client, code: str, cursor: int, ns: str) -> dict[str, Any]:
    """The names of Lisp that may stand at the cursor: what the cell binds or mentions, then what is defined."""
    token = token_before(code, cursor)
    names = [*around(code, cursor, token), *await client.complete(token, ns)] if token else []
    return reply(list(dict.fromkeys(names)), cursor - len(token), cursor)


def reply(names: list[str], start: int, end: int) -> dict[str, Any]:
    """The message that offers `names` for the text from `start` to `end`."""
    return {"status": "ok", "matches": names, "cursor_start": start, "cursor_end": end, "metadata": {}}
