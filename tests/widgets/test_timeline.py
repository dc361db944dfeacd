"""A flow's history as a model, and the picture that is drawn of it."""

from __future__ import annotations

import base64
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowmetal_kernel.widgets import picture, stack
from flowmetal_kernel.widgets.texts import arguments, duration, result, show
from flowmetal_kernel.widgets.timeline import MAX_ROWS, has_failed, past, timeline

T0 = 1_790_000_000_000_000


def event(seq: int, kind: str, step: int | None = None, **data: Any) -> dict[str, Any]:
    """A row of the view `events`, a second after the one before it."""
    return {"seq": seq, "kind": kind, "step": step, "fiber": 1, "at": T0 + seq * 1_000_000, "data": data}


def flow(status: str = "waiting", **more: Any) -> dict[str, Any]:
    """A row of the view `flows`."""
    known = {"flow_id": "abcdefghijklmnop", "name": "fulfil", "kind": "flow", "status": status, "created_at": T0, "args": [{"id": "A-17"}]}
    return {**known, "info": None, "result": None, "error": None, "finished_at": None, **more}


CALL = event(
    2, "effect-requested", 1, op="http/post", target="http://shop/orders", args=[{"url": "http://shop/orders", "method": "post", "json": {"n": 1}}], line=4
)


def test_a_step_is_asked_tried_and_answered() -> None:
    answer = {"status": 200, "headers": {"a": "b"}, "body": "…", "json": {"ok": True}}
    rows = [CALL, event(3, "attempt-failed", 1, attempt=1, error={"type": "http/connect", "message": "refused"})]
    row = timeline(flow(), [*rows, event(4, "effect-completed", 1, attempts=2, result=answer)])["rows"][0]
    assert (row["op"], row["target"], row["args"], row["result"]) == ("http/post", "http://shop/orders", "{json {n 1}}", "200  {ok true}")
    assert (row["attempts"], row["end"] - row["start"], row["status"]) == (2, 2000, "completed")
    assert row["notes"] == ["attempt 1: http/connect: refused"]


def test_what_is_open_is_what_it_waits_for_and_since_when() -> None:
    rows = [CALL, event(3, "effect-requested", 2, op="callback", target="", args=[]), event(4, "effect-completed", 1, attempts=1, result=None)]
    rows += [event(5, "await", flow="0123456789abcdef", promise="result")]
    model = timeline(flow(), rows)
    assert [(w["text"], w["step"], w["since"]) for w in model["waiting"]] == [
        ("callback", 2, (T0 + 3_000_000) / 1000),
        ("flow 01234567", None, (T0 + 5_000_000) / 1000),
    ]
    settled = timeline(flow(), [*rows, event(6, "await-settled", flow="0123456789abcdef", promise="result")])
    assert [w["text"] for w in settled["waiting"]] == ["callback"]


def test_what_a_fork_shares_is_older_than_the_fork() -> None:
    rows = [CALL, event(3, "flow-forked", **{"from": "0123456789abcdef", "step": 2, "steps": 1}), event(4, "flow-upgraded", **{"from": 3, "version": 5})]
    model = timeline(flow(created_at=T0 + 3_000_000), rows)
    assert model["started"] == model["rows"][0]["start"] == (T0 + 2_000_000) / 1000
    assert [(row["mark"], row["text"]) for row in model["rows"][1:]] == [
        ("forked", "what is above is shared with 01234567, up to step 1"),
        ("upgraded", "from version 3 of the definitions to 5"),
    ]


def test_what_was_open_when_the_flow_ended_is_left_open() -> None:
    model = timeline(flow("failed", finished_at=T0 + 9_000_000, error={"type": "user", "message": "no"}), [CALL])
    assert model["waiting"] == []
    assert (model["rows"][0]["status"], model["rows"][0]["result"]) == ("cancelled", "the flow ended first")
    assert model["error"] == "user: no"


def test_marks_stand_among_the_steps() -> None:
    rows = [event(2, "output", text="hello\n"), event(3, "checkpoint", label="half"), event(4, "message-received", message={"a": 1})]
    rows += [event(5, "flow-paused", reason="look"), event(6, "log", data=[1]), event(7, "info", data={"at": "x"})]
    marks = [(row["mark"], row["text"]) for row in timeline(flow(), rows)["rows"]]
    assert marks == [("output", "hello"), ("checkpoint", "half"), ("message", "{a 1}"), ("paused", "look"), ("log", "[1]"), ("info", '{at "x"}')]


def test_a_step_that_is_asked_again_is_one_row_and_says_what_was_before() -> None:
    failed = event(3, "effect-failed", 1, attempts=1, error={"type": "http/connect", "message": "refused"})
    rows = [
        CALL,
        failed,
        event(4, "flow-retried", 1, reason="mended", back=[3]),
        event(5, "effect-requested", 1, op="http/post", target="", args=[], anew=True),
    ]
    model = timeline(flow(), rows)
    assert [(row["mark"], row.get("step")) for row in model["rows"]] == [(None, 1), ("retried", None)]
    step = model["rows"][0]
    assert (step["status"], step["end"], step["notes"]) == ("open", None, ["before it was retried: failed http/connect: refused"])
    done = timeline(flow(), [*rows, event(6, "effect-completed", 1, attempts=1, result=7)])["rows"][0]
    assert (done["status"], done["result"]) == ("completed", "7")


