"""A link to a server that can lose an answer: what was asked arrives and is done, and nobody says so."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path


class LossyLink:
    """Stands between clients and a server's socket. Bytes pass as they come, until `lose_the_answer`."""

    def __init__(self, server: Path, here: Path) -> None:
        self._server = server
        self._lose: Callable[[], bool] | None = None
        self.lost = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._here = here
        self._listener.bind(str(here))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_the_answer(self, when: Callable[[], bool]) -> None:
        """The connection ends at the first answer for which `when` holds, without giving it."""
        self._lose = when

    def __enter__(self) -> LossyLink:
        return self

    def __exit__(self, *error: object) -> None:
        """No more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._here.unlink()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(self._server))
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for here, there in ((client, server), (server, client)):
                    if here not in ready:
                        continue
                    data = here.recv(1 << 16)
                    if not data:
                        return
                    if here is server and self._lose is not None and self._lose():
                        self._lose = None
                        self.lost += 1
                        return
                    there.sendall(data)
