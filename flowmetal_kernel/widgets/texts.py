"""Plain JSON as short texts for people: what stands in a row of a history.

In: values as outsiders see them. Out: one line each, cut where it grows too long. The one rule: nothing is escaped here;
whoever draws a text escapes it for where it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

SHORT = 160
LONG = 4000
_DEPTH = 12
_TIMED = ("sleep", "timer")


def short_id(flow_id: str) -> str:
    """The first characters of a flow's id: enough to name it on the command line."""
    return flow_id if len(flow_id) <= 12 else flow_id[:8]


def show(value: Any, limit: int = SHORT) -> str:
    """Plain JSON as one line of text in the manner of the language: `{id "A-17", total 4200}`."""
    out: list[str] = []
    size = 0
    for piece in _pieces(value, 0):
        out.append(piece)
        size += len(piece)
        if size > limit:
            return cut("".join(out), limit)
    return "".join(out)


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis where some are missing."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


def plain(value: Any) -> str:
    """A text as it is, nothing as nothing, anything else as `show` has it."""
    return "" if value is None else value if isinstance(value, str) else show(value)


def error(value: Any, limit: int = SHORT) -> str:
    """`type: message` of an error."""
    if not isinstance(value, Mapping):
        return show(value, limit)
    return cut(f"{plain(value.get('type'))}: {plain(value.get('message'))}", limit)


def arguments(op: str, args: Any, target: str, limit: int) -> str:
    """A step's arguments, without what its operation and target say already."""
    items = args if isinstance(args, list) else [] if args is None else [args]
    if op in _TIMED and len(items) == 1 and isinstance(items[0], int | float):
        return duration(float(items[0]) * 1000)
    if op.startswith("http/") and items and isinstance(items[0], Mapping):
        kept = {k: v for k, v in items[0].items() if k not in ("url", "method") and v is not None}
        items = ([kept] if kept else []) + items[1:]
    return cut("  ".join(show(item, limit) for item in items), limit) if [plain(i) for i in items] != [target] else ""


def result(op: str, value: Any) -> str:
    """A step's outcome in a row: of an HTTP answer its status and what it says, anything else whole."""
    if op.startswith("http/") and isinstance(value, Mapping) and "status" in value:
        said = value.get("json")
        said = show(said) if said is not None else plain(value.get("body")).strip()
        return cut(f"{value['status']}  {said}".rstrip(), SHORT)
    return show(value)


def duration(ms: float) -> str:
    """A duration for people: `12 ms`, `3.4 s`, `2 min 5 s`, `3 h 20 min`, `14 d`."""
    if ms < 1000:
        return f"{max(0, round(ms))} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s".replace(".0 s", " s")
    seconds = round(ms / 1000)
    for size, name, below, lower in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // below
            return f"{seconds // size} {name}" + (f" {rest} {lower}" if rest else "")
    return f"{seconds} s"


def millis(moment: Any) -> float:
    """Milliseconds since 1970 of an instant as outsiders see it: ISO 8601 text, or microseconds."""
    if isinstance(moment, int | float):
        return float(moment) / 1000
    parsed = moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000


def _pieces(value: Any, depth: int) -> Iterable[str]:
    if depth > _DEPTH:
        yield "…"
    elif isinstance(value, Mapping):
        yield from _map(value, depth)
    elif isinstance(value, list | tuple):
        yield "["
        for i, item in enumerate(value):
            yield " " if i else ""
            yield from _pieces(item, depth + 1)
        yield "]"
    elif isinstance(value, str):
        yield '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    elif value is None or isinstance(value, bool):
        yield {None: "nil", True: "true", False: "false"}[value]
    else:
        yield str(value)


def _map(value: Mapping[str, Any], depth: int) -> Iterable[str]:
    if set(value) == {"flow_id", "name"}:
        yield f"#flow[{short_id(str(value['flow_id']))} {value['name']}]"
        return
    yield "{"
    for i, (key, item) in enumerate(value.items()):
        yield f"{', ' if i else ''}{key} "
        yield from _pieces(item, depth + 1)
    yield "}"
