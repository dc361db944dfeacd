"""Forks and upgrades over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engines import Door, door
from stores import Stores

OLD = "(defflow quote [n] (let [a (receive) b (receive)] {:n n :a a :b b}))"


@pytest.fixture(scope="module")
def shim(module_stores: Stores) -> Iterator[Door]:
    with door(module_stores.quick(), OLD) as client:
        yield client


@pytest.fixture
def flow(shim: Door) -> str:
    """A flow that waits at its second step."""
    shim.put("/v1/definitions?file=test.flow", content=OLD)
    flow_id = shim.start("quote", 7)
    shim.post(f"/v1/flows/{flow_id}/messages", json="first")
    shim.waits_for(flow_id, "receive")
    while shim.get(f"/v1/flows/{flow_id}").json()["steps"] < 2:
        pass
    return flow_id


def test_a_fork_is_a_flow(shim: Door, flow: str) -> None:
    answer = shim.post(f"/v1/flows/{flow}/fork", json={"at": 1, "with": {"k": 1}}, headers={"Idempotency-Key": "f1"})
    assert answer.status_code == 200
    made = answer.json()
    assert (made["forked_from"], made["forked_at"], made["name"], made["args"]) == (flow, 1, "quote", [7])
    assert answer.headers["location"] == f"/v1/flows/{made['flow_id']}"
    again = shim.post(f"/v1/flows/{flow}/fork", json={"at": 1, "with": {"k": 1}}, headers={"Idempotency-Key": "f1"})
    assert again.json()["flow_id"] == made["flow_id"]
    shim.post(f"/v1/flows/{made['flow_id']}/messages", json="second")
    assert shim.result(made["flow_id"]) == {"n": 7, "a": {"k": 1}, "b": "second"}


def test_null_is_an_outcome_and_none_is_none(shim: Door, flow: str) -> None:
    given = shim.post(f"/v1/flows/{flow}/fork", json={"at": 2, "with": None}).json()["flow_id"]
    assert shim.result(given) == {"n": 7, "a": "first", "b": None}
    anew = shim.post(f"/v1/flows/{flow}/fork", json={"at": 2}).json()["flow_id"]
    shim.post(f"/v1/flows/{anew}/messages", json="its own")
    assert shim.result(anew) == {"n": 7, "a": "first", "b": "its own"}


def test_what_it_would_do_is_said(shim: Door, flow: str) -> None:
    before = shim.get("/v1/flows").json()["items"]
    plan = shim.post(f"/v1/flows/{flow}/fork", json={"at": 2, "dry_run": True}).json()
    assert (plan["flow_id"], plan["at"], plan["shared"], plan["linked"], plan["again"], plan["rollbacks"]) == (flow, 2, 1, [], [], 0)
    assert shim.get("/v1/flows").json()["items"] == before


def test_an_upgrade(shim: Door, flow: str) -> None:
    shim.put("/v1/definitions?file=test.flow", content=OLD.replace("b (receive)", 'b (sleep #dur "1s")'))
    refused = shim.post(f"/v1/flows/{flow}/upgrade")
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "replay/mismatch")
    assert refused.json()["error"]["data"] == {"flow": flow, "step": 2}
    assert f"flowmetal fork {flow} --at 2 --upgrade" in refused.json()["hint"]
    shim.put("/v1/definitions?file=test.flow", content=OLD.replace("{:n n", "{:new true :n n"))
    tried = shim.post(f"/v1/flows/{flow}/upgrade", json={"dry_run": True}).json()
    assert (tried["upgrade"]["upgraded"], tried["definitions_version"]) == (False, tried["upgrade"]["from"])
    done = shim.post(f"/v1/flows/{flow}/upgrade", json={"reason": "a new price"}, headers={"Idempotency-Key": "u1"}).json()
    assert (done["flow_id"], done["upgrade"]["upgraded"], done["definitions_version"]) == (flow, True, done["upgrade"]["to"])
    assert shim.post(f"/v1/flows/{flow}/upgrade", headers={"Idempotency-Key": "u1"}).json()["upgrade"] == done["upgrade"]
    shim.post(f"/v1/flows/{flow}/messages", json="second")
    assert shim.result(flow) == {"new": True, "n": 7, "a": "first", "b": "second"}
    assert shim.post(f"/v1/flows/{flow}/upgrade").status_code == 410


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("fork", {}, 422), ("fork", {"at": 0}, 422), ("fork", {"at": "1"}, 422), ("fork", {"at": 1, "from": 2}, 422), ("fork", {"at": 99}, 422),
        ("fork", [1], 422), ("upgrade", {"dry": True}, 422), ("upgrade", [1], 422),
    ],
)  # fmt: skip
def test_rubbish(shim: Door, flow: str, action: str, body: object, status: int) -> None:
    answer = shim.post(f"/v1/flows/{flow}/{action}", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert shim.post(f"/v1/flows/nobody/{action}", json={"at": 1} if action == "fork" else {}).status_code == 404
    assert shim.post(f"/v1/flows/{flow}/{action}", json={"at": 1}, headers={"Authorization": "Bearer no"}).status_code == 401
