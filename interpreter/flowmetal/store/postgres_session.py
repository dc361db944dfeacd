"""An interpreter's own connection to its store: it comes back when the server does, and knows then what was committed.

What goes in: the URL of a database. What comes out: a connection, and this interpreter's row in `fm.interpreters`: a fence
and a count of its commits. The one rule: each new connection raises the fence, so that what was sent over an old one and has
not arrived yet is refused; and the count says whether the commit whose answer was lost is in the store.

One interpreter at a time has a store: it holds an advisory lock of its session.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from typing import Any, Final

from flowmetal.store import postgres_schema as schema
from flowmetal.store.postgres_open import HOST, LOCKS, dial, driver, get_meta, prepare
from flowmetal.store.postgres_url import without_password
from flowmetal.store.protocol import StoreError

log = logging.getLogger("flowmetal.store")

COME_BACK_SECONDS: Final = 60.0
"""How long a server may be away before what is asked of it fails."""

_GOING: Final = ("57P01", "57P02", "57P03")
"""What a server says that ends: the connection is about to close."""
_LOCK: Final = "SELECT pg_try_advisory_lock($1, $2)"
_HOLDER: Final = """SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_HOSTS: Final = f"SELECT host, backend IN ({_HOLDER}) FROM fm.interpreters WHERE host IS NOT NULL ORDER BY since DESC"
_ENTER: Final = "INSERT INTO fm.interpreters (id, fence, commits, backend) VALUES ($1, 1, 0, pg_backend_pid())"
_RAISE: Final = """UPDATE fm.interpreters SET fence = fence + 1, backend = pg_backend_pid() WHERE id = $1 RETURNING fence, commits"""


class Session:
    """The connection of one interpreter."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.id = str(uuid.uuid4())
        self.fence = 1
        self.commits = 0
        """How many commits of this interpreter are in the store."""
        self.connection: Any = dial(url)
        self._backend: int = self.connection.info.backend_pid
        try:
            self.views = prepare(self.connection, url)
            self._enter()
        except BaseException:
            self.connection.close()
            raise

    def lost(self, error: Any = None) -> bool:
        """Whether the connection is gone, as far as is known, or by this error."""
        return bool(self.connection.closed) or getattr(error, "sqlstate", None) in _GOING

    def come_back(self) -> None:
        """Connects again, waiting for the server; StoreError when it stays away, or when the store has another interpreter now."""
        until = time.monotonic() + COME_BACK_SECONDS
        pause = 0.02
        self.connection.close()
        while True:
            try:
                self._return()
                log.info("%s is there again", without_password(self.url))
                return
            except (StoreError, driver().OperationalError) as error:
                self.connection.close()
                if isinstance(error, StoreError) and error.type != "store/unreachable":
                    raise
                if time.monotonic() + pause > until:
                    raise StoreError(f"{without_password(self.url)} went away", type="store/unreachable", hint="Is the server running?") from error
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def announce(self, host: str | None) -> None:
        """Says where this interpreter answers, to whoever may read the table."""
        self.connection.execute("UPDATE fm.interpreters SET host = $2 WHERE id = $1", (self.id, host))

    def close(self) -> None:
        """Leaves. Idempotent."""
        if not self.connection.closed:
            with contextlib.suppress(driver().Error):
                self.connection.execute("DELETE FROM fm.interpreters WHERE id = $1", (self.id,))
                self.connection.execute("SELECT pg_advisory_unlock_all()")  # the server ends the connection a little later
            self.connection.close()

    def _enter(self) -> None:
        if not self.connection.execute(_LOCK, (LOCKS, HOST)).fetchone()[0]:
            raise StoreError(f"{without_password(self.url)} has an interpreter already", type="store/locked", hint="Attach to it, or stop it: flowmetal stop")
        with self.connection.transaction():
            self.connection.execute("DELETE FROM fm.interpreters")
            self.connection.execute(_ENTER, (self.id,))

    def _return(self) -> None:
        self.connection = dial(self.url)
        if not self.connection.execute(_LOCK, (LOCKS, HOST)).fetchone()[0]:
            holder = self.connection.execute(_HOLDER, (LOCKS, HOST)).fetchone()
            if holder is None or holder[0] == self._backend:  # the server has not noticed yet that the old connection is gone
                self.connection.execute("SELECT pg_terminate_backend($1)", (self._backend,))
                raise StoreError("the old connection is still there", type="store/unreachable")
            raise self._taken()
        found = self.connection.execute(_RAISE, (self.id,)).fetchone()
        if found is None:
            raise self._taken()
        self.fence, self.commits = found
        self._backend = self.connection.info.backend_pid

    def _taken(self) -> StoreError:
        return StoreError(f"{without_password(self.url)} has been taken over by another interpreter", type="store/locked", hint="This one must end.")


def hosts(url: str) -> tuple[bool, list[tuple[str, bool]]]:
    """Whether somebody has the store; and what interpreters have announced, each with whether it is the one that has it."""
    with contextlib.closing(dial(url)) as connection:
        if connection.execute("SELECT to_regclass('fm.interpreters') IS NULL").fetchone()[0]:
            return False, []
        held = connection.execute(_HOLDER, (LOCKS, HOST)).fetchone() is not None
        return held, connection.execute(_HOSTS, (LOCKS, HOST)).fetchall()


def token(url: str, fresh: str) -> str:
    """The store's token: `fresh`, if there is none yet."""
    with contextlib.closing(dial(url)) as connection:
        prepare(connection, url)
        connection.execute(f"{schema.INSERT_META.partition(' ON ')[0]} ON CONFLICT DO NOTHING", ("token", fresh))
        return str(get_meta(connection, "token"))
