"""Places in queues that several interpreters have at once: the limits of each hold over all of them.

What goes in: an interpreter's session, who wants to be in a queue, its limits. What comes out: who is in it now. The one rule: whoever
enters holds the queue's row until the place is written, so what is counted is so. A flow's place belongs to its share: it outlives the
interpreter, and whoever takes the share over says which places of it there are (`reclaim`). A call's belongs to the interpreter that
sends it, and ends with that; two may have one for the same call, until one of them has found out.

Who was refused stands in the queue's line for a moment, and has the next place before others that come later, as long as it asks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from flowmetal.store import postgres_schema as schema
from flowmetal.store.postgres_text import to_text
from flowmetal.store.sharing import Limits, Place, share_of

_MAKE: Final = "INSERT INTO fm.queues (name) VALUES ($1) ON CONFLICT DO NOTHING"
_LOCK: Final = "SELECT begun FROM fm.queues WHERE name = $1 FOR UPDATE"
_COUNT: Final = """SELECT count(*), count(k.flow_id) FROM fm.slots p LEFT JOIN unnest($2::text[], $3::bigint[]) AS k(flow_id, step)
    ON k.flow_id = p.flow_id AND k.step = p.step AND p.owner IN ('', $4) WHERE p.queue = $1"""
_OWNED: Final = "SELECT count(*) FROM fm.shares WHERE owner = $1 AND n = ANY($2::integer[])"
_AHEAD: Final = """SELECT count(*) FROM fm.lines l JOIN fm.interpreters i ON i.id = l.owner WHERE l.queue = $1 AND l.owner <> $2 AND l.until > now()
    AND l.since < coalesce((SELECT m.since FROM fm.lines m WHERE m.queue = $1 AND m.owner = $2 AND m.until > now()), 'infinity')"""
_PLACES: Final = "unnest($2::text[], $3::bigint[], $4::integer[]) AS k(flow_id, step, share)"
_MINE: Final = "EXISTS (SELECT FROM fm.shares s WHERE s.n = k.share AND s.owner = $5)"
_TAKE: Final = f"""INSERT INTO fm.slots (queue, flow_id, step, share, owner)
    SELECT $1, k.flow_id, k.step, k.share, CASE WHEN k.step > 0 THEN $5 ELSE '' END FROM {_PLACES} WHERE k.step > 0 OR {_MINE}
    ON CONFLICT DO NOTHING"""
_FREE: Final = f"""DELETE FROM fm.slots p USING {_PLACES} WHERE p.queue = $1 AND p.flow_id = k.flow_id AND p.step = k.step
    AND (p.owner = $5 OR p.owner = '' AND {_MINE}) RETURNING 1"""
_BEGUN: Final = "UPDATE fm.queues SET begun = $2::bigint[] WHERE name = $1"
_WAIT: Final = f"""INSERT INTO fm.lines (queue, owner, since, until) VALUES ($1, $2, clock_timestamp(), now() + {schema.IN_LINE})
    ON CONFLICT (queue, owner) DO UPDATE SET until = excluded.until, since = CASE WHEN fm.lines.until > now() AND NOT $3::boolean
    THEN fm.lines.since ELSE excluded.since END"""
_GO: Final = "DELETE FROM fm.lines WHERE queue = $1 AND (owner = $2 OR until < now())"
_RECLAIM: Final = """DELETE FROM fm.slots p WHERE p.owner = '' AND p.share = ANY($1::integer[]) AND p.share IN (SELECT n FROM fm.shares WHERE owner = $2)
    AND NOT EXISTS (SELECT FROM unnest($3::text[], $4::text[]) AS k(queue, flow_id) WHERE k.queue = p.queue AND k.flow_id = p.flow_id)
    OR p.owner <> '' AND NOT EXISTS (SELECT FROM fm.interpreters i WHERE i.id = p.owner) RETURNING 1"""
_SIGN: Final = "SELECT pg_notify($1, $2)"
INSIDE: Final = "SELECT DISTINCT flow_id, step FROM fm.slots WHERE queue = $1"


def enter(connection: Any, me: str, queue: str, places: Sequence[Place], limits: Limits, now: int) -> tuple[int, int | None]:
    """See `SharedStore.enter`; within a transaction of an interpreter that is alive."""
    name = to_text(queue)
    found = connection.execute(_LOCK, (name,)).fetchone()
    if found is None:
        connection.execute(_MAKE, (name,))
        found = connection.execute(_LOCK, (name,)).fetchone()
    flows, steps, shares = _columns(places)
    own = sorted({share for share, step in zip(shares, steps, strict=True) if step == 0})
    if own and connection.execute(_OWNED, (me, own)).fetchone()[0] < len(own):
        return 0, None  # a flow of them is another's now
    inside, had = connection.execute(_COUNT, (name, flows, steps, me)).fetchone()
    room, opens = len(places), None
    if limits.concurrency is not None:
        room = min(room, limits.concurrency - inside + had)
    begun: list[int] = []
    if limits.rate is not None:
        count, period = limits.rate
        begun = sorted(time for time in found[0] if time > now - period)[-count:]
        if count - len(begun) + had < room:
            room, opens = count - len(begun) + had, begun[0] + period if begun else now + period
    ahead = connection.execute(_AHEAD, (name, me)).fetchone()[0] if room > had else 0
    entered = max(had, min(len(places), room - ahead))
    if entered > had and limits.rate is not None:
        connection.execute(_BEGUN, (name, begun + [now] * (entered - had)))
    if entered and limits.concurrency is not None:
        connection.execute(_TAKE, (name, flows[:entered], steps[:entered], shares[:entered], me))
    if entered < len(places):
        connection.execute(_WAIT, (name, me, str(entered > 0).lower()))
    else:
        connection.execute(_GO, (name, me))
    return entered, opens if entered >= room else None


def settle(connection: Any, me: str, queue: str, inside: Collection[Place], outside: Collection[Place]) -> None:
    """See `SharedStore.settle`; within a transaction of an interpreter that is alive."""
    name = to_text(queue)
    if inside:
        connection.execute(_TAKE, (name, *_columns(inside), me))
    if outside and connection.execute(_FREE, (name, *_columns(outside), me)).fetchall():
        connection.execute(_SIGN, (schema.ROOM, me))


def reclaim(connection: Any, me: str, shares: Collection[int], inside: Collection[tuple[str, str]]) -> None:
    """See `SharedStore.reclaim`; within a transaction of an interpreter that is alive."""
    queues, flows = [to_text(queue) for queue, _ in inside], [to_text(flow_id) for _, flow_id in inside]
    if connection.execute(_RECLAIM, (sorted(shares), me, queues, flows)).fetchall():
        connection.execute(_SIGN, (schema.ROOM, me))


def _columns(places: Collection[Place]) -> tuple[list[str], list[int], list[int]]:
    return [to_text(flow_id) for flow_id, _ in places], [step for _, step in places], [share_of(flow_id) for flow_id, _ in places]
