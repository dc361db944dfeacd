"""Which notebooks may run processes: a notebook may come from somebody else, and opening one is not trusting it.

In: `sh` steps, by the place in the source that asks; the word of whoever has read the notebook, which is a row of the log. Out: a failure
for what nobody has allowed. The one rule: the word comes from outside the notebook, since a cell could speak it for itself.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError
from flowmetal.runtime.connector import Failed
from flowmetal.runtime.rows import Draft, to_draft, to_row
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

CELL = re.compile(r"(?:(.*) )?In\[\d+\]")
"""What the kernel calls a cell's source: the notebook, where Jupyter tells its name, and the cell's number."""
NAMELESS = "notebook"
"""A notebook whose name nobody knows."""
ALL = "FLOWMETAL_ALLOW_SH"
"""The setting of an interpreter that lets every notebook run processes: `1`."""


class Allowances:
    """The notebooks of a store that may run processes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.allowed: set[str] = set()

    async def open(self) -> None:
        """Reads who was allowed."""
        for row in await self.engine.writer.call(self.engine.store.rows, kinds.ALLOWANCES_STREAM):
            self._note(to_draft(row, lambda root: root).facts)

    def _note(self, facts: dict[str, Any]) -> None:
        (self.allowed.add if facts["allowed"] else self.allowed.discard)(facts["notebook"])

    def refused(self, request: Draft) -> Failed | None:
        """Why a step is not made: it runs a process for a notebook that nobody has allowed to."""
        if request.facts["op"] != "sh":
            return None
        cell = CELL.fullmatch(request.facts.get("source") or "")
        if cell is None or os.environ.get(ALL) == "1":
            return None
        notebook = cell[1] or NAMELESS
        if notebook in self.allowed:
            return None
        message = (
            f"{request.facts['target']} was not run: nobody has allowed the notebook {notebook} to run processes here. "
            f"If you trust what it runs, say so once in a terminal: flowmetal allow {notebook}"
        )
        return Failed("sh/not-allowed", message, None, 0)

    async def allow(self, notebook: str, allowed: bool, by: str = "") -> list[str]:
        """Lets a notebook run processes, or no more; the notebooks that may. On disk when this returns."""
        if not notebook or len(notebook) > 500:
            raise LispError("a notebook is named by 1 to 500 characters", type="value")
        if (notebook in self.allowed) != allowed:
            draft = Draft(kinds.NOTEBOOK_ALLOWED, None, None, {"notebook": notebook, "allowed": allowed, "by": by or None}, at=self.engine.clock.now())
            await self.engine.commit(Commit([to_row(kinds.ALLOWANCES_STREAM, 0, draft)]))
            self._note(draft.facts)
        return sorted(self.allowed)
