"""An interpreter's own connection to its store: it comes back when the server does, and knows then what was committed.

What goes in: the URL of a database. What comes out: a connection, and this interpreter's row in `fm.interpreters`: a lease, a
fence and a count of its commits. The one rule: each new connection raises the fence, so that what was sent over an old one and has
not arrived yet is refused; and the count says whether the commit whose answer was lost is in the store.

Its lease is extended by every commit and, where there is none, by `balance`. When it is over, others remove the row (see
`postgres_members`). Commits and the removal lock the same row, so that each commit is before the removal, and seen by whoever comes
after, or refused.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Collection
from typing import Any, Final

from flowmetal.store import own_process
from flowmetal.store import postgres_members as members
from flowmetal.store import postgres_schema as schema
from flowmetal.store.postgres_open import dial, driver, get_meta, prepare
from flowmetal.store.postgres_url import without_password
from flowmetal.store.protocol import StoreError
from flowmetal.store.sharing import Standing

log = logging.getLogger("flowmetal.store")

COME_BACK_SECONDS: Final = 60.0
"""How long a server may be away before what is asked of it fails."""

_GOING: Final = ("57P01", "57P02", "57P03")
"""What a server says that ends: the connection is about to close."""
_HOSTS: Final = f"SELECT host, {members.ALIVE}, {members.CONNECTED}, process FROM fm.interpreters i ORDER BY since DESC"
_MINE: Final = "FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_ENTER: Final = f"""INSERT INTO fm.interpreters (id, fence, commits, until, backend, backend_start, process)
    SELECT $1, 1, 0, {schema.UNTIL}, pid, backend_start, $2::text {_MINE} RETURNING backend_start"""
_RAISE: Final = f"""UPDATE fm.interpreters SET fence = fence + 1, until = {schema.UNTIL}, backend = pg_backend_pid(),
    backend_start = (SELECT backend_start {_MINE}) WHERE id = $1 RETURNING fence, commits, backend_start"""
_CUT: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"


class Session:
    """The connection of one interpreter."""

    def __init__(self, url: str, leaving: threading.Event | None = None) -> None:
        """Once `leaving` is set, a server that is away is not waited for any more."""
        self.url = url
        self._leaving = leaving or threading.Event()
        self.id = str(uuid.uuid4())
        self.fence = 1
        self.commits = 0
        """How many commits of this interpreter are in the store."""
        self.connection: Any = dial(url)
        self._backend: tuple[int, Any] = (0, None)
        """The server's process for the connection, and when it began."""
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
        """Connects again, waiting for the server; StoreError when it stays away, or when others have taken this interpreter for dead.
        Who is leaving tries once."""
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
                if self._leaving.is_set() or time.monotonic() + pause > until:
                    raise StoreError(f"{without_password(self.url)} went away", type="store/unreachable", hint="Is the server running?") from error
            self._leaving.wait(pause)
            pause = min(1.0, pause * 1.5)

    def announce(self, host: str | None) -> None:
        """Says where this interpreter answers, to whoever may read the table."""
        self.connection.execute("UPDATE fm.interpreters SET host = $2 WHERE id = $1", (self.id, host))

    def close(self) -> None:
        """Leaves. Idempotent."""
        if not self.connection.closed:
            with contextlib.suppress(driver().Error), self.connection.transaction():
                for sql in members.LEAVE:
                    self.connection.execute(sql, (self.id,))
                self.connection.execute(members.CHANGE, (schema.CHANGED, self.id))
            self.connection.close()

    def balance(self, given_up: Collection[int]) -> Standing | None:
        """See `postgres_members.balance`."""
        return members.balance(self.connection, self.id, self.fence, given_up)

    def renew(self) -> bool:
        """Extends the lease, in a transaction that others then wait for before they remove this interpreter; False where they have."""
        return self.connection.execute(members.RENEW, (self.id, str(self.fence))).fetchone() is not None

    def _enter(self) -> None:
        with self.connection.transaction():
            began = self.connection.execute(_ENTER, (self.id, own_process.identity())).fetchone()[0]
            self.connection.execute(members.CHANGE, (schema.CHANGED, self.id))
        self._backend = (self.connection.info.backend_pid, began)

    def _return(self) -> None:
        self.connection = dial(self.url)
        self.connection.execute(_CUT, self._backend)  # the server may not have noticed yet that the old connection is gone
        found = self.connection.execute(_RAISE, (self.id,)).fetchone()
        if found is None:
            raise self.taken()
        self.fence, self.commits, began = found
        self._backend = (self.connection.info.backend_pid, began)

    def taken(self) -> StoreError:
        """What is said where the lease was over, and another interpreter has noticed."""
        message = f"{without_password(self.url)} has been taken over by another interpreter"
        return StoreError(message, type="store/locked", hint="This one said nothing for too long, and must end.")


def hosts(url: str) -> tuple[bool, list[tuple[str, bool]]]:
    """Whether somebody has the store; and what interpreters have announced, the newest first, each with whether it is alive."""
    with contextlib.closing(dial(url)) as connection:
        if connection.execute("SELECT to_regclass('fm.interpreters') IS NULL").fetchone()[0]:
            return False, []
        rows = connection.execute(_HOSTS).fetchall()
    found = [(host, alive and (connected or not own_process.is_over(process))) for host, alive, connected, process in rows]
    return any(alive for _, alive in found), [(host, alive) for host, alive in found if host is not None]


def token(url: str, fresh: str) -> str:
    """The store's token: `fresh`, if there is none yet."""
    with contextlib.closing(dial(url)) as connection:
        there = connection.execute("SELECT to_regclass('fm.meta') IS NOT NULL").fetchone()[0]
        known = get_meta(connection, "token") if there else None
        if known is not None:  # whoever asks only attaches: the store may well be of a newer format
            return known
        prepare(connection, url)
        connection.execute(f"{schema.INSERT_META.partition(' ON ')[0]} ON CONFLICT DO NOTHING", ("token", fresh))
        return str(get_meta(connection, "token"))
