"""Values, tables and errors as Jupyter shows them: plain data goes in, MIME bundles come out.

The one rule: every text from outside is escaped where it becomes HTML, and every bundle has a `text/plain`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from flowmetal.errors import FlowmetalError
from flowmetal_kernel.pretty import pretty

Bundle = dict[str, Any]

MAX_ROWS = 200
MAX_CELL = 400
_RED, _YELLOW, _CYAN, _BOLD, _OFF = "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[1m", "\x1b[0m"


def value(result: Mapping[str, Any]) -> Bundle | None:
    """The value of a cell; None for `nil`, which a notebook does not show."""
    printed = str(result.get("printed", "nil"))
    return None if printed == "nil" else {"text/plain": pretty(printed)}


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], widest: int = 60) -> Bundle:
    """Rows as an HTML table and as text, there with columns of at most `widest` characters; what is beyond `MAX_ROWS` is counted, not shown."""
    all_rows = [list(row) for row in rows]
    shown, more = all_rows[:MAX_ROWS], max(0, len(all_rows) - MAX_ROWS)
    texts = [[_cell(v) for v in row] for row in shown]
    return {"text/html": _html_table(columns, shown, texts, more), "text/plain": text_table(columns, shown, texts, more, widest)}


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], texts: Sequence[Sequence[str]], more: int = 0, widest: int = 60) -> str:
    """The same table for a terminal."""
    flat = [[t.replace("\n", "⏎") for t in row] for row in texts]
    widths = [min(widest, max([len(name), *(len(row[i]) for row in flat)])) for i, name in enumerate(columns)]
    right = [_is_numeric(rows, i) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        fitted = [c if len(c) <= w else c[: w - 1] + "…" for c, w in zip(cells, widths, strict=True)]
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(fitted, widths, right, strict=True)]
        return "  ".join(parts).rstrip()

    lines = [line(columns), "  ".join("─" * w for w in widths), *(line(row) for row in flat)]
    return "\n".join(lines + ([f"… {more} more rows"] if more else []))


def error(problem: FlowmetalError) -> dict[str, Any]:
    """An error that a call raised, as the content of a Jupyter error."""
    return error_content({"type": problem.type, "message": problem.message, "rendered": problem.render()})


def error_content(problem: Mapping[str, Any]) -> dict[str, Any]:
    """An error `{type, message, data, rendered}` as the content of a Jupyter error, lightly coloured."""
    kind, message = str(problem.get("type") or "flow/failed"), str(problem.get("message") or "")
    rendered = str(problem.get("rendered") or message)
    rest = rendered.removeprefix(f"{kind}: ").removeprefix(message).strip("\n")
    lines = [f"{_RED}{_BOLD}{kind}{_OFF}: {message}"]
    lines += [_coloured(line) for line in rest.split("\n") if rest]
    return {"ename": kind, "evalue": message, "traceback": lines}


def _coloured(line: str) -> str:
    if line.strip() and set(line.strip()) <= {"^", "~"}:
        return f"{_YELLOW}{line}{_OFF}"
    return line if line.startswith(" ") else f"{_CYAN}{line}{_OFF}"


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], texts: Sequence[Sequence[str]], more: int) -> str:
    right = [_is_numeric(rows, i) for i in range(len(columns))]
    align = ["right" if r else "left" for r in right]
    head = "".join(f'<th style="text-align:{a}">{escape(name)}</th>' for name, a in zip(columns, align, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:{a};white-space:pre-wrap;vertical-align:top">{escape(text)}</td>' for text, a in zip(row, align, strict=True))
        + "</tr>"
        for row in texts
    )
    note = f"<p>… {more} more rows</p>" if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _is_numeric(rows: Sequence[Sequence[Any]], column: int) -> bool:
    values = [row[column] for row in rows if row[column] is not None]
    return bool(values) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)


def _cell(item: Any) -> str:
    if item is None:
        return ""
    if isinstance(item, datetime):
        moment = item.astimezone(UTC) if item.tzinfo else item
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    if isinstance(item, float):
        return f"{item:.6g}" if abs(item) < 1e15 else repr(item)
    if isinstance(item, (dict, list)):
        item = json.dumps(item, ensure_ascii=False, default=str)
    text = str(item)
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"
