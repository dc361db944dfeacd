"""The history that stays in the saved notebook: a timeline's model goes in, `text/html` comes out.

An SVG inside `<img src="data:…">` is the one picture that every viewer shows (an untrusted notebook strips inline SVG); an
ended flow's has its rows as a table below, folded. The one rule: every text from outside is escaped, here, where it is drawn.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

WIDTH = 920
HEADER = 56
ROW = 26
MARK = 20
MAX_ROWS = 40
OP_X, BAR_X, TIME_X, RESULT_X = 46, 330, 540, 622
BAR_WIDTH = 200
FONT = "font-family:-apple-system,'Segoe UI','Helvetica Neue',Arial,sans-serif"
MONO = "font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace"
COLOURS = {
    "running": "#2563eb",
    "waiting": "#b45309",
    "paused": "#7c3aed",
    "completed": "#15803d",
    "failed": "#b91c1c",
    "cancelled": "#64748b",
    "moved": "#64748b",
    "open": "#d97706",
    "recorded": "#94a3b8",
}


def html(model: Mapping[str, Any], *, table: bool = False) -> str:
    """The picture as HTML that survives a sanitiser; with `table`, the steps' details folded below it."""
    alt = f"Flowmetal history of {model['name']} {model['short']}: {model['status']}"
    data = base64.b64encode(svg(model).encode()).decode()
    image = f'<img alt="{escape(alt, quote=True)}" width="{WIDTH}" style="max-width:100%" src="data:image/svg+xml;base64,{data}">'
    return image + (_table(model) if table and any(not row["mark"] for row in model["rows"]) else "")


def svg(model: Mapping[str, Any]) -> str:
    """The picture itself, a card with a light ground of its own that also sits well on a dark page."""
    rows = list(model["rows"])[-MAX_ROWS:]
    begin = float(model["started"])
    end = float(model["finished"] or model["now"])
    body: list[str] = []
    y = HEADER
    hidden = int(model["earlier"]) + len(model["rows"]) - len(rows)
    if hidden:
        body.append(_text(OP_X, y + 15, f"… {hidden} earlier rows", "#64748b", size=11))
        y += ROW
    for row in rows:
        body.append(_mark(row, y) if row["mark"] else _step(row, y, begin, end))
        y += MARK if row["mark"] else ROW
    body.append(_footer(model, y + 6))
    height = y + (34 if _footer_text(model) else 12)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="#d4d8de"/>'
        f"{_header(model, end - begin)}{''.join(body)}</svg>"
    )


def duration(ms: float) -> str:
    """A duration for people: `12 ms`, `3.4 s`, `2 min 5 s`, `3 h 20 min`, `14 d`."""
    if ms < 1000:
        return f"{max(0, round(ms))} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    seconds = round(ms / 1000)
    for size, name, below, lower in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // below
            return f"{seconds // size} {name}" + (f" {rest} {lower}" if rest else "")
    return f"{seconds} s"


