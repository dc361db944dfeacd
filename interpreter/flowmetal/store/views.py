"""The views that users query: plain JSON and proper types over the log.

What goes in: the table `fm.log`. What comes out: SQL of the views in `main`, the same names and columns on every backend.
The one rule: no view shows the columns `key` (a callback's token is one) or `exact`; a message's key is its own name.

They are plain views, not tables kept up to date: over a million rows and a hundred thousand flows, `flows` answers in
about 0.2 s, a single flow's row in 6 ms.
"""

from __future__ import annotations

import hashlib
from typing import Final

from flowmetal.store import kinds


def _list(names: object) -> str:
    assert isinstance(names, (frozenset, dict))
    return ", ".join(f"'{name}'" for name in sorted(names))


_OUTCOMES = _list(frozenset({kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED}))
_ATTEMPTS = _list(frozenset({kinds.ATTEMPT_STARTED, kinds.ATTEMPT_FAILED}))
_STATUS = _list(kinds.STATUS)
_STATUS_CASE = " ".join(f"WHEN '{kind}' THEN '{status}'" for kind, status in kinds.STATUS.items())

ENTRIES: Final = """
SELECT l.pos, l.flow_id, l.seq, l.at_us, l.kind, l.step, l.fiber, l.key,
    CASE WHEN g.pos IS NULL THEN l.data ELSE decode(b.body) END AS data
FROM fm.log l LEFT JOIN fm.large g ON g.pos = l.pos LEFT JOIN fm.blobs b ON b.digest = g.digest
"""
"""The log with large values in place; inside `fm`, not for users."""

EVENTS: Final = """
SELECT pos, flow_id, seq, make_timestamptz(at_us) AS "at", kind, step, fiber, TRY_CAST(data AS JSON) AS data
FROM fm.entries
"""

FLOWS: Final = f"""
WITH last AS (
    SELECT flow_id, max(pos) AS pos, max(at_us) AS updated_us, max(step) AS steps,
        arg_min(data, pos) FILTER (kind = '{kinds.FLOW_STARTED}') AS started,
        arg_min(at_us, pos) FILTER (kind = '{kinds.FLOW_STARTED}') AS started_us,
        arg_max(kind, pos) FILTER (kind IN ({_STATUS})) AS status_kind,
        arg_max(at_us, pos) FILTER (kind IN ({_STATUS})) AS status_us,
        arg_max(data, pos) FILTER (kind IN ({_list(kinds.ENDING)})) AS ending,
        arg_max(data, pos) FILTER (kind = '{kinds.INFO}') AS info,
        arg_max(data, pos) FILTER (kind = '{kinds.CELL_RESULT}') AS cell
    FROM fm.entries GROUP BY flow_id
    HAVING count(*) FILTER (kind = '{kinds.FLOW_STARTED}') > 0
), typed AS (
    SELECT *, TRY_CAST(started AS JSON) AS s,
        CASE WHEN status_kind IN ({_list(kinds.ENDING)}) THEN TRY_CAST(ending AS JSON) ELSE TRY_CAST(cell AS JSON) END AS e
    FROM last
)
SELECT flow_id, s->>'$.name' AS name, coalesce(s->>'$.kind', 'flow') AS kind,
    CASE status_kind {_STATUS_CASE} END AS status,
    s->>'$.parent' AS parent_id, s->>'$.forked_from' AS forked_from, TRY_CAST(s->>'$.forked_at' AS BIGINT) AS forked_at,
    TRY_CAST(s->>'$.definitions' AS BIGINT) AS definitions_version,
    make_timestamptz(started_us) AS created_at, make_timestamptz(updated_us) AS updated_at,
    CASE WHEN status_kind IN ({_list(kinds.ENDING)}) THEN make_timestamptz(status_us) END AS finished_at,
    coalesce(steps, 0) AS steps, s->'$.args' AS args, s->'$.tags' AS tags, TRY_CAST(info AS JSON)->'$.data' AS info,
    e->'$.result' AS result, e->'$.error' AS error
FROM typed
"""

