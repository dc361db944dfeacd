"""Who hosts a PostgreSQL store: the questions of `host_file`, asked of the database.

In: a `StoreUrl`. Out: where a host of it is, its token. The one rule: any of them will do, since all speak for the same log; one that
listens on another machine's loopback only is none for this one.
"""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flowmetal.client.store_url import StoreUrl
from flowmetal.store import postgres_session

if TYPE_CHECKING:
    from flowmetal.client.host_file import HostInfo


def announcement(info: HostInfo) -> str:
    """What a host says of itself."""
    return json.dumps({**asdict(info), "machine": socket.gethostname()})


def read(store: StoreUrl) -> dict[str, Any] | None:
    """What a host of the store says of itself, the newest that can be reached from here; None where none says so. StoreError where the
    database cannot be reached."""
    here = socket.gethostname()
    for text, alive in postgres_session.hosts(store.url)[1]:
        said: dict[str, Any] = json.loads(text)
        if alive and (said.pop("machine") == here or "//127." not in said["url"]):
            return said
    return None


def lock_holder(store: StoreUrl) -> int | None:
    """The process id of that host, or None where there is none."""
    said = read(store)
    return None if said is None else int(said["pid"])


def token_of(store: StoreUrl) -> str:
    """The store's token: made the first time it is asked for, kept in the store."""
    return postgres_session.token(store.url, secrets.token_urlsafe(32))
