"""`flowmetal eval`: forms in, printed values out.

In: a text of forms. Out: on stdout one line a form (`--each`), or the last value; on stderr what the forms
print themselves. The one rule: with `--each` an error is a line like any other, and the next form is evaluated.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import click

from flowmetal.cli.exits import DONE, USAGE, exit_code, outcome_code
from flowmetal.cli.interrupts import run_async
from flowmetal.cli.options import client_of, common_json
from flowmetal.cli.output import print_json, remark
from flowmetal.cli.run import show_output
from flowmetal.client.aio import read_source
from flowmetal.client.client import Client, Row
from flowmetal.client.problems import failure_of
from flowmetal.client.requires import load_requires
from flowmetal.errors import FlowFailed, FlowmetalError, SourceError

_PLACE = re.compile(r"^\s*(?P<file>\S.*?):(?P<line>\d+):(?P<column>\d+)\s*$", re.MULTILINE)


@click.command("eval")
@click.argument("file", metavar="[FILE | -]", default="-")
@click.option("--each", is_flag=True, help="One line a top-level form: its value, or `!! TYPE at LINE:COLUMN: MESSAGE`.")
@common_json
def evaluate(file: str, each: bool, store: str | None, as_json: bool) -> int:
    """Evaluate forms in one session, read from FILE or standard input.

    Prints the last value, and stops at the first error; with --each, one line for every form, going on after
    errors. In memory unless --store is given. What the forms print goes to stderr.
    """
    name, source = _read(file)
    return run_async(_evaluate(store or ":memory:", name, source, each=each, as_json=as_json))


def _read(file: str) -> tuple[str, str]:
    if file != "-":
        return file, read_source(file)
    if sys.stdin is None or sys.stdin.isatty():
        remark("reading forms from the terminal; Ctrl-D ends them")
    data = sys.stdin.buffer.read() if sys.stdin is not None else b""
    try:
        return "<stdin>", data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"standard input is not UTF-8 text (byte {error.start})", type="reader/syntax") from error


async def _evaluate(store: str, name: str, source: str, *, each: bool, as_json: bool) -> int:
    async with client_of(store) as client:
        if each:
            return await _each(client, name, source, as_json=as_json)
        try:
            flow_id, outcome = await _eval_form(client, source, "user", name)
        except SourceError as error:
            if as_json:
                print_json({"status": "failed", "error": {"type": error.type, "message": error.message, "data": None}})
            remark(f"error: :{error.type}: {error.render()}")
            return USAGE
        if outcome["status"] == "completed":
            _show_value(outcome, as_json=as_json)
            return DONE
        failure = failure_of(outcome, flow_id)
        if as_json:
            print_json({"status": outcome["status"], "error": _plain_error(outcome)})
        remark(f"error: :{failure.type}: {failure.render()}")
        return outcome_code(outcome)


def _show_value(outcome: Row, *, as_json: bool) -> None:
    if as_json:
        print_json({"status": "completed", "result": outcome.get("result"), "printed": outcome.get("printed")})
    else:
        click.echo(_escaped(str(outcome.get("printed"))))


async def _each(client: Client, name: str, source: str, *, as_json: bool) -> int:
    ns = "user"
    code = DONE
    forms = _forms(name, source)
    while True:
        try:
            line, column, text = next(forms)
        except StopIteration:
            return code
        except FlowmetalError as error:
            _show_error(error, *_position(error.render(), error, (1, 1)), as_json=as_json)
            return exit_code(error)
        try:
            flow_id, outcome = await _eval_form(client, _placed(text, line, column), ns, name)
        except FlowmetalError as error:
            _show_error(error, *_position(error.render(), error, (line, column)), as_json=as_json)
            continue
        if outcome["status"] == "completed":
            ns = str(outcome.get("ns") or ns)
            _show_value(outcome, as_json=as_json)
        else:
            _show_error(failure_of(outcome, flow_id), *_place_of(outcome, (line, column)), as_json=as_json)


async def _eval_form(client: Client, source: str, ns: str, file: str) -> tuple[str, Row]:
    """Evaluates a text, and prints what it prints as it comes; the flow's id and its outcome."""
    await load_requires(client, source, file)
    flow_id = await client.eval(source, ns=ns, file=file)
    outcome = await client.result(flow_id, 0.2)
    seen = 0
    while outcome is None:
        seen = await _show_new_output(client, flow_id, seen)
        await _check_that_it_goes_on(client, flow_id)
        outcome = await client.result(flow_id, 0.5)
    await _show_new_output(client, flow_id, seen)
    return flow_id, outcome


async def _check_that_it_goes_on(client: Client, flow_id: str) -> None:
    """Raises the reason for which the engine has paused the flow: nobody here would let it go on."""
    if (await client.flow(flow_id))["status"] == "paused":
        pauses = [row for row in await client.events(flow_id) if row["kind"] == "flow-paused"]
        reason = (pauses[-1]["data"] or {}).get("reason") or "nobody said why"
        raise FlowFailed(f"flow {flow_id} is paused: {reason}", hint=f"flowmetal resume {flow_id} lets it go on, where it is in a store")


async def _show_new_output(client: Client, flow_id: str, seen: int) -> int:
    for row in await client.events(flow_id, seen):
        seen = max(seen, int(row["seq"]))
        show_output(row)
    sys.stderr.flush()
    return seen


def _forms(name: str, source: str) -> Iterator[tuple[int, int, str]]:
    """Line, column and text of each top-level form; raises `SourceError` where the rest cannot be read."""
    from flowmetal.lang.reader import Reader
    from flowmetal.lang.spans import Source

    reader = Reader(Source(name, source), aliases=_AnyAlias())
    for _ in reader:
        span = reader.last_span
        assert span is not None
        yield span.line, span.column, reader.last_text


class _AnyAlias(dict[str, str]):
    """Every alias is known here: which ones are is for the session to say, form by form."""

    def __missing__(self, key: str) -> str:
        return key

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: str, default: Any = None) -> Any:
        """The alias itself."""
        return key


def _placed(text: str, line: int, column: int) -> str:
    """The form's text moved to where it stands in the file, so that positions in it are the file's."""
    return "\n" * (line - 1) + " " * (column - 1) + text


def _position(rendered: str, error: FlowmetalError, default: tuple[int, int]) -> tuple[int, int]:
    if error.span is not None:
        return error.span.line, error.span.column
    return _parse_place(rendered, default)


def _place_of(outcome: Row, default: tuple[int, int]) -> tuple[int, int]:
    error = outcome.get("error") or {}
    if error.get("line") and error.get("column"):
        return int(error["line"]), int(error["column"])
    return _parse_place(str(error.get("rendered") or ""), default)


def _parse_place(rendered: str, default: tuple[int, int]) -> tuple[int, int]:
    found = _PLACE.search(rendered)
    return (int(found["line"]), int(found["column"])) if found else default


def _show_error(error: FlowmetalError, line: int, column: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"error": {"type": error.type, "message": error.message, "line": line, "column": column}})
    else:
        click.echo(f"!! :{error.type} at {line}:{column}: {_escaped(error.message)}")


def _plain_error(outcome: Row) -> Row:
    error = outcome.get("error") or {}
    return {key: error.get(key) for key in ("type", "message", "data")}


def _escaped(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