EFFECTS: Final = f"""
WITH one AS (
    SELECT flow_id, step,
        arg_max(data, pos) FILTER (kind IN ('{kinds.EFFECT_REQUESTED}', '{kinds.VALUE_RECORDED}')) AS asked,
        arg_max(at_us, pos) FILTER (kind IN ('{kinds.EFFECT_REQUESTED}', '{kinds.VALUE_RECORDED}')) AS asked_us,
        arg_max(kind, pos) FILTER (kind IN ('{kinds.EFFECT_REQUESTED}', '{kinds.VALUE_RECORDED}')) AS asked_kind,
        arg_max(fiber, pos) FILTER (kind IN ('{kinds.EFFECT_REQUESTED}', '{kinds.VALUE_RECORDED}')) AS fiber,
        bool_or(kind = '{kinds.EFFECT_CANCELLED}') AS cancelled,
        CASE WHEN cancelled THEN '{kinds.EFFECT_CANCELLED}' ELSE arg_min(kind, pos) FILTER (kind IN ({_OUTCOMES})) END AS closed_kind,
        CASE WHEN cancelled THEN min(at_us) FILTER (kind = '{kinds.EFFECT_CANCELLED}')
            ELSE arg_min(at_us, pos) FILTER (kind IN ({_OUTCOMES})) END AS closed_us,
        CASE WHEN cancelled THEN NULL ELSE arg_min(data, pos) FILTER (kind IN ({_OUTCOMES})) END AS closed,
        arg_max(data, pos) FILTER (kind IN ({_ATTEMPTS})) AS attempt
    FROM fm.entries WHERE step IS NOT NULL GROUP BY flow_id, step
), typed AS (
    SELECT *, TRY_CAST(asked AS JSON) AS a, TRY_CAST(closed AS JSON) AS c,
        asked_kind = '{kinds.VALUE_RECORDED}' AS recorded
    FROM one WHERE asked_kind IS NOT NULL
)
SELECT flow_id, step, fiber, a->>'$.op' AS op, a->>'$.target' AS target, a->'$.args' AS args,
    CASE WHEN recorded THEN 'recorded' WHEN closed_kind IS NULL THEN 'requested'
        ELSE closed_kind[8:] END AS status,
    coalesce(TRY_CAST(c->>'$.attempts' AS BIGINT), TRY_CAST(TRY_CAST(attempt AS JSON)->>'$.attempt' AS BIGINT),
        CASE WHEN recorded OR closed_kind IS NOT NULL THEN 1 ELSE 0 END) AS attempts,
    make_timestamptz(asked_us) AS requested_at,
    make_timestamptz(CASE WHEN recorded THEN asked_us ELSE closed_us END) AS completed_at,
    CASE WHEN recorded THEN 0.0 ELSE (closed_us - asked_us) / 1000.0 END AS duration_ms,
    CASE WHEN recorded THEN a->'$.result' ELSE c->'$.result' END AS result, c->'$.error' AS error,
    TRY_CAST(a->>'$.line' AS BIGINT) AS line, a->>'$.source' AS source
FROM typed
"""

