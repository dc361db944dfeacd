"""Reading the log in PostgreSQL: the questions of the engine and of recovery.

What goes in: SQL over the log. What comes out: rows, large values in place, text as it was written. The one rule: each
question is one statement.
"""

from __future__ import annotations

from typing import Any, Final

from flowmetal.store import kinds
from flowmetal.store.postgres_text import from_json, from_text
from flowmetal.store.protocol import Row

COLUMNS: Final = """l.flow_id, l.kind, coalesce(l.data, d.body)::text, l.at_us, l.step, l.fiber, coalesce(l.exact, convert_from(b.body, 'UTF8')),
    l.key, l.seq, l.pos, l.odd"""
LARGE: Final = "LEFT JOIN fm.documents d ON d.digest = l.digest LEFT JOIN fm.blobs b ON b.digest = l.exact_digest"
ROWS: Final = f"SELECT {COLUMNS} FROM fm.log l {LARGE}"
"""What `row_of` takes, up to a condition on `l`."""

FLOW: Final = f"""{ROWS} WHERE l.flow_id = $1 AND l.seq > $2 AND ($3::text[] IS NULL OR l.kind = ANY($3::text[]))
    ORDER BY l.seq LIMIT $4::bigint"""
FLOWS: Final = f"""{ROWS} JOIN unnest($1::text[], $2::bigint[]) AS w(flow_id, seq) ON l.flow_id = w.flow_id AND l.seq > w.seq
    WHERE $3::text[] IS NULL OR l.kind = ANY($3::text[]) ORDER BY l.flow_id, l.seq"""
LAST_SEQ: Final = """SELECT f, coalesce((SELECT max(l.seq) FROM fm.log l WHERE l.flow_id = f), 0) FROM unnest($1::text[]) AS f"""
FIND: Final = f"{ROWS} WHERE l.kind = $1 AND left(l.key, 256) = left($2::text, 256) AND l.key = $2::text ORDER BY l.pos LIMIT 1"
PLACE: Final = "SELECT pos FROM fm.log WHERE flow_id = $1 AND seq = $2"

_SNAPSHOT: Final = "SELECT flow_id, seq, step, format, body FROM fm.snapshots"
SNAPSHOT: Final = f"{_SNAPSHOT} WHERE flow_id = $1 AND ($2::bigint IS NULL OR seq <= $2::bigint) ORDER BY seq DESC, id DESC LIMIT 1"
SNAPSHOTS: Final = f"""SELECT s.* FROM unnest($1::text[]) AS f
    CROSS JOIN LATERAL ({_SNAPSHOT} WHERE flow_id = f ORDER BY seq DESC, id DESC LIMIT 1) s"""

_STANDING: Final = f"""SELECT p.flow_id, p.start_pos, l.kind AS status_kind FROM
    (SELECT flow_id, min(pos) FILTER (WHERE kind = '{kinds.FLOW_STARTED}') AS start_pos, max(pos) AS status_pos
        FROM fm.log WHERE kind IN ({kinds.listed(kinds.STATUS)}) GROUP BY flow_id) p
    JOIN fm.log l ON l.pos = p.status_pos WHERE p.start_pos IS NOT NULL"""
_OPEN: Final = f"SELECT flow_id, start_pos FROM ({_STANDING}) s WHERE status_kind NOT IN ({kinds.listed(kinds.ENDING)})"
OPEN_FLOWS: Final = f"SELECT flow_id FROM ({_STANDING}) s WHERE status_kind = ANY($1::text[]) ORDER BY start_pos"
OPEN_KINDS: Final = sorted(set(kinds.STATUS) - kinds.ENDING)

OPEN_REQUESTS: Final = f"""WITH open AS MATERIALIZED ({_OPEN}),
    closed AS (SELECT flow_id, step, max(pos) AS pos FROM fm.log WHERE kind IN ({kinds.listed(kinds.CLOSING_STEP)}) GROUP BY flow_id, step),
    settled AS (SELECT flow_id, data->>'flow' AS flow, data->>'promise' AS promise, max(pos) AS pos FROM fm.entries
        WHERE kind = '{kinds.AWAIT_SETTLED}' GROUP BY 1, 2, 3)
    SELECT {COLUMNS} FROM fm.log l JOIN open o ON o.flow_id = l.flow_id {LARGE}
    WHERE l.kind = '{kinds.EFFECT_REQUESTED}'
        AND NOT EXISTS (SELECT 1 FROM closed c WHERE c.flow_id = l.flow_id AND c.step = l.step AND c.pos > l.pos)
        AND NOT (l.data->>'due_at' IS NULL AND l.data->'linked' IS NULL AND coalesce(l.data->>'op' = ANY($1::text[]), false))
    OR l.kind = '{kinds.AWAIT}'
        AND NOT EXISTS (SELECT 1 FROM settled s WHERE s.flow_id = l.flow_id AND s.flow = l.data->>'flow'
            AND s.promise IS NOT DISTINCT FROM l.data->>'promise' AND s.pos > l.pos)
    ORDER BY l.pos"""

ORPHANS: Final = f"""WITH open AS MATERIALIZED ({_OPEN}),
    owned AS (SELECT o.flow_id, o.start_pos, e.data->>'parent' AS parent FROM open o JOIN fm.entries e ON e.pos = o.start_pos)
    SELECT w.flow_id, w.parent FROM owned w WHERE w.parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM open p WHERE p.flow_id = w.parent)
    ORDER BY w.start_pos"""

PAGE: Final = f"""WITH standing AS MATERIALIZED ({_STANDING})
    SELECT s.flow_id FROM standing s WHERE ($1::text[] IS NULL OR s.status_kind = ANY($1::text[]))
    AND ($2::text IS NULL OR EXISTS (SELECT 1 FROM fm.entries e WHERE e.pos = s.start_pos AND e.data->>'name' = $2::text))
    AND ($3::text IS NULL OR s.start_pos < (SELECT start_pos FROM standing WHERE flow_id = $3::text))
    ORDER BY s.start_pos DESC LIMIT $4::bigint"""

STARTED: Final = f"SELECT 1 FROM fm.log WHERE flow_id = $1 AND kind = '{kinds.FLOW_STARTED}' LIMIT 1"
BY_PREFIX: Final = f"""SELECT flow_id FROM fm.log WHERE flow_id COLLATE "C" >= $1::text AND flow_id COLLATE "C" <= $1::text || U&'\\+10FFFF'
    AND starts_with(flow_id, $1::text) AND kind = '{kinds.FLOW_STARTED}' GROUP BY flow_id ORDER BY flow_id COLLATE "C" LIMIT $2::bigint"""


def row_of(found: tuple[Any, ...]) -> Row:
    """A row of the log, as `ROWS` gives it."""
    flow_id, kind, data, at, step, fiber, exact, key, seq, pos, odd = found
    data = from_json(data) if odd is None else from_text(odd)
    exact = None if exact is None else from_text(exact)
    return Row(from_text(flow_id), kind, data, at, step, fiber, exact, None if key is None else from_text(key), seq, pos)
