"""What a store in a file can do besides what every `Store` can.

In: folders. Out: copies. The one rule: what is copied opens as a store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class FileStore(Protocol):
    """A store in a file of this machine."""

    def backup(self, folder: Path) -> Path:
        """Copies the store as it stands into a folder, made where it is missing; the new file. From any thread, while others write."""
