"""Interpreters that have one store in PostgreSQL at once: whose shares are whose, who is alive, and what they tell each other.

What goes in: an interpreter's session. What comes out: its standing among the others; signs that something was written.
The one rule: an interpreter is dead for the others once its row is gone, and whoever removes the row frees its shares in the same
transaction; so what a dead one wrote is there before anybody takes its place, and what it sends later is refused.

An interpreter whose connection is gone may be on its way back: it is given `GRACE` from its last sign of life. After the server
itself has begun anew, when nobody could give one, all have a whole lease from then on. One whose process is known to be over, and whose
connection is gone, is not waited for: only an interpreter on the same machine can know (`own_process`). That it was wrong would cost time,
and no more: the removal fences the other off as any other does.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable, Collection
from typing import Any, Final

from flowmetal.store import own_process
from flowmetal.store import postgres_schema as schema
from flowmetal.store.postgres_open import dial, driver
from flowmetal.store.protocol import StoreError
from flowmetal.store.sharing import SHARES, Standing

log = logging.getLogger("flowmetal.store")

GRACE: Final = 2
"""Seconds since its last sign of life within which one without a connection may come back; more than `balance` is called at least."""
_LEASE: Final = f"interval '{schema.LEASE_SECONDS} seconds'"
CONNECTED: Final = "EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = i.backend AND coalesce(a.backend_start = i.backend_start, true))"
ALIVE: Final = f"""(i.until > now() AND (i.until > now() + {_LEASE} - interval '{GRACE} seconds' OR {CONNECTED})
    OR i.backend_start < pg_postmaster_start_time() AND now() < pg_postmaster_start_time() + {_LEASE})"""
"""Whether an interpreter has its shares. When a connection began is hidden from other users: they wait for the lease to run out."""

RENEW: Final = f"UPDATE fm.interpreters SET until = {schema.UNTIL} WHERE id = $1 AND fence = $2 RETURNING 1"
_GIVE_UP: Final = "UPDATE fm.shares SET owner = NULL, lost = false WHERE owner = $1 AND n = ANY($2::integer[]) RETURNING n"
_LEFT: Final = f"SELECT i.id, i.process FROM fm.interpreters i WHERE i.id <> $1 AND i.process IS NOT NULL AND NOT {CONNECTED}"
_BURY: Final = f"""DELETE FROM fm.interpreters WHERE id IN
    (SELECT i.id FROM fm.interpreters i WHERE i.id <> $1 AND (NOT {ALIVE} OR i.id = ANY($2::text[]) AND NOT {CONNECTED})
    ORDER BY i.id FOR UPDATE SKIP LOCKED) RETURNING id"""
_FREE: Final = """UPDATE fm.shares SET owner = NULL, lost = true WHERE n IN (SELECT s.n FROM fm.shares s WHERE s.owner IS NOT NULL
    AND NOT EXISTS (SELECT FROM fm.interpreters i WHERE i.id = s.owner) ORDER BY s.n FOR UPDATE SKIP LOCKED)"""
_COUNT: Final = "SELECT (SELECT count(*) FROM fm.interpreters), (SELECT count(*) FROM fm.shares WHERE owner = $1)"
_TAKE: Final = """UPDATE fm.shares s SET owner = $1 FROM (SELECT n, lost FROM fm.shares WHERE owner IS NULL ORDER BY n
    FOR UPDATE SKIP LOCKED LIMIT $2::bigint) f WHERE s.n = f.n RETURNING f.n, f.lost"""
_MINE: Final = "SELECT n FROM fm.shares WHERE owner = $1"
_LAPSE: Final = """UPDATE fm.offers SET holder = NULL WHERE (flow_id, step) IN (SELECT o.flow_id, o.step FROM fm.offers o WHERE o.holder IS NOT NULL
    AND NOT EXISTS (SELECT FROM fm.interpreters i WHERE i.id = o.holder) ORDER BY o.flow_id, o.step FOR UPDATE SKIP LOCKED)"""
LEAVE: Final = (
    "UPDATE fm.offers SET holder = NULL WHERE holder = $1",
    "UPDATE fm.shares SET owner = NULL, lost = false WHERE owner = $1",
    "DELETE FROM fm.interpreters WHERE id = $1",
)
CHANGE: Final = "SELECT pg_notify($1, $2)"


def balance(connection: Any, me: str, fence: int, given_up: Collection[int]) -> Standing | None:
    """See `SharedStore.balance`; None where this interpreter's row is gone."""
    with connection.transaction():
        if connection.execute(RENEW, (me, str(fence))).fetchone() is None:
            return None
        changed = bool(given_up) and bool(connection.execute(_GIVE_UP, (me, sorted(given_up))).fetchall())
        over = [who for who, process in connection.execute(_LEFT, (me,)).fetchall() if own_process.is_over(process)]
        changed |= bool(connection.execute(_BURY, (me, over)).fetchall())
        connection.execute(_FREE)
        connection.execute(_LAPSE)
        members, have = connection.execute(_COUNT, (me,)).fetchone()
        fair = -(-SHARES // members)
        taken = connection.execute(_TAKE, (me, str(max(0, fair - have)))).fetchall()
        pos = connection.execute("SELECT pos FROM fm.head").fetchone()[0]
        mine = frozenset(n for (n,) in connection.execute(_MINE, (me,)).fetchall())
        if changed:
            connection.execute(CHANGE, (schema.CHANGED, me))
    return Standing(mine, frozenset(n for n, lost in taken if lost), fair, members, pos)


class Listener:
    """A thread that hears the others' signs, on a connection of its own, as long as the server is there."""

    def __init__(
        self, url: str, me: str, on_news: Callable[[], object], on_change: Callable[[], object], on_offer: Callable[[], object], on_room: Callable[[], object]
    ) -> None:  # fmt: skip
        self._url, self._me = url, me
        self._calls = {schema.NOTIFY: on_news, schema.CHANGED: on_change, schema.OFFERED: on_offer, schema.ROOM: on_room}
        self._ending = threading.Event()
        self._woken, self._waking = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="flowmetal-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._ending.set()
        self._waking.close()
        self._thread.join()
        self._woken.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                with contextlib.closing(dial(self._url)) as connection:
                    for channel in self._calls:
                        connection.execute(f"LISTEN {channel}")
                    for call in self._calls.values():
                        call()  # something may have been said before
                    self._hear(connection)
            except (StoreError, driver().Error) as error:
                log.debug("nothing is heard from the others: %s", error)
                self._ending.wait(1.0)

    def _hear(self, connection: Any) -> None:
        with selectors.DefaultSelector() as readable:
            for each in (connection, self._woken):
                readable.register(each, selectors.EVENT_READ)
            while not self._ending.is_set():
                for sign in connection.notifies(timeout=0):  # what has come already; an end of the connection is an error here
                    if sign.payload != self._me:
                        self._calls[sign.channel]()
                readable.select()
