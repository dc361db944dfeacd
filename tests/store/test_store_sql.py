"""Users' SQL in DuckDB's own dialect: its other forms of SELECT, no files, no settings. What all dialects share is in the kit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import SqlRefused, Store
from flowmetal.store.testing import queries

FINE = {
    **queries.FINE,
    "FROM flows SELECT name": [("f",)],
    "SELECT x FROM unnest([1, 2]) AS t(x) -- a comment": [(1,), (2,)],
    "SELECT count(*) FROM range(3) r, main.flows": [(3,)],
    "SELECT (SELECT max(seq) FROM events) m": [(2,)],
    "FROM (SELECT kind, seq FROM events) PIVOT (count(*) FOR seq IN (1, 2))": None,
    "DESCRIBE flows": None,
    "SUMMARIZE events": None,
    "SHOW TABLES": None,
    "SELECT table_name FROM information_schema.tables WHERE table_name = 'flows'": [("flows",)],
}
REFUSED = [
    *queries.REFUSED,
    "COPY flows TO '{tmp}/x.csv'",
    "COPY (SELECT 1) TO '{tmp}/x.csv'",
    "EXPORT DATABASE '{tmp}/x'",
    "ATTACH '{tmp}/x.duckdb'",
    "INSTALL httpfs",
    "PRAGMA version",
    "RESET threads",
    "USE fm",
    "CALL duckdb_tables()",
    "PIVOT flows ON name USING count(*)",
    "SELECT * FROM read_csv('{tmp}/in.csv')",
    "SELECT * FROM read_text('{tmp}/in.csv')",
    "SELECT * FROM read_blob('{tmp}/in.csv')",
    "SELECT * FROM read_parquet('{tmp}/in.csv')",
    "SELECT * FROM read_json('{tmp}/in.csv')",
    "SELECT * FROM glob('{tmp}/*')",
    "SELECT * FROM '{tmp}/in.csv'",
    "SELECT * FROM (SELECT * FROM (SELECT content FROM read_text('{tmp}/in.csv')))",
    "SELECT (SELECT content FROM read_text('{tmp}/in.csv'))",
    "SELECT 1 WHERE EXISTS (FROM read_text('{tmp}/in.csv'))",
    "SELECT * FROM memory.fm.log",
    "DESCRIBE fm.log",
    "SUMMARIZE fm.log",
    "SELECT * FROM (SUMMARIZE fm.log)",
    "SELECT * FROM query('SELECT * FROM fm.log')",
    "SELECT * FROM query_table('fm.log')",
    "SELECT * FROM pragma_storage_info('fm.log')",
    "FROM duckdb_secrets()",
    "SELECT * FROM python_value",
]


@pytest.fixture(scope="module", params=["memory", "duckdb"])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with one flow of two rows; tests only read it."""
    store: Store = MemoryStore() if request.param == "memory" else DuckDBStore(tmp_path_factory.mktemp("sql") / "store.duckdb")
    queries.one_flow(store)
    yield store
    store.close()


@pytest.mark.parametrize("sql", FINE)
def test_selects(full: Store, sql: str) -> None:
    expected = FINE[sql]
    rows = full.query(sql).rows
    assert rows if expected is None else rows == expected


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(full: Store, sql: str, tmp_path: Path) -> None:
    python_value = [("SECRET",)]
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(SqlRefused) as caught:
        full.query(sql.format(tmp=tmp_path))
    assert caught.value.type == "sql/refused"
    assert "SECRET" not in caught.value.render() and "HIDDEN" not in caught.value.render()
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert full.last_seq("a") == 2 and python_value


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT * FROM flowz", 'Did you mean "flows"'),
        ("SELECT nam FROM flows", '"nam" not found'),
        ("SELECT 1 / 'x'", "Could not convert"),
        ("SELECT $1", "parameter"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("DROP VIEW flows", "only a SELECT is allowed here, not DROP"),
        ("SELECT * FROM fm.log", "there is no table fm.log"),
    ],
)
def test_messages(full: Store, sql: str, says: str) -> None:
    with pytest.raises(SqlRefused) as caught:
        full.query(sql)
    assert says in caught.value.message and "Traceback" not in caught.value.render()