MESSAGES: Final = f"""
WITH outcome AS (
    SELECT pos, flow_id, step, at_us, key, kind, TRY_CAST(data AS JSON) AS j FROM fm.entries
    WHERE kind IN ('{kinds.EFFECT_COMPLETED}', '{kinds.EFFECT_CANCELLED}') AND contains(data, '"message_id"')
        AND TRY_CAST(data AS JSON)->>'$.message_id' IS NOT NULL
), mail AS (
    SELECT pos, flow_id, at_us, key, TRY_CAST(data AS JSON) AS j FROM fm.entries WHERE kind = '{kinds.MESSAGE_RECEIVED}'
), taken AS (
    SELECT flow_id, j->>'$.message_id' AS message_id, arg_max(at_us, pos) AS at_us FROM outcome GROUP BY ALL
    HAVING arg_max(kind, pos) = '{kinds.EFFECT_COMPLETED}'
)
SELECT m.j->>'$.message_id' AS message_id, m.j->>'$.topic' AS topic, m.flow_id,
    make_timestamptz(m.at_us) AS received_at, make_timestamptz(t.at_us) AS consumed_at,
    m.j->>'$.source' AS source, m.key AS idempotency_key, m.j->'$.message' AS data
FROM mail m LEFT JOIN taken t ON t.flow_id = m.flow_id AND t.message_id = m.j->>'$.message_id'
UNION ALL
SELECT o.j->>'$.message_id', o.j->>'$.topic', o.flow_id, make_timestamptz(o.at_us), make_timestamptz(o.at_us),
    coalesce(o.j->>'$.source', 'callback'), NULL,
    CASE WHEN o.j->>'$.topic' IS NULL THEN o.j->'$.result' ELSE o.j->'$.result.value' END
FROM outcome o ANTI JOIN mail m ON m.flow_id = o.flow_id AND m.j->>'$.message_id' = o.j->>'$.message_id'
UNION ALL
SELECT j->>'$.message_id', j->>'$.topic', NULL, make_timestamptz(at_us), NULL, j->>'$.source', j->>'$.idempotency_key', j->'$.message'
FROM (SELECT at_us, TRY_CAST(data AS JSON) AS j FROM fm.entries WHERE kind = '{kinds.PUBLISHED}')
"""

TIMERS: Final = f"""
WITH due AS (
    SELECT flow_id, step, pos, TRY_CAST(TRY_CAST(data AS JSON)->>'$.due_at' AS TIMESTAMPTZ) AS due_at FROM fm.entries
    WHERE kind = '{kinds.EFFECT_REQUESTED}' AND contains(data, '"due_at"')
        AND TRY_CAST(data AS JSON)->>'$.op' IN ('sleep', 'timer')
), fired AS (
    SELECT flow_id, step, min(at_us) AS at_us FROM fm.log WHERE kind = '{kinds.EFFECT_COMPLETED}' GROUP BY flow_id, step
)
SELECT d.flow_id, d.step, d.due_at, make_timestamptz(f.at_us) AS fired_at
FROM due d LEFT JOIN fired f ON f.flow_id = d.flow_id AND f.step = d.step
"""

DEFINITIONS: Final = f"""
SELECT seq AS version, j->>'$.ns' AS ns, j->>'$.name' AS name, j->>'$.kind' AS kind, j->>'$.source' AS source,
    j->>'$.hash' AS hash, make_timestamptz(at_us) AS defined_at
FROM (SELECT seq, at_us, TRY_CAST(data AS JSON) AS j FROM fm.entries
    WHERE flow_id = '{kinds.DEFINITIONS_STREAM}' AND kind = '{kinds.DEFINED}')
"""

SCHEDULES: Final = """
SELECT NULL::VARCHAR AS name, NULL::VARCHAR AS flow_name, NULL::VARCHAR AS spec, NULL::VARCHAR AS timezone,
    NULL::JSON AS args, NULL::BOOLEAN AS paused, NULL::TIMESTAMPTZ AS next_due_at, NULL::TIMESTAMPTZ AS last_fired_at,
    NULL::VARCHAR AS last_flow_id, NULL::TIMESTAMPTZ AS created_at
WHERE false
"""

VIEWS: Final[dict[str, str]] = {
    "fm.entries": ENTRIES,
    "main.events": EVENTS,
    "main.flows": FLOWS,
    "main.effects": EFFECTS,
    "main.messages": MESSAGES,
    "main.timers": TIMERS,
    "main.definitions": DEFINITIONS,
    "main.schedules": SCHEDULES,
}
CREATE: Final = tuple(f"CREATE OR REPLACE VIEW {name} AS {sql}" for name, sql in VIEWS.items())
FINGERPRINT: Final = hashlib.sha256("\n".join(CREATE).encode()).hexdigest()[:16]
"""Kept in the store's meta: views are made again only when they have changed."""
