"""Connections for users' SQL, kept for the next question.

What goes in: the URL of a database. What comes out: a connection for as long as it is needed. The one rule: one that was
lost is not kept, and a question that found its connection lost is asked once more on a new one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from flowmetal.store.postgres_open import READER, dial, driver, first_line
from flowmetal.store.protocol import StoreError

T = TypeVar("T")

KEPT: Final = 4
"""Connections that are kept while nobody asks."""
CHUNK: Final = 1_000
"""Rows of a long answer that are in memory at a time."""

_MAY_READ: Final = f"SELECT 1 FROM pg_roles WHERE rolname = '{READER}' AND pg_has_role(current_user, oid, 'MEMBER')"


class Pool:
    """Connections, each with whether it may take the role of readers."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._idle: list[tuple[Any, bool]] = []
        self._closed = False

    def ask(self, question: Callable[[Any, bool], T]) -> T:
        """What the question gives, on a connection of its own. From any thread."""
        for last in (False, True):
            connection, as_reader = self._take(fresh=last)
            try:
                return question(connection, as_reader)
            except driver().OperationalError as error:
                if last or not connection.closed:
                    raise StoreError(f"the store failed: {first_line(error)}") from error
            finally:
                self._give_back(connection, as_reader)
        raise AssertionError("the last attempt returns or raises")

    def stream(self, sql: str, params: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        """The answer to a question of ours, row by row, as of one moment."""
        connection, as_reader = self._take(fresh=True)
        try:
            connection.execute("BEGIN READ ONLY")
            connection.execute("SET LOCAL cursor_tuple_fraction = 1")  # all of it is read: the plan whose first row comes soonest is not the fastest
            connection.execute(f"DECLARE fm_stream NO SCROLL CURSOR FOR {sql}", params)
            while chunk := connection.execute(f"FETCH FORWARD {CHUNK} FROM fm_stream").fetchall():
                yield from chunk
        except driver().Error as error:
            raise StoreError(f"the store failed: {first_line(error)}") from error
        finally:
            if not connection.closed:
                connection.rollback()
            self._give_back(connection, as_reader)

    def close(self) -> None:
        """Closes what is kept, and whatever is given back from now on."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _take(self, *, fresh: bool) -> tuple[Any, bool]:
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed")
            if self._idle and not fresh:
                return self._idle.pop()
        connection = dial(self._url)
        return connection, connection.execute(_MAY_READ).fetchone() is not None

    def _give_back(self, connection: Any, as_reader: bool) -> None:
        with self._lock:
            if not (self._closed or connection.closed or len(self._idle) >= KEPT):
                self._idle.append((connection, as_reader))
                return
        connection.close()
