"""What a store in a file can do besides what every `Store` can.

In: folders, flows. Out: copies, archives. The one rule: what is copied opens as a store, and what is archived answers as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from flowmetal.store.protocol import Row


@runtime_checkable
class FileStore(Protocol):
    """A store in a file of this machine."""

    def backup(self, folder: Path) -> Path:
        """Copies the store as it stands into a folder, made where it is missing; the new file. From any thread, while others write."""

    def ended_before(self, at: int, limit: int) -> list[str]:
        """The oldest flows that ended before a time (microseconds) and are not archived."""

    def archive(self, flows: Sequence[str], said: Row) -> int:
        """Moves the rows of these flows, which are over, into Parquet files beside the store, in the commit that writes `said`; how many flows.

        Every answer of the store stays the same."""

    def ended_runs(self, at: int, limit: int) -> dict[str, int]:
        """Flows that `continue-as` has begun anew before a time (microseconds), each with the last `seq` of its ended runs in the log."""

    def archive_runs(self, runs: Mapping[str, int], said: Row) -> int:
        """The same with the rows of flows from the second up to a `seq` each, of runs that are over; how many flows."""

    def give_back(self) -> None:
        """Gives the room of what was removed back to what comes."""
