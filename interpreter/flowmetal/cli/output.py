"""What commands print: tables for people, JSON lines for programs.

In: rows of plain data. Out: text on stdout. The one rule: `--json` prints one object a row and nothing else,
whatever happens; remarks go to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

_STYLES = {
    "running": "cyan",
    "waiting": "yellow",
    "paused": "magenta",
    "completed": "green",
    "failed": "red",
    "cancelled": "bright_black",
    "moved": "bright_black",
}


def print_json(value: Any) -> None:
    """One line of JSON."""
    click.echo(to_json_text(value))


def to_json_text(value: Any) -> str:
    """JSON on one line; what JSON does not know (times, decimals from a query) as text."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), default=_unknown)


def print_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines."""
    for row in rows:
        print_json(row)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table: aligned, coloured on a terminal, never cut when it goes into a pipe."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = [cell(value) for value in row]
        table.add_row(*(Text(clean(each), style=_STYLES.get(each, "")) for each in cells))
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 100_000, highlight=False, soft_wrap=not terminal)
    if terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines()))


def cell(value: Any) -> str:
    """One value in a table."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return moment(value.isoformat())
    if isinstance(value, bool | int | float | list | dict):
        return to_json_text(value)
    return str(value)


def clean(text: str) -> str:
    """Text from a store made safe for a terminal: control characters are shown, not obeyed."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def moment(text: str | None) -> str:
    """A time in the reader's own zone, to the second."""
    if not text:
        return ""
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def one_line(value: Any, width: int = 100) -> str:
    """A value as JSON, cut to a width."""
    text = value if isinstance(value, str) else to_json_text(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= width else text[: width - 1] + "…"


def remark(text: str) -> None:
    """Something that a person may want to know, on stderr."""
    click.echo(text, err=True)


def _unknown(value: Any) -> Any:
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes | bytearray | memoryview):
        import base64

        return base64.b64encode(bytes(value)).decode()
    from decimal import Decimal

    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)
