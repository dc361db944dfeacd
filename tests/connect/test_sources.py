"""Tables of other databases as sources of events: each row once, whatever happens to the database or to the interpreter."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import pytest
from lives import HandClock, life, play, settle
from postgres_server import Server
from stores import Stores

from flowmetal.connect.deferred import connectors
from flowmetal.connect.secrets import secrets_of
from flowmetal.connect.sql_source import named
from flowmetal.runtime import sources
from flowmetal.runtime.engine import Engine

ORDERS = "SELECT * FROM orders WHERE id > :cursor"


def lite(path: Path, *statements: str) -> str:
    """Runs statements on an SQLite file; its URL."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return f"sqlite:///{path}"


@pytest.fixture
def shop(tmp_path: Path) -> str:
    return lite(tmp_path / "shop.db", "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")


def outside() -> tuple[Any, ...]:
    return tuple(connectors(secrets_of(None)))


async def run(engine: Engine, source: str) -> Any:
    """The value of a form."""
    answer = await engine.result(await engine.eval(source), 20)
    assert answer is not None
    assert "error" not in answer, answer
    return answer["result"]


async def declare(engine: Engine, url: str, sql: str = ORDERS, options: str = "") -> None:
    await run(engine, f'(defsource orders {{:url "{url}" :sql "{sql}" :every #dur "10s" {options}}})')
    await settle(engine)


async def published(engine: Engine, topic: str = "orders") -> list[Any]:
    """What is in a topic, in order."""
    found = await engine.sql("SELECT data->'$.message' AS m FROM events WHERE flow_id = ? AND kind = 'published' ORDER BY seq", [f"$topic/{topic}"])
    return [row["m"] for row in found.plain()]


async def row_of(engine: Engine) -> dict[str, Any]:
    (row,) = (await engine.sql("SELECT * FROM sources")).plain()
    return dict(row)


def test_rows_become_events_once_each_in_the_order_of_the_cursor_over_restarts(stores: Stores, shop: str, tmp_path: Path) -> None:
    store, clock, path = stores.quick(), HandClock(), tmp_path / "shop.db"

    async def scene() -> None:
        lite(path, "INSERT INTO orders VALUES (2, 'b'), (1, 'a')")
        async with life(store, clock, outside()) as engine:
            await declare(engine, shop)
            assert await published(engine) == [{"id": 1, "item": "a"}, {"id": 2, "item": "b"}]
            lite(path, "INSERT INTO orders VALUES (3, 'c')")
            await settle(engine, 9)
            assert len(await published(engine)) == 2, "it is not read before :every is over"
            await settle(engine, 1)
            assert len(await published(engine)) == 3
        lite(path, "INSERT INTO orders VALUES (4, 'd')")
        async with life(store, clock, outside()) as engine:
            await settle(engine)
            assert [event["id"] for event in await published(engine)] == [1, 2, 3, 4]
            row = await row_of(engine)
            assert (row["cursor"], row["published"], row["error"]) == (4, 4, None)

    play(scene)


def test_more_rows_than_a_page_and_ties_at_its_end_are_all_read(stores: Stores, tmp_path: Path) -> None:
    url = lite(tmp_path / "t.db", "CREATE TABLE t (id INTEGER, at INTEGER)")
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, n // 7) for n in range(3 * sources.PAGE)])
        connection.commit()

    async def scene() -> None:
        async with life(stores.quick(), HandClock(), outside()) as engine:
            await declare(engine, url, "SELECT id, at FROM t WHERE at > :cursor", ":from -1")
            assert sorted(event["id"] for event in await published(engine)) == list(range(3 * sources.PAGE))

    play(scene)


def test_a_row_that_appears_late_is_found_within_lag_and_no_row_comes_twice(stores: Stores, shop: str, tmp_path: Path) -> None:
    store, clock, path = stores.quick(), HandClock(), tmp_path / "shop.db"

    async def scene() -> None:
        lite(path, "INSERT INTO orders VALUES (1, 'a'), (5, 'e')")
        async with life(store, clock, outside()) as engine:
            await declare(engine, shop, options=':lag #dur "30s" :key :id')
            await settle(engine, 10)
        lite(path, "INSERT INTO orders VALUES (3, 'late')")
        clock.move(3600)  # nobody was there: time alone makes nothing safe
        async with life(store, clock, outside()) as engine:
            await settle(engine)
            assert [event["id"] for event in await published(engine)] == [1, 5, 3]
            await settle(engine, 10)
            lite(path, "INSERT INTO orders VALUES (2, 'too late')")
            await settle(engine, 10)
            assert [event["id"] for event in await published(engine)] == [1, 5, 3], "what comes after :lag is not looked for"

    play(scene)


