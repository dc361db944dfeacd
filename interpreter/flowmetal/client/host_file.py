"""The small files beside a store that say who hosts it: `.lock` (held by the host), `.host` (where it is),
`.token`.

In: a `StoreUrl`. Out: `HostInfo`, `StoreLock`, the token. The one rule: the lock says *whether* there is a
host, the host file only *where*; a host file without a held lock is stale, whatever it says.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowmetal.client.store_url import StoreUrl
from flowmetal.errors import StoreError

_held: weakref.WeakSet[StoreLock] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class HostInfo:
    """Where a host answers."""

    pid: int
    url: str
    token: str
    version: str
    started_at: str

    def write(self, store: StoreUrl) -> None:
        """Makes the host known: whole or not at all, readable by this user only."""
        write_private(store.beside(".host"), json.dumps(asdict(self)))

    @staticmethod
    def read(store: StoreUrl) -> HostInfo | None:
        """What the host says; None where it says nothing, or its file is damaged."""
        try:
            fields = _said(store) if store.kind == "postgresql" else json.loads(store.beside(".host").read_text(encoding="utf-8"))
            return HostInfo(
                int(fields["pid"]),
                str(fields["url"]),
                str(fields["token"]),
                str(fields["version"]),
                str(fields["started_at"]),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        except OSError as error:
            raise StoreError(f"cannot read {store.beside('.host')}: {error.strerror}") from error

    def remove(self, store: StoreUrl) -> None:
        """Takes the host file away, if it is still this host's."""
        if HostInfo.read(store) == self:
            with contextlib.suppress(FileNotFoundError):
                store.beside(".host").unlink()


class StoreLock:
    """The right to host a store, held by one process at a time and given back by the kernel when that process ends.

    A store in PostgreSQL may have any number: there it is given to whoever finds no host that answers here.
    """

    def __init__(self, store: StoreUrl) -> None:
        self._store = store
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Takes the lock if nobody has it; says whether it did. Never waits."""
        if self._store.kind == "postgresql":
            return lock_holder(self._store) is None
        fd = _open_lock(self._store.beside(".lock"))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        _held.add(self)
        return True

    def release(self) -> None:
        """Gives the lock back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        _held.discard(self)


def lock_holder(store: StoreUrl) -> int | None:
    """The process id of who holds the store's lock (0 if it did not write it), or None where nobody does."""
    if store.kind == "postgresql":
        from flowmetal.client import host_row

        return host_row.lock_holder(store)
    path = store.beside(".lock")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        written = os.pread(fd, 32, 0).strip()
        return int(written) if written.isdigit() else 0
    finally:
        os.close(fd)


def token_of(store: StoreUrl) -> str:
    """The store's token: made the first time it is asked for, kept in a file that only this user can read, or in the database."""
    if store.kind == "postgresql":
        from flowmetal.client import host_row

        return host_row.token_of(store)
    path = store.beside(".token")
    try:
        known = path.read_text(encoding="utf-8").strip()
        if known:
            return known
    except FileNotFoundError:
        pass  # it is made now
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    fresh = secrets.token_urlsafe(32)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    write_private(temporary, fresh + "\n")
    try:
        os.link(temporary, path)  # fails if another process was first: then its token is the store's
    except FileExistsError:
        if not path.read_text(encoding="utf-8").strip():
            temporary.replace(path)
            return fresh
        return path.read_text(encoding="utf-8").strip()
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return fresh


def write_private(path: Path, text: str) -> None:
    """Writes a file of mode 0600 in one step: readers see the old text or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"cannot write {path}: {error.strerror}", hint="the store's folder must be writable") from error


def _said(store: StoreUrl) -> Any:
    from flowmetal.client import host_row  # it needs psycopg, and the host's file does not

    return host_row.read(store)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", hint="the store's folder must be writable") from error


def _forget_locks_in_child() -> None:
    """A forked child shares the parent's lock and would keep it alive: it lets go at once."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_locks_in_child)
