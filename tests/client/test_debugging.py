"""Retry, step by step, transitions, differences, stuck flows: asked of a host in this program, and of one that is attached to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stores import Stores

import flowmetal

PROGRAM = """\
(defforeign charge [n])
(defforeign forsaken [n])
(defn pay [n] (let [total (* 2 n)] (charge total)))
(defflow order [n] (let [begun (now)] (pay n)))
(defflow counts [] (let [a (receive) b (now)] (receive) [a :counted]))
(defflow waits [] (forsaken 1))
"""


@pytest.fixture(scope="module", params=["hosting", "attached"])
def fm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, module_stores: Stores) -> Iterator[flowmetal.Flowmetal]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "orders.flow").write_text(PROGRAM)
    store = module_stores.at(folder / "x.duckdb").url
    with flowmetal.open(store) as host:
        host.load(folder / "orders.flow")
        if request.param == "hosting":
            yield host
        else:
            with flowmetal.open(store) as attached:
                yield attached


def test_retry(fm: flowmetal.Flowmetal) -> None:
    broken = [True]

    @fm.function("charge")
    def charge(total: int) -> str:
        if broken:
            raise ValueError("the bank is closed")
        return f"charged {total}"

    flow = fm.start("order", 21)
    with pytest.raises(flowmetal.FlowFailed, match="the bank is closed"):
        flow.result(timeout=30)
    where = flow.state()
    assert ([frame["function"] for frame in where["stack"]], where["stack"][0]["locals"]) == (["pay", "order"], {"n": 21, "total": 42})
    assert where["error"]["message"] == "the bank is closed"
    broken.clear()
    flow.retry("it has opened")
    assert flow.result(timeout=30) == "charged 42"
    with pytest.raises(flowmetal.FlowmetalError, match="has not failed: it is completed"):
        fm.retry(flow.id)
    seen = [row["kind"] for row in flow.follow()]
    assert seen[-1] == "flow-completed" and "flow-retried" in seen, "the history goes on beyond the first end"


def test_step_by_step(fm: flowmetal.Flowmetal) -> None:
    flow = fm.start("counts")
    flow.pause()
    flow.send(1)
    flow.step()
    for row in flow.follow():
        if row["kind"] == "flow-paused" and row["data"].get("step") == 2:
            break
    assert (flow.status, flow.state()["step"]) == ("paused", 2)
    fm.step(flow.id)
    flow.resume()
    flow.send(2)
    assert flow.result(timeout=30) == [1, "counted"]


def test_transitions_and_differences(fm: flowmetal.Flowmetal) -> None:
    flow = fm.start("order", 1)
    for row in flow.follow():
        if row["kind"] == "effect-requested":
            break
    first = flow.state(step=1, transition=0)
    last = fm.state(flow.id, 1, first["transitions"])
    assert [frame["function"] for frame in last["stack"]] == ["pay", "order"]
    assert (last["transition"], last["transitions"]) == (first["transitions"], first["transitions"])
    changed = flow.diff(1, 2)
    assert [frame["function"] for frame in changed["fibers"][0]["entered"]] == ["pay"]
    assert fm.diff(flow.id, 1)["from"]["step"] == 1


def test_stuck(fm: flowmetal.Flowmetal) -> None:
    flow = fm.start("waits")
    for row in flow.follow():
        if row["kind"] == "effect-requested":
            break
    (found,) = [each for each in fm.stuck(after=0) if each["flow_id"] == flow.id]
    assert (found["what"], found["name"], found["step"]) == ("unanswered", "waits", 1)
    assert flow.id not in [each["flow_id"] for each in fm.stuck()]
