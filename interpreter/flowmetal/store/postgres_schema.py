"""The tables in PostgreSQL, and how an older format becomes the present one.

What goes in: nothing. What comes out: SQL that makes the tables, numbered; the statements of the hot path.
The one rule: a migration that was released is never changed; a new format is one more.

All tables are in the schema `fm`, which users' SQL cannot name; what users see are the views beside it.
`fm.head` is one row, the store's last `pos`: each commit moves it, and so holds it until it is over. That is why commits end
in the order of their `pos`, whoever makes them, and why a reader who has seen one misses none before it.
`fm.interpreters` has a row for each program that writes: its lease, which its commits extend and count in; a fence; and the memory
of what was committed when an answer is lost. `fm.shares` says whose flows are whose (see `sharing`), `fm.offers` which calls any
interpreter's workers may have. `fm.slots` are the places in queues that are taken, `fm.queues` the times of their rates, `fm.lines` who
waits (see `postgres_queues`). Nothing here needs more than rows, so that databases that speak PostgreSQL's language will do.

A row's `data` is JSON. What is larger than 64 KB stands once in `fm.documents`, by the SHA-256 of its text; a lossless
encoding of that size in `fm.blobs`. What is no JSON, or deeper than PostgreSQL reads, is kept as text, in `odd`.
"""

from __future__ import annotations

from typing import Final

from flowmetal.store.protocol import FORMAT_VERSION
from flowmetal.store.sharing import SHARES

MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {
    1: (
        "CREATE TABLE fm.head (one boolean PRIMARY KEY DEFAULT true CHECK (one), pos bigint NOT NULL)",
        "INSERT INTO fm.head (pos) VALUES (0)",
        """CREATE TABLE fm.interpreters (id text PRIMARY KEY, fence bigint NOT NULL, commits bigint NOT NULL, until timestamptz NOT NULL,
            backend integer NOT NULL, backend_start timestamptz NOT NULL, since timestamptz NOT NULL DEFAULT now(), process text,
            host text)""",
        "CREATE TABLE fm.shares (n integer PRIMARY KEY, owner text, lost boolean NOT NULL DEFAULT false)",
        f"INSERT INTO fm.shares (n) SELECT generate_series(0, {SHARES - 1})",
        "CREATE TABLE fm.queues (name text PRIMARY KEY, begun bigint[] NOT NULL DEFAULT '{}')",
        """CREATE TABLE fm.slots (queue text NOT NULL, flow_id text NOT NULL, step bigint NOT NULL, share integer NOT NULL,
            owner text NOT NULL, PRIMARY KEY (queue, flow_id, step, owner))""",
        """CREATE TABLE fm.lines (queue text NOT NULL, owner text NOT NULL, since timestamptz NOT NULL, until timestamptz NOT NULL,
            PRIMARY KEY (queue, owner))""",
        """CREATE TABLE fm.log (pos bigint PRIMARY KEY, flow_id text NOT NULL, seq bigint NOT NULL, at_us bigint NOT NULL,
            kind text NOT NULL, step bigint, fiber bigint, data json, digest text, odd text, exact text, exact_digest text,
            key text, UNIQUE (flow_id, seq))""",
        "CREATE INDEX log_key ON fm.log (kind, left(key, 256)) WHERE key IS NOT NULL",
        """CREATE INDEX log_status ON fm.log (flow_id, pos) INCLUDE (kind) WHERE kind IN ('flow-cancelled', 'flow-completed', 'flow-continued',
            'flow-failed', 'flow-forked', 'flow-moved', 'flow-paused', 'flow-resumed', 'flow-retried', 'flow-running', 'flow-started',
            'flow-stepped', 'flow-waiting')""",
        "CREATE INDEX log_digest ON fm.log (digest) WHERE digest IS NOT NULL",
        "CREATE INDEX log_exact_digest ON fm.log (exact_digest) WHERE exact_digest IS NOT NULL",
        "CREATE TABLE fm.documents (digest text PRIMARY KEY, body json NOT NULL)",
        "CREATE TABLE fm.blobs (digest text PRIMARY KEY, body bytea NOT NULL)",
        """CREATE TABLE fm.snapshots (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, flow_id text NOT NULL, seq bigint NOT NULL,
            step bigint NOT NULL, format text NOT NULL, body bytea NOT NULL)""",
        "CREATE INDEX snapshots_flow ON fm.snapshots (flow_id, seq)",
        """CREATE TABLE fm.offers (flow_id text NOT NULL, step bigint NOT NULL, share bigint NOT NULL, name text NOT NULL, queue text,
            place bigint NOT NULL, priority bigint NOT NULL, seq bigint NOT NULL, run text NOT NULL, attempt bigint NOT NULL,
            n bigint GENERATED ALWAYS AS IDENTITY, lease_id text, holder text, PRIMARY KEY (flow_id, step))""",
        "CREATE INDEX offers_free ON fm.offers (name, place DESC, priority DESC, n) WHERE lease_id IS NULL",
        "CREATE INDEX offers_held ON fm.offers (holder) WHERE lease_id IS NOT NULL",
        "CREATE INDEX offers_lease ON fm.offers (lease_id) WHERE lease_id IS NOT NULL",
    ),
}
"""What leads from each format to the next; 1 begins with an empty schema `fm` and its table `meta`."""

assert max(MIGRATIONS) == FORMAT_VERSION