def test_without_lag_a_late_row_is_missed_which_is_why_there_is_lag(stores: Stores, shop: str, tmp_path: Path) -> None:
    async def scene() -> None:
        lite(tmp_path / "shop.db", "INSERT INTO orders VALUES (5, 'e')")
        async with life(stores.quick(), HandClock(), outside()) as engine:
            await declare(engine, shop)
            lite(tmp_path / "shop.db", "INSERT INTO orders VALUES (3, 'late')")
            await settle(engine, 10)
            assert [event["id"] for event in await published(engine)] == [5]

    play(scene)


def test_rows_of_one_key_are_one_event(stores: Stores, shop: str, tmp_path: Path) -> None:
    async def scene() -> None:
        lite(tmp_path / "shop.db", "INSERT INTO orders VALUES (1, 'tea'), (2, 'tea'), (3, 'milk')")
        async with life(stores.quick(), HandClock(), outside()) as engine:
            await declare(engine, shop, options=":key :item")
            assert [event["id"] for event in await published(engine)] == [1, 3]

    play(scene)


def test_an_outbox_is_emptied_after_its_rows_are_on_disk(stores: Stores, tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    url = lite(path, "CREATE TABLE outbox (id TEXT, body TEXT)", "INSERT INTO outbox VALUES ('x', ':id % 1'), ('y', 'two')")

    async def scene() -> None:
        async with life(stores.quick(), HandClock(), outside()) as engine:
            await declare(engine, url, "SELECT * FROM outbox", ':done "DELETE FROM outbox WHERE id = :id" :topic :mail')
            assert await published(engine, "mail") == [{"id": "x", "body": ":id % 1"}, {"id": "y", "body": "two"}]
            lite(path, "INSERT INTO outbox VALUES ('x', ':id % 1')")
            await settle(engine, 10)
            assert len(await published(engine, "mail")) == 2, "the same row again is the same event"

    play(scene)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def test_a_database_that_fails_is_shown_and_tried_again_ever_more_rarely_and_nothing_is_lost(stores: Stores, shop: str, tmp_path: Path) -> None:
    path, away = tmp_path / "shop.db", tmp_path / "away.db"

    async def scene() -> None:
        async with life(stores.quick(), HandClock(), outside()) as engine:
            await declare(engine, shop)
            path.rename(away)
            await settle(engine, 10)
            assert "unable to open" in (await row_of(engine))["error"]["message"]
            await settle(engine, 19)
            lite(away, "INSERT INTO orders VALUES (1, 'a')")
            away.rename(path)
            assert await published(engine) == [], "twice :every has not passed since the failure"
            await settle(engine, 1)
            assert await published(engine) == [{"id": 1, "item": "a"}]
            assert (await row_of(engine))["error"] is None
            said = await engine.sql("SELECT count(*) FROM events WHERE kind = 'source-read' AND (data->'$.error') IS NOT NULL")
            assert said.rows == [(1,)], "one row says what is wrong, however often it was tried"

    play(scene)


def test_the_url_may_hold_a_secret_which_is_in_no_row(stores: Stores, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMETAL_SECRET_SHOP", str(tmp_path / "shop.db"))
    lite(tmp_path / "shop.db", "INSERT INTO orders VALUES (1, 'a')")

    async def scene() -> None:
        async with life(stores.quick(), HandClock(), outside()) as engine:
            await run(engine, f'(defsource orders {{:url (str "sqlite:///" (secret "SHOP")) :sql "{ORDERS}"}})')
            await settle(engine)
            assert len(await published(engine)) == 1
            assert (await row_of(engine))["url"] == "sqlite:///#secret[SHOP]"
            log = (await engine.sql("SELECT string_agg(data::VARCHAR, '') FROM events")).rows[0][0]
            assert str(tmp_path) not in log

    play(scene)


def test_declared_anew_a_source_keeps_its_cursor_and_with_nil_it_ends(stores: Stores, shop: str, tmp_path: Path) -> None:
    async def scene() -> None:
        lite(tmp_path / "shop.db", "INSERT INTO orders VALUES (1, 'a')")
        async with life(stores.quick(), HandClock(), outside()) as engine:
            await declare(engine, shop)
            await declare(engine, shop)
            await declare(engine, shop, "SELECT id, item, 'new' AS v FROM orders WHERE id > :cursor")
            lite(tmp_path / "shop.db", "INSERT INTO orders VALUES (2, 'b')")
            await settle(engine, 10)
            assert await published(engine) == [{"id": 1, "item": "a"}, {"id": 2, "item": "b", "v": "new"}]
            await run(engine, "(defsource orders nil)")
            lite(tmp_path / "shop.db", "INSERT INTO orders VALUES (3, 'c')")
            await settle(engine, 60)
            assert len(await published(engine)) == 2
            assert (await engine.sql("SELECT name FROM sources")).rows == []
            declared = await engine.sql("SELECT count(*) FROM events WHERE kind = 'source-declared'")
            assert declared.rows == [(3,)], "the same again is no declaration"

    play(scene)


def test_times_are_cursors_in_duckdb(stores: Stores, tmp_path: Path) -> None:
    path = tmp_path / "d.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t (id INT, seen TIMESTAMP)")
        connection.execute("INSERT INTO t VALUES (1, '2026-01-01 10:00:00'), (2, '2026-01-01 11:00:00.5')")

    async def scene() -> None:
        async with life(stores.quick(), HandClock(), outside()) as engine:
            await declare(engine, f"duckdb:///{path}", "SELECT * FROM t WHERE seen > :cursor", ':from #inst "2026-01-01T10:00:00Z"')
            assert [event["id"] for event in await published(engine)] == [2]
            assert (await row_of(engine))["cursor"] == "2026-01-01T11:00:00.500Z"

    play(scene)


def test_postgresql_is_read_by_a_cursor_and_its_outbox_emptied(stores: Stores, postgres: Server) -> None:
    import psycopg

    url = postgres.new()

    def say(*statements: str) -> None:
        with psycopg.connect(url) as connection:
            for statement in statements:
                connection.execute(statement)

    async def scene() -> None:
        say("CREATE TABLE orders (id bigint, at timestamptz)", "CREATE TABLE outbox (id int, note text)")
        say("INSERT INTO orders VALUES (1, '2026-01-01T10:00:00Z'), (2, '2026-01-01T11:00:00Z')", "INSERT INTO outbox VALUES (7, '100%')")
        async with life(stores.quick(), HandClock(), outside()) as engine:
            await declare(engine, url, "SELECT * FROM orders WHERE at > :cursor AND id::text LIKE '%'", ':from #inst "2026-01-01T10:30:00Z"')
            assert await published(engine) == [{"id": 2, "at": "2026-01-01T11:00:00Z"}]
            done = ':done "DELETE FROM outbox WHERE id = :id AND note LIKE \'%\'" :topic "notes"'
            await run(engine, f'(defsource "notes" {{:url "{url}" :sql "SELECT * FROM outbox" {done}}})')
            await settle(engine)
            assert await published(engine, "notes") == [{"id": 7, "note": "100%"}]
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)

    play(scene)
    postgres.give_back(url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('{:sql "SELECT 1"}', "needs :sql"), ('{:url "sqlite:///x" :sql "SELECT * FROM t WHERE f(:cursor)"}', "by :column"),
        ('{:url "sqlite:///x" :sql "SELECT 1" :column :id}', "id > :cursor"), ('{:url "sqlite:///x" :sql "SELECT 1" :every #dur "1ms"}', "100 ms or more"),
        ('{:url "sqlite:///x" :sql "SELECT 1" :lag 3}', "must be a duration"), ('{:url "sqlite:///x" :sql "SELECT 1" :topic "a b"}', "without spaces"),
        ('{:url "sqlite:///x" :sql "SELECT 1" :how 3}', "does not know the option"), ('{:url "sqlite:///x" :sql "SELECT 1" :done 3}', "must be a statement"),
        ('{:url "sqlite:///x" :sql "SELECT * FROM t WHERE a > :cursor" :column "a; DROP"}', "name of a column"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_the_source_is_declared(stores: Stores, options: str, message: str) -> None:
    async def scene() -> None:
        async with life(stores.quick(), HandClock()) as engine:
            answer = await engine.result(await engine.eval(f"(defsource s {options})"), 20)
            assert answer is not None
            assert message in answer["error"]["message"]

    play(scene)


@pytest.mark.parametrize(
    ("sql", "wants"),
    [
        ("SELECT 1 WHERE a > :cursor", "a"), ("SELECT 1 WHERE t.\"A b\" >= :cursor", '"A b"'), ("SELECT 1 WHERE x < 3 AND t.b>:cursor", "b"),
        ("SELECT 1", None),
    ],
)  # fmt: skip
def test_the_cursors_column_is_the_one_that_is_compared_with_it(sql: str, wants: str | None) -> None:
    from flowmetal.lang.persistent import Map
    from flowmetal.lang.values import kw

    assert sources.column_of(Map.of([(kw("sql"), sql)])) == wants


@pytest.mark.parametrize(
    ("sql", "kind", "wants"),
    [
        ("a > :cursor AND b = ':cursor' -- :cursor", "duckdb", "a > $cursor AND b = ':cursor' -- :cursor"),
        ("a::text > :cursor AND b LIKE '%'", "postgresql", "a::text > %(cursor)s AND b LIKE '%%'"),
        ('":cursor" > :cursor /* :cursor */ AND x[1:2] = :other', "sqlite", '":cursor" > :cursor /* :cursor */ AND x[1:2] = :other'),
        ("a % 2 = 0 AND a > :cursor AND $$:cursor$$ = ''", "postgresql", "a %% 2 = 0 AND a > %(cursor)s AND $$:cursor$$ = ''"),
    ],
)  # fmt: skip
def test_the_cursor_is_put_as_each_database_wants_it(sql: str, kind: str, wants: str) -> None:
    assert named(sql, {"cursor": 1}, kind) == wants
