"""A PostgreSQL server of the tests' own: a real one, on a socket in a folder of its own, gone at the end.

In: the server's binaries, where Debian puts them or in PATH. Out: databases. The one rule: a test that needs it is skipped, and
says why, where they are not there. The server does not run as root, so neither root's folders nor root's rights are its own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psutil
import psycopg

USER = "postgres"
"""The server's own superuser; nothing to do with the system's user of that name."""
PLACES = (Path("/dev/shm"), Path("/tmp"))
"""Where a server's folder may be: in memory, where a database of hundreds of files is made ten times as fast, else on the disk. Paths are short, as
that of a socket must be."""
ROOM = 2 << 30
"""Bytes that are left in memory for it: it takes less than a quarter of them."""


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, of the newest version there is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    there = shutil.which("postgres")
    return None if there is None else Path(there).parent


class Server:
    """A server from its making to its end. One that is `durable` waits for its disk, as a real one does: for benchmarks."""

    def __init__(self, binaries: Path, *, durable: bool = False) -> None:
        _sweep()
        self._binaries = binaries
        self._durable = durable
        self.folder = Path(tempfile.mkdtemp(prefix="fm-pg-", dir=PLACES[-1] if durable else _place()))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = _other_than_root()
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        (self.folder / "owner").write_text(str(os.getpid()))
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C", "--no-sync")
        self._made = 0
        self._prepared = ""
        self.start()

    @property
    def data(self) -> Path:
        """Where the server keeps everything."""
        return self.folder / "data"

    def start(self) -> None:
        """Starts it. What the machine's own end would lose is not tested, so nothing waits for the disk."""
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections=60"
        if not self._durable:
            options += " -c fsync=off -c max_wal_size=128MB"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Ends it: `fast` in order, `immediate` as a crash would."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-m", mode, "stop")

    def configure(self, **settings: str) -> None:
        """Starts it anew with these settings."""
        if (self.data / "postmaster.pid").exists():
            self.stop()
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.start()

    def base_backup(self, folder: Path) -> None:
        """Copies it as it runs: with the archive's later WAL, any moment since can be had."""
        self._run("pg_basebackup", "-h", str(self.folder), "-U", USER, "-D", str(folder), "-X", "stream", "-c", "fast", "--no-sync")

    def remove(self) -> None:
        """Ends it, and takes away its folder."""
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def url(self, database: str, user: str = USER) -> str:
        """How a store names a database of this server."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def sql(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs them as the superuser; the rows of the last."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def new(self, options: str = "") -> str:
        """A database with nothing in it; its URL."""
        self._made += 1
        name = f"db{self._made}"
        self.sql(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def store(self) -> str:
        """A database whose store is empty, a copy of one that was set up; its URL. 40 ms, where setting one up takes 130."""
        from flowmetal.store.postgres_store import PostgresStore

        if not self._prepared:
            PostgresStore(self.new()).close()
            self._prepared = f"db{self._made}"
        return self.new(f"TEMPLATE {self._prepared}")

    def copy(self, url: str, empty: str) -> None:
        """What is in one database, as `pg_dump` sees it, into another that has nothing in it."""
        dump = self.folder / "dump.sql"
        self._run("pg_dump", "-d", url, "-f", str(dump))
        self._run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", empty, "-f", str(dump))
        dump.unlink()

    def give_back(self, url: str) -> None:
        """Removes the database. Its name is not used again: whoever still calls there finds nobody."""
        self.sql(f"DROP DATABASE {_database(url)} WITH (FORCE)")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=120, env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}, **self._as,
        )  # fmt: skip
        assert done.returncode == 0, f"{program}: {done.stdout}"


def _database(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def _place() -> Path:
    memory, disk = PLACES
    return memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM else disk


def _sweep() -> None:
    """Ends the servers of runs that were killed."""
    for owner in (owner for place in PLACES for owner in place.glob("fm-pg-*/owner")):
        if not psutil.pid_exists(int(owner.read_text() or 0)):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((owner.parent / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            shutil.rmtree(owner.parent, ignore_errors=True)


def _other_than_root() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("there is no user but root to run a server as")