BEGIN: Final = ("CREATE SCHEMA IF NOT EXISTS fm", "CREATE TABLE IF NOT EXISTS fm.meta (key text PRIMARY KEY, value text NOT NULL)")
"""What tells whether the store has a format yet."""

NOTIFY: Final = "flowmetal"
"""The channel on which each commit gives a sign: the id of who made it."""
CHANGED: Final = "flowmetal_members"
"""The channel on which interpreters say that they come, go, or give shares up."""
OFFERED: Final = "flowmetal_offers"
"""The channel on which interpreters say that calls are there for any worker."""
ROOM: Final = "flowmetal_queues"
"""The channel on which an interpreter says that it has given a place in a queue back."""
IN_LINE: Final = "interval '2 seconds'"
"""How long who was refused a place in a queue has the next one before others, unless it asks again."""

LEASE_SECONDS: Final = 10
"""How long an interpreter that says nothing keeps its flows."""
UNTIL: Final = f"now() + interval '{LEASE_SECONDS} seconds'"

_ME: Final = f"WITH me AS (UPDATE fm.interpreters SET commits = commits + 1, until = {UNTIL} WHERE id = $1 AND fence = $2 RETURNING 1)"
ADVANCE: Final = f"""{_ME} UPDATE fm.head SET pos = pos + $3::bigint / (SELECT count(*) FROM me)
    RETURNING pos, pg_notify('{NOTIFY}', $1)"""
"""Begins a commit: makes room for so many rows, and waits for its turn. Divides by zero where the interpreter is fenced off."""
NEWS: Final = "SELECT pos, flow_id, seq, kind FROM fm.log WHERE pos > $1::bigint ORDER BY pos LIMIT $2::bigint"
ADVANCE_MORE: Final = "UPDATE fm.head SET pos = pos + $1::bigint RETURNING pos"

GUARD: Final = """SELECT 1 / CASE WHEN
    EXISTS (SELECT 1 FROM unnest($1::text[], $2::bigint[]) AS e(flow_id, seq)
        WHERE coalesce((SELECT max(l.seq) FROM fm.log l WHERE l.flow_id = e.flow_id), 0) <> e.seq)
    OR EXISTS (SELECT 1 FROM unnest($3::text[], $4::text[]) AS u(kind, key)
        WHERE EXISTS (SELECT 1 FROM fm.log l WHERE l.kind = u.kind AND left(l.key, 256) = left(u.key, 256) AND l.key = u.key))
    THEN 0 ELSE 1 END"""
"""Divides by zero unless each flow stands where it is thought to stand, and none of the keys is there."""

LOG_COLUMNS: Final = (
    ("flow_id", "text"), ("seq", "bigint"), ("at_us", "bigint"), ("kind", "text"), ("step", "bigint"), ("fiber", "bigint"),
    ("data", "text"), ("digest", "text"), ("odd", "text"), ("exact", "text"), ("exact_digest", "text"), ("key", "text"),
)  # fmt: skip
_NAMES: Final = ", ".join(name for name, _ in LOG_COLUMNS)
_VALUES: Final = ", ".join(f"u.{name}::json" if name == "data" else f"u.{name}" for name, _ in LOG_COLUMNS)
_ARRAYS: Final = ", ".join(f"${n}::{sql_type}[]" for n, (_, sql_type) in enumerate(LOG_COLUMNS, 2))
INSERT_ROWS: Final = f"""INSERT INTO fm.log (pos, {_NAMES}) SELECT h.pos - $1::bigint + u.n, {_VALUES}
    FROM fm.head h, unnest({_ARRAYS}) WITH ORDINALITY AS u({_NAMES}, n)"""
"""The rows of a commit, by columns; the first parameter is how many there are."""

INSERT_SNAPSHOT: Final = "INSERT INTO fm.snapshots (flow_id, seq, step, format, body) VALUES ($1, $2, $3, $4, $5)"
INSERT_DOCUMENT: Final = "INSERT INTO fm.documents VALUES ($1, $2::json) ON CONFLICT DO NOTHING"
INSERT_BLOB: Final = "INSERT INTO fm.blobs VALUES ($1, $2) ON CONFLICT DO NOTHING"
INSERT_META: Final = "INSERT INTO fm.meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

_GONE: Final = "unnest($1::text[], $2::bigint[]) AS r(flow_id, seq)"
FIND_GONE: Final = f"""SELECT DISTINCT l.digest, l.exact_digest FROM fm.log l JOIN {_GONE} ON l.flow_id = r.flow_id AND l.seq <= r.seq
    WHERE l.digest IS NOT NULL OR l.exact_digest IS NOT NULL"""
DELETE_ROWS: Final = f"DELETE FROM fm.log l USING {_GONE} WHERE l.flow_id = r.flow_id AND l.seq <= r.seq"
DELETE_SNAPSHOTS: Final = f"DELETE FROM fm.snapshots l USING {_GONE} WHERE l.flow_id = r.flow_id AND l.seq <= r.seq"
DELETE_DOCUMENTS: Final = """DELETE FROM fm.documents d WHERE d.digest = ANY($1::text[])
    AND NOT EXISTS (SELECT 1 FROM fm.log l WHERE l.digest = d.digest)"""
DELETE_BLOBS: Final = """DELETE FROM fm.blobs b WHERE b.digest = ANY($1::text[])
    AND NOT EXISTS (SELECT 1 FROM fm.log l WHERE l.exact_digest = b.digest)"""
"""What a removal takes out: the rows, their snapshots, and the large values that only they referred to."""
