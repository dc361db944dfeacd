"""PostgreSQL: set-up, restarts of the server, lost answers, two interpreters, what is wrong with a database."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from lossy_link import LossyLink
from postgres_server import Server

from flowmetal.store import postgres_session
from flowmetal.store.postgres_commit import begin
from flowmetal.store.postgres_pool import Pool
from flowmetal.store.postgres_schema import LEASE_SECONDS
from flowmetal.store.postgres_session import hosts, token
from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.protocol import Commit, CommitResult, Row, Snapshot, StoreConflict, StoreError
from flowmetal.store.sharing import SHARES
from flowmetal.store.testing import commit, row, started


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    """A database with an empty store."""
    made = postgres.store()
    yield made
    postgres.give_back(made)


def numbers(store: PostgresStore, flow_id: str) -> list[int]:
    return [json.loads(r.data) for r in store.rows(flow_id)]


def test_reopening(url: str) -> None:
    store = PostgresStore(url)
    store_id = store.get_meta("store_id")
    commit(store, started("a"), row("a", "effect-requested", {"op": "x"}, step=1, key="k"), snapshots=[Snapshot("a", 2, 1, "1", b"x")])
    commit(store, Row("a", "log", '"' + "x" * 100_000 + '"', 0))
    before = store.rows("a")
    store.close()
    store = PostgresStore(url)
    assert store.get_meta("store_id") == store_id
    assert store.rows("a") == before and store.last_pos() == 3
    assert store.snapshot("a") == Snapshot("a", 2, 1, "1", b"x")
    assert isinstance(store.commit_group([Commit([started("a")], {"a": 0})])[0], StoreConflict)
    assert commit(store, row("a", "log"), expect={"a": 3})[0].pos == 4
    store.close()


def test_large_values_stand_once(url: str, postgres: Server) -> None:
    store = PostgresStore(url)
    big = '"' + "x" * 100_000 + '"'
    for i in range(5):
        commit(store, Row(f"f{i}", "log", big, 0, exact=big))
    database = url.partition("@/")[2].partition("?")[0]
    counted = postgres.sql("SELECT (SELECT count(*) FROM fm.documents), (SELECT count(*) FROM fm.blobs)", database=database)
    assert counted == [(1, 1)]
    commit(store, row("$removed", "flow-deleted"), remove={f"f{i}": 1 for i in range(5)})
    assert postgres.sql("SELECT (SELECT count(*) FROM fm.documents), (SELECT count(*) FROM fm.blobs)", database=database) == [(0, 0)]
    store.close()


def test_raw_surrogates_and_rubbish_are_kept(url: str) -> None:
    store = PostgresStore(url)
    for data in ('"\ud800"', '{"\udfff": "\\ud800"}', "\0", "", "{NaN", "\x1a\ud800", '"\\u001a"', '["\\\\u0000", "\\u0000"]'):
        written = Row("a", "log", data, 0, exact="\0\ud800" + data, key="\ud800" + data)
        commit(store, written)
        assert store.rows("a")[-1] == written == store.find("log", "\ud800" + data)
    assert len(store.query("SELECT * FROM events").plain()) == 8
    store.close()


def test_any_number_may_set_up_at_once(postgres: Server) -> None:
    """Those who come at the same time find one store, and share it."""
    url = postgres.new()
    with ThreadPoolExecutor(6) as threads:
        stores = list(threads.map(lambda _: PostgresStore(url), range(6)))
        list(threads.map(lambda store: commit(store, started(store._session.id)), stores))
    mine = [store.balance().mine for store in stores]
    assert len(frozenset().union(*mine)) == sum(map(len, mine)) == SHARES and max(map(len, mine)) == 11
    for store in stores:
        store.close()
    again = PostgresStore(url)
    assert len(again.open_flows()) == 6 and len(again.balance().mine) == SHARES
    again.close()


def refused(url: str, says: str, type_: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        PostgresStore(url)
    error = caught.value
    assert says in error.message and "\n" not in error.message, error.message
    assert error.type == type_ and error.hint
    return error


def test_a_newer_format(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("UPDATE fm.meta SET value = '99' WHERE key = 'format'")
        refused(url, "its format is 99", "store/format")
        raw.execute("UPDATE fm.meta SET value = '1' WHERE key = 'format'")


def test_somebody_elses_tables_are_left_alone(postgres: Server) -> None:
    url = postgres.new()
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("CREATE TABLE events (precious integer)")
    error = refused(url, "the schema public has something of its own called events", "store/path")
    assert error.hint is not None and "search_path" in error.hint
    with psycopg.connect(url, autocommit=True) as raw:
        assert raw.execute("SELECT to_regclass('fm.meta')").fetchone() == (None,)
        raw.execute("CREATE SCHEMA mine")
    store = PostgresStore(url + "&options=-csearch_path%3Dmine")
    commit(store, started("a"))
    assert store.query("SELECT flow_id FROM flows").rows == [("a",)]
    assert store.flow_row("a") is not None
    store.close()


def test_what_cannot_be_reached_is_said_without_the_password(postgres: Server) -> None:
    for url in (
        f"postgresql://me:hunter2@/nowhere?host={postgres.folder}",
        f"postgresql://me@/nowhere?host={postgres.folder}&password=hunter2",
        "postgresql://me:hunter2@127.0.0.1:1/x?connect_timeout=2",
        "postgresql://me:hunter2@127.0.0.1:nonsense/x",
        "postgresql://me:hunter2@h/x?rubbish=1",
    ):
        with pytest.raises(StoreError) as caught:
            PostgresStore(url)
        assert "hunter2" not in caught.value.render() and caught.value.hint
        assert caught.value.__cause__ is None


def test_another_encoding(postgres: Server) -> None:
    postgres.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    refused(postgres.url("latin"), "has the encoding LATIN1", "store/path")


def test_a_database_that_sorts_as_a_language_does(postgres: Server) -> None:
    postgres.sql("CREATE DATABASE sorted TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'")
    store = PostgresStore(postgres.url("sorted"))
    for flow_id in ("a-b", "aB", "ab", "aC", "b"):
        commit(store, started(flow_id, parent="ab"))
    assert store.find_flows("a", 9) == ["a-b", "aB", "aC", "ab"]
    assert store.find_flows("a", 2) == ["a-b", "aB"]
    sql = """WITH RECURSIVE family(id) AS (SELECT unnest($1::text[]) UNION SELECT f.flow_id FROM family JOIN flows f ON f.parent_id = family.id)
        SELECT count(*) FROM family JOIN events e ON e.flow_id = family.id AND e.data->>'parent' <> e.kind"""
    assert store.query(sql, [["ab"]]).rows == [(5,)]
    store.close()


def test_any_number_of_interpreters_have_the_store(url: str) -> None:
    assert hosts(url) == (False, [])
    first = PostgresStore(url)
    first.announce("here")
    second = PostgresStore(url)
    second.announce("there")
    assert hosts(url) == (True, [("there", True), ("here", True)])
    first.close()
    assert hosts(url) == (True, [("there", True)])
    second.close()
    assert hosts(url) == (False, [])


def test_who_is_gone_without_a_word_is_dead_soon_unless_it_comes_back(url: str, postgres: Server) -> None:
    store = PostgresStore(url)
    store.announce("here")
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flowmetal'")
    assert hosts(url) == (True, [("here", True)]), "it may be on its way"
    said(url, 3)
    while hosts(url)[0]:
        pass
    assert hosts(url) == (False, [("here", False)])
    assert store.rows("a") == []
    assert hosts(url) == (True, [("here", True)])
    store.close()


def said(url: str, seconds: int) -> None:
    """The last sign of life of every interpreter was so long ago."""
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("UPDATE fm.interpreters SET until = now() + make_interval(secs => %s)", (LEASE_SECONDS - seconds,))


def test_the_first_token_stays(url: str) -> None:
    assert token(url, "one") == "one" == token(url, "two")
    store = PostgresStore(url)
    assert store.get_meta("token") == "one"
    store.close()


@pytest.mark.parametrize("seconds", [3, 11])
def test_who_was_taken_for_dead_writes_nothing_more(url: str, postgres: Server, seconds: int) -> None:
    """One without a connection after a moment, one that hangs after its whole lease: it comes back, and finds that others have its flows."""
    told: list[bool] = []
    first = PostgresStore(url, on_taken=lambda: told.append(True))
    commit(first, started("a"))
    assert first.balance().mine == frozenset(range(SHARES))
    second = PostgresStore(url)
    assert second.balance().mine == frozenset() and second.balance().fair == SHARES // 2
    if seconds < LEASE_SECONDS:
        first._session.connection.close()
    said(url, seconds)
    standing = second.balance()
    while standing.members > 1:  # the server has yet to notice that the connection is gone
        said(url, seconds)
        standing = second.balance()
    assert standing.mine == standing.lost == frozenset(range(SHARES))
    for _ in range(2):
        (outcome,) = first.commit_group([Commit([row("a", "log")], {"a": 1})])
        assert isinstance(outcome, StoreError) and outcome.type == "store/locked" and "taken over" in outcome.message
    with pytest.raises(StoreError, match="taken over"):
        first.balance()
    assert told
    assert second.last_seq("a") == 1
    commit(second, row("a", "log"), expect={"a": 1})
    first.close()
    assert second.balance().mine == standing.mine, "who was taken for dead takes nothing along"
    second.close()


@pytest.mark.parametrize("sign", ["commit", "balance"])
def test_a_sign_of_life_extends_the_lease(url: str, sign: str) -> None:
    """Even one that has run out, as long as nobody has noticed."""
    store = PostgresStore(url)
    said(url, 11)
    if sign == "commit":
        commit(store, started("a"))
    else:
        store.balance()
    assert hosts(url)[0]
    store.close()


def test_who_is_in_the_middle_of_a_commit_is_not_taken_for_dead(url: str) -> None:
    first, second = PostgresStore(url), PostgresStore(url)
    first.balance()
    said(url, 11)
    connection = first._session.connection
    connection.execute("BEGIN")
    begin(first._session)
    assert second.balance().members == 2
    connection.execute("COMMIT")
    commit(first, started("a"))
    first.close()
    assert second.balance().mine == frozenset(range(SHARES))
    second.close()


def test_what_others_write_is_news_and_nothing_else_is(url: str) -> None:
    first, second = PostgresStore(url), PostgresStore(url)
    commit(first, started("a"))
    commit(second, started("b"), started("c"))
    commit(first, row("a", "log"), expect={"a": 1})
    commit(second, row("b", "log"), expect={"b": 1})
    assert [(news.flow_id, news.seq) for news in first.news(2)] == [("b", 1), ("c", 1)]
    assert [(news.flow_id, news.seq) for news in first.news(2)] == [("b", 2)]
    assert first.news(2) == []
    assert [(news.flow_id, news.seq) for news in second.news(9)] == [("a", 1), ("a", 2)]
    third = PostgresStore(url)
    assert third.news(9) == [], "what was there is no news"
    for store in (first, second, third):
        store.close()


@pytest.fixture
def link(postgres: Server) -> Iterator[LossyLink]:
    """A way to the server that loses answers, at port 5499."""
    with LossyLink(postgres.folder / ".s.PGSQL.5432", postgres.folder / ".s.PGSQL.5499") as made:
        yield made


@pytest.mark.parametrize("removes", [False, True])
def test_a_commit_whose_answer_was_lost_is_there_once(url: str, link: LossyLink, removes: bool) -> None:
    store = PostgresStore(f"{url}&port=5499")
    commit(store, started("a"), started("b"))
    with psycopg.connect(url, autocommit=True) as watching:

        def committed() -> bool:
            return watching.execute("SELECT count(*) FROM fm.log WHERE kind = 'flow-deleted'").fetchone() == (1,)

        link.lose_the_answer(committed)
        rows = commit(store, row("$removed", "flow-deleted"), row("a", "log", 7, key="k"), expect={"a": 1}, remove={"b": 1} if removes else {})
    assert link.lost == 1
    assert [(r.flow_id, r.seq, r.pos) for r in rows] == [("$removed", 1, 3), ("a", 2, 4)]
    assert [r.data for r in store.rows("a", 1)] == ["7"] and store.last_pos() == 4
    assert commit(store, row("a", "log", 8), expect={"a": 2})[0].pos == 5
    assert store.query("SELECT count(*) FROM events").rows == [(4 if removes else 5,)]
    store.close()


def test_a_question_that_was_lost_is_asked_again(url: str, link: LossyLink) -> None:
    store = PostgresStore(f"{url}&port=5499")
    commit(store, started("a"))
    link.lose_the_answer(lambda: True)
    assert commit(store, row("a", "log", 1), expect={"a": 1})[0].pos == 2
    link.lose_the_answer(lambda: True)
    assert len(store.rows("a")) == 2
    assert store.query("SELECT 1").rows == [(1,)]
    link.lose_the_answer(lambda: True)
    assert store.query("SELECT count(*) FROM events").rows == [(2,)]
    assert link.lost == 3
    store.close()


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_restart_of_the_server_neither_loses_nor_repeats_a_commit(url: str, postgres: Server, mode: str) -> None:
    """Thrice in the middle of commits, as a crash or in order: each commit is acknowledged, and is there once, in order."""
    store = PostgresStore(url)
    stop = threading.Event()
    asked: list[int] = []
    failures: list[object] = []

    def write() -> None:
        while not stop.is_set():
            n = len(asked)
            outcomes = store.commit_group([Commit([row(f"f{k}", "log", n)], {f"f{k}": n}) for k in range(3)])
            failures.extend(outcome for outcome in outcomes if not isinstance(outcome, CommitResult))
            asked.append(n)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        _wait_for(asked, len(asked) + 20)
        postgres.stop(mode)
        postgres.start()
    _wait_for(asked, len(asked) + 20)
    stop.set()
    writer.join()
    assert not failures
    for k in range(3):
        assert numbers(store, f"f{k}") == asked
    assert store.query("SELECT pos FROM events ORDER BY pos").rows == [(n,) for n in range(1, 3 * len(asked) + 1)]
    store.close()


def _wait_for(asked: list[int], count: int) -> None:
    until = time.monotonic() + 30
    while len(asked) < count:
        assert time.monotonic() < until, f"{len(asked)} commits of {count}"
        time.sleep(0.002)


def test_a_server_that_stays_away_fails_what_is_asked_and_is_used_again_when_it_is_back(url: str, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PostgresStore(url)
    commit(store, started("a"))
    monkeypatch.setattr(postgres_session, "COME_BACK_SECONDS", 0.3)
    postgres.stop()
    try:
        (outcome,) = store.commit_group([Commit([row("a", "log")], {"a": 1})])
        assert isinstance(outcome, StoreError) and outcome.type == "store/unreachable"
        for ask in (lambda: store.rows("a"), lambda: store.query("SELECT 1"), lambda: store.set_meta("a", "b")):
            with pytest.raises(StoreError):
                ask()
    finally:
        postgres.start()
    assert store.query("SELECT count(*) FROM events").rows == [(1,)]
    assert commit(store, row("a", "log"), expect={"a": 1})[0].pos == 2
    store.close()


def test_a_long_answer_is_planned_to_be_read_whole(url: str) -> None:
    """PostgreSQL plans a cursor for its first tenth, which takes ten times as long for all open requests of a large store."""
    pool = Pool(url)
    assert list(pool.stream("SELECT current_setting('cursor_tuple_fraction')", ())) == [("1",)]
    pool.close()