def clock(ms: float) -> str:
    """A moment for people, in UTC, as the log has it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _header(model: Mapping[str, Any], took: float) -> str:
    status = str(model["status"])
    colour = COLOURS.get(status, "#64748b")
    name, name_width = _fit(str(model["name"]), 30), 0.0
    name_width = 9.2 * len(name)
    badge_x = 20 + name_width + 12
    badge_width = 7.0 * len(status) + 20
    times = f"started {clock(model['started'])}  ·  {duration(took)}"
    ident_x = badge_x + badge_width + 12
    args = _fit(str(model["args"]), max(0, int((WIDTH - 290 - ident_x - 8 * len(model["short"]) - 16) / 7)))
    return (
        _text(20, 34, name, "#0f172a", size=16, weight=600)
        + f'<rect x="{badge_x:.0f}" y="18" width="{badge_width:.0f}" height="22" rx="11" fill="{colour}"/>'
        + _text(badge_x + badge_width / 2, 33, status, "#ffffff", size=12, weight=600, anchor="middle")
        + _text(ident_x, 33, str(model["short"]), "#64748b", size=12, mono=True)
        + _text(ident_x + 8 * len(model["short"]) + 12, 33, args, "#475569", size=12, mono=True)
        + _text(WIDTH - 20, 33, times, "#64748b", size=12, anchor="end")
        + f'<line x1="1" x2="{WIDTH - 1}" y1="{HEADER - 4}" y2="{HEADER - 4}" stroke="#e5e8ec"/>'
    )


def _step(row: Mapping[str, Any], y: int, begin: float, end: float) -> str:
    status = str(row["status"])
    colour = COLOURS.get(status, "#64748b")
    until = float(row["end"]) if row["end"] is not None else end
    x, width = bar(float(row["start"]), until, begin, end)
    op = str(row["op"])
    target = _fit(f"{row['target']} {row['args']}".strip(), max(4, int((BAR_X - 14 - OP_X - 7.3 * len(op) - 8) / 6.7)))
    ink = "#b91c1c" if status == "failed" else "#334155"
    attempts = f"  ×{row['attempts']}" if row["attempts"] > 1 else ""
    result = str(row["result"]) if row["end"] is not None else "…"
    return (
        _text(34, y + 17, str(row["step"]), "#94a3b8", size=11, anchor="end", mono=True)
        + _text(OP_X, y + 17, op, "#0f172a", size=12, weight=600, mono=True)
        + _text(OP_X + 7.3 * len(op) + 8, y + 17, target, "#64748b", size=11, mono=True)
        + f'<rect x="{BAR_X}" y="{y + 8}" width="{BAR_WIDTH}" height="10" rx="5" fill="#f1f4f8"/>'
        + f'<rect x="{BAR_X + x:.1f}" y="{y + 8}" width="{width:.1f}" height="10" rx="{min(5.0, width / 2):.1f}" fill="{colour}"/>'
        + _text(RESULT_X - 12, y + 17, duration(until - float(row["start"])) + attempts, "#64748b", size=11, anchor="end")
        + _text(RESULT_X, y + 17, _fit(result, int((WIDTH - RESULT_X - 16) / 6.7)), ink, size=11, mono=True)
    )


def bar(start: float, until: float, begin: float, end: float) -> tuple[float, float]:
    """Where a step's bar begins and how wide it is, in the units of the picture; never too thin to see."""
    span = max(end - begin, 1.0)
    width = max(3.0, (until - start) / span * BAR_WIDTH)
    x = min(max(0.0, (start - begin) / span * BAR_WIDTH), BAR_WIDTH - 3.0)
    return x, min(width, BAR_WIDTH - x)


def _mark(row: Mapping[str, Any], y: int) -> str:
    return _text(OP_X, y + 13, _fit(f"{row['mark']}  {row['text']}".rstrip(), 120), "#64748b", size=11, style="italic")


def _footer_text(model: Mapping[str, Any]) -> str:
    if model["error"]:
        return str(model["error"])
    if model["status"] == "completed":
        return f"→ {model['result']}"
    waiting = [item["text"] + (f" (step {item['step']})" if item["step"] else "") for item in model["waiting"]]
    if not waiting:
        return ""
    since = f" since {clock(model['waiting_since'])}" if model["waiting_since"] else ""
    return f"waiting for {', '.join(waiting)}{since}"


def _footer(model: Mapping[str, Any], y: int) -> str:
    text = _footer_text(model)
    if not text:
        return ""
    colour = "#b91c1c" if model["error"] else "#0f172a" if model["status"] == "completed" else "#b45309"
    return f'<line x1="1" x2="{WIDTH - 1}" y1="{y - 2}" y2="{y - 2}" stroke="#e5e8ec"/>' + _text(
        20, y + 17, _fit(text, 128), colour, size=12, mono=model["status"] == "completed"
    )


def _table(model: Mapping[str, Any]) -> str:
    cell = 'style="text-align:left;vertical-align:top;padding:2px 12px 2px 0"'
    head = "".join(f"<th {cell}>{name}</th>" for name in ("step", "operation", "arguments", "result", "took", "attempts"))
    lines = []
    for row in model["rows"]:
        if row["mark"]:
            continue
        took = duration(float(row["end"]) - float(row["start"])) if row["end"] is not None else "–"
        texts = (row["step"], f"{row['op']} {row['target']}", row["args_long"], row["result_long"], took, row["attempts"] or "")
        lines.append("<tr>" + "".join(f"<td {cell}>{escape(str(text))}</td>" for text in texts) + "</tr>")
    return (
        f"<details><summary>{len(lines)} steps in full</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></details>"
    )


def _text(
    x: float,
    y: float,
    text: str,
    fill: str,
    *,
    size: int,
    weight: int = 400,
    anchor: str = "start",
    mono: bool = False,
    style: str = "normal",
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y}" fill="{fill}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'xml:space="preserve" style="font-style:{style};{MONO if mono else FONT}">{escape(_clean(text), quote=False)}</text>'
    )


def _clean(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(c if c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff" else " " for c in text)


def _fit(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…" if limit > 1 else ""
