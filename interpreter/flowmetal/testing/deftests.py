"""Runs the `deftest`s of .flow files and notebooks, each in a store of its own on a virtual clock.

In: paths. Out: a `FileReport` for each file, with a `TestResult` for each test. The one rule: a test sees nothing of another,
of the network or of the time; the same test comes out the same way every time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowmetal.client.requires import required_files
from flowmetal.errors import FlowmetalError, LispError, SourceError
from flowmetal.lang.layout import AnyAlias
from flowmetal.lang.reader import Reader
from flowmetal.lang.spans import Source
from flowmetal.lang.syntax_quote import head
from flowmetal.lang.test_ops import TEST
from flowmetal.runtime.clock import Chance
from flowmetal.runtime.definitions_log import DefinitionsLog
from flowmetal.runtime.engine import Engine
from flowmetal.store import kinds
from flowmetal.store.memory import MemoryStore
from flowmetal.testing.director import Director

SECONDS = 60.0
"""How long one test may take on a real clock."""
_RESIDENT = 1_000_000
_SUFFIXES = (".flow", ".ipynb")
_DEFINING = ("ns", "require", "def", "declare")


@dataclass(slots=True)
class Failure:
    """An assertion that did not hold (`fail`), or that threw (`error`)."""

    kind: str
    expected: str
    actual: str
    message: str | None
    contexts: list[str]
    file: str | None
    line: int | None
    column: int | None


@dataclass(slots=True)
class TestResult:
    """How one test came out. `error` is what ended it, rendered, when it did not come to its end."""

    __test__ = False

    name: str
    file: str
    line: int
    passed: int = 0
    failures: list[Failure] = field(default_factory=list)
    error: str | None = None
    output: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every assertion held and nothing was thrown."""
        return self.error is None and not self.failures


@dataclass(slots=True)
class FileReport:
    """The tests of one file; `error` says why it could not be loaded."""

    path: str
    results: list[TestResult] = field(default_factory=list)
    error: FlowmetalError | None = None


def find_files(paths: Sequence[str | Path], *, programs: bool = False) -> list[Path]:
    """The .flow files and notebooks that paths name; of a folder, those with a `(deftest` in them, or, for `programs`, all .flow files.

    Raises LispError for a path that is none."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            there = [p for p in sorted(path.rglob("*")) if p.suffix in _SUFFIXES and not _hidden(p.relative_to(path))]
            found += [p for p in there if (p.suffix == ".flow" if programs else _mentions_tests(p))]
        elif not path.is_file():
            raise LispError(f"there is no file {path}", type="value")
        elif path.suffix not in _SUFFIXES:
            raise LispError(f"{path} is neither a .flow file nor a notebook", type="value")
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _mentions_tests(path: Path) -> bool:
    return "(deftest" in path.read_text(encoding="utf-8", errors="replace")


def run_file(path: str | Path, *, only: str = "", seconds: float = SECONDS) -> FileReport:
    """Loads a file and runs its tests (those with `only` in their name), in the order of the file."""
    report = FileReport(str(path))
    definitions = DefinitionsLog(lambda: 0)
    try:
        load_file(definitions, Path(path))
    except (FlowmetalError, OSError, UnicodeDecodeError) as error:
        report.error = error if isinstance(error, FlowmetalError) else LispError(f"{path} cannot be read: {error}", type="value")
        return report
    for name, facts in _tests(definitions):
        if only in name:
            report.results.append(run_test(definitions, name, facts, seconds=seconds))
    return report


def run_source(source: str, *, file: str = "tests.flow", seconds: float = SECONDS) -> list[TestResult]:
    """Runs the tests of a program's text; raises SourceError or LispError when it cannot be loaded."""
    definitions = DefinitionsLog(lambda: 0)
    add_source(definitions, source, file)
    return [run_test(definitions, name, facts, seconds=seconds) for name, facts in _tests(definitions)]


# Loading


def load_file(definitions: DefinitionsLog, path: Path) -> None:
    """Adds the definitions of a .flow file, with those that it requires, or of a notebook. Raises FlowmetalError, OSError, UnicodeDecodeError."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        _load_notebook(definitions, text, str(path))
    else:
        for needed, its_text in required_files(text, str(path)):
            add_source(definitions, its_text, str(needed))
        _refuse_twins(definitions, add_source(definitions, text, str(path)), path)


def _refuse_twins(definitions: DefinitionsLog, names: list[str], path: Path) -> None:
    """Two tests of one name are one test: the first would never run."""
    tests = {name for name, _ in _tests(definitions)}
    twins = sorted(name for name in tests if names.count(name) > 1)
    if twins:
        raise LispError(f"{path} defines the test {twins[0].removeprefix('user/')} twice: the first would never run", type="value", hint="give it another name")


def add_source(definitions: DefinitionsLog, source: str, file: str, ns: str = "user") -> list[str]:
    """Adds a program's definitions, which begin in a namespace; their names. Raises SourceError or LispError."""
    rows, names = definitions.load(source, file, ns)
    for seq, row in enumerate(rows, definitions.version + 1):
        row.seq = seq
        definitions.committed(row)
    return names


