"""A flow's history as a picture needs it: a flow row and its events go in, a plain JSON model comes out.

The one rule: pure. The live view, the static picture and the table below it are drawn from this one model, and so never
disagree. Texts are shortened here, once; whoever draws them escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

MAX_STEPS = 200
SHORT = 160
LONG = 4000
ENDED = frozenset({"completed", "failed", "cancelled", "moved"})
_MARKS = {
    "output": "output",
    "log": "log",
    "checkpoint": "checkpoint",
    "info": "info",
    "message-received": "message",
    "flow-paused": "paused",
    "flow-resumed": "resumed",
    "cancel-requested": "cancel requested",
}


def timeline(flow: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The model of a flow's history: `flow` is a row of the view `flows`, `events` rows of the view `events`."""
    steps: dict[int, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    waiting_since: float | None = None
    for event in events:
        kind, data, at = str(event["kind"]), _data(event), millis(event["at"])
        if kind in ("effect-requested", "value-recorded"):
            step = _new_step(event, data, at)
            steps[step["step"]] = step
            rows.append(step)
        elif event.get("step") in steps and kind.startswith(("effect-", "attempt-")):
            _settle(steps[event["step"]], kind, data, at)
        elif kind == "flow-waiting":
            waiting, waiting_since = list(data.get("for") or []), at
        elif kind == "flow-running":
            waiting, waiting_since = [], None
        elif kind in _MARKS:
            rows.append(_mark(kind, data, at))
    ended = flow.get("status") in ENDED
    return {
        **_header(flow),
        "rows": rows[-MAX_STEPS:],
        "earlier": max(0, len(rows) - MAX_STEPS),
        "ended": ended,
        "waiting": [] if ended else [_waiting_for(w, steps) for w in waiting],
        "waiting_since": None if ended else waiting_since,
        "now": datetime.now(UTC).timestamp() * 1000,
    }


def millis(moment: Any) -> float:
    """Milliseconds since 1970 of an instant as outsiders see it: ISO 8601 text, or microseconds."""
    if isinstance(moment, (int, float)):
        return float(moment) / 1000
    if isinstance(moment, datetime):
        parsed = moment
    else:
        parsed = datetime.fromisoformat(str(moment))
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000


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
            return "".join(out)[: limit - 1] + "…"
    return "".join(out)


def _pieces(value: Any, depth: int) -> Iterable[str]:
    if depth > 12:
        yield "…"
    elif isinstance(value, Mapping):
        yield "{"
        for i, (key, item) in enumerate(value.items()):
            yield f"{', ' if i else ''}{key} "
            yield from _pieces(item, depth + 1)
        yield "}"
    elif isinstance(value, (list, tuple)):
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


def _data(event: Mapping[str, Any]) -> dict[str, Any]:
    data = event.get("data")
    return data if isinstance(data, dict) else {}


def _header(flow: Mapping[str, Any]) -> dict[str, Any]:
    finished = flow.get("finished_at")
    error = flow.get("error")
    done = flow.get("status") == "completed"
    return {
        "flow_id": str(flow["flow_id"]),
        "short": short_id(str(flow["flow_id"])),
        "name": str(flow.get("name") or flow.get("kind") or "flow"),
        "kind": str(flow.get("kind") or "flow"),
        "status": str(flow.get("status") or "running"),
        "args": "  ".join(show(arg) for arg in flow.get("args") or []),
        "info": show(flow["info"]) if flow.get("info") is not None else "",
        "started": millis(flow["created_at"]),
        "finished": millis(finished) if finished else None,
        "result": show(flow.get("result"), LONG) if done else "",
        "error": _error(error, LONG) if error else "",
    }


def _new_step(event: Mapping[str, Any], data: Mapping[str, Any], at: float) -> dict[str, Any]:
    recorded = event["kind"] == "value-recorded"
    op, target = str(data.get("op") or ""), _text(data.get("target"))
    due = data.get("due_at")
    return {
        "mark": None,
        "step": event["step"],
        "op": op,
        "target": target,
        "args": _arguments(data.get("args"), target, SHORT),
        "args_long": _arguments(data.get("args"), target, LONG),
        "line": data.get("line"),
        "start": at,
        "end": at if recorded else None,
        "due": millis(due) if due else None,
        "status": "recorded" if recorded else "open",
        "result": show(data.get("result")) if recorded else "",
        "result_long": show(data.get("result"), LONG) if recorded else "",
        "attempts": 0,
        "notes": [],
    }


def _settle(step: dict[str, Any], kind: str, data: Mapping[str, Any], at: float) -> None:
    if kind == "attempt-started":
        step["attempts"] = max(step["attempts"], int(data.get("attempt") or 0))
        return
    if kind == "attempt-failed":
        step["attempts"] = max(step["attempts"], int(data.get("attempt") or 0))
        step["notes"].append(f"attempt {data.get('attempt')}: {_error(data.get('error'), SHORT)}")
        return
    if step["end"] is not None:
        return
    step["end"] = at
    step["attempts"] = max(step["attempts"], int(data.get("attempts") or 0))
    if kind == "effect-completed":
        step["status"] = "completed"
        step["result"], step["result_long"] = show(data.get("result")), show(data.get("result"), LONG)
    elif kind == "effect-failed":
        step["status"] = "failed"
        step["result"], step["result_long"] = _error(data.get("error"), SHORT), _error(data.get("error"), LONG)
    else:
        step["status"] = "cancelled"
        step["result"] = step["result_long"] = _text(data.get("reason"))


def _mark(kind: str, data: Mapping[str, Any], at: float) -> dict[str, Any]:
    if kind == "output":
        text = _text(data.get("text")).rstrip("\n")
    elif kind in ("flow-paused", "flow-resumed", "cancel-requested"):
        text = _text(data.get("reason"))
    elif kind == "message-received":
        text = show(data.get("message"))
    elif kind == "checkpoint":
        text = _text(data.get("label"))
    else:
        text = show(data.get("data", data.get("info", data)))
    return {"mark": _MARKS[kind], "text": text if len(text) <= SHORT else text[: SHORT - 1] + "…", "start": at}


def _waiting_for(item: Any, steps: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        return {"text": show(item), "step": None, "due": None}
    step = steps.get(item.get("step") or 0)
    op = _text(item.get("op")) or (str(step["op"]) if step else "")
    target = _text(item.get("target")) or (str(step["target"]) if step else "")
    return {"text": f"{op} {target}".strip(), "step": item.get("step"), "due": step["due"] if step else None}


def _arguments(args: Any, target: str, limit: int) -> str:
    """The arguments as text, without what the column before them says already."""
    items = args if isinstance(args, list) else [] if args is None else [args]
    if items and isinstance(items[0], Mapping) and "url" in items[0]:
        kept = {k: v for k, v in items[0].items() if k not in ("url", "method") and v is not None}
        items = ([kept] if kept else []) + items[1:]
    return show(items, limit + 2)[1:-1] if items and [_text(i) for i in items] != [target] else ""


def _error(error: Any, limit: int) -> str:
    if not isinstance(error, Mapping):
        return show(error, limit)
    text = f"{_text(error.get('type'))}: {_text(error.get('message'))}"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else show(value)
