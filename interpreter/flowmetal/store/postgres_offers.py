"""Calls that wait for a worker, in PostgreSQL: what any interpreter may have, and who has it.

What goes in: calls that nobody has taken where their flow is computed; who wants some. What comes out: calls, each to one. The one
rule: a row is had by who has written its own id into it, and what an interpreter had that is gone is for nobody until the flow's own
interpreter has looked into the log what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from flowmetal.store import postgres_schema as schema
from flowmetal.store.postgres_session import Session
from flowmetal.store.postgres_text import from_text, to_text
from flowmetal.store.sharing import Offer, share_of

_ME: Final = "me AS (SELECT 1 FROM fm.interpreters WHERE id = $1 AND fence = $2 FOR SHARE)"
_NOTIFY: Final = f"SELECT pg_notify('{schema.OFFERED}', $1) FROM done LIMIT 1"
_COLUMNS: Final = "flow_id, step, share, name, queue, place, priority, seq, run, attempt"
_TYPES: Final = ("text", "bigint", "bigint", "text", "text", "bigint", "bigint", "bigint", "text", "bigint")
_KEYS: Final = "unnest($3::text[], $4::bigint[]) AS k(flow_id, step)"
_OF_KEYS: Final = "o.flow_id = k.flow_id AND o.step = k.step"

_PUT: Final = f"""WITH {_ME}, done AS (INSERT INTO fm.offers ({_COLUMNS})
    SELECT u.* FROM me, unnest({", ".join(f"${n}::{t}[]" for n, t in enumerate(_TYPES, 3))}) AS u({_COLUMNS})
    ON CONFLICT (flow_id, step) DO UPDATE SET seq = excluded.seq, run = excluded.run,
        attempt = excluded.attempt, lease_id = NULL, holder = NULL RETURNING 1) {_NOTIFY}"""
_CLAIM: Final = f"""WITH {_ME}, free AS (SELECT o.flow_id, o.step FROM fm.offers o WHERE EXISTS (SELECT FROM me) AND o.lease_id IS NULL
        AND o.name = ANY($3::text[]) AND ($4::text[] IS NULL OR o.queue = ANY($4::text[])) AND coalesce(o.queue <> ALL($5::text[]), true)
        AND o.share <> ALL($6::bigint[]) ORDER BY o.place DESC, o.priority DESC, o.n LIMIT $7::bigint FOR UPDATE OF o SKIP LOCKED)
    UPDATE fm.offers o SET holder = $1, lease_id = o.flow_id || '~' || o.step || '~' || $8::text FROM free f
    WHERE o.flow_id = f.flow_id AND o.step = f.step RETURNING o.*"""
_TAKE_BACK: Final = f"""WITH {_ME} DELETE FROM fm.offers o USING me, {_KEYS} WHERE {_OF_KEYS} AND o.lease_id IS NULL
    RETURNING o.flow_id, o.step"""
_WITHDRAW: Final = f"WITH {_ME} DELETE FROM fm.offers o USING me, {_KEYS} WHERE {_OF_KEYS} RETURNING 1"
_END: Final = "DELETE FROM fm.offers WHERE lease_id = ANY($1::text[]) RETURNING 1"
_FREE: Final = f"""WITH done AS (UPDATE fm.offers SET lease_id = NULL, holder = NULL WHERE holder = $1 AND lease_id = ANY($2::text[])
    RETURNING 1) {_NOTIFY}"""
_WANTED: Final = """SELECT name, queue, count(*) FROM fm.offers WHERE lease_id IS NULL AND name = ANY($1::text[]) AND share <> ALL($2::bigint[])
    GROUP BY name, queue"""
_LAPSED: Final = "SELECT * FROM fm.offers WHERE lease_id IS NOT NULL AND holder IS NULL AND share = ANY($1::bigint[])"
_SHARES: Final = "SELECT * FROM fm.offers WHERE share = ANY($1::bigint[])"
_OF: Final = "SELECT o.* FROM fm.offers o, unnest($1::text[], $2::bigint[]) AS k(flow_id, step) WHERE o.flow_id = k.flow_id AND o.step = k.step"
_HELD: Final = "SELECT lease_id FROM fm.offers WHERE holder = $1"

Run = Callable[[str, Sequence[object]], list[Any]]


class PostgresOffers:
    """See `OfferTable`."""

    def __init__(self, session: Session, run: Run) -> None:
        self._session, self._run = session, run

    @property
    def _me(self) -> tuple[str, str]:
        return self._session.id, str(self._session.fence)

    def put(self, offers: Sequence[Offer]) -> None:
        """See `OfferTable.put`."""
        rows = [
            (to_text(o.flow_id), o.step, share_of(o.flow_id), to_text(o.name), None if o.queue is None else to_text(o.queue), o.place, o.priority,
             o.seq, to_text(o.run), o.attempt)
            for o in offers
        ]  # fmt: skip
        if rows:
            self._run(_PUT, (*self._me, *(list(column) for column in zip(*rows, strict=True))))

    def claim(
        self, names: Collection[str], queues: Collection[str] | None, full: Collection[str], shares: Collection[int], lease: str, most: int
    ) -> list[Offer]:  # fmt: skip
        """See `OfferTable.claim`."""
        wanted = (_texts(names), None if queues is None else _texts(queues), _texts(full), sorted(shares), str(most), lease)
        found = [_offer(row) for row in self._run(_CLAIM, (*self._me, *wanted))]
        return sorted(found, key=lambda o: (-o.place, -o.priority, o.n))

    def take_back(self, keys: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """See `OfferTable.take_back`."""
        found = self._run(_TAKE_BACK, (*self._me, *_columns(keys))) if keys else []
        return {(from_text(flow_id), step) for flow_id, step in found}

    def withdraw(self, keys: Collection[tuple[str, int]]) -> None:
        """See `OfferTable.withdraw`."""
        if keys:
            self._run(_WITHDRAW, (*self._me, *_columns(keys)))

    def end(self, leases: Collection[str]) -> None:
        """See `OfferTable.end`."""
        if leases:
            self._run(_END, (_texts(leases),))

    def free(self, leases: Collection[str]) -> None:
        """See `OfferTable.free`."""
        if leases:
            self._run(_FREE, (self._session.id, _texts(leases)))

    def wanted(self, names: Collection[str], shares: Collection[int]) -> dict[tuple[str, str | None], int]:
        """See `OfferTable.wanted`."""
        found = self._run(_WANTED, (_texts(names), sorted(shares))) if names else []
        return {(from_text(name), None if queue is None else from_text(queue)): count for name, queue, count in found}

    def lapsed(self, shares: Collection[int]) -> list[Offer]:
        """See `OfferTable.lapsed`."""
        return [_offer(row) for row in self._run(_LAPSED, (sorted(shares),))]

    def of_shares(self, shares: Collection[int]) -> list[Offer]:
        """See `OfferTable.of_shares`."""
        return [_offer(row) for row in self._run(_SHARES, (sorted(shares),))]

    def of(self, keys: Collection[tuple[str, int]]) -> list[Offer]:
        """See `OfferTable.of`."""
        return [_offer(row) for row in self._run(_OF, _columns(keys))] if keys else []

    def held(self) -> set[str]:
        """See `OfferTable.held`."""
        return {from_text(lease) for (lease,) in self._run(_HELD, (self._session.id,))}


def _columns(keys: Collection[tuple[str, int]]) -> tuple[list[str], list[int]]:
    return [to_text(flow_id) for flow_id, _ in keys], [step for _, step in keys]


def _texts(texts: Collection[str]) -> list[str]:
    return [to_text(text) for text in texts]


def _offer(row: tuple[Any, ...]) -> Offer:
    flow_id, step, _, name, queue, place, priority, seq, run, attempt, n, lease, holder = row
    queue, lease = None if queue is None else from_text(queue), None if lease is None else from_text(lease)
    return Offer(from_text(flow_id), step, from_text(name), queue, place, priority, seq, from_text(run), attempt, n, lease, holder)
