"""The tables on disk, and how an older format becomes the present one.

What goes in: nothing. What comes out: SQL that makes the tables, numbered; the statements that write beside the log.
The one rule: a migration that was released is never changed; a new format is one more.

All tables are in the schema `fm`, which users' SQL cannot name; what users see are the views in `main`.
Text of the log is VARCHAR, which is what is fastest to write; the views cast it to JSON where it is read.
A value over 64 KB stands in `fm.blobs` once, by the SHA-256 of its bytes, and the log holds `@` and that digest;
`fm.large` names the rows whose `data` is such a reference.
"""

from __future__ import annotations

from typing import Final

from flowmetal.store.protocol import FORMAT_VERSION

LARGE: Final = 64 * 1024
"""Texts of more characters than this are kept by reference."""
REFERENCE: Final = "@"
"""What a reference begins with; no JSON text does."""

MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {
    1: (
        "CREATE SCHEMA fm",
        "CREATE TABLE fm.meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)",
        """CREATE TABLE fm.log (pos BIGINT NOT NULL, flow_id VARCHAR NOT NULL, seq BIGINT NOT NULL, at_us BIGINT NOT NULL,
            kind VARCHAR NOT NULL, step BIGINT, fiber BIGINT, data VARCHAR NOT NULL, exact VARCHAR, key VARCHAR)""",
        "CREATE TABLE fm.large (pos BIGINT NOT NULL, digest VARCHAR NOT NULL)",
        "CREATE TABLE fm.blobs (digest VARCHAR PRIMARY KEY, body BLOB NOT NULL)",
        """CREATE TABLE fm.snapshots (pos BIGINT NOT NULL, flow_id VARCHAR NOT NULL, seq BIGINT NOT NULL, step BIGINT NOT NULL,
            format VARCHAR NOT NULL, body BLOB NOT NULL)""",
    ),
}
"""What leads from each format to the next; 1 begins with nothing."""

assert max(MIGRATIONS) == FORMAT_VERSION

LOG_COLUMNS: Final = (
    ("pos", "BIGINT"), ("flow_id", "VARCHAR"), ("seq", "BIGINT"), ("at_us", "BIGINT"), ("kind", "VARCHAR"),
    ("step", "BIGINT"), ("fiber", "BIGINT"), ("data", "VARCHAR"), ("exact", "VARCHAR"), ("key", "VARCHAR"),
)  # fmt: skip
COLUMNS: Final = ", ".join(name for name, _ in LOG_COLUMNS)
ROW: Final = "flow_id, kind, data, at_us, step, fiber, exact, key, seq, pos"
"""The columns of the log in the order of the fields of `Row`."""

INSERT_LARGE: Final = "INSERT INTO fm.large VALUES ($1, $2)"
INSERT_BLOB: Final = "INSERT OR IGNORE INTO fm.blobs VALUES ($1, $2)"
INSERT_META: Final = "INSERT OR REPLACE INTO fm.meta VALUES ($1, $2)"
