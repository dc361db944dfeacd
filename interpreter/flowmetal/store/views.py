"""The views that users query: plain JSON and proper types over the log.

What goes in: the table `fm.log`. What comes out: SQL of the views in `main`, the same names and columns on every backend.
The one rule: no view shows the columns `key` (a callback's token is one) or `exact`; a message's key is its own name.

They are plain views, not tables kept up to date: over a million rows and fifty thousand flows, questions to `flows` take
about 0.2 s, to `effects` 0.3, to one flow's rows of either 6 to 20 ms. `effects` joins each asking with the first outcome
after it, which takes less time than grouping; a step that was asked again (after it failed, or as its flow was retried) is shown as it was asked last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flowmetal.store import kinds, schema
from flowmetal.store.disk import quoted

_ASKED = kinds.listed(kinds.ASKING)
_OUTCOMES = kinds.listed(frozenset({kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED, kinds.EFFECT_CANCELLED}))
_ATTEMPTS = kinds.listed(frozenset({kinds.ATTEMPT_STARTED, kinds.ATTEMPT_FAILED}))
_STATUS = kinds.listed(kinds.STATUS)
_STATUS_CASE = " ".join(f"WHEN '{kind}' THEN '{status}'" for kind, status in kinds.STATUS.items())

HOT: Final = """
SELECT l.pos, l.flow_id, l.seq, l.at_us, l.kind, l.step, l.fiber, l.key,
    CASE WHEN g.pos IS NULL THEN l.data ELSE decode(b.body) END AS data
FROM fm.log l LEFT JOIN fm.large g ON g.pos = l.pos LEFT JOIN fm.blobs b ON b.digest = g.digest
"""
"""The log with large values in place; inside `fm`, not for users."""

ENTRIES: Final = "FROM fm.hot UNION ALL SELECT pos, flow_id, seq, at_us, kind, step, fiber, key, data FROM fm.cold"
"""The same with what was archived."""

EVERY: Final = "SELECT pos, flow_id, seq, at_us, kind, step FROM fm.log UNION ALL SELECT pos, flow_id, seq, at_us, kind, step FROM fm.cold"
"""The log and what was archived, without values."""

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
        arg_max(data, pos) FILTER (kind IN ({kinds.listed(kinds.ENDING)})) AS ending,
        arg_max(data, pos) FILTER (kind = '{kinds.INFO}') AS info,
        arg_max(data, pos) FILTER (kind = '{kinds.FLOW_UPGRADED}') AS upgraded,
        max(at_us) FILTER (kind = '{kinds.FLOW_FORKED}') AS forked_us,
        arg_max(data, pos) FILTER (kind = '{kinds.CELL_RESULT}') AS cell
    FROM fm.entries GROUP BY flow_id
    HAVING count(*) FILTER (kind = '{kinds.FLOW_STARTED}') > 0
), typed AS (
    SELECT *, TRY_CAST(started AS JSON) AS s,
        CASE WHEN status_kind IN ({kinds.listed(kinds.ENDING)}) THEN TRY_CAST(ending AS JSON) ELSE TRY_CAST(cell AS JSON) END AS e
    FROM last
)
SELECT flow_id, s->>'$.name' AS name, coalesce(s->>'$.kind', 'flow') AS kind,
    CASE status_kind {_STATUS_CASE} END AS status,
    s->>'$.parent' AS parent_id, s->>'$.forked_from' AS forked_from, TRY_CAST(s->>'$.forked_at' AS BIGINT) AS forked_at,
    TRY_CAST(coalesce(TRY_CAST(upgraded AS JSON)->>'$.version', s->>'$.definitions') AS BIGINT) AS definitions_version,
    make_timestamptz(coalesce(forked_us, started_us)) AS created_at, make_timestamptz(updated_us) AS updated_at,
    CASE WHEN status_kind IN ({kinds.listed(kinds.ENDING)}) THEN make_timestamptz(status_us) END AS finished_at,
    coalesce(steps, 0) AS steps, s->'$.args' AS args, s->'$.tags' AS tags, TRY_CAST(info AS JSON)->'$.data' AS info,
    e->'$.result' AS result, e->'$.error' AS error
FROM typed
"""

