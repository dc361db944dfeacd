"""What becomes of flows and stores besides running: deleted, copied, moved, archived.

In: what a client asks. Out: what was done. The one rule: nothing that is open is lost, and what is gone is said in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowmetal.errors import StoreError
from flowmetal.lang.values import Duration
from flowmetal.runtime import deletion, export, importing
from flowmetal.runtime.retention import Retention, duration
from flowmetal.store.files import FileStore

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine


class Keeping:
    """Keeps the flows of an engine's store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.retention = Retention(engine)

    async def delete(self, flow_id: str, *, by: str = "", reason: str | None = None, request_id: str | None = None) -> list[str]:
        """Deletes a flow that is over and what belongs to it: their ids. Raises FlowNotFound; FlowConflict where it is open, or needed."""
        return await deletion.delete(self.engine, flow_id, by=by, reason=reason, request_id=request_id)

    async def backup(self, directory: str) -> str:
        """Copies the store, as it stands at this moment, into a folder: the new file's path. Flows go on meanwhile."""
        store = self.engine.store
        if not isinstance(store, FileStore):
            hint = "flows of a store in memory can be exported; a PostgreSQL database has tools of its own, as pg_dump"
            raise StoreError("this store has no file to copy", type="store/path", hint=hint)
        folder = Path(directory)
        if not folder.is_absolute():
            raise StoreError(f"the folder of a backup is an absolute path on the host's machine, not {directory[:80]!r}", type="store/path")
        return str(await asyncio.get_running_loop().run_in_executor(None, store.backup, folder))

    async def export(self, flows: Sequence[str]) -> bytes:
        """The file that holds these flows, their children and what they need. Nothing changes here: see `mark_moved`."""
        return await export.export(self.engine, flows)

    async def mark_moved(self, flows: dict[str, int], *, by: str = "") -> None:
        """Flows that were open when they were exported go on elsewhere; each with the last `seq` in its file. FlowConflict where one has gone on."""
        await export.mark(self.engine, flows, by=by)

    async def import_flows(self, data: bytes, *, by: str = "") -> dict[str, Any]:
        """Takes the flows of a file: `{"flows": [ids], "new": bool}`. Raises LispError, FlowConflict."""
        return await importing.import_flows(self.engine, data, by=by)

    async def archive(self, *, older_than: str | None = None, where: str | None = None, keep: str | None = None, by: str = "") -> dict[str, Any]:
        """Archives flows that are over, of an age (a duration such as `30d`) and under a condition: `{"archived", "keep"}`.

        `keep` makes an age the store's setting, which is then seen to from time to time; `forever` ends that. Raises StoreError, LispError.
        """
        if keep is not None:
            await self.retention.set_keep(None if keep == "forever" else duration(keep))
            older_than = older_than or (None if keep == "forever" else keep)
        archived = 0
        if keep != "forever" or older_than is not None or where is not None:
            archived = await self.retention.archive(older_than=duration(older_than), where=where, by=by)
        micros = await self.retention.keep()
        return {"archived": archived, "keep": None if micros is None else Duration(micros).format()}
