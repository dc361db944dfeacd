"""The views that users query, in PostgreSQL's SQL: the same names, columns and answers as those of `views`.

What goes in: the table `fm.log`. What comes out: SQL of the views, made in the first schema of the connection's search path.
The one rule: no view shows the columns `key` or `exact`, or calls a function of ours: who may read a view needs no other right.

`flows` finds the places of the rows that matter by one aggregate and joins them; `effects` finds each step's outcome with
windows over the narrow columns alone. A condition on `flow_id` reaches the index of either.
"""

from __future__ import annotations

import hashlib
from typing import Final

from flowmetal.store import kinds


def _time(microseconds: str) -> str:
    return f"timestamptz 'epoch' + {microseconds} * interval '1 microsecond'"


def _bigint(text: str) -> str:
    return f"CASE WHEN {text} ~ '^-?[0-9]{{1,18}}$' THEN ({text})::bigint END"


def _timestamp(text: str) -> str:
    return f"CASE WHEN {text} ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9:.]+(Z|[-+][0-9:]+)$' THEN ({text})::timestamptz END"


_ASKED = kinds.listed(kinds.ASKING)
_DONE = kinds.listed(frozenset({kinds.EFFECT_COMPLETED, kinds.EFFECT_FAILED}))
_ATTEMPTS = kinds.listed(frozenset({kinds.ATTEMPT_STARTED, kinds.ATTEMPT_FAILED}))
_STEPS = f"{_ASKED}, {_DONE}, {_ATTEMPTS}, '{kinds.EFFECT_CANCELLED}', '{kinds.FLOW_RETRIED}'"
_STATUS = kinds.listed(kinds.STATUS)
_ENDING = kinds.listed(kinds.ENDING)
_STATUS_CASE = " ".join(f"WHEN '{kind}' THEN '{status}'" for kind, status in kinds.STATUS.items())

ENTRIES: Final = """
SELECT l.pos, l.flow_id, l.seq, l.at_us, l.kind, l.step, l.fiber, l.key, coalesce(l.data, d.body) AS data
FROM fm.log l LEFT JOIN fm.documents d ON d.digest = l.digest
"""
"""The log with large values in place; inside `fm`, not for users."""

EVENTS: Final = f"""
SELECT pos, flow_id, seq, {_time("at_us")} AS at, kind, step, fiber, data FROM fm.entries
"""

FLOWS: Final = f"""
WITH place AS (
    SELECT flow_id, max(at_us) AS updated_us, max(step) AS steps,
        min(pos) FILTER (WHERE kind = '{kinds.FLOW_STARTED}') AS started, max(pos) FILTER (WHERE kind IN ({_STATUS})) AS status,
        max(pos) FILTER (WHERE kind = '{kinds.FLOW_UPGRADED}') AS upgraded, max(at_us) FILTER (WHERE kind = '{kinds.FLOW_FORKED}') AS forked_us,
        max(pos) FILTER (WHERE kind = '{kinds.INFO}') AS info, max(pos) FILTER (WHERE kind = '{kinds.CELL_RESULT}') AS cell
    FROM fm.log GROUP BY flow_id HAVING min(pos) FILTER (WHERE kind = '{kinds.FLOW_STARTED}') IS NOT NULL
), typed AS (
    SELECT p.flow_id, p.updated_us, p.steps, coalesce(p.forked_us, s.at_us) AS created_us, s.data AS s, u.data AS u,
        z.kind AS status_kind, z.at_us AS status_us,
        z.kind IN ({_ENDING}) AS ended, i.data AS i, CASE WHEN z.kind IN ({_ENDING}) THEN z.data ELSE c.data END AS e
    FROM place p JOIN fm.entries s ON s.pos = p.started JOIN fm.entries z ON z.pos = p.status
    LEFT JOIN fm.entries i ON i.pos = p.info LEFT JOIN fm.entries c ON c.pos = p.cell LEFT JOIN fm.entries u ON u.pos = p.upgraded
)
SELECT flow_id, s->>'name' AS name, coalesce(s->>'kind', 'flow') AS kind, CASE status_kind {_STATUS_CASE} END AS status,
    s->>'parent' AS parent_id, s->>'forked_from' AS forked_from, {_bigint("s->>'forked_at'")} AS forked_at,
    {_bigint("coalesce(u->>'version', s->>'definitions')")} AS definitions_version,
    {_time("created_us")} AS created_at, {_time("updated_us")} AS updated_at, CASE WHEN ended THEN {_time("status_us")} END AS finished_at,
    coalesce(steps, 0) AS steps, s->'args' AS args, s->'tags' AS tags, i->'data' AS info, e->'result' AS result, e->'error' AS error
FROM typed
"""

