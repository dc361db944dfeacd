"""Upgrades: a flow in flight goes on under the current definitions, or says precisely why it cannot."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from bench import Bench, scene
from stores import Stores, both

from flowmetal.errors import FlowConflict, FlowEnded, FlowNotFound, LispError
from flowmetal.store import kinds
from flowmetal.testing.audit import audit

OLD = """\
(defforeign work [n])
(defflow main [x]
  (println "began")
  (let [a (:target (work x)) m (receive)]
    [:old a m]))
"""
NEW = OLD.replace("began", "this flow began").replace("[:old a m]", '(do (println "new") [:new a m (:target (work 2))])')


async def upgrade(b: Bench, flow_id: str, **more: Any) -> dict[str, Any]:
    """Upgrades a flow, and lets it go on."""
    report: dict[str, Any] = await b.engine.upgrades.upgrade(flow_id, by="test", **more)
    await b.settle()
    audit(b.store, b.engine.definitions.registry)
    return report


@both
@scene
async def test_a_waiting_flow_goes_on_under_the_current_definitions(b: Bench) -> None:
    await b.load(OLD)
    flow = await b.start("main", 1)
    before = b.engine.definitions.version
    await b.load(NEW)
    report = await upgrade(b, flow, reason="a new price")
    assert report == {"flow_id": flow, "from": before, "to": b.engine.definitions.version, "steps": 2, "upgraded": True}
    (row,) = b.rows(flow, kinds.FLOW_UPGRADED)
    assert (row["by"], row["reason"]) == ("test", "a new price")
    shown = b.store.flow_row(flow)
    assert shown is not None
    assert shown["definitions_version"] == b.engine.definitions.version
    await b.engine.send(flow, "m")
    assert await b.result(flow) == ["new", "work", "m", "work"]
    assert len(b.world.sent) == 2, "the first step was not sent again"
    assert [r["text"] for r in b.rows(flow, kinds.OUTPUT)] == ["began\n", "new\n"], "the past is not told again"


@scene
async def test_it_is_so_after_any_restart_and_with_any_snapshot(b: Bench) -> None:
    b.engine.keep_snapshot = lambda process: not process.ended
    await b.load(OLD)
    flow = await b.start("main", 1)
    await b.load(NEW)
    await upgrade(b, flow)
    old = b.store.snapshot(flow)
    assert old is not None
    for drop in (False, True):
        if drop:
            b.store.drop_derived()
        await b.restart()
        state = await b.engine.state(flow)
        assert state["stack"][0]["source"] == "(let [a (:target (work x)) m (receive)]"
    await b.engine.send(flow, "m")
    assert (await b.result(flow))[0] == "new"


@scene
async def test_the_state_before_it_is_that_of_the_old_definitions(b: Bench) -> None:
    await b.load(OLD)
    flow = await b.start("main", 1)
    await b.load("\n\n" + NEW)
    await upgrade(b, flow)
    await b.engine.send(flow, "m")
    await b.settle()
    lines = [(await b.engine.state(flow, step))["stack"][0]["line"] for step in (1, 2, 3)]
    assert lines == [4, 4, 7]


@scene
async def test_a_dry_run_changes_nothing(b: Bench) -> None:
    await b.load(OLD)
    flow = await b.start("main", 1)
    await b.load(NEW)
    before = b.kinds(flow)
    report = await upgrade(b, flow, dry_run=True)
    assert (report["upgraded"], report["to"], b.kinds(flow)) == (False, b.engine.definitions.version, before)
    await b.engine.send(flow, "m")
    assert (await b.result(flow))[0] == "old"


@scene
async def test_where_nothing_has_changed_nothing_is_written(b: Bench) -> None:
    await b.load(OLD)
    flow = await b.start("main", 1)
    before = b.kinds(flow)
    assert not (await upgrade(b, flow))["upgraded"]
    assert b.kinds(flow) == before


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (OLD.replace("(receive)", "(work 2)"), r"step 2 of \S+ is recorded as receive at test.flow:4:32, but now asks for foreign work at test.flow:4:32"),
        (OLD.replace("(work x)", "(work 9)"), r"step 1 of \S+ is recorded as foreign work at test.flow:4:20, but now asks for foreign work"),
        (OLD.replace("m (receive)", "m nil"), r"step 2 of \S+ is recorded as receive at test.flow:4:32, but now ends before it"),
        (OLD.replace("m (receive)", 'm (throw (ex-info "bad" {}))'), r"step 2 .* but now fails before it: bad"),
        (OLD.replace("m (receive)", "m @(async @(async (receive)) (receive))").replace("[x]", "[x y]"), r"step 1 .* but now fails before it: .*main"),
        (OLD.replace("(:target (work x))", "(:target @(async (work x)))").replace("m (receive)", "m (do @(callback) (receive))"), "now asks for callback"),
    ],
)
def test_the_first_difference_refuses_and_names_both_places(stores: Stores, changed: str, says: str) -> None:
    @scene
    async def play(b: Bench) -> None:
        await b.load(OLD)
        flow = await b.start("main", 1)
        await b.load(changed)
        before = b.kinds(flow)
        with pytest.raises(LispError, match=says) as caught:
            await upgrade(b, flow)
        assert caught.value.type == "replay/mismatch"
        assert caught.value.hint is not None
        step = int(caught.value.message.split()[1])
        assert f"flowmetal fork {flow} --at {step} --upgrade" in caught.value.hint
        assert ("no step agrees" in caught.value.hint) == (step == 1)
        assert b.kinds(flow) == before
        await b.engine.send(flow, "m")
        assert (await b.result(flow))[0] == "old", "it goes on as it was"

    play(stores)


@scene
async def test_what_other_flows_rely_on_must_be_the_same(b: Bench) -> None:
    waits = '(defflow other [] (sleep #dur "1h") 1) (defflow main [] (let [a (start other) b (start other)] @a [:v @b]))'
    await b.load(waits)
    flow = await b.start("main")
    await b.load(waits.replace("@a [:v @b]", "@b [:w @a]"))
    with pytest.raises(LispError, match="other rows await on record"):
        await upgrade(b, flow)
    await b.load(waits.replace("[:v @b]", "[:w @b]"))
    await upgrade(b, flow)
    assert await b.result(flow) == ["w", 1]


@scene
async def test_a_step_that_was_withdrawn_must_be_withdrawn_again(b: Bench) -> None:
    await b.load('(defflow main [] (let [[k v] (select {:m (receive) :t (timer #dur "1h")})] (callback) (receive) k))')
    flow = await b.start("main")
    await b.advance("2h")
    await b.load('(defflow main [] (let [p (receive-promise*) t (timer #dur "1h")] @t (callback) (receive) @p))')
    with pytest.raises(LispError, match="was withdrawn, and now would be waited for"):
        await upgrade(b, flow)


@scene
async def test_what_it_asks_besides_is_asked_from_here_on(b: Bench) -> None:
    await b.load("(defflow main [] [(receive)])")
    flow = await b.start("main")
    await b.load('(defflow main [] (first [(race [(receive)] (do (sleep #dur "1h") :late))]))')
    await upgrade(b, flow)
    assert b.ops(flow) == ["receive", "sleep"]
    assert await b.result(flow) == "late"


@scene
async def test_only_the_present_run(b: Bench) -> None:
    old = "(defforeign work [n]) (defflow main [n] (work n) (if (pos? n) (continue-as (dec n)) (do (receive) [:old n])))"
    await b.load(old)
    flow = await b.start("main", 2)
    await b.load(old.replace("(work n)", "(work n)(when (= n 1) (work 100))").replace(":old", ":new"))
    await upgrade(b, flow)
    await b.restart()
    await b.engine.send(flow, "m")
    assert await b.result(flow) == ["new", 0]


@scene
async def test_the_next_run_begins_with_the_new_definitions(b: Bench) -> None:
    old = "(defflow main [n] (receive) (if (pos? n) (continue-as (dec n)) [:old n]))"
    await b.load(old)
    flow = await b.start("main", 1)
    await b.load(old.replace(":old", ":new"))
    await upgrade(b, flow)
    for n in (1, 2):
        await b.engine.send(flow, n)
    await b.settle()
    await b.restart()
    assert await b.result(flow) == ["new", 0]


@scene
async def test_a_paused_flow_and_one_whose_messages_wait(b: Bench) -> None:
    await b.load(OLD)
    flow = await b.start("main", 1)
    await b.engine.control(flow, "pause")
    await b.engine.send(flow, "m")
    await b.load(NEW)
    await upgrade(b, flow)
    assert b.status(flow) == "paused"
    await b.engine.control(flow, "resume")
    assert await b.result(flow) == ["new", "work", "m", "work"]


@scene
async def test_a_flow_that_has_not_begun(b: Bench) -> None:
    await b.load('(defflow leaf [] :old) (defflow main [] (:id (start-with {:at #dur "1h"} leaf)))')
    leaf = await b.result(await b.start("main"))
    await b.load("(defflow leaf [] :new)")
    await upgrade(b, leaf)
    assert await b.result(leaf) == "new"


@scene
async def test_a_cell(b: Bench) -> None:
    await b.load("(defn price [] 1)")
    cell = await b.cell("(def m (receive)) [m (price)]")
    await b.load("(defn price [] 2)")
    await upgrade(b, cell)
    await b.engine.send(cell, "m")
    await b.settle()
    answer = await b.engine.result(cell)
    assert answer is not None
    assert answer["printed"] == '["m" 2]'


@scene
async def test_a_fork(b: Bench) -> None:
    from flowmetal.runtime.fork import Wish

    await b.load(OLD)
    flow = await b.start("main", 1)
    made = await b.engine.forks.fork(flow, Wish(2))
    await b.settle()
    await b.load(NEW)
    await upgrade(b, made)
    again = await b.engine.forks.fork(made, Wish(2, ("m",)))
    assert await b.result(again) == ["new", "work", "m", "work"]
    await b.engine.send(made, "m")
    assert await b.result(made) == ["new", "work", "m", "work"]


@scene
async def test_where_it_cannot_be(b: Bench) -> None:
    await b.load(OLD)
    with pytest.raises(FlowNotFound):
        await upgrade(b, "nobody")
    flow = await b.start("main", 1)
    await b.engine.send(flow, "m")
    await b.result(flow)
    await b.load(NEW)
    with pytest.raises(FlowEnded, match="completed"):
        await upgrade(b, flow)


@scene
async def test_the_same_request_upgrades_once(b: Bench) -> None:
    await b.load(OLD)
    flow = await b.start("main", 1)
    await b.load(NEW)
    first = await upgrade(b, flow, request_id="r")
    await b.load(NEW.replace(":new", ":newer"))
    assert await upgrade(b, flow, request_id="r") == first
    assert len(b.rows(flow, kinds.FLOW_UPGRADED)) == 1


@scene
async def test_a_flow_that_goes_on_meanwhile(b: Bench) -> None:
    """Between the look at its rows and the row that is written a message comes: it is looked at again."""
    await b.load(OLD)
    flow = await b.start("main", 1)
    await b.load(NEW)
    agree = b.engine.upgrades._agree
    looked = 0

    async def interrupted(*args: Any) -> Any:
        nonlocal looked
        looked += 1
        found = await agree(*args)
        if looked == 1:
            await b.engine.send(flow, "m")
            await asyncio.sleep(0)
        return found

    b.engine.upgrades._agree = interrupted  # type: ignore[method-assign]
    with pytest.raises(FlowEnded):  # it was quick enough to end under its old definitions
        await upgrade(b, flow)
    assert looked == 1
    assert kinds.FLOW_UPGRADED not in b.kinds(flow)
    assert (await b.result(flow))[0] == "old"


@scene
async def test_a_flow_that_never_stands_still(b: Bench) -> None:
    """Whenever it was looked at something has come; paused, it can be upgraded."""
    source = "(defflow main [] (loop [n 0] (if (:end (receive)) [:old n] (recur (inc n)))))"
    await b.load(source)
    flow = await b.start("main")
    await b.load(source.replace(":old", ":new"))
    agree = b.engine.upgrades._agree

    async def interrupted(*args: Any) -> Any:
        found = await agree(*args)
        await b.engine.send(flow, {"more": True})
        return found

    b.engine.upgrades._agree = interrupted  # type: ignore[method-assign]
    with pytest.raises(FlowConflict, match="does not stand still") as caught:
        await upgrade(b, flow)
    assert caught.value.hint == f"pause it first: flowmetal pause {flow}"
    b.engine.upgrades._agree = agree  # type: ignore[method-assign]
    await b.engine.control(flow, "pause")
    await upgrade(b, flow)
    await b.engine.control(flow, "resume")
    await b.engine.send(flow, {"end": True})
    assert await b.result(flow) == ["new", 10]


@scene
async def test_in_the_language(b: Bench) -> None:
    await b.load(OLD)
    flow = await b.start("main", 1)
    await b.load(NEW)
    cell = await b.cell(f'[(:upgraded (upgrade! "{flow}" {{:dry-run true}})) (:steps (upgrade! "{flow}")) (:upgraded (upgrade! "{flow}"))]')
    answer = await b.engine.result(cell)
    assert answer is not None
    assert answer["printed"] == "[false 2 false]"
    await b.load(OLD.replace("(receive)", "(work 2)"))
    cell = await b.cell(f'(try (upgrade! "{flow}") (catch :replay/mismatch e [(ex-data e) (ex-message e)]))')
    answer = await b.engine.result(cell)
    assert answer is not None
    data, message = answer["result"]
    assert data == {"flow": flow, "step": 2}
    assert f"flowmetal fork {flow} --at 2 --upgrade" in message
    assert json.dumps(answer)


@scene
async def test_a_flow_may_upgrade_itself(b: Bench) -> None:
    source = '(defflow main [] (receive) (upgrade! (self)) [:old (sleep #dur "1s")])'
    await b.load(source)
    flow = await b.start("main")
    await b.load(source.replace(":old", ":new"))
    await b.engine.send(flow, "m")
    assert await b.result(flow) == ["new", None]


@scene
async def test_what_a_retry_asked_anew_is_asked_once(b: Bench) -> None:
    await b.load('(defflow kid [] (throw (ex-info "no" {:type :my/no}))) (defflow main [] @(start kid))')
    flow, _ = await b.engine.start_flow("main", [], options={"on_failure": "pause"})
    await b.settle()
    await b.engine.control(flow, "retry")
    await b.settle()
    assert (b.status(flow), len(b.rows(flow, kinds.AWAIT))) == ("paused", 2)
    await b.load("(def something 1)")
    assert (await b.engine.upgrades.upgrade(flow, by="me"))["upgraded"]
