"""Users' SQL on PostgreSQL: its own dialect, its own dangers, and the role that may read the views and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal

import psycopg
import pytest
from postgres_server import Server

from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.postgres_tokens import checked
from flowmetal.store.protocol import SqlRefused
from flowmetal.store.testing import commit, row, started

FINE = {
    "TABLE timers": [],
    "SELECT data #>> '{op}' FROM events WHERE seq = 2": [("callback",)],
    "SELECT 'it''s fm.log; DROP', $$pg_sleep(1);$$, $x$ ? $1 $x$, E'\\';'": [("it's fm.log; DROP", "pg_sleep(1);", " ? $1 ", "';")],
    'SELECT 1 AS "fm.log" /* a /* nested */ fm.log; */': [(1,)],
    "SELECT count(*) FROM generate_series(1, 3)": [(3,)],
    "SELECT table_name FROM information_schema.views WHERE table_name = 'flows'": [("flows",)],
    "SELECT DISTINCT ON (flow_id) flow_id, seq FROM events ORDER BY flow_id, seq DESC": [("a", 2)],
    "SELECT jsonb_path_query(data::jsonb, '$.op') #>> '{}' FROM events WHERE seq = 2": [("callback",)],
    "SELECT flow_id FROM public.flows": [("a",)],
    "SELECT id.status FROM (SELECT status FROM flows) AS id": [("running",)],
}
REFUSED = [
    "SELECT pg_sleep(1)",
    'SELECT "pg_sleep"(1)',
    "SELECT pg_catalog.pg_sleep(1)",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT * FROM pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_creat(-1)",
    "SELECT set_config('role', 'postgres', true)",
    "SELECT current_setting('data_directory')",
    "SELECT query_to_xml('SELECT * FROM fm.log', true, false, '')",
    "SELECT table_to_xml('fm.log', true, false, '')",
    "SELECT U&\"\\0070g_sleep\"(1)",
    "SELECT * FROM ts_stat('SELECT key FROM fm.log')",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_authid",
    "SELECT * FROM \"fm\" . \"log\"",
    "SELECT * FROM fm/**/./**/meta",
    "SELECT (fm.log).key FROM fm.log",
    "SELECT * INTO t FROM flows",
    "SELECT * FROM flows FOR UPDATE",
    "SELECT nextval('x')",
    "SELECT dblink('', '')",
    "DO $$ BEGIN END $$",
    "LISTEN flowmetal",
    "SHOW ALL",
    "SELECT 'a' || \0",
    "SELECT 'unterminated",
    "SELECT $x$unterminated",
    "SELECT /* unterminated",
    "SELECT '9999999'::int2",
    "SELECT 'infinity'::timestamptz",
]  # fmt: skip
MESSAGES = [
    ("SELEC 1", 'syntax error at or near "SELEC"'),
    ("SELECT * FROM flowz", 'relation "flowz" does not exist\nLINE 1: SELECT * FROM flowz\n                      ^'),
    ("SELECT\n  nam\nFROM flows", 'column "nam" does not exist\nPerhaps you meant to reference the column "flows.name".\nLINE 2:   nam\n          ^'),
    ("WITH x AS (DELETE FROM flows RETURNING 1) SELECT * FROM x", "only a SELECT is allowed here, not one that writes"),
    ("SELECT * FROM flows FOR UPDATE", "only a SELECT is allowed here, not FOR UPDATE"),
    ("SELECT 1; SELECT 2", "2 statements"),
    ("DROP VIEW flows", "only a SELECT is allowed here, not DROP"),
    ("SELECT * FROM fm.log", "there is no table fm.log"),
    ("SELECT pg_sleep(1)", "pg_sleep is not allowed here"),
    ("SELECT $1", "parameter"),
]


def fill(store: PostgresStore) -> None:
    commit(store, started("a"), row("a", "effect-requested", {"op": "callback"}, step=1, key="SECRET", exact="HIDDEN"))


@pytest.fixture(scope="module")
def full(postgres: Server) -> Iterator[PostgresStore]:
    """A store with one flow of two rows; tests only read it."""
    url = postgres.store()
    store = PostgresStore(url)
    fill(store)
    yield store
    store.close()
    postgres.give_back(url)


@pytest.mark.parametrize("sql", FINE)
def test_selects(full: PostgresStore, sql: str) -> None:
    assert full.query(sql).rows == FINE[sql]


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(full: PostgresStore, sql: str) -> None:
    with pytest.raises(SqlRefused) as caught:
        full.query(sql)
    assert "SECRET" not in caught.value.render() and "fm_answer" not in caught.value.render()
    assert full.query("SELECT count(*) FROM flows").rows == [(1,)]


@pytest.mark.parametrize(("sql", "says"), MESSAGES)
def test_messages(full: PostgresStore, sql: str, says: str) -> None:
    with pytest.raises(SqlRefused) as caught:
        full.query(sql)
    assert says in caught.value.message


def test_types_are_named_as_duckdb_names_them(full: PostgresStore) -> None:
    sql = "SELECT true, 1::int2, 1, 1::int8, 1.5::float4, 1.5::float8, 1.50::numeric(5,2), 'x', 'x'::text, '\\xff'::bytea, '{}'::json, '[]'::jsonb, "
    sql += "DATE '2026-01-31', TIMESTAMPTZ '2026-01-31 09:30Z', INTERVAL '90 s', ARRAY[1, 2], sum(seq), avg(seq), 1.5 FROM events"
    result = full.query(sql)
    assert result.types == [
        "BOOLEAN", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL(5,2)", "VARCHAR", "VARCHAR", "BLOB", "JSON", "JSON",
        "DATE", "TIMESTAMP WITH TIME ZONE", "INTERVAL", "INTEGER[]", "HUGEINT", "DOUBLE", "DOUBLE",
    ]  # fmt: skip
    row = result.rows[0]
    assert (row[6], row[9], row[10], row[12], row[14], row[15], *row[16:]) == (
        Decimal("1.50"),
        b"\xff",
        "{}",
        date(2026, 1, 31),
        timedelta(seconds=90),
        [1, 2],
        3,
        1.5,
        1.5,
    )
    assert [type(value) for value in row[16:]] == [int, float, float]


def test_parameters_of_every_kind(full: PostgresStore) -> None:
    assert full.query("SELECT ?::json->>'a', ?, ?", [{"a": "b"}, 2.5, None]).rows == [("b", 2.5, None)]
    assert full.query("SELECT count(*) FROM events WHERE kind = ANY($1)", [["flow-started", "log"]]).rows == [(1,)]
    with pytest.raises(SqlRefused, match=r"no value for the parameter \$b"):
        full.query("SELECT $a, $b", {"a": 1})
    with pytest.raises(SqlRefused, match="with a name"):
        full.query("SELECT $a", [1])


def test_words_are_cut_as_postgresql_cuts_them() -> None:
    sql = "SELECT a->>'$.b.c', a -> '$.d', '?', \"?\", $$?$$ -- ?\n, ? /* ? */ FROM x WHERE y = ?;"
    text, values = checked(sql, [1, "\0"])
    assert text == "SELECT a#>>'{b,c}', a #> '{d}', '?', \"?\", $$?$$ -- ?\n, $1   FROM x WHERE y = $2"
    assert values == [1, "\x1a0000"]


def test_paths_into_json_are_those_of_duckdb(full: PostgresStore) -> None:
    document = """'{"a": {"b c": [1, {"d": "x"}]}, "$": 2}'::json"""
    sql = f"""SELECT {document}->>'$.a."b c"[1].d', {document}->>'$.a."b c"[0]', {document}->'$.a'->>'b c', {document}->>'$', {document}->>'nothing'"""
    assert full.query(sql).rows == [("x", "1", '[1, {"d": "x"}]', '{"a": {"b c": [1, {"d": "x"}]}, "$": 2}', None)]
    with pytest.raises(SqlRefused, match="is not understood"):
        full.query("SELECT data->>'$.a[*]' FROM events")


def own(postgres: Server, name: str) -> str:
    """A database that belongs to a login without further rights."""
    postgres.sql(f"CREATE ROLE {name} LOGIN", f"CREATE DATABASE {name} OWNER {name}")
    return postgres.url(name, name)


def test_a_login_without_rights_has_a_store_and_its_readers_are_given_their_role_later(postgres: Server) -> None:
    store = PostgresStore(own(postgres, "plain"))
    fill(store)
    assert store.query("SELECT flow_id, current_user FROM flows").rows == [("a", "plain")]
    for sql in REFUSED:
        with pytest.raises(SqlRefused):
            store.query(sql)
    store.close()
    postgres.sql("GRANT flowmetal_reader TO plain")
    store = PostgresStore(postgres.url("plain", "plain"))
    assert store.query("SELECT flow_id, current_user FROM flows").rows == [("a", "flowmetal_reader")]
    store.close()


def test_the_role_of_readers_reads_the_views_and_nothing_else(postgres: Server) -> None:
    """The database itself refuses, whatever our own check of the words would have let through."""
    store = PostgresStore(own(postgres, "owner"))
    fill(store)
    postgres.sql("CREATE ROLE analyst LOGIN IN ROLE flowmetal_reader")
    with psycopg.connect(postgres.url("owner", "analyst"), autocommit=True) as reader:
        for view in ("flows", "events", "effects", "messages", "timers", "definitions", "schedules", "sources"):
            reader.execute(f"SELECT * FROM {view}")  # type: ignore[arg-type]
        for sql in ("SELECT * FROM fm.log", "SELECT * FROM fm.entries", "SELECT value FROM fm.meta", "SELECT * FROM fm.interpreters",
                    "INSERT INTO flows VALUES ('x')", "DROP VIEW flows", "CREATE TABLE t (x int)", "UPDATE fm.head SET pos = 0",
                    "SELECT pg_read_file('PG_VERSION')"):  # fmt: skip
            with pytest.raises(psycopg.Error, match=r"permission denied|must be owner|cannot insert"):
                reader.execute(sql)  # type: ignore[arg-type]
    store.close()


def test_our_own_role_is_not_got_back(postgres: Server, full: PostgresStore) -> None:
    assert full.query("SELECT current_user, session_user").rows == [("flowmetal_reader", "postgres")]
    for sql in ("SELECT set_config('role', 'none', false)", "RESET ROLE", "SET ROLE postgres"):
        with pytest.raises(SqlRefused):
            full.query(sql)
    assert full.query("SELECT current_user").rows == [("flowmetal_reader",)]
