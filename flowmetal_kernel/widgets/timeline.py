"""A flow's history as a picture needs it: a flow row and its events go in, a plain JSON model comes out.

The one rule: pure. The live view, the static picture and the table below it are drawn from this one model, and so never
disagree. Texts are shortened here, once; whoever draws them escapes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flowmetal_kernel.widgets.texts import LONG, SHORT, arguments, cut, error, millis, plain, result, short_id, show

MAX_ROWS = 200
FRAMES = 12
LOCALS = 30
ENDED = frozenset({"completed", "failed", "cancelled", "moved"})
_MARKS = {
    "output": "output",
    "log": "log",
    "checkpoint": "checkpoint",
    "info": "info",
    "message-received": "message",
    "flow-paused": "paused",
    "flow-resumed": "resumed",
    "flow-stepped": "one step",
    "flow-retried": "retried",
    "cancel-requested": "cancel asked",
    "flow-forked": "forked",
    "flow-upgraded": "upgraded",
}
_PENDING = {
    "callback": "until its URL is called",
    "receive": "until a message comes",
    "call": "until it ends",
}
_URL = re.compile(r"^https?://")

Row = dict[str, Any]


def timeline(flow: Mapping[str, Any], events: Iterable[Mapping[str, Any]], failure: Mapping[str, Any] | None = None) -> Row:
    """The model of a flow's history: `flow` is a row of the view `flows`, `events` rows of the view `events`; `failure` is the state of one that has failed."""
    steps: dict[int, Row] = {}
    awaits: dict[str, Row] = {}
    rows: list[Row] = []
    for event in events:
        kind, data, at = str(event["kind"]), _data(event), millis(event["at"])
        if kind == "effect-requested" and event["step"] in steps:
            _again(steps[event["step"]], data)
        elif kind in ("effect-requested", "value-recorded"):
            step = steps[event["step"]] = _new_step(event, data, at)
            rows.append(step)
        elif event.get("step") in steps and kind.startswith(("effect-", "attempt-")):
            _settle(steps[event["step"]], kind, data, at)
        elif kind == "await":
            awaits[str(data.get("flow"))] = {"text": f"flow {short_id(str(data.get('flow')))}", "step": None, "due": None, "since": at}
        elif kind == "await-settled":
            awaits.pop(str(data.get("flow")), None)
        elif kind in _MARKS:
            rows.append(_mark(kind, data, at))
    ended = flow.get("status") in ENDED
    header = _header(flow)
    header["started"] = min([header["started"], *(row["start"] for row in rows)])  # what a fork shares is older than the fork
    if ended:
        for step in steps.values():
            _left_open(step, header["finished"])
    return {
        **header,
        "rows": rows[-MAX_ROWS:],
        "earlier": max(0, len(rows) - MAX_ROWS),
        "ended": ended,
        "waiting": [] if ended else [_waiting_for(s) for s in steps.values() if s["end"] is None] + list(awaits.values()),
        "now": datetime.now(UTC).timestamp() * 1000,
        "failure": _failure(failure) if failure is not None and failure.get("error") else None,
    }


def has_failed(flow: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a flow has ended so, or is paused where it failed."""
    if flow.get("status") == "paused":
        pauses = [event for event in events if event["kind"] == "flow-paused"]
        return bool(pauses and _data(pauses[-1]).get("failed"))
    return bool(flow.get("status") == "failed" and flow.get("kind") != "cell")


def _failure(state: Mapping[str, Any]) -> Row:
    """Where a flow failed: the error with its place, and the frames as they stood."""
    problem = state["error"]
    return {**past(state), "error": cut(f":{plain(problem.get('type'))}  {plain(problem.get('rendered') or problem.get('message'))}", LONG)}


def past(state: Mapping[str, Any]) -> Row:
    """A past state as the view shows it: the frames of the flow's own code, innermost first, each with its locals."""
    stack = list(state.get("stack") or [])
    own = [frame for frame in stack if not frame.get("library")] or stack
    return {"step": state.get("step"), "frames": [_frame(frame) for frame in own[:FRAMES]], "more": max(0, len(own) - FRAMES)}


def _frame(frame: Mapping[str, Any]) -> Row:
    locals_ = list((frame.get("locals") or {}).items())
    return {
        "function": plain(frame.get("function")),
        "line": frame.get("line"),
        "source": cut(plain(frame.get("source")), SHORT),
        "locals": [[name, show(value, LONG)] for name, value in locals_[:LOCALS]],
    }


def _data(event: Mapping[str, Any]) -> Row:
    data = event.get("data")
    return data if isinstance(data, dict) else {}


def _header(flow: Mapping[str, Any]) -> Row:
    finished = flow.get("finished_at")
    problem = flow.get("error")
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
        "updated": millis(flow.get("updated_at") or flow["created_at"]),
        "finished": millis(finished) if finished else None,
        "result": show(flow.get("result"), LONG) if done else "",
        "error": error(problem, LONG) if problem else "",
    }


