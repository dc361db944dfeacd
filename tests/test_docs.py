"""The documents say what is so: their programs run and give what is written beside them, their tables are the code's,
their links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from documents import PAGES, ROOT, Block, blocks, codes, forms, name_of, tables
from postgres_server import Server
from stores import Stores

import flowmetal
from flowmetal.client.host_file import lock_holder
from flowmetal.client.store_url import resolve
from flowmetal.errors import FlowmetalError
from flowmetal.lang import describe
from flowmetal.lang.library import library
from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import read_all
from flowmetal.lang.spans import Source
from flowmetal.runtime.clock import Chance, VirtualClock
from flowmetal.runtime.engine import Engine
from flowmetal.store import kinds
from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Store
from flowmetal.testing import World

LISP_PAGES = [page for page in PAGES if blocks("clojure", page)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# Programs


hasty = pytest.mark.one_store("it is ahead of a clock that jumps as soon as nothing runs, which it does while a server is asked")


@pytest.mark.parametrize("page", [pytest.param(page, marks=hasty) if page.stem in ("language", "semantics") else page for page in LISP_PAGES], ids=name_of)
def test_lisp_in_a_page_gives_what_it_says(page: Path, stores: Stores) -> None:
    """All blocks of a page are one session, on a virtual clock."""
    problems = asyncio.run(_session(blocks("clojure", page), stores.quick()))
    assert not problems, "\n".join(problems)


async def _session(found: list[Block], store: Store) -> list[str]:
    engine = Engine(store, clock=VirtualClock(), chance=Chance(1))
    await engine.open()
    problems = []
    try:
        for block in found:
            for form in forms(block.text):
                answer = await engine.result(await engine.eval(form.source), 20)
                said = _difference(form.value, form.error, answer)
                if said:
                    problems.append(f"{block.page}:{block.line + form.line - 1}: {form.source.splitlines()[0]}\n    {said}")
    finally:
        await engine.close()
    return problems


def _difference(value: str | None, error: str | None, answer: dict[str, Any] | None) -> str | None:
    if answer is None:
        return "it does not end"
    failed = answer.get("error")
    if failed is not None:
        said = f":{failed['type']} {failed['message']}"
        return None if error is not None and said.startswith(error) else f"fails: {said}, where the page says {error or value or 'nothing'}"
    if error is not None:
        return f"gives {answer['printed']}, where the page says {error}"
    if value is not None and _normal(str(answer["printed"])) != _normal(value):
        return f"gives {answer['printed']}, where the page says {value}"
    return None


def _normal(printed: str) -> str:
    """The text of a value, whatever its white space; what cannot be read back stands as it is."""
    try:
        return " ".join(pr_str(x) for x in read_all(Source("expected", printed)))
    except FlowmetalError:
        return " ".join(printed.split())


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_in_a_page_gives_what_it_says(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`# => value` after an expression says how its value is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWMETAL_STORE", raising=False)
    checked: list[str] = []

    def check(value: object, said: str) -> None:
        assert repr(value) == said, block
        checked.append(said)

    tree = _Checks(block.text.splitlines()).visit(ast.parse(block.text))
    exec(compile(ast.fix_missing_locations(tree), str(block), "exec"), {"_check": check})
    assert len(checked) == block.text.count("# =>"), f"{block}: not all that is said was checked"


class _Checks(ast.NodeTransformer):
    """Makes `expression  # => value` a check."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        """An expression that stands by itself."""
        _, arrow, said = self.lines[(node.end_lineno or 1) - 1].partition("# =>")
        if not arrow:
            return node
        call = ast.Call(ast.Name("_check", ast.Load()), [node.value, ast.Constant(said.strip())], [])
        return ast.copy_location(ast.Expr(call), node)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks("sh", p)], ids=name_of)
def test_shell_in_a_page_gives_what_it_says(page: Path, tmp_path: Path) -> None:
    """The blocks of a page are one session; `# => text` after a command says what it prints."""
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    lines = [_checked(line) for block in blocks("sh", page) for line in block.text.splitlines()]
    text = "\n".join(["set -euo pipefail", "trap 'kill $(jobs -p)' EXIT", *lines])
    script = tmp_path / "session.sh"
    script.write_text(text.replace("8500 20", "8500 7").replace("8500", str(free_port())), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith("FLOWMETAL_")} | {"FLOWMETAL_HOME": str(tmp_path / "home")}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    try:
        done = subprocess.run(["bash", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        if lock_holder(resolve(tmp_path / "flowmetal.duckdb", environ={})) is not None:
            subprocess.run([sys.executable, "-m", "flowmetal", "stop"], cwd=tmp_path, env=env, timeout=60, check=True)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _checked(line: str) -> str:
    command, arrow, said = line.partition("# =>")
    if not arrow:
        return line
    look, wrong = f"said=$({command})", f"echo '{command.strip()}:' \"$said\" >&2; exit 9"
    if command.startswith("flowmetal ps"):  # a flow that was begun just now may not have come to where it waits
        look = f"for n in $(seq 100); do {look}; {_if_said(said, 'break', 'sleep 0.1')}; done"
    return f"{look}; {_if_said(said, ':', wrong)}"


def _if_said(text: str, yes: str, no: str) -> str:
    return f"case \"$said\" in *'{text.strip()}'*) {yes};; *) {no};; esac"


@pytest.mark.parametrize("block", blocks("sql"), ids=str)
def test_sql_in_a_page_is_a_query(block: Block) -> None:
    store = MemoryStore()
    assert store.query(block.text).columns
    store.close()


@pytest.mark.parametrize("block", blocks("sql", ROOT / "docs" / "team.md"), ids=str)
def test_sql_of_the_page_for_teams_is_a_query_in_postgresql_too(block: Block, postgres: Server) -> None:
    from flowmetal.store.postgres_store import PostgresStore

    url = postgres.store()
    store = PostgresStore(url)
    assert store.query(block.text).columns
    store.close()
    postgres.give_back(url)


def test_the_first_flow_is_the_example() -> None:
    shown = blocks("clojure", ROOT / "README.md")[0].text
    assert shown == (ROOT / "docs" / "examples" / "order.flow").read_text(encoding="utf-8")


# Links, commands, dependencies


def test_links_lead_to_files_and_headings() -> None:
    wrong = []
    for page in PAGES:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            there = page if not path else (page.parent / path).resolve()
            if not there.exists() or (anchor and anchor not in _anchors(there)):
                wrong.append(f"{name_of(page)}: {target}")
    assert not wrong


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r'^pip install -e "\.\[(\w+)\]" && (\w+(?: \w+)?) ', readme, re.MULTILINE)
    assert commands == [("lab", "flowmetal lab"), ("test", "pytest")]
    assert {extra for extra, _ in commands} | {"postgres"} == set(PROJECT["optional-dependencies"])
    assert "flowmetal" in PROJECT["scripts"]
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in readme


def test_every_dependency_has_its_reason() -> None:
    declared = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    split = [[re.fullmatch(r"([\w-]+)(.*)", text) for text in group if not text.startswith("flowmetal[")] for group in declared]
    documented = tables("docs/dependencies.md")
    assert [[row[:2] for row in table] for table in documented] == [[[m[1], m[2]] for m in group if m] for group in split]
    assert all(row[2] for table in documented for row in table)


def test_the_version_is_one() -> None:
    assert PROJECT["version"] == flowmetal.__version__


# References


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _reference()


@pytest.mark.parametrize("name", REFERENCE.PAGES)
def test_a_page_made_from_the_code_is_current(name: str) -> None:
    there = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert there == REFERENCE.PAGES[name](), f"docs/{name} is not current: run python docs/reference.py"


def test_http_routes() -> None:
    from flowmetal.connect.shim.app import create_app

    paths = create_app(Engine(MemoryStore()), token="t").openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    documented = {code.partition("?")[0] for row in tables("docs/http.md")[0] for code in codes(row[0])}
    assert documented == served


@pytest.mark.parametrize("view", ["flows", "events", "effects", "messages", "timers", "definitions", "schedules", "sources"])
def test_views_and_columns(view: str) -> None:
    store = MemoryStore()
    columns = store.query(f"SELECT * FROM {view}").columns
    store.close()
    text = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## {view}\n")[2].partition("\n## ")[0]
    table = section.partition("| column |")[2].partition("\n\n")[0]
    documented = [code for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for code in codes(row)]
    assert sorted(documented) == sorted(columns)


def test_kinds_of_events() -> None:
    (table,) = [t for t in tables("docs/sql.md") if codes(t[0][0]) == ["flow-started"]]
    documented = [code for row in table for code in codes(row[0])]
    assert sorted(documented) == sorted(kinds.ALL)


STEPS = """
(defflow sub [] 1) (defflow waiting [] (receive)) (defforeign charge [x])
(now) (rand) (rand-int 3) (random-uuid) (shuffle [1 2]) (sub) (start sub)
(http/get "http://x.test/") (http/post "http://x.test/" {:json 1})
(sleep #dur "1s") (await (timer #dur "1s")) (receive {:timeout #dur "1s" :else 0})
(def a (start waiting)) (def b (start waiting)) (def c (callback)) (def p (async (sleep #dur "1s") 1))
(pause! a) (step! a) (resume! a) (try (retry! a) (catch :flow/conflict e 0)) (state-diff a 1 nil) (send a 1) (cancel! b) (terminate! (start waiting))
(status a) (history a) (state-at a 1) (flows) (promise-status p) (charge 1) (call 'charge [1])
(defflow answering [] (let [m (receive)] (reply m 1)))
(ask (start answering) {:q 1}) (topic "t" {}) (publish "t" 1) (let [s (subscribe "t" {:from :start})] (next-event s))
(fork a {:at 1 :with 0}) (upgrade! (start waiting))
(queue :q {:concurrency 1}) (schedule :s #dur "1d" sub) (unschedule :s) (defsource d {:url "sqlite:///x" :sql "SELECT 1"})
(defflow again [n] (if (zero? n) 0 (continue-as (dec n)))) (again 1)
(def box (atom 0)) @box (swap! box inc) (swap-vals! box inc) (reset! box 1) (reset-vals! box 2) (compare-and-set! box 2 3)
(sh ["true"]) (sql/query "postgresql://x/y" "SELECT 1")
"""
"""Every form that asks the outside for something."""


def test_the_closed_table_of_steps(stores: Stores) -> None:
    """Operations, kinds and statuses are those of the table."""
    table = tables("docs/semantics.md")[0]
    documented = {op: (set(codes(row[1])), set(row[3].split(", "))) for row in table for op in codes(row[2])}
    seen = asyncio.run(_steps(stores.quick()))
    assert {op for op, *_ in seen} == set(documented)
    wrong = [(op, kind, status) for op, kind, status in seen if kind not in documented[op][0] | {"effect-cancelled"} or status not in documented[op][1]]
    assert not wrong


class Outside(World):
    """Answers whatever is asked of the outside."""

    ops = World.ops | {"foreign", "sh", "sql/query"}


async def _steps(store: Store) -> list[tuple[str, str, str]]:
    """Operation, kind and status of all that `STEPS` writes."""
    engine = Engine(store, connectors=[Outside()], clock=VirtualClock(), chance=Chance(1))
    await engine.open()
    for form in forms(STEPS):
        answer = await engine.result(await engine.eval(form.source), 20)
        assert answer is not None and "error" not in answer, (form.source, answer)
    found = await engine.sql("SELECT DISTINCT op, kind, e.status FROM effects e JOIN events v USING (flow_id, step) ORDER BY 1, 2, 3")
    await engine.close()
    return found.rows  # type: ignore[return-value]


def test_every_form_of_flows_is_a_step_or_said_to_be_none() -> None:
    section = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8").partition("## Steps")[2].partition("\n## ")[0]
    said = {word for code in re.findall(r"`([^`]+)`", section) for word in code.split()}
    definitions = library()
    names = {
        describe.describe(definitions, f"{ns}/{name}", "user", definitions.version) for ns, name in describe.public_names(definitions, definitions.version)
    }
    missing = sorted(d.shown_name for d in names if d is not None and d.ns in ("flow", "http") and d.shown_name not in said)
    assert not missing


def test_error_types() -> None:
    documented = {code for row in tables("docs/errors.md")[0] for code in codes(row[0])}
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "interpreter" / "flowmetal").rglob("*.py"))
    raised = set(re.findall(r'(?:\b(?<!-)type(?:: str)? ?= ?|Failed\()"([a-z-]+(?:/[a-z-]+)?)"', source))
    assert raised - {"store/duplicate", "store/conflict", "application/json"} <= documented
    assert documented - {"python/ValueError"} <= set(re.findall(r'"([a-z-]+(?:/[a-z-]+)?)"', source))


def test_magics() -> None:
    from flowmetal_kernel.cells import LINE_MAGICS

    found = [code for row in tables("docs/notebook.md")[0] for code in codes(row[0])]
    assert {code[1:].split()[0] for code in found if re.match(r"%\w", code)} == LINE_MAGICS
    assert {code[2:].split()[0] for code in found if code.startswith("%%")} == {"again", "sql", "python"}


@pytest.mark.parametrize(("of", "prefix"), [(flowmetal.Flowmetal, "fm"), (flowmetal.Flow, "h")])
def test_python_methods(of: type, prefix: str) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    documented = set(re.findall(rf"`@?{prefix}\.(\w+)", text))
    assert documented == {name for name, value in vars(of).items() if not name.startswith("_") and (callable(value) or isinstance(value, property))}


def test_asynchronous_twins() -> None:
    for one, twin in ((flowmetal.Flowmetal, flowmetal.AsyncFlowmetal), (flowmetal.Flow, flowmetal.AsyncFlow)):
        assert {name for name in vars(one) if not name.startswith("_")} <= set(dir(twin)) | {"id"}


def test_encoding_tags() -> None:
    from flowmetal.lang import decoding

    documented = {code for row in tables("docs/encoding.md")[1] for code in codes(row[0])}
    assert documented == (set(decoding._BUILD) | set(decoding._FILL) | {"^"})