EFFECTS: Final = f"""
WITH place AS (
    SELECT pos, flow_id, step, kind,
        max(pos) FILTER (WHERE kind = '{kinds.EFFECT_CANCELLED}') OVER one AS cancelled,
        max(pos) FILTER (WHERE kind IN ({_ATTEMPTS})) OVER one AS attempt,
        least(min(pos) FILTER (WHERE kind = '{kinds.EFFECT_FAILED}') OVER one,
            min(pos) FILTER (WHERE kind = '{kinds.FLOW_RETRIED}') OVER (PARTITION BY flow_id)) AS failed,
        max(pos) FILTER (WHERE kind IN ({_ASKED})) OVER one AS last_asked,
        min(pos) FILTER (WHERE kind IN ({_DONE})) OVER later AS done_pos,
        min(pos) FILTER (WHERE kind = '{kinds.EFFECT_CANCELLED}') OVER later AS cancelled_pos
    FROM fm.log WHERE kind IN ({_STEPS})
    WINDOW one AS (PARTITION BY flow_id, step),
        later AS (PARTITION BY flow_id, step ORDER BY pos DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), again AS (
    SELECT *, CASE WHEN failed < last_asked THEN last_asked ELSE 0 END AS again FROM place
), typed AS (
    SELECT p.flow_id, p.step, r.fiber, r.at_us AS asked_us, c.at_us AS closed_us, c.kind AS closed_kind, p.kind = '{kinds.VALUE_RECORDED}' AS recorded,
        t.data AS t, r.data AS a, c.data AS c
    FROM again p JOIN fm.entries r ON r.pos = p.pos LEFT JOIN fm.entries t ON t.pos = p.attempt
    LEFT JOIN fm.entries c ON c.pos = CASE WHEN p.cancelled > p.again THEN p.cancelled_pos ELSE p.done_pos END
    WHERE p.kind IN ({_ASKED}) AND p.pos >= p.again
)
SELECT flow_id, step, fiber, a->>'op' AS op, a->>'target' AS target, a->'args' AS args,
    CASE WHEN recorded THEN 'recorded' WHEN closed_kind IS NULL THEN 'requested' ELSE substr(closed_kind, 8) END AS status,
    coalesce({_bigint("c->>'attempts'")}, {_bigint("t->>'attempt'")}, CASE WHEN recorded OR closed_kind IS NOT NULL THEN 1 ELSE 0 END) AS attempts,
    {_time("asked_us")} AS requested_at, {_time("CASE WHEN recorded THEN asked_us ELSE closed_us END")} AS completed_at,
    CASE WHEN recorded THEN 0 ELSE (closed_us - asked_us)::double precision / 1000 END AS duration_ms,
    CASE WHEN recorded THEN a->'result' ELSE c->'result' END AS result, c->'error' AS error,
    {_bigint("a->>'line'")} AS line, a->>'source' AS source
FROM typed
"""

MESSAGES: Final = f"""
WITH outcome AS (
    SELECT pos, flow_id, at_us, kind, data AS j, data->>'message_id' AS message_id FROM fm.entries
    WHERE kind IN ('{kinds.EFFECT_COMPLETED}', '{kinds.EFFECT_CANCELLED}') AND data->>'message_id' IS NOT NULL
), mail AS (
    SELECT flow_id, at_us, key, data AS j, data->>'message_id' AS message_id FROM fm.entries WHERE kind = '{kinds.MESSAGE_RECEIVED}'
), taken AS (
    SELECT DISTINCT ON (flow_id, message_id) flow_id, message_id, kind, at_us FROM outcome ORDER BY flow_id, message_id, pos DESC
)
SELECT m.message_id, m.j->>'topic' AS topic, m.flow_id, {_time("m.at_us")} AS received_at, {_time("t.at_us")} AS consumed_at,
    m.j->>'source' AS source, m.key AS idempotency_key, m.j->'message' AS data
FROM mail m LEFT JOIN taken t ON t.flow_id = m.flow_id AND t.message_id = m.message_id AND t.kind = '{kinds.EFFECT_COMPLETED}'
UNION ALL
SELECT o.message_id, o.j->>'topic', o.flow_id, {_time("o.at_us")}, {_time("o.at_us")},
    coalesce(o.j->>'source', 'callback'), NULL, CASE WHEN o.j->>'topic' IS NULL THEN o.j->'result' ELSE o.j#>'{{result,value}}' END
FROM outcome o WHERE NOT EXISTS (SELECT 1 FROM mail m WHERE m.flow_id = o.flow_id AND m.message_id = o.message_id)
UNION ALL
SELECT data->>'message_id', data->>'topic', NULL, {_time("at_us")}, NULL, data->>'source', data->>'idempotency_key', data->'message'
FROM fm.entries WHERE kind = '{kinds.PUBLISHED}'
"""

TIMERS: Final = f"""
WITH due AS (
    SELECT flow_id, step, {_timestamp("data->>'due_at'")} AS due_at FROM fm.entries
    WHERE kind = '{kinds.EFFECT_REQUESTED}' AND data->>'op' IN ('sleep', 'timer') AND data->>'due_at' IS NOT NULL
)
SELECT d.flow_id, d.step, d.due_at, {_time("min(f.at_us)")} AS fired_at
FROM due d LEFT JOIN fm.log f ON f.flow_id = d.flow_id AND f.step = d.step AND f.kind = '{kinds.EFFECT_COMPLETED}'
GROUP BY d.flow_id, d.step, d.due_at
"""

