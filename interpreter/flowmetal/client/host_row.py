"""Who hosts a PostgreSQL store: the questions of `host_file`, asked of the database.

In: a `StoreUrl`. Out: where a host of it is, its token. The one rule: any of them will do, since all speak for the same log; one that
listens on another machine's loopback only is none for this one.
"""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import asdict, dataclass, fields
from typing import Any

from flowmetal.client.host_file import HostInfo
from flowmetal.client.store_url import StoreUrl
from flowmetal.store import postgres_session


def announcement(info: HostInfo) -> str:
    """What a host says of itself."""
    return json.dumps({**asdict(info), "machine": socket.gethostname()})


@dataclass(frozen=True, slots=True)
class Member:
    """An interpreter that has the store, and is alive."""

    info: HostInfo
    machine: str

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return self.machine == socket.gethostname()

    @property
    def is_near(self) -> bool:
        """Whether it can be reached from here."""
        return self.is_here or "//127." not in self.info.url

    def __str__(self) -> str:
        return f"process {self.info.pid} at {self.info.url}" + ("" if self.is_here else f" on {self.machine}")


def members(store: StoreUrl) -> list[Member]:
    """The interpreters that have the store and say where they answer, the newest first. StoreError where the database cannot be reached."""
    said = [json.loads(text) for text, alive in postgres_session.hosts(store.url)[1] if alive]
    known = [field.name for field in fields(HostInfo)]  # a newer version may say more
    return [Member(HostInfo(**{name: each[name] for name in known}), each["machine"]) for each in said]


def read(store: StoreUrl) -> dict[str, Any] | None:
    """What a host of the store says of itself, the newest that can be reached from here; None where none says so. StoreError where the
    database cannot be reached."""
    return next((asdict(member.info) for member in members(store) if member.is_near), None)


def lock_holder(store: StoreUrl) -> int | None:
    """The process id of that host, or None where there is none."""
    said = read(store)
    return None if said is None else int(said["pid"])


def token_of(store: StoreUrl) -> str:
    """The store's token: made the first time it is asked for, kept in the store."""
    return postgres_session.token(store.url, secrets.token_urlsafe(32))
