"""Paths: as SQL has them, and on disk."""

from __future__ import annotations

import os
from pathlib import Path


def quoted(path: Path) -> str:
    """A path as it stands between the quotes of SQL."""
    return str(path).replace("'", "''")


def sync(path: Path) -> None:
    """What was written of a file or folder is on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