def _new_step(event: Mapping[str, Any], data: Mapping[str, Any], at: float) -> Row:
    recorded = event["kind"] == "value-recorded"
    op, target = plain(data.get("op")), plain(data.get("target"))
    due = data.get("due_at")
    return {
        "mark": None,
        "step": event["step"],
        "op": op,
        "target": target,
        "target_short": _URL.sub("", target),
        "args": arguments(op, data.get("args"), target, SHORT),
        "args_long": arguments(op, data.get("args"), target, LONG),
        "line": data.get("line"),
        "start": at,
        "end": at if recorded else None,
        "due": millis(due) if due else None,
        "status": "recorded" if recorded else "open",
        "pending": _PENDING.get(op, "under way"),
        "result": result(op, data.get("result")) if recorded else "",
        "result_long": show(data.get("result"), LONG) if recorded else "",
        "attempts": 0,
        "notes": [],
    }


def _again(step: Row, data: Mapping[str, Any]) -> None:
    """The step is asked again, as its flow is retried."""
    if step["result"] or step["status"] != "open":
        step["notes"].append(f"before it was retried: {step['status']} {step['result']}".rstrip())
    due = data.get("due_at")
    step.update(end=None, status="open", result="", result_long="", due=millis(due) if due else None)


def _settle(step: Row, kind: str, data: Mapping[str, Any], at: float) -> None:
    if kind in ("attempt-started", "attempt-failed"):
        step["attempts"] = max(step["attempts"], int(data.get("attempt") or 0))
        if kind == "attempt-failed":
            step["notes"].append(f"attempt {data.get('attempt')}: {error(data.get('error'))}")
        return
    if step["end"] is not None:
        return
    step["end"] = at
    step["attempts"] = max(step["attempts"], int(data.get("attempts") or 0))
    if kind == "effect-completed":
        step["status"] = "completed"
        step["result"], step["result_long"] = result(step["op"], data.get("result")), show(data.get("result"), LONG)
    elif kind == "effect-failed":
        step["status"] = "failed"
        step["result"], step["result_long"] = error(data.get("error")), error(data.get("error"), LONG)
    else:
        step["status"] = "cancelled"
        step["result"] = step["result_long"] = plain(data.get("reason"))


def _left_open(step: Row, finished: float | None) -> None:
    """What nobody had answered when the flow ended will never be."""
    if step["end"] is None and finished is not None:
        step.update(end=finished, status="cancelled", result="the flow ended first", result_long="the flow ended first")


def _mark(kind: str, data: Mapping[str, Any], at: float) -> Row:
    if kind == "output":
        text = plain(data.get("text")).rstrip("\n")
    elif kind in ("flow-paused", "flow-resumed", "flow-stepped", "flow-retried", "cancel-requested"):
        text = plain(data.get("reason"))
    elif kind == "message-received":
        text = show(data.get("message"))
    elif kind == "flow-forked":
        text = f"what is above is shared with {short_id(plain(data.get('from')))}, up to step {data.get('steps')}"
    elif kind == "flow-upgraded":
        text = f"from version {data.get('from')} of the definitions to {data.get('version')}"
    elif kind == "checkpoint":
        text = plain(data.get("label"))
    else:
        text = show(data.get("data"))
    return {"mark": _MARKS[kind], "text": cut(text, SHORT), "start": at}


def _waiting_for(step: Mapping[str, Any]) -> Row:
    text = f"{step['op']} {step['target']}".strip()
    return {"text": cut(text, SHORT), "step": step["step"], "due": step["due"], "since": step["start"]}
