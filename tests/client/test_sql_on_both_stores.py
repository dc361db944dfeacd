"""The SQL that documents and notebooks show: a file and a database of PostgreSQL with the same log give the same answers, at every door.

One store is filled by running programs, and its log copied to the other row by row; then both have a host. Every example is asked at the
doors for Python and HTTP, some at that of the command line, those of notebooks in a kernel too.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from documents import ROOT, blocks, codes, tables
from jupyter_client.manager import start_new_kernel
from postgres_server import Server
from processes import store_at

import flowmetal
from flowmetal.cli.main import run_command
from flowmetal.client.discovery import connect
from flowmetal.client.host import Host
from flowmetal.client.local import LocalClient
from flowmetal.client.store_url import StoreUrl, resolve
from flowmetal.errors import FlowmetalError
from flowmetal.store import guard, postgres_sql
from flowmetal.store.duckdb_store import DuckDBStore
from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.protocol import Commit, CommitResult
from flowmetal.store.testing import queries
from flowmetal_kernel import magics

pytestmark = pytest.mark.slow

PROGRAM = """
(defforeign charge [n])
(defflow kid [n] (* n 2))
(defflow fulfil [url]
  (http/get url) (try (with-timeout #dur "1ms" (charge 1)) (catch :flow/timeout _ nil)) (kid 3) (set-info! {:got (receive)}) {:ok true :at 1.5})
(defflow breaks [] (throw (ex-info "no luck" {:sku "tea"})))
(defflow waits [] (receive))
(defflow sleeps [] (sleep #dur "1h"))
"""
STREAMS = '(schedule :s #dur "1d" kid 1) (defsource :d {:url "sqlite:///nowhere/none.db" :sql "SELECT 1" :every #dur "1h"})'
SILENT = ("docs/team.md", "#where")
"""Examples that may find nothing: what is amiss, and conditions on flows that are not there."""


def examples() -> dict[str, str]:
    """Every query of the documents that stands as one of its own, by its place."""
    found = {str(block): block.text for block in blocks("sql")}
    for page in ("README.md", "docs/cli.md", "docs/python.md", "docs/http.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for n, match in enumerate(re.finditer(r'(?:flowmetal sql|fm\.sql\(|"sql":) ?"(SELECT [^"]+)"', text)):
            found[f"{page}#{n}"] = match[1]
    for path in (ROOT / "docs").glob("*.md"):
        for n, match in enumerate(re.finditer(r'--where "([^"]+)"', path.read_text(encoding="utf-8"))):
            found[f"{path.name}#where{n}"] = f"SELECT flow_id FROM flows WHERE {match[1]}"
    return found


def cells() -> dict[str, str]:
    """The queries of the notebooks."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for n, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and source.startswith("%%sql"):
                found[f"{path.name}[{n}]"] = re.sub(r"^%%sql( \w+ <<)?\s*", "", source)
    return found


def dialects() -> list[tuple[str, str]]:
    """What DuckDB alone understands, and the same for both."""
    rows = next(table for table in tables("docs/sql.md") if "JSON" in table[0][0])
    return [(codes(alone)[0], codes(both)[0]) for _, alone, both in rows]


@dataclass
class Side:
    """A store and its host."""

    store: StoreUrl
    fm: flowmetal.Flowmetal
    web: httpx.Client

    def python(self, sql: str) -> dict[str, Any]:
        """`fm.sql` of a program that hosts the store."""
        relation = self.fm.sql(sql)
        return {"columns": relation.columns, "types": relation.types, "rows": relation.fetchall()}

    def http(self, sql: str) -> dict[str, Any]:
        """`POST /v1/sql`."""
        answer = self.post(sql)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def post(self, sql: str) -> httpx.Response:
        """The same, whatever comes of it."""
        host = host_of(self.fm)
        return self.web.post(f"{host.url}/v1/sql", json={"sql": sql}, headers={"Authorization": f"Bearer {host.token}"})

    def command(self, *args: str) -> tuple[int, str, str]:
        """`flowmetal sql`: its exit code, and what it prints."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(["sql", *args, "--store", str(self.store.path or self.store.url)])
        assert "Traceback" not in err.getvalue() and "fault in Flowmetal" not in err.getvalue(), err.getvalue()
        return code, out.getvalue(), err.getvalue()

    def lines(self, sql: str) -> dict[str, Any]:
        """`flowmetal sql --format json`."""
        code, out, err = self.command(sql, "--format", "json")
        assert code == 0, err
        rows = [json.loads(line) for line in out.splitlines()]
        return {"columns": list(rows[0]) if rows else None, "rows": [list(row.values()) for row in rows]}


@dataclass
class Pair:
    """The same log twice."""

    file: Side
    database: Side


@pytest.fixture(scope="module")
def pair(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    file = tmp_path_factory.mktemp("both") / "flowmetal.duckdb"
    url = postgres.store()
    fill(file)
    copy(file, url)
    with flowmetal.open(file) as one, flowmetal.open(url) as two, httpx.Client(timeout=30, trust_env=False) as web:
        yield Pair(Side(store_at(file), one, web), Side(resolve(url, environ={}), two, web))
    postgres.give_back(url)


def fill(file: Path) -> None:
    """Flows that have come to every kind of place."""
    with flowmetal.open(file) as fm:
        fm.eval(PROGRAM)
        orders = [fm.start("fulfil", f"{host_of(fm).url}/healthz", id=name) for name in ("order-16", "order-17")]
        orders[1].send({"x": 1})
        assert orders[1].result(timeout=30) == {"ok": True, "at": 1.5}
        for name in ("breaks", "waits", "sleeps"):
            fm.start(name, id=name)
        while fm.sql("SELECT count(*) FROM effects WHERE op = 'receive' AND status = 'requested'").fetchone() != (2,):
            pass
        orders[0].cancel("enough")
        for over in (orders[0], fm.flow("breaks")):
            with pytest.raises(FlowmetalError):
                over.result(timeout=30)
        fm.flow("waits").pause()
        fm.flow("sleeps").send({"y": 2})
        fm.eval(STREAMS)
        while fm.sql("SELECT 1 FROM sources WHERE error IS NOT NULL").fetchone() is None:
            pass  # a host that finds the same wrong again writes nothing


def host_of(fm: flowmetal.Flowmetal) -> Host:
    """The host in this process."""
    client = fm._fm.client
    assert isinstance(client, LocalClient)
    return client._host


def copy(file: Path, url: str) -> None:
    """The log of the file becomes that of the database."""
    source, target = DuckDBStore(file), PostgresStore(url)
    rows = [row for (flow_id,) in source.query("SELECT DISTINCT flow_id FROM events").rows for row in source.rows(flow_id)]
    (outcome,) = target.commit_group([Commit(sorted(rows, key=lambda row: row.pos))])
    assert isinstance(outcome, CommitResult) and outcome.pos == source.last_pos()
    source.close()
    target.close()


def alike(value: Any) -> Any:
    """A value as it is compared: the last digit of a quantile is the database's own."""
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.12g}")
    if isinstance(value, list | tuple):
        return [alike(each) for each in value]
    return {key: alike(each) for key, each in value.items()} if isinstance(value, dict) else value


def answer(door: Callable[[Side, str], dict[str, Any]], side: Side, sql: str) -> dict[str, Any]:
    """An answer, its rows in an order of their own: what a query does not sort by may come in any."""
    found = door(side, sql)
    return {**found, "rows": sorted(alike(found["rows"]), key=repr)}


SHOWN = examples() | cells()
OTHERWISE = ("SELECT steps / 2 FROM flows", "SELECT flow_id FROM flows ORDER BY finished_at DESC, flow_id")
"""What PostgreSQL answers, but otherwise: the page says so."""
DOORS = (Side.python, Side.http)


@pytest.mark.parametrize("place", SHOWN)
def test_what_the_documents_show_is_answered_alike(pair: Pair, place: str) -> None:
    for door in (*DOORS, Side.lines) if place.startswith(("docs/sql.md", "README.md")) else DOORS:  # a command takes ten times as long
        there = answer(door, pair.database, SHOWN[place])
        assert there == answer(door, pair.file, SHOWN[place])
        assert there["rows"] or any(part in place for part in SILENT), "an example that finds nothing tells nothing"


@pytest.mark.parametrize("view", ["flows", "events", "effects", "messages", "timers", "definitions", "schedules", "sources"])
def test_every_view_has_the_same_columns_types_and_rows(pair: Pair, view: str) -> None:
    sql = f"SELECT * FROM {view} ORDER BY 1, 2"
    for door in DOORS:
        there = answer(door, pair.database, sql)
        assert there == answer(door, pair.file, sql) and there["rows"]


@pytest.mark.parametrize(("alone", "both"), dialects())
def test_what_is_said_in_two_dialects_is_the_same(pair: Pair, alone: str, both: str) -> None:
    here, there, other = (as_text(side.http(sql)["rows"]) for side, sql in ((pair.file, both), (pair.database, both), (pair.file, alone)))
    if "ORDER BY finished_at" not in both:
        here, there, other = sorted(here), sorted(there), sorted(other)
    assert here == there == other
    if alone in OTHERWISE:
        assert as_text(pair.database.http(alone)["rows"]) not in (there, other)
    else:
        with pytest.raises(FlowmetalError):
            pair.database.python(alone)


def as_text(rows: list[list[Any]]) -> list[str]:
    """Rows as two ways to ask for the same are compared: numbers as numbers, JSON as its text."""
    return [repr([json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict) else number(value) for value in row]) for row in rows]


def number(value: Any) -> Any:
    """A whole number as any other."""
    return alike(float(value)) if isinstance(value, int | float) else value


def test_a_cell_of_a_notebook_shows_the_same(pair: Pair, tmp_path: Path) -> None:
    async def from_file() -> list[str]:
        client = await connect(pair.file.store, host_here=False)
        try:
            return [(await magics.sql(client, sql))[0]["text/html"] for sql in cells().values()]
        finally:
            await client.aclose()

    env = {key: value for key, value in os.environ.items() if not key.startswith("JPY_")} | {"FLOWMETAL_STORE": pair.database.store.url}
    manager, client = start_new_kernel(kernel_name="flowmetal", env=env | {"IPYTHONDIR": str(tmp_path)}, cwd=str(tmp_path))
    try:
        shown: list[Any] = []
        for sql in [*cells().values(), "SELECT nam FROM flows"]:
            client.execute_interactive(f"%%sql {sql}", timeout=60, output_hook=shown.append)
        shown = [message for message in shown if message["msg_type"] in ("display_data", "execute_result", "error")]
        assert [message["content"]["data"]["text/html"] for message in shown[:-1]] == asyncio.run(from_file())
        told = "\n".join(shown[-1]["content"]["traceback"])
        assert 'column "nam" does not exist' in told and "flows.name" in told and "File " not in told
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


MISTAKES = {
    "SELECT nam FROM flows": '"nam"',
    "SELECT * FROM flowz": "flowz",
    "SELECT name FROM flows WHRE x = 1": 'syntax error at or near "x"',
    "DELETE FROM flows": "only a SELECT is allowed here, not DELETE",
    "WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone": "only a SELECT is allowed here",
    "SELECT data->>'$.a[*]' FROM events WHERE seq = 'x'": "",
    "SELECT 'x'::int": "x",
    "SELECT $1": "",
    "": "no statement",
}


COMMANDED = list(MISTAKES)[:4]
"""Those of them that are made at the command line too."""


@pytest.mark.parametrize("sql", MISTAKES)
def test_a_mistake_is_told_and_loses_nothing(pair: Pair, sql: str) -> None:
    count = "SELECT count(*) FROM events"
    for side in (pair.file, pair.database):
        before = side.python(count)["rows"]
        with pytest.raises(FlowmetalError) as caught:
            side.python(sql)
        assert caught.value.type == "sql/refused" and MISTAKES[sql] in caught.value.message
        answer = side.post(sql)
        assert answer.status_code == 422 and answer.json()["error"]["type"] == "sql/refused" and MISTAKES[sql] in answer.text.replace("\\", "")
        code, out, err = side.command(sql) if sql in COMMANDED else (2, "", MISTAKES[sql])
        assert (code, out) == (2, "") and MISTAKES[sql] in err
        assert side.python(count)["rows"] == before


def test_a_query_that_runs_away_is_stopped(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (guard, postgres_sql):
        monkeypatch.setattr(module, "TIMEOUT", 0.2)
    for side in (pair.file, pair.database):
        with pytest.raises(FlowmetalError, match=r"took longer than 0\.2 s and was stopped"):
            side.python(queries.RUNAWAY)
        assert side.post(queries.RUNAWAY).status_code == 422
        code, out, err = side.command(queries.RUNAWAY)
        assert (code, out) == (2, "") and "took longer than 0.2 s" in err
        assert side.python("SELECT 1")["rows"] == [(1,)]
