"""Sagas that are cancelled while a call is under way: what was not sent is withdrawn, what was sent is awaited."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from engines import Door, door
from stores import Stores

PROGRAM = """
(defforeign charge [n] {:timeout #dur "10s" :retry {:max-attempts 5 :initial #dur "1ms"}})
(defforeign hasty [n] {:timeout #dur "700ms"})
(defflow pay [] (saga (undoable (charge 1) (fn [r] (set-info! r))) :paid))
(defflow pay-fast [] (saga (undoable (hasty 1) (fn [r] (set-info! r))) :paid))
(defflow queued [] (queue :one {:concurrency 1})
  (saga (undoable (call 'charge [2] {:queue :one :timeout #dur "10s"}) (fn [r] (set-info! r)))))
"""


@pytest.fixture
def http(stores: Stores) -> Iterator[Door]:
    with door(stores.quick(), PROGRAM) as client:
        yield client


def lease(http: Door, name: str, seconds: float = 30) -> dict[str, Any]:
    (task,) = http.post("/v1/tasks/lease", json={"functions": [name], "wait": 5, "lease": seconds}).json()["tasks"]
    return dict(task)


def cancel(http: Door, flow: str) -> None:
    assert http.post(f"/v1/flows/{flow}/cancel", json={"reason": "enough"}).status_code == 200


def undone(http: Door, flow: str) -> Any:
    """What the rollback was told of the call."""
    assert http.ended(flow)["status"] == "cancelled"
    return http.get(f"/v1/flows/{flow}").json()["info"]


def waits(http: Door, flow: str) -> None:
    deadline = time.monotonic() + 10
    while not http.rows("SELECT step FROM effects WHERE flow_id = ? AND op = 'foreign'", flow) and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["pay", "queued"])
def test_a_call_that_nobody_has_leased_is_withdrawn(http: Door, name: str) -> None:
    flow = http.start(name)
    waits(http, flow)
    cancel(http, flow)
    assert undone(http, flow)["error"]["type"] == "flow/cancelled"
    assert http.post("/v1/tasks/lease", json={"functions": ["charge"], "wait": 0}).json() == {"tasks": []}


def test_one_that_was_leased_is_awaited_and_undone_by_its_value(http: Door) -> None:
    flow = http.start("pay")
    task = lease(http, "charge")
    cancel(http, flow)
    assert http.get(f"/v1/flows/{flow}/result?wait=0.2").status_code == 202, "it waits for the answer"
    assert http.post(f"/v1/tasks/{task['id']}/complete", json={"result": {"id": "ch_1"}}).status_code == 200
    assert undone(http, flow) == {"value": {"id": "ch_1"}}


def test_one_that_fails_then_is_not_tried_again(http: Door) -> None:
    flow = http.start("pay")
    task = lease(http, "charge")
    cancel(http, flow)
    http.post(f"/v1/tasks/{task['id']}/fail", json={"error": {"type": "card/declined", "message": "no"}, "retry": True})
    assert undone(http, flow)["error"]["type"] == "card/declined"


def test_after_its_timeout_only_its_key_is_known(http: Door) -> None:
    flow = http.start("pay-fast")
    task = lease(http, "hasty")
    cancel(http, flow)
    assert undone(http, flow) == {"unknown": task["idempotency_key"]}


def test_when_the_worker_dies_only_its_key_is_known(http: Door) -> None:
    flow = http.start("pay")
    task = lease(http, "charge", seconds=0.3)
    cancel(http, flow)
    assert undone(http, flow) == {"unknown": task["idempotency_key"]}
    assert http.post("/v1/tasks/lease", json={"functions": ["charge"], "wait": 0}).json() == {"tasks": []}
