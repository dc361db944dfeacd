"""Who hosts a PostgreSQL store: the questions of `host_file`, asked of the database.

In: a `StoreUrl`. Out: where its host is, its token. The one rule: the lock in the database says *whether* there is a host, and
the row in `fm.interpreters` only *where*. A host that lost its lock with the server's restart takes it again when it is asked
something, so one whose row is there is asked before anybody takes its place.
"""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flowmetal.client.store_url import StoreUrl
from flowmetal.errors import StoreError
from flowmetal.store import postgres_session

if TYPE_CHECKING:
    from flowmetal.client.host_file import HostInfo

PATIENCE = 5.0
"""Seconds within which a host whose lock is gone must answer to be one."""


def announcement(info: HostInfo) -> str:
    """What a host says of itself."""
    return json.dumps({**asdict(info), "machine": socket.gethostname()})


def read(store: StoreUrl) -> dict[str, Any] | None:
    """What the host says of itself; None where nobody hosts, or one does not say so yet. StoreError where it cannot be reached from here."""
    _, announced = _hosts(store)
    said = next((json.loads(text) for text, has_it in announced if has_it), None)
    if said is None:
        return None
    machine = said.pop("machine")
    if machine != socket.gethostname() and "//127." in said["url"]:
        raise StoreError(
            f"{store} is hosted by process {said['pid']} on {machine}, which answers only on that machine",
            hint="start it there with flowmetal serve --host ADDRESS, and name that here: --store http://ADDRESS:PORT",
        )
    return dict(said)


def lock_holder(store: StoreUrl) -> int | None:
    """The process id of the host (0 where it has not said it yet), or None where nobody hosts."""
    held, announced = _hosts(store)
    return next((int(json.loads(text)["pid"]) for text, has_it in announced if has_it), 0) if held else None


def token_of(store: StoreUrl) -> str:
    """The store's token: made the first time it is asked for, kept in the store."""
    return postgres_session.token(store.url, secrets.token_urlsafe(32))


def _hosts(store: StoreUrl) -> tuple[bool, list[tuple[str, bool]]]:
    held, announced = postgres_session.hosts(store.url)
    if not held and any(_answers(json.loads(text)) for text, _ in announced):
        return postgres_session.hosts(store.url)
    return held, announced


def _answers(said: dict[str, Any]) -> bool:
    import httpx

    try:
        asked = httpx.get(said["url"] + "/v1/host", headers={"Authorization": f"Bearer {said['token']}"}, timeout=PATIENCE, trust_env=False)
    except httpx.TransportError:
        return False
    return asked.status_code == 200
