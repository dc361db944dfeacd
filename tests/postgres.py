"""A PostgreSQL server of the tests' own, where its programs are found."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def programs() -> Path | None:
    """Where `initdb` and `pg_ctl` are."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "pg_ctl").exists()), None)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server whose data are in `folder`, reached by a socket there; its URL. Skips where there is none."""
    place = programs()
    if place is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    folder.mkdir(parents=True, exist_ok=True)
    as_user: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
        for parent in folder.parents:
            if parent.stat().st_mode & 0o005 != 0o005 and parent.stat().st_uid == os.geteuid():
                parent.chmod(parent.stat().st_mode | 0o005)

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, capture_output=True, cwd="/", timeout=60)

    run(str(place / "initdb"), "-D", f"{folder}/data", "-A", "trust", "-U", "postgres", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    run(str(place / "pg_ctl"), "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        run(str(place / "pg_ctl"), "-D", f"{folder}/data", "-m", "immediate", "stop")
