"""Forks and upgrades from Python: a program that hosts and one that is attached; both faces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import Stores

import flowmetal
from flowmetal.client.client import Row

OLD = "(defflow quote [n] (let [a (receive) b (receive)] {:n n :a a :b b}))"


@pytest.fixture(scope="module", params=["hosting", "attached"])
def fm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, module_stores: Stores) -> Iterator[flowmetal.Flowmetal]:
    store = module_stores.at(tmp_path_factory.mktemp(request.param) / "x.duckdb").url
    with flowmetal.open(store) as host:
        if request.param == "hosting":
            yield host
        else:
            with flowmetal.open(store) as attached:
                yield attached


def started(fm: flowmetal.Flowmetal) -> flowmetal.Flow:
    """A flow that waits at its second step."""
    fm.eval(OLD)
    flow = fm.start("quote", 7)
    flow.send("first")
    deadline = time.monotonic() + 20
    while flow.row()["steps"] < 2:
        assert time.monotonic() < deadline
    return flow


def test_forks(fm: flowmetal.Flowmetal) -> None:
    flow = started(fm)
    made = flow.fork(at=1, with_={"k": [1]}, reason="what if")
    made.send("second")
    assert made.result(timeout=30) == {"n": 7, "a": {"k": [1]}, "b": "second"}
    assert (made.row()["forked_from"], made.row()["forked_at"]) == (flow.id, 1)
    assert flow.fork(at=2, with_=None).result(timeout=30) == {"n": 7, "a": "first", "b": None}
    anew = flow.fork(at=2)
    anew.send("its own")
    assert anew.result(timeout=30)["b"] == "its own"
    plan: Row = flow.fork_plan(at=2)
    assert (plan["shared"], plan["again"]) == (1, [])
    with pytest.raises(flowmetal.FlowmetalError, match="no step 9"):
        flow.fork(at=9)


def test_upgrades(fm: flowmetal.Flowmetal) -> None:
    flow = started(fm)
    fm.eval(OLD.replace("b (receive)", 'b (sleep #dur "1s")'))
    with pytest.raises(flowmetal.FlowmetalError, match="but now asks for sleep") as refused:
        flow.upgrade()
    assert refused.value.type == "replay/mismatch"
    assert f"flowmetal fork {flow.id} --at 2 --upgrade" in refused.value.render()
    forked = flow.fork(at=2, upgrade=True)
    assert forked.result(timeout=30) == {"n": 7, "a": "first", "b": None}
    fm.eval(OLD.replace("{:n n", "{:new true :n n"))
    assert flow.upgrade(dry_run=True)["upgraded"] is False
    assert flow.upgrade(reason="a new price")["upgraded"] is True
    flow.send("second")
    assert flow.result(timeout=30) == {"new": True, "n": 7, "a": "first", "b": "second"}


def test_the_asynchronous_face(stores: Stores, tmp_path: Path) -> None:
    async def run() -> None:
        async with flowmetal.open_async(stores.at(tmp_path / "x.duckdb").url) as fm:
            await fm.eval(OLD)
            flow = await fm.start("quote", 1)
            while (await flow.row())["steps"] < 1:
                await asyncio.sleep(0.01)
            await fm.eval(OLD.replace("{:n n", "{:new true :n n"))
            assert (await flow.upgrade(dry_run=True))["upgraded"] is False
            assert (await flow.fork_plan(at=1))["shared"] == 0
            made = await flow.fork(at=1, with_="x", upgrade=True)
            await made.send("y")
            assert await made.result(30) == {"new": True, "n": 1, "a": "x", "b": "y"}
            assert (await flow.upgrade())["upgraded"] is True

    asyncio.run(run())
