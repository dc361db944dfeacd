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

from flowmetal_kernel.widgets.texts import cut, duration

WIDTH = 940
HEADER = 60
ROW = 26
MARK = 21
MAX_ROWS = 40
LEFT, OP_X, BAR_X, TOOK_X, RESULT_X = 20, 52, 356, 604, 622
BAR_WIDTH = 170
MONO_WIDTH = 6.63
"""How wide a character of the small monospaced text is, as near as one can say without the font."""
FONT = "font-family:-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
MONO = "font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace"
INK, SOFT, QUIET, LINE, GROOVE = "#0f172a", "#64748b", "#94a3b8", "#e5e8ec", "#f1f4f8"
COLOURS = {
    "running": "#2563eb",
    "waiting": "#b45309",
    "paused": "#7c3aed",
    "completed": "#15803d",
    "failed": "#b91c1c",
    "cancelled": "#64748b",
    "moved": "#64748b",
}
BARS = {"open": "#f59e0b", "completed": "#22a55a", "failed": "#dc2626", "recorded": "#94a3b8", "cancelled": "#cbd5e1"}


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
    y = HEADER + 4
    hidden = int(model["earlier"]) + len(model["rows"]) - len(rows)
    if hidden:
        body.append(_text(OP_X, y + 14, f"… {hidden} earlier rows", SOFT, size=11))
        y += MARK
    for row in rows:
        body.append(_mark(row, y) if row["mark"] else _step(row, y, begin, end))
        y += MARK if row["mark"] else ROW
    y += 4
    text, colour = _footer_text(model)
    if text:
        body.append(_rule(y) + _text(LEFT, y + 22, cut(text, 132), colour, size=12, mono=model["status"] == "completed"))
        y += 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}">'
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{y - 1}" rx="10" fill="#ffffff" stroke="#d8dde3"/>'
        f"{_header(model, end - begin)}{''.join(body)}</svg>"
    )


def clock(ms: float) -> str:
    """A moment for people, in UTC, as the log has it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def bar(start: float, until: float, begin: float, end: float) -> tuple[float, float]:
    """Where a step's bar begins and how wide it is, in the units of the picture; never too thin to see."""
    span = max(end - begin, 1.0)
    width = max(4.0, (until - start) / span * BAR_WIDTH)
    x = min(max(0.0, (start - begin) / span * BAR_WIDTH), BAR_WIDTH - 4.0)
    return x, min(width, BAR_WIDTH - x)


def _header(model: Mapping[str, Any], took: float) -> str:
    status = str(model["status"])
    colour = COLOURS.get(status, SOFT)
    name = cut(str(model["name"]), 40)
    pill = 6.9 * len(status) + 31
    pill_x = WIDTH - LEFT - pill
    room = int((pill_x - LEFT - 9.4 * len(name)) / 7.3) - len(str(model["short"])) - 6
    title = (
        f'<tspan font-size="16" font-weight="600" fill="{INK}" style="{FONT}">{_escaped(name)}</tspan>'
        f'<tspan dx="12" fill="{SOFT}">{_escaped(str(model["short"]))}</tspan>'
        f'<tspan dx="12" fill="#334155">{_escaped(cut(str(model["args"]), max(1, room)))}</tspan>'
    )
    times = f"started {clock(model['started'])}  ·  {duration(took)}"
    return (
        f'<text x="{LEFT}" y="26" font-size="12" xml:space="preserve" style="{MONO}">{title}</text>'
        f'<rect x="{pill_x:.0f}" y="11" width="{pill:.0f}" height="21" rx="10.5" fill="{colour}" fill-opacity=".12"/>'
        f'<circle cx="{pill_x + 12:.0f}" cy="21.5" r="3.5" fill="{colour}"/>'
        + _text(pill_x + 21, 26, status, colour, size=12, weight=600)
        + _text(LEFT, 48, times + (f"  ·  {cut(str(model['info']), 60)}" if model["info"] else ""), SOFT, size=12)
        + _rule(HEADER - 1)
    )


def _step(row: Mapping[str, Any], y: int, begin: float, end: float) -> str:
    status = str(row["status"])
    until = float(row["end"]) if row["end"] is not None else end
    x, width = bar(float(row["start"]), until, begin, end)
    op = str(row["op"])
    target_x = OP_X + 7.3 * len(op) + 8
    target = cut(f"{row['target_short']} {row['args']}".strip(), max(1, int((BAR_X - 14 - target_x) / MONO_WIDTH)))
    is_open = row["end"] is None
    pending = f"until {clock(row['due'])}" if row["due"] else row["pending"]
    result = str(pending if is_open else row["result"])
    ink = {"failed": COLOURS["failed"], "open": COLOURS["waiting"], "cancelled": QUIET}.get(status, "#334155")
    attempts = f" ×{row['attempts']}" if row["attempts"] > 1 else ""
    return (
        _text(OP_X - 14, y + 17, str(row["step"]), QUIET, size=11, anchor="end", mono=True)
        + _text(OP_X, y + 17, op, INK, size=12, weight=600, mono=True)
        + _text(target_x, y + 17, target, SOFT, size=11, mono=True)
        + f'<rect x="{BAR_X}" y="{y + 9}" width="{BAR_WIDTH}" height="8" rx="4" fill="{GROOVE}"/>'
        + f'<rect x="{BAR_X + x:.1f}" y="{y + 9}" width="{width:.1f}" height="8" rx="{min(4.0, width / 2):.1f}" fill="{BARS.get(status, SOFT)}"/>'
        + _text(TOOK_X, y + 17, ("" if status == "recorded" else duration(until - float(row["start"]))) + attempts, SOFT, size=11, anchor="end")
        + _text(RESULT_X, y + 17, cut(result, int((WIDTH - RESULT_X - 16) / MONO_WIDTH)), ink, size=11, mono=not is_open)
    )


def _mark(row: Mapping[str, Any], y: int) -> str:
    kind = str(row["mark"])
    return _text(OP_X, y + 14, kind, QUIET, size=11, style="italic") + _text(
        OP_X + 5.6 * len(kind) + 8, y + 14, cut(" ⏎ ".join(str(row["text"]).split("\n")), 118), SOFT, size=11, mono=True
    )


def _footer_text(model: Mapping[str, Any]) -> tuple[str, str]:
    if model["error"]:
        return str(model["error"]), COLOURS["failed"]
    if model["status"] == "completed":
        return f"→ {model['result']}", INK
    waiting = [f"{item['text']}{' (step ' + str(item['step']) + ')' if item['step'] else ''} since {clock(item['since'])}" for item in model["waiting"]]
    if model["status"] == "paused":
        return "paused: what arrives is kept until it is resumed" + (f"  ·  open: {', '.join(waiting)}" if waiting else ""), COLOURS["paused"]
    doing = "busy with" if model["status"] == "running" else "waiting for"
    return (f"{doing} {', '.join(waiting)}", COLOURS["waiting"]) if waiting else ("", SOFT)


def _rule(y: int) -> str:
    return f'<line x1="1" x2="{WIDTH - 1}" y1="{y}.5" y2="{y}.5" stroke="{LINE}"/>'


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
    summary = f"{len(lines)} step{'' if len(lines) == 1 else 's'} in full"
    return f"<details><summary>{summary}</summary><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></details>"


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
        f'xml:space="preserve" style="font-style:{style};{MONO if mono else FONT}">{_escaped(text)}</text>'
    )


def _escaped(text: str) -> str:
    """As XML text, without the characters that XML cannot hold."""
    return escape("".join(c if c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff" else " " for c in text), quote=False)