DEFINITIONS: Final = f"""
SELECT coalesce({_bigint("data->>'version'")}, seq) AS version, data->>'ns' AS ns, data->>'name' AS name, data->>'kind' AS kind,
    data->>'source' AS source, data->>'hash' AS hash, {_time("at_us")} AS defined_at
FROM fm.entries WHERE (flow_id = '{kinds.DEFINITIONS_STREAM}' OR starts_with(flow_id, '{kinds.DEFINITIONS_STREAM}/')) AND kind = '{kinds.DEFINED}'
"""


def _last(value: str, condition: str) -> str:
    return f"(array_agg({value} ORDER BY seq DESC) FILTER (WHERE {condition}))[1]"


SCHEDULES: Final = f"""
WITH one AS (
    SELECT data->>'name' AS name, {_last("data", f"kind = '{kinds.SCHEDULE_DECLARED}'")} AS d,
        min(at_us) FILTER (WHERE kind = '{kinds.SCHEDULE_DECLARED}') AS declared_us,
        {_last("kind", f"kind IN ('{kinds.SCHEDULE_DECLARED}', '{kinds.SCHEDULE_REMOVED}')")} AS life,
        {_last("kind", f"kind IN ('{kinds.SCHEDULE_PAUSED}', '{kinds.SCHEDULE_RESUMED}', '{kinds.SCHEDULE_REMOVED}')")} AS mode,
        {_last("data->>'next_due_at'", "true")} AS next_due,
        max(at_us) FILTER (WHERE kind = '{kinds.SCHEDULE_FIRED}') AS fired_us,
        {_last("data->>'flow_id'", f"kind = '{kinds.SCHEDULE_FIRED}' AND data->>'flow_id' IS NOT NULL")} AS fired
    FROM fm.entries WHERE flow_id = '{kinds.SCHEDULES_STREAM}' GROUP BY data->>'name'
)
SELECT name, d->>'flow' AS flow_name, coalesce(d#>>'{{options,cron}}', 'every ' || (d#>>'{{options,every}}') || ' s') AS spec,
    coalesce(d#>>'{{options,tz}}', 'UTC') AS timezone, d->'args' AS args, coalesce(mode = '{kinds.SCHEDULE_PAUSED}', false) AS paused,
    CASE WHEN mode = '{kinds.SCHEDULE_PAUSED}' THEN NULL ELSE {_timestamp("next_due")} END AS next_due_at,
    {_time("fired_us")} AS last_fired_at, fired AS last_flow_id, {_time("declared_us")} AS created_at
FROM one WHERE life = '{kinds.SCHEDULE_DECLARED}'
"""

SOURCES: Final = f"""
WITH declared AS (
    SELECT data->>'source' AS name, {_last("data", "true")} AS d, min(at_us) AS declared_us FROM fm.entries
    WHERE flow_id = '{kinds.SOURCES_STREAM}' AND kind IN ('{kinds.SOURCE_DECLARED}', '{kinds.SOURCE_READ}') GROUP BY data->>'source'
), read AS (
    SELECT data->>'source' AS name, (array_agg(data ORDER BY seq DESC))[1] AS r, max(at_us) AS read_us, sum({_bigint("data->>'rows'")}) AS rows
    FROM fm.entries WHERE flow_id <> '{kinds.SOURCES_STREAM}' AND kind IN ('{kinds.SOURCE_DECLARED}', '{kinds.SOURCE_READ}') GROUP BY data->>'source'
)
SELECT name, coalesce(d#>>'{{options,topic}}', name) AS topic, d#>>'{{options,url}}' AS url, d#>>'{{options,sql}}' AS sql,
    coalesce(CASE WHEN d#>>'{{options,every}}' ~ '^[0-9.]+$' THEN (d#>>'{{options,every}}')::double precision END, 10) AS every_s,
    r#>'{{value,cursor}}' AS cursor, coalesce(rows, 0)::bigint AS published, {_time("read_us")} AS last_read_at, r->'error' AS error,
    {_time("declared_us")} AS created_at
FROM declared LEFT JOIN read USING (name) WHERE d->>'options' IS NOT NULL
"""

VIEWS: Final[dict[str, str]] = {
    "flows": FLOWS,
    "events": EVENTS,
    "effects": EFFECTS,
    "messages": MESSAGES,
    "timers": TIMERS,
    "definitions": DEFINITIONS,
    "schedules": SCHEDULES,
    "sources": SOURCES,
}
CREATE_ENTRIES: Final = f"CREATE VIEW fm.entries AS {ENTRIES}"
FINGERPRINT: Final = hashlib.sha256("\n".join([ENTRIES, *VIEWS, *VIEWS.values()]).encode()).hexdigest()[:16]
"""Kept in the store's meta: views are made again only when they have changed."""
