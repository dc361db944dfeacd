"""The names that users and outside programs rely on: commands, routes, columns, methods. None may go or change by accident."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from stores import Stores, several

import flowmetal
from flowmetal.cli import exits
from flowmetal.cli.main import COMMANDS, cli
from flowmetal.connect.shim.app import create_app
from flowmetal.store import kinds
from flowmetal.store.protocol import Store

# Commands

STORE = "--store --debug"
CLI = {
    "lab": ("[DIR]", STORE),
    "serve": ("", f"--host --port {STORE}"),
    "run": ("FILE.flow", f"--main --arg --clock {STORE}"),
    "eval": ("[FILE | -]", f"--each --json {STORE}"),
    "load": ("FILE.flow", f"--json {STORE}"),
    "start": ("NAME [JSON]...", f"--id --json {STORE}"),
    "result": ("FLOW", f"--timeout --json {STORE}"),
    "ps": ("", f"--status --name --json {STORE}"),
    "show": ("FLOW", f"--at --json {STORE}"),
    "log": ("FLOW", f"--follow --json {STORE}"),
    "pause": ("FLOW...", f"--where --json {STORE}"),
    "resume": ("FLOW...", f"--where --json {STORE}"),
    "step": ("FLOW...", f"--where --json {STORE}"),
    "retry": ("FLOW...", f"--where --json {STORE}"),
    "cancel": ("FLOW...", f"--where --json {STORE}"),
    "terminate": ("FLOW...", f"--where --json {STORE}"),
    "delete": ("FLOW...", f"--where --json {STORE}"),
    "export": ("FLOW...", f"--output --json {STORE}"),
    "import": ("F.flowlog", f"--json {STORE}"),
    "archive": ("", f"--older-than --where --keep --json {STORE}"),
    "backup": ("DIR", f"--json {STORE}"),
    "fork": ("FLOW", f"--at --with --upgrade --json {STORE}"),
    "upgrade": ("FLOW...", f"--where --dry-run --json {STORE}"),
    "send": ("FLOW JSON", f"--json {STORE}"),
    "publish": ("TOPIC JSON", f"--json {STORE}"),
    "sql": ("SQL", f"--format --json {STORE}"),
    "worker": ("MODULE[:OBJECT]", STORE),
    "test": ("[PATH]...", "--replay --json --debug"),
    "stop": ("", STORE),
    "repl": ("", STORE),
    "doctor": ("", f"--json {STORE}"),
    "token": ("", STORE),
    "kernel install": ("", "--user --sys-prefix --prefix --debug"),
}
LATER = {"schedules"}
"""Commands of the contract that are not there yet; one that comes moves up."""
MORE = {"fmt", "backfill", "allow"}
"""Commands beyond the contract."""


def command_of(path: str) -> tuple[click.Command, click.Context]:
    found: click.Command = cli
    context = click.Context(cli, info_name="flowmetal")
    for name in path.split():
        assert isinstance(found, click.Group)
        inner = found.get_command(context, name)
        assert inner is not None, f"there is no command {path}"
        found, context = inner, click.Context(inner, parent=context, info_name=name)
    return found, context


@pytest.mark.parametrize("path", CLI)
def test_commands(path: str) -> None:
    arguments, options = CLI[path]
    command, context = command_of(path)
    shown = command.get_help(context)
    usage = re.search(r"Usage: flowmetal \S+(?: install)? \[OPTIONS\] ?(.*)", shown)
    assert usage, shown
    assert usage[1].startswith(arguments)
    known = {name for parameter in command.params for name in parameter.opts}
    assert set(options.split()) <= known
    assert command.help, f"{path} says nothing of itself"
    for option in options.split():
        assert option in shown


def test_there_are_no_other_commands() -> None:
    there = set(COMMANDS)
    assert {path.split()[0] for path in CLI} <= there
    assert there - {path.split()[0] for path in CLI} - LATER <= MORE


def test_exit_codes() -> None:
    assert (exits.DONE, exits.FAILED, exits.USAGE, exits.NOT_FOUND, exits.TIMED_OUT, exits.INTERRUPTED) == (0, 1, 2, 3, 4, 130)
    said = cli.get_help(click.Context(cli))
    for code in ("0 done", "1 the flow failed", "2 bad usage", "3 no such flow", "4 not ended", "130 interrupted"):
        assert code in " ".join(said.split())


# Routes

HTTP = """
POST /v1/callbacks/{}
POST /v1/topics/{}
POST /v1/flows/{}/messages?wait
POST /v1/flows
GET /v1/flows?status&name&limit&after
GET /v1/flows/{}
GET /v1/flows/{}/result?wait
GET /v1/flows/{}/events?after
GET /v1/flows/{}/state?step
POST /v1/flows/{}/pause
POST /v1/flows/{}/resume
POST /v1/flows/{}/step
POST /v1/flows/{}/retry
POST /v1/flows/{}/cancel
POST /v1/flows/{}/terminate
POST /v1/flows/{}/fork
POST /v1/flows/{}/upgrade
PUT /v1/definitions
POST /v1/tasks/lease
POST /v1/tasks/{}/complete
POST /v1/tasks/{}/fail
POST /v1/tasks/{}/heartbeat
POST /v1/sql
GET /healthz
GET /readyz
GET /metrics
"""


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    return dict(create_app(SimpleNamespace(public_url=""), token="t").openapi())


@pytest.mark.parametrize("line", HTTP.strip().split("\n"))
def test_routes(api: dict[str, Any], line: str) -> None:
    method, _, address = line.partition(" ")
    path, _, query = address.partition("?")
    paths = {re.sub(r"\{\w+\}", "{}", found): methods for found, methods in api["paths"].items()}
    operation = paths[path][method.lower()]
    there = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"}
    assert set(query.split("&")) - {""} <= there
    public = path in ("/v1/callbacks/{}", "/v1/topics/{}", "/healthz", "/readyz")
    assert public or operation["security"]


def test_openapi_version(api: dict[str, Any]) -> None:
    assert api["openapi"].startswith("3.1.")


# SQL

VIEWS = {
    "flows": "flow_id name kind status parent_id forked_from forked_at definitions_version created_at updated_at finished_at steps args tags info result error",
    "events": "pos flow_id seq at kind step fiber data",
    "effects": "flow_id step fiber op target args status attempts requested_at completed_at duration_ms result error line source",
    "messages": "message_id topic flow_id received_at consumed_at source idempotency_key data",
    "timers": "flow_id step due_at fired_at",
    "definitions": "version ns name kind source hash defined_at",
}


@pytest.fixture(scope="module")
def store(module_stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return module_stores.open(tmp_path_factory.mktemp("contract") / "x.duckdb")


@several
@pytest.mark.parametrize("view", VIEWS)
def test_columns(store: Store, view: str) -> None:
    assert store.query(f"SELECT * FROM {view}").columns == VIEWS[view].split()


@several
def test_there_are_no_other_views(store: Store) -> None:
    found = store.query("SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()").rows
    assert {name for (name,) in found} == {*VIEWS, "schedules", "sources"}


def test_statuses() -> None:
    assert set(kinds.STATUS.values()) == {"running", "waiting", "paused", "completed", "failed", "cancelled", "moved"}


# Python

FLOWMETAL = """
eval load start result status events state diff pause resume step retry
cancel terminate send flows sql publish function close delete backup export import_flows
"""
FLOW = "id result status events state diff pause resume step retry cancel terminate send delete export fork upgrade"
ERRORS = "FlowFailed FlowCancelled FlowTimeout FlowNotFound SourceError StoreError"


def test_errors() -> None:
    for name in ERRORS.split():
        assert issubclass(getattr(flowmetal, name), flowmetal.FlowmetalError)


@pytest.mark.parametrize(("face", "twin", "names"), [("Flowmetal", "AsyncFlowmetal", FLOWMETAL), ("Flow", "AsyncFlow", FLOW)])
def test_methods_and_their_twins(face: str, twin: str, names: str) -> None:
    here, there = getattr(flowmetal, face), getattr(flowmetal, twin)
    for name in names.split():
        assert hasattr(here, name) or name == "id"
    for name, member in inspect.getmembers(here):
        if not name.startswith("_"):
            assert name == "id" or hasattr(there, name), f"{twin} has no {name}"
            assert inspect.getdoc(member), f"{face}.{name} says nothing of itself"


# Errors

TYPES = """
reader/eof reader/syntax compile/unresolved compile/syntax arity type index arithmetic value limit stack-overflow user flow/failed flow/timeout
flow/cancelled flow/terminated flow/ended effect/interrupted http/status http/timeout http/connect secret/used replay/mismatch test/unanswered
sql/refused
"""


def test_types_of_errors() -> None:
    root = Path(flowmetal.__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for ending in ("*.py", "*.flow") for path in root.rglob(ending))
    for name in TYPES.split():
        assert f'"{name}"' in text or f":{name}" in text, f"nothing raises :{name}"
