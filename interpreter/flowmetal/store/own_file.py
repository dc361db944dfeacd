"""The file of a store that is open: whether it is still the one at its path.

In: a path. Out: a StoreError, when the file was deleted, moved or replaced meanwhile. The one rule: what would be written into a file that
nobody can find any more is not written, so that nothing is acknowledged that is lost with the process.
"""

from __future__ import annotations

from pathlib import Path

from flowmetal.errors import StoreError


class OwnFile:
    """The file at `path`, as it was when the store was opened; None is a store in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._identity = None if path is None else _identity(path)

    def check(self) -> None:
        """Raises StoreError unless the file is still there. It costs a microsecond."""
        if self.path is not None and _identity(self.path) != self._identity:
            raise StoreError(
                f"{self.path} was deleted, moved or replaced while it was in use: nothing is written any more",
                hint="put the file back where it was, and flows go on; or end its host with `flowmetal stop`",
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