EFFECTS: Final = f"""
WITH failed AS (SELECT flow_id, step, pos FROM fm.every WHERE kind = '{kinds.EFFECT_FAILED}'),
retried AS (SELECT flow_id, pos FROM fm.every WHERE kind = '{kinds.FLOW_RETRIED}'),
again AS (
    SELECT r.flow_id, r.step, max(r.pos) AS pos FROM fm.every r JOIN failed f ON r.flow_id = f.flow_id AND r.step = f.step AND r.pos > f.pos
    WHERE r.kind IN ({_ASKED}) GROUP BY ALL
    UNION ALL SELECT r.flow_id, r.step, max(r.pos) FROM fm.every r JOIN retried x ON r.flow_id = x.flow_id AND r.pos > x.pos
    WHERE r.kind IN ({_ASKED}) GROUP BY ALL
), cancelled AS (
    SELECT c.flow_id, c.step, c.pos FROM fm.every c ANTI JOIN again x ON c.flow_id = x.flow_id AND c.step = x.step AND c.pos < x.pos
    WHERE c.kind = '{kinds.EFFECT_CANCELLED}'
), asked AS (
    SELECT e.* FROM fm.entries e ANTI JOIN again x ON e.flow_id = x.flow_id AND e.step = x.step AND e.pos < x.pos WHERE e.kind IN ({_ASKED})
), closed AS (
    SELECT e.* FROM fm.entries e ANTI JOIN cancelled x ON e.flow_id = x.flow_id AND e.step = x.step
    WHERE e.kind IN ({_OUTCOMES})
    UNION ALL SELECT e.* FROM fm.entries e WHERE e.kind = '{kinds.EFFECT_CANCELLED}'
), attempts AS (
    SELECT flow_id, step, arg_max(data, pos) AS data FROM fm.entries WHERE kind IN ({_ATTEMPTS}) GROUP BY flow_id, step
), typed AS (
    SELECT r.flow_id, r.step, r.fiber, r.at_us AS asked_us, c.at_us AS closed_us, c.kind AS closed_kind,
        r.kind = '{kinds.VALUE_RECORDED}' AS recorded, t.data AS attempt, TRY_CAST(r.data AS JSON) AS a, TRY_CAST(c.data AS JSON) AS c
    FROM asked r ASOF LEFT JOIN closed c ON c.flow_id = r.flow_id AND c.step = r.step AND c.pos > r.pos
    LEFT JOIN attempts t ON t.flow_id = r.flow_id AND t.step = r.step
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
)
SELECT d.flow_id, d.step, d.due_at, make_timestamptz(min(f.at_us)) AS fired_at
FROM due d LEFT JOIN fm.every f ON f.flow_id = d.flow_id AND f.step = d.step AND f.kind = '{kinds.EFFECT_COMPLETED}'
GROUP BY d.flow_id, d.step, d.due_at
"""

DEFINITIONS: Final = f"""
SELECT coalesce(TRY_CAST(j->>'$.version' AS BIGINT), seq) AS version, j->>'$.ns' AS ns, j->>'$.name' AS name, j->>'$.kind' AS kind, j->>'$.source' AS source,
    j->>'$.hash' AS hash, make_timestamptz(at_us) AS defined_at
FROM (SELECT seq, at_us, TRY_CAST(data AS JSON) AS j FROM fm.entries
    WHERE (flow_id = '{kinds.DEFINITIONS_STREAM}' OR starts_with(flow_id, '{kinds.LINE_STREAM}')) AND kind = '{kinds.DEFINED}')
"""

