"""A past state as the saved notebook and a terminal show it: what `timeline.past` made goes in, HTML or text comes out.

The one rule: every text from outside is escaped, here, where it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12px;text-align:left;vertical-align:top;padding:1px 14px 1px 0"


def html(past: Mapping[str, Any]) -> str:
    """The frames, innermost first, each with its locals."""
    parts = [f"<p><b>{escape(_title(past))}</b></p>"]
    if past.get("error"):
        parts.append(f"<pre>{escape(past['error'])}</pre>")
    for frame in past["frames"]:
        parts.append(f"<p><code><b>{escape(frame['function'])}</b> line {frame['line']}</code><br><code>{escape(frame['source'])}</code></p>")
        rows = "".join(f'<tr><td style="{_MONO}">{escape(name)}</td><td style="{_MONO}">{escape(value)}</td></tr>' for name, value in frame["locals"])
        parts.append(f'<table style="margin:0 0 12px 0"><tbody>{rows}</tbody></table>' if rows else "")
    return "".join(parts)


def _title(past: Mapping[str, Any]) -> str:
    return "where it failed" if past.get("error") else f"as it asked for step {past['step']}"


def text(past: Mapping[str, Any]) -> str:
    """The same for a terminal."""
    lines = [_title(past)] + ([past["error"]] if past.get("error") else [])
    for frame in past["frames"]:
        lines += ["", f"{frame['function']} line {frame['line']}", f"  {frame['source']}"]
        lines += [f"    {name} = {value}" for name, value in frame["locals"]]
    return "\n".join(lines)
