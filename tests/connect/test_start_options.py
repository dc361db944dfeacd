"""Flows begun from outside, with the options of start-with."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import Door, door
from lives import HandClock, life, play, settle
from stores import Stores

import flowmetal
from flowmetal.errors import LispError
from flowmetal.runtime.engine import Engine

PROGRAM = """
(defflow add [a b] (+ a b))
(defflow boom [] (throw (ex-info "it broke" {})))
(defflow long [] (sleep #dur "1d"))
(defflow limits [] (queue :one {:concurrency 1}))
"""


@pytest.fixture(scope="module")
def http(module_stores: Stores) -> Iterator[Door]:
    with door(module_stores.quick(), PROGRAM) as client:
        client.result(client.start("limits"))
        yield client


def test_at_says_when_a_flow_begins(http: Door) -> None:
    later = http.start("add", 1, 2, at="2999-01-01T00:00:00Z")
    assert http.get(f"/v1/flows/{later}").json()["status"] == "waiting"
    assert http.result(http.start("add", 1, 2, at=0.05)) == 3
    assert http.result(http.start("add", 1, 2, at="50ms")) == 3
    assert http.result(http.start("add", 1, 2, at="2001-01-01T00:00:00Z")) == 3, "a time that has passed is now"


def test_tags_are_in_the_views(http: Door) -> None:
    flow = http.start("add", 1, 2, tags={"env": "prod", "team": ["a"]})
    assert http.get(f"/v1/flows/{flow}").json()["tags"] == {"env": "prod", "team": ["a"]}


def test_a_queue_holds_flows_back_and_priority_says_who_is_next(http: Door) -> None:
    first = http.start("long", queue="one")
    low, high = http.start("add", 1, 1, queue="one"), http.start("add", 2, 2, queue="one", priority=5)
    assert {http.get(f"/v1/flows/{flow}").json()["status"] for flow in (low, high)} == {"waiting"}
    http.post(f"/v1/flows/{first}/cancel", json={})
    assert [http.result(low), http.result(high)] == [2, 4]
    begun = http.rows("SELECT flow_id FROM events WHERE kind = 'effect-completed' AND step = 0 AND flow_id IN (?, ?) ORDER BY pos", low, high)
    assert begun == [[high], [low]]


def test_a_flow_that_takes_too_long_fails_and_one_that_fails_may_pause(http: Door) -> None:
    assert http.ended(http.start("long", timeout=0.05))["error"]["type"] == "flow/timeout"
    paused = http.start("boom", on_failure="pause")
    http.get(f"/v1/flows/{paused}/result?wait=0.2")
    assert http.get(f"/v1/flows/{paused}").json()["status"] == "paused"


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        ({"at": "tomorrow"}, 422, "1h30m"), ({"at": "2026-13-01"}, 422, "2026-13-01"), ({"at": -1}, 422, "seconds from now"),
        ({"timeout": "soon"}, 422, "1h30m"),
        ({"timeout": -1}, 422, "seconds"), ({"queue": ""}, 422, "queue"), ({"tags": ["a"]}, 422, "tags"), ({"priority": "x"}, 422, "priority"),
        ({"on_failure": "stop"}, 422, "pause"), ({"on-failure": "pause"}, 422, "on-failure"), ({"timeout": 1e300}, 422, "seconds"),
    ],
)  # fmt: skip
def test_what_they_cannot_be_is_refused_and_begins_nothing(http: Door, given: dict[str, Any], status: int, says: str) -> None:
    before = http.rows("SELECT count(*) FROM flows")
    answer = http.post("/v1/flows", json={"name": "add", "args": [1, 2], **given})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.text
    assert http.rows("SELECT count(*) FROM flows") == before


def test_options_survive_a_restart_and_a_lost_answer_begins_no_second_flow(stores: Stores) -> None:
    store, clock = stores.quick(), HandClock()

    async def scene() -> None:
        async with life(store, clock) as engine:
            await engine.load(PROGRAM, file="p.flow")
            for _ in range(2):
                await engine.start_flow("add", [1, 2], flow_id="a", request_id="r", options={"at": 60, "queue": "one", "tags": {"n": 1}})
        async with life(store, clock) as engine:
            assert (await engine.flow("a"))["status"] == "waiting"
            await settle(engine, 60)
            assert (await engine.flow("a"))["result"] == 3
            assert await _rows(engine) == [(1,)]

    play(scene)


async def _rows(engine: Engine) -> list[Any]:
    return (await engine.sql("SELECT count(*) FROM flows")).rows


def test_in_python_times_are_datetimes_and_seconds(tmp_path: Path) -> None:
    (tmp_path / "p.flow").write_text(PROGRAM)
    with flowmetal.open(":memory:") as fm:
        fm.load(tmp_path / "p.flow")
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(milliseconds=20)
        assert fm.start("add", 1, 2, at=soon, tags={"n": 1}, queue="q", priority=1).result(10) == 3
        with pytest.raises(flowmetal.FlowFailed):
            fm.start("long", timeout=datetime.timedelta(milliseconds=20)).result(10)
        with contextlib.suppress(flowmetal.FlowTimeout):
            fm.start("boom", id="b", on_failure="pause").result(0.2)
        assert fm.status("b") == "paused"
        with pytest.raises(LispError, match="a flow cannot be started with colour"):
            fm.start("add", 1, 2, colour="red")  # type: ignore[call-arg]
        assert json.dumps(fm.flows(name="add")[0]["tags"]) == '{"n": 1}'