SCHEDULES: Final = f"""
WITH entry AS (
    SELECT seq, at_us, kind, TRY_CAST(data AS JSON) AS j FROM fm.entries
    WHERE flow_id = '{kinds.SCHEDULES_STREAM}'
), one AS (
    SELECT j->>'$.name' AS name,
        arg_max(j, seq) FILTER (kind = '{kinds.SCHEDULE_DECLARED}') AS d,
        min(at_us) FILTER (kind = '{kinds.SCHEDULE_DECLARED}') AS declared_us,
        arg_max(kind, seq) FILTER (kind IN ('{kinds.SCHEDULE_DECLARED}', '{kinds.SCHEDULE_REMOVED}')) AS life,
        arg_max(kind, seq) FILTER (kind IN ('{kinds.SCHEDULE_PAUSED}', '{kinds.SCHEDULE_RESUMED}', '{kinds.SCHEDULE_REMOVED}')) AS mode,
        arg_max(coalesce(j->>'$.next_due_at', ''), seq) AS next_due,
        max(at_us) FILTER (kind = '{kinds.SCHEDULE_FIRED}') AS fired_us,
        arg_max(j->>'$.flow_id', seq) FILTER (kind = '{kinds.SCHEDULE_FIRED}') AS fired
    FROM entry GROUP BY name
)
SELECT name, d->>'$.flow' AS flow_name, coalesce(d->>'$.options.cron', 'every ' || (d->>'$.options.every') || ' s') AS spec,
    coalesce(d->>'$.options.tz', 'UTC') AS timezone, d->'$.args' AS args, coalesce(mode = '{kinds.SCHEDULE_PAUSED}', false) AS paused,
    CASE WHEN mode = '{kinds.SCHEDULE_PAUSED}' THEN NULL ELSE TRY_CAST(nullif(next_due, '') AS TIMESTAMPTZ) END AS next_due_at,
    make_timestamptz(fired_us) AS last_fired_at, fired AS last_flow_id, make_timestamptz(declared_us) AS created_at
FROM one WHERE life = '{kinds.SCHEDULE_DECLARED}'
"""

SOURCES: Final = f"""
WITH entry AS (
    SELECT seq, at_us, flow_id, TRY_CAST(data AS JSON) AS j FROM fm.entries
    WHERE kind IN ('{kinds.SOURCE_DECLARED}', '{kinds.SOURCE_READ}')
), declared AS (
    SELECT j->>'$.source' AS name, arg_max(j, seq) AS d, min(at_us) AS declared_us FROM entry
    WHERE flow_id = '{kinds.SOURCES_STREAM}' GROUP BY name
), read AS (
    SELECT j->>'$.source' AS name, arg_max(j, seq) AS r, max(at_us) AS read_us, sum(TRY_CAST(j->>'$.rows' AS BIGINT)) AS rows FROM entry
    WHERE flow_id <> '{kinds.SOURCES_STREAM}' GROUP BY name
)
SELECT name, coalesce(d->>'$.options.topic', name) AS topic, d->>'$.options.url' AS url, d->>'$.options.sql' AS sql,
    coalesce(TRY_CAST(d->>'$.options.every' AS DOUBLE), 10) AS every_s, r->'$.value.cursor' AS cursor,
    coalesce(TRY_CAST(rows AS BIGINT), 0) AS published, make_timestamptz(read_us) AS last_read_at, r->'$.error' AS error,
    make_timestamptz(declared_us) AS created_at
FROM declared LEFT JOIN read USING (name) WHERE (d->>'$.options') IS NOT NULL
"""

VIEWS: Final[dict[str, str]] = {
    "fm.hot": HOT,
    "fm.entries": ENTRIES,
    "fm.every": EVERY,
    "main.events": EVENTS,
    "main.flows": FLOWS,
    "main.effects": EFFECTS,
    "main.messages": MESSAGES,
    "main.timers": TIMERS,
    "main.definitions": DEFINITIONS,
    "main.schedules": SCHEDULES,
    "main.sources": SOURCES,
}
CREATE: Final = tuple(f"CREATE OR REPLACE VIEW {name} AS {sql}" for name, sql in VIEWS.items())
FINGERPRINT: Final = hashlib.sha256("\n".join(CREATE).encode()).hexdigest()[:16]
"""Kept in the store's meta: views are made again only when they have changed."""


def create_cold(folder: Path | None, files: Sequence[str]) -> str:
    """The statement that makes `fm.cold`: the rows in these Parquet files of the archive."""
    if not files or folder is None:
        nothing = ", ".join(f"NULL::{sql_type} AS {name}" for name, sql_type in schema.LOG_COLUMNS)
        return f"CREATE OR REPLACE VIEW fm.cold AS SELECT {nothing} WHERE false"
    paths = ", ".join(f"'{quoted(folder / name)}'" for name in files)
    return f"CREATE OR REPLACE VIEW fm.cold AS SELECT {schema.COLUMNS} FROM read_parquet([{paths}])"
