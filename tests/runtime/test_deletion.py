"""Deleting flows that are over."""

from __future__ import annotations

import pytest
from bench import Bench, scene

from flowmetal.errors import FlowConflict, FlowNotFound
from flowmetal.store import kinds

FAMILY = """
(defflow leaf [] 1)
(defflow kid [] (leaf))
(defflow apart [] 2)
(defflow top [] (start apart) (kid))
(defflow waits [] (receive))
(defflow holds [] (let [w (start waits)] (set-info! (str w)) @w))
(defflow calls [] (waits))
"""


async def refused(bench: Bench, flow_id: str, why: str) -> None:
    with pytest.raises(FlowConflict, match=why):
        await bench.engine.keeping.delete(flow_id)


@scene
async def test_a_flow_goes_with_its_children_and_not_with_what_it_started(bench: Bench) -> None:
    await bench.load(FAMILY)
    top = await bench.start("top")
    kid = bench.child(top, 2)
    leaf = bench.child(kid, 1)
    gone = await bench.engine.keeping.delete(top, by="me", reason="old")
    assert gone[0] == top and sorted(gone[1:]) == sorted([kid, leaf])
    assert [row["name"] for row in bench.store.flow_rows()] == ["apart"]
    said = bench.rows(kinds.REMOVED_STREAM)[0]
    assert (set(said["flows"]), said["by"], said["reason"]) == ({top, kid, leaf}, "me", "old")
    with pytest.raises(FlowNotFound):
        await bench.engine.flow(top)


@scene
async def test_what_is_open_or_needed_is_not_deleted(bench: Bench) -> None:
    await bench.load(FAMILY)
    waiting = await bench.start("waits")
    await refused(bench, waiting, "is open: it is waiting")
    caller = await bench.start("calls")
    await refused(bench, caller, "is open")
    holder = await bench.start("holds")
    held = bench.child(holder, 1)
    await bench.engine.control(held, "pause")
    await refused(bench, held, "is open: it is paused")


@scene
async def test_a_child_of_an_open_flow_is_needed(bench: Bench) -> None:
    await bench.load("(defflow leaf [] 1) (defflow top [] (leaf) (receive))")
    top = await bench.start("top")
    await refused(bench, bench.child(top, 1), f"it belongs to flow {top}, which is waiting")
    await bench.engine.send(top, 1)
    await bench.settle()
    assert len(await bench.engine.keeping.delete(top)) == 2


@scene
async def test_the_same_request_again_changes_nothing(bench: Bench) -> None:
    await bench.load(FAMILY)
    flow = await bench.start("leaf", flow_id="mine")
    assert await bench.engine.keeping.delete(flow, request_id="r") == ["mine"]
    await bench.start("leaf", flow_id="mine")
    assert await bench.engine.keeping.delete(flow, request_id="r") == ["mine"]
    assert bench.status("mine") == "completed"


@scene
async def test_an_id_is_free_again(bench: Bench) -> None:
    await bench.load("(defflow f [x] x) (defflow g [] 2)")
    await bench.start("f", 1, flow_id="mine")
    with pytest.raises(FlowConflict):
        await bench.engine.start_flow("g", [], flow_id="mine")
    await bench.engine.keeping.delete("mine")
    assert await bench.result(await bench.start("g", flow_id="mine")) == 2


@scene
async def test_who_holds_a_handle_on_a_flow_that_was_deleted_is_told(bench: Bench) -> None:
    await bench.load("(defflow f [] 1) (defflow holds [] (let [h (start f)] (receive) (try @h (catch :default e (ex-type e)))))")
    holder = await bench.start("holds")
    await bench.engine.keeping.delete(bench.child(holder, 1))
    await bench.engine.send(holder, "go")
    assert await bench.result(holder) == "flow/not-found"


@scene
async def test_a_flow_that_was_deleted_stays_so(bench: Bench) -> None:
    await bench.load(FAMILY)
    flow = await bench.start("leaf")
    await bench.engine.keeping.delete(flow)
    await bench.restart()
    with pytest.raises(FlowNotFound):
        await bench.engine.flow(flow)
    with pytest.raises(FlowNotFound):
        await bench.engine.keeping.delete(flow)