def test_where_a_flow_failed_stands_below_its_history() -> None:
    state = {
        "step": 2, "status": "failed", "error": {"type": "user", "message": "no", "rendered": "no\n  a.flow:3:1\n    (work <more>)\n    ^^^^"},
        "stack": [{"function": "helper", "line": 3, "source": "(work <more>)", "library": False, "locals": {"x": 21}}],
    }  # fmt: skip
    row = flow("failed", finished_at=T0 + 9_000_000, error={"type": "user", "message": "no"})
    assert has_failed(row, [CALL])
    assert not has_failed(flow("paused"), [event(3, "flow-paused", reason="look")])
    assert has_failed(flow("paused"), [event(3, "flow-paused", reason="it has failed: no", failed=True)])
    failure = timeline(row, [CALL], state)["failure"]
    assert (failure["frames"][0]["function"], failure["frames"][0]["locals"]) == ("helper", [["x", "21"]])
    assert "(work <more>)" in failure["error"]
    assert "where it failed" in stack.text(failure) and "x = 21" in stack.text(failure)
    assert "(work &lt;more&gt;)" in stack.html(failure) and "<more>" not in stack.html(failure)
    assert timeline(row, [CALL])["failure"] is None


def test_a_long_history_keeps_its_newest_rows_and_counts_the_rest() -> None:
    model = timeline(flow(), [event(i, "value-recorded", i, op="now", target="", args=[], result=i) for i in range(1, 500)])
    assert (len(model["rows"]), model["earlier"], model["rows"][-1]["step"]) == (MAX_ROWS, 499 - MAX_ROWS, 499)
    assert "earlier rows" in drawn(model)


def test_a_past_state_shows_the_flows_own_frames() -> None:
    frames = [{"function": "post", "line": 18, "source": "(request …)", "library": True, "locals": {"url": "u"}}]
    frames += [{"function": "fulfil", "line": 4, "source": "(http/post …)", "library": False, "locals": {"order": {"id": "A"}, "n": 1}}]
    state = past({"step": 3, "stack": frames})
    assert [f["function"] for f in state["frames"]] == ["fulfil"]
    assert state["frames"][0]["locals"] == [["order", '{id "A"}'], ["n", "1"]]
    assert past({"step": 3, "stack": frames[:1]})["frames"][0]["function"] == "post"
    assert 'order = {id "A"}' in stack.text(state)


DURATIONS = [(0, "0 ms"), (999, "999 ms"), (3_400, "3.4 s"), (300_000, "5 min"), (125_000, "2 min 5 s"), (12_000_000, "3 h 20 min"), (1_209_600_000, "14 d")]


@pytest.mark.parametrize(("ms", "text"), DURATIONS)
def test_durations_are_for_people(ms: float, text: str) -> None:
    assert duration(ms) == text


TEXTS = [
    ({"id": "A", "n": [1, None, True]}, '{id "A", n [1 nil true]}'),
    ({"flow_id": "0123456789abcdef", "name": "sub"}, "#flow[01234567 sub]"),
    ("two\nlines", '"two\\nlines"'),
    ({}, "{}"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_values_are_shown_in_the_manner_of_the_language(value: Any, text: str) -> None:
    assert show(value) == text


def test_arguments_leave_out_what_the_row_says_already() -> None:
    assert arguments("sleep", [300], "", 100) == "5 min"
    assert arguments("call", [4, {"a": 1}], "sub", 100) == "4  {a 1}"
    assert arguments("http/get", [{"url": "u", "method": "get"}], "u", 100) == ""
    assert result("http/get", {"status": 404, "body": "not here\n"}) == "404  not here"


# The picture


def drawn(model: dict[str, Any]) -> str:
    """The text in a model's picture, which must be XML."""
    return " ".join(ElementTree.fromstring(picture.svg(model)).itertext())


@pytest.mark.parametrize("status", ["running", "waiting", "paused", "completed", "failed", "cancelled", "moved"])
def test_every_status_has_its_picture(status: str) -> None:
    ended = status in ("completed", "failed", "cancelled", "moved")
    model = timeline(flow(status, finished_at=T0 + 9_000_000 if ended else None, result=[1]), [CALL])
    text = drawn(model)
    assert status in text and "fulfil" in text and "http/post" in text
    assert ("→ [1]" in text) == (status == "completed")


def test_the_html_survives_a_sanitiser() -> None:
    html = picture.html(timeline(flow("completed", finished_at=T0 + 1, name='<b>&"', result="<i>"), [CALL]), table=True)
    assert re.fullmatch(
        r'<img alt="[^"<>]*" width="\d+" style="max-width:100%" src="data:image/svg\+xml;base64,[A-Za-z0-9+/=]+"><details>.*</details>', html, re.DOTALL
    )
    assert "<b>" not in html and "<i>" not in html and "<script" not in html and "<style" not in html
    svg = base64.b64decode(re.findall(r"base64,([^\"]+)", html)[0])
    assert ElementTree.fromstring(svg).tag.endswith("svg")


@given(st.text(max_size=60), st.text(max_size=200))
def test_no_text_breaks_the_picture(name: str, said: str) -> None:
    model = timeline(
        flow(name=name, args=[said], info=said), [event(2, "output", text=said), event(3, "value-recorded", 1, op=said, target=said, args=[said], result=said)]
    )
    ElementTree.fromstring(picture.svg(model))
