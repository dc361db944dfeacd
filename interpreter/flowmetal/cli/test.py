"""`flowmetal test`: runs the tests of .flow files and notebooks, and reports.

In: files and folders. Out: a line a test, then each failure with its place, what was expected and what was found. The one
rule: exit 0 says that at least one test ran and all held; 1 that one did not; 2 that a file could not be loaded, or had none.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowmetal.cli.exits import DONE, FAILED, USAGE
from flowmetal.cli.options import debug_option, json_option
from flowmetal.cli.output import clean, print_json, remark
from flowmetal.errors import FlowmetalError

if TYPE_CHECKING:
    from flowmetal.testing import Failure, FileReport, TestResult


@click.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path())
@click.option("-k", "only", metavar="TEXT", default="", help="Only tests with TEXT in their name.")
@click.option("--timeout", metavar="S", type=click.FloatRange(min=0.01), default=60.0, show_default=True, help="Real seconds that one test may take.")
@click.option("--replay", "recorded", metavar="F.flowlog", multiple=True, type=click.Path(dir_okay=False),
              help="Instead: do the flows of this file again under the definitions in PATH, and say where they differ.")  # fmt: skip
@click.option("--store", metavar="STORE", expose_value=False, help="Taken and not used: each test has a store of its own, in memory.")
@json_option
@debug_option
def test(paths: tuple[str, ...], only: str, timeout: float, recorded: tuple[str, ...], as_json: bool) -> int:
    """Run the deftests of .flow files and notebooks (of this folder, without PATH).

    Each test has a store of its own in memory, and a virtual clock: a flow of a fortnight is tested in milliseconds. Nothing
    reaches the network: with-foreign and with-http answer in its place.

    With --replay, recorded histories (see `export`) are done again under the code in PATH: every request is compared with what is
    recorded, and the exit code is 1 when a flow would go another way.
    """
    if recorded:
        from flowmetal.cli.replays import replay_files

        return replay_files(paths or (".",), recorded, only, as_json=as_json)
    from flowmetal.testing import find_files, run_file

    reports = []
    for path in find_files(paths or (".",)):
        report = run_file(_shown(path), only=only, seconds=timeout)
        reports.append(report)
        if as_json:
            _print_json(report)
        else:
            _print_file(report)
    results = [result for report in reports for result in report.results]
    if not as_json:
        _print_failures(results)
        _print_summary(results, reports)
    if any(report.error for report in reports) or not results:
        if not results and as_json:
            remark("no tests were found")
        return USAGE
    return DONE if all(result.ok for result in results) else FAILED


def _shown(path: Path) -> str:
    """A path as short as it can be said."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _print_file(report: FileReport) -> None:
    click.secho(report.path, bold=True)
    if report.error is not None:
        click.secho("  cannot be loaded", fg="red")
        click.echo(_indented(_told(report.error), "    "))
    elif not report.results:
        click.secho("  no tests", dim=True)
    for result in report.results:
        mark = click.style("✓", fg="green") if result.ok else click.style("✗", fg="red")
        click.echo(f"  {mark} {clean(result.name)}  {click.style(_milliseconds(result.seconds), dim=True)}")


def _told(error: FlowmetalError) -> str:
    return f":{error.type}: {error.render()}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _print_failures(results: Iterable[TestResult]) -> None:
    for result in results:
        if result.ok:
            continue
        for failure in result.failures:
            _print_failure(result, failure)
        if result.error is not None:
            _print_title("ERROR", result.name, result.file, result.line)
            click.echo(_indented(clean(result.error)))
        if result.output:
            click.secho("  printed:", dim=True)
            click.echo(_indented(clean(result.output.rstrip("\n")), "    "))


def _print_failure(result: TestResult, failure: Failure) -> None:
    _print_title("FAIL", result.name, failure.file or result.file, failure.line or result.line)
    for context in failure.contexts:
        click.echo(f"  {clean(context)}")
    if failure.message:
        click.echo(f"  {clean(failure.message)}")
    click.echo(f"  expected: {_hanging(failure.expected)}")
    click.echo(f"    {'threw' if failure.kind == 'error' else 'actual'}{':' if failure.kind != 'error' else ': '} {_hanging(failure.actual)}")


def _print_title(kind: str, name: str, file: str, line: int) -> None:
    click.echo(f"\n{click.style(kind, fg='red', bold=True)} {clean(name)}  {click.style(f'{file}:{line}', fg='cyan')}")


def _hanging(text: str) -> str:
    return clean(text).replace("\n", "\n" + " " * 12)


def _indented(text: str, indent: str = "  ") -> str:
    return "\n".join(indent + line for line in text.splitlines())


def _print_summary(results: list[TestResult], reports: list[FileReport]) -> None:
    if not results:
        click.echo()
        remark("no tests were found: a test is (deftest name …) in a .flow file or a notebook")
        return
    failed = sum(not result.ok for result in results)
    assertions = sum(result.passed + len(result.failures) for result in results)
    unloadable = sum(report.error is not None for report in reports)
    parts = [f"{_count(len(results), 'test')}, {_count(assertions, 'assertion')}", f"{failed} failed" if failed else "all passed"]
    if unloadable:
        parts.append(f"{_count(unloadable, 'file')} could not be loaded")
    click.secho(f"\n{': '.join(parts[:2])}{'; ' + parts[2] if unloadable else ''}", fg="red" if failed or unloadable else "green", bold=True)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _print_json(report: FileReport) -> None:
    if report.error is not None:
        print_json({"path": report.path, "status": "error", "error": {"type": report.error.type, "message": report.error.render()}})
    for result in report.results:
        print_json({"path": report.path, "status": "passed" if result.ok else "failed", **dataclasses.asdict(result)})