def _load_notebook(definitions: DefinitionsLog, text: str, path: str) -> None:
    """Loads the definitions of a notebook's cells. What cells do besides is not done; a `def` that would wait is left out."""
    try:
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LispError(f"{path} is not a notebook: it has no cells with their sources", type="value") from error
    ns = "user"
    for number, (kind, source) in enumerate(cells, 1):
        if kind == "code" and not source.lstrip().startswith(("%", "!")):
            for needed, its_text in required_files(source, path):
                add_source(definitions, its_text, str(needed))
            ns = _load_cell(definitions, source, f"{path}#cell-{number}", ns)


def _load_cell(definitions: DefinitionsLog, source: str, file: str, ns: str) -> str:
    for kind, placed, name in _definitions(source, file):
        try:
            add_source(definitions, placed, file, ns)
            ns = name if kind == "ns" else ns
        except SourceError:
            raise
        except LispError:
            if kind != "def":
                raise
    return ns


def _definitions(source: str, file: str) -> Iterator[tuple[str, str, str]]:
    """(kind, text moved to its place, name) of each top-level form that defines."""
    reader = Reader(Source(file, source), aliases=AnyAlias())
    for form in reader:
        kind = head(form) or ""
        span = reader.last_span
        if span is not None and (kind in _DEFINING or kind.startswith("def")):
            name = str(form.rest().first()) if len(form) > 1 else ""
            yield kind, "\n" * (span.line - 1) + " " * (span.column - 1) + reader.last_text, name


def _tests(definitions: DefinitionsLog) -> list[tuple[str, dict[str, Any]]]:
    """(full name, facts) of every deftest, in the order of definition."""
    found = []
    for ns, space in definitions.registry.spaces.items():
        for name, cell in space.items():
            binding = cell.at(definitions.version)
            if binding is not None and binding.kind == "deftest":
                found.append((binding.version, f"{ns}/{name}", binding.meta))
    return [(name, meta) for _, name, meta in sorted(found, key=lambda t: t[0])]


# Running


def run_test(definitions: DefinitionsLog, name: str, facts: dict[str, Any], *, seconds: float = SECONDS) -> TestResult:
    """Runs one test to its end."""
    result = TestResult(name.removeprefix("user/"), facts.get("file", ""), facts.get("line", 0))
    began = time.monotonic()
    director = Director()
    with asyncio.Runner(loop_factory=lambda: director.loop) as runner:
        runner.run(_run(director, definitions, name, result, began + seconds))
    result.seconds = time.monotonic() - began
    return result


async def _run(director: Director, definitions: DefinitionsLog, name: str, result: TestResult, deadline: float) -> None:
    store = MemoryStore()
    engine = Engine(store, connectors=[director], clock=director.clock, chance=Chance(1), resident=_RESIDENT)
    director.engine = engine
    director.loop.set_exception_handler(director.note_fault)
    await engine.open()
    engine.definitions = definitions
    director.deadline = deadline
    try:
        await engine.start_flow(name, [], flow_id=TEST, kind=TEST)
        ending = await _end(director, engine)
        if ending is not None and ending["status"] != "completed":
            result.error = ending["error"].get("rendered") or ending["error"]["message"]
        elif ending is None:
            result.error = _why_stuck(director, store)
    finally:
        await engine.close()
    _collect(store, result)
    if director.unanswered and not result.ok:
        result.output += "".join(f"not answered: {what}\n" for what in dict.fromkeys(director.unanswered))


async def _end(director: Director, engine: Engine) -> dict[str, Any] | None:
    """The test's ending; None when it waits for what can never come, or takes too long."""
    ending = asyncio.ensure_future(engine.result(TEST))
    stuck = asyncio.ensure_future(director.stuck.wait())
    try:
        await asyncio.wait({ending, stuck}, return_when=asyncio.FIRST_COMPLETED)
        return ending.result() if ending.done() else None
    finally:
        for task in (ending, stuck):
            task.cancel()
        await asyncio.gather(ending, stuck, return_exceptions=True)


def _why_stuck(director: Director, store: MemoryStore) -> str:
    if director.fault is not None:
        return f"a fault in Flowmetal: {type(director.fault).__name__}: {director.fault}"
    if director.late:
        return "the test took too long on a real clock: something in it never ends"
    waits = []
    for row in store.open_requests():
        data = json.loads(row.data)
        if not str(data.get("op", "")).startswith("test/"):
            who = "the test" if row.flow_id == TEST else f"flow {row.flow_id}"
            waits.append(f"  {who} waits for {data.get('op', 'flow')} {data.get('target') or data.get('flow', '')}".rstrip())
    return "\n".join(["the test waits for something that never comes", *waits])


def _collect(store: MemoryStore, result: TestResult) -> None:
    """Counts what the test reported, and keeps what its flows printed."""
    contexts: list[str] = []
    for row in store.rows(TEST):
        data = json.loads(row.data)
        if row.kind == kinds.OUTPUT:
            result.output += data["text"]
        elif row.kind == kinds.LOG and isinstance(data.get("data"), dict) and "test" in data["data"]:
            _count(data["data"], contexts, result)


def _count(event: dict[str, Any], contexts: list[str], result: TestResult) -> None:
    kind = event["test"]
    if kind == "begin":
        contexts.append(event["context"])
    elif kind == "end" and contexts:
        contexts.pop()
    elif kind == "pass":
        result.passed += 1
    elif kind in ("fail", "error"):
        result.failures.append(Failure(
            kind, str(event.get("expected")), str(event.get("actual")), event.get("message"), list(contexts),
            event.get("file"), event.get("line"), event.get("column"),
        ))  # fmt: skip
