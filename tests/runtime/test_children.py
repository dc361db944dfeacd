"""Flows that begin flows: which end with whom, under which definitions, and what passes between them."""

from __future__ import annotations

import pytest
from bench import Bench, scene
from stores import Stores, both

from flowmetal.errors import LispError, SourceError
from flowmetal.store import kinds


@scene
async def test_a_call_gives_the_childs_result(b: Bench) -> None:
    await b.load("(defflow leaf [a c] [(* a c) (parent)]) (defflow main [] (leaf 6 7))")
    flow = await b.start("main")
    child = b.child(flow, 1)
    assert (await b.result(flow))[0] == 42
    row = b.store.flow_row(child)
    assert row is not None and (row["kind"], row["parent_id"]) == ("child", flow)


@scene
async def test_a_childs_error_is_thrown_where_it_was_called(b: Bench) -> None:
    await b.load('(defflow leaf [] (throw (ex-info "broken" {:type :x/broken :n 7}))) (defflow main [] (try (leaf) (catch :x/broken e (:n (ex-data e)))))')
    assert await b.result(await b.start("main")) == 7


@scene
async def test_a_call_ends_with_its_caller(b: Bench) -> None:
    await b.load('(defflow leaf [] (try (receive) (finally (sleep #dur "1s")))) (defflow main [] (leaf))')
    flow = await b.start("main")
    leaf = b.child(flow, 1)
    await b.engine.control(flow, "cancel")
    assert (b.status(flow), b.status(leaf)) == ("waiting", "waiting"), "the caller waits for the child's clean-up"
    await b.advance("1s")
    assert (b.status(flow), b.status(leaf)) == ("cancelled", "cancelled")
    assert [row["reason"] for row in b.rows(leaf, kinds.CANCEL_REQUESTED)] == ["the flow was cancelled"]


@scene
async def test_a_call_ends_with_a_caller_that_is_terminated(b: Bench) -> None:
    await b.load('(defflow leaf [] (try (receive) (finally (log "clean")))) (defflow main [] (leaf))')
    flow = await b.start("main")
    leaf = b.child(flow, 1)
    await b.engine.control(flow, "terminate")
    await b.settle()
    assert (b.status(flow), b.status(leaf)) == ("cancelled", "cancelled")
    assert [row["data"] for row in b.rows(leaf, kinds.LOG)] == ["clean"]


@scene
async def test_a_start_does_not_end_with_its_caller(b: Bench) -> None:
    await b.load("(defflow leaf [] (receive)) (defflow main [] (start leaf) :over)")
    flow = await b.start("main")
    leaf = b.child(flow, 1)
    assert (b.status(flow), b.status(leaf)) == ("completed", "waiting")
    row = b.store.flow_row(leaf)
    assert row is not None and row["parent_id"] is None
    await b.engine.send(leaf, "late")
    assert await b.result(leaf) == "late"


@scene
async def test_a_start_with_parent_ends_with_it(b: Bench) -> None:
    await b.load('(defflow leaf [] (try (receive) (finally (log "clean")))) (defflow main [] (start-with {:with-parent true} leaf) (receive))')
    flow = await b.start("main")
    leaf = b.child(flow, 1)
    row = b.store.flow_row(leaf)
    assert row is not None and row["parent_id"] == flow
    await b.engine.send(flow, 1)
    await b.settle()
    assert (b.status(flow), b.status(leaf)) == ("completed", "cancelled")
    assert [row["data"] for row in b.rows(leaf, kinds.LOG)] == ["clean"]


@both
@scene
async def test_a_flow_whose_owner_ended_while_no_engine_ran_ends_at_the_next_opening(b: Bench) -> None:
    await b.load("(defflow leaf [] (receive)) (defflow main [] (leaf))")
    flow = await b.start("main")
    leaf = b.child(flow, 1)
    b.engine.dispatcher.after = lambda process, turn: None  # type: ignore[method-assign]  # the process dies between commit and dispatch
    await b.engine.control(flow, "terminate")
    assert b.status(leaf) == "waiting"
    await b.restart()
    await b.settle()
    assert b.status(leaf) == "cancelled"


@scene
async def test_the_same_id_twice_is_the_same_flow(b: Bench) -> None:
    await b.load('(defflow leaf [n] n) (defflow main [] (let [h (start-with {:id "one"} leaf 1) g (start-with {:id "one"} leaf 1)] [(= h g) @h @g (:id h)]))')
    assert await b.result(await b.start("main")) == [True, 1, 1, "one"]
    assert await b.result(await b.start("main")) == [True, 1, 1, "one"]
    assert b.kinds("one").count(kinds.FLOW_STARTED) == 1


@scene
async def test_options_of_a_start(b: Bench) -> None:
    await b.load('(defflow leaf [] (receive)) (defflow main [] (start-with {:tags {:of "main" :n 1} :id "tagged"} leaf) 1)')
    await b.start("main")
    row = b.store.flow_row("tagged")
    assert row is not None and row["tags"] == {"of": "main", "n": 1}


@scene
async def test_a_flow_that_begins_later_waits_until_then(b: Bench) -> None:
    await b.load('(defflow leaf [] (log "ran") 5) (defflow main [] (start-with {:id "later" :at #dur "1h"} leaf) 1)')
    await b.start("main")
    assert b.status("later") == "waiting"
    await b.restart()
    await b.advance("59m")
    assert (b.status("later"), b.rows("later", kinds.LOG)) == ("waiting", [])
    await b.advance("1m")
    assert (b.status("later"), await b.result("later")) == ("completed", 5)


@scene
async def test_a_flow_that_has_not_begun_is_cancelled_without_running(b: Bench) -> None:
    await b.load('(defflow leaf [] (log "ran")) (defflow main [] (start-with {:id "later" :at #inst "2030-01-01"} leaf) 1)')
    await b.start("main")
    await b.engine.control("later", "cancel", reason="no need")
    assert b.status("later") == "cancelled"
    assert b.rows("later", kinds.LOG) == []
    assert len(b.engine.timers) == 0


# Definitions


@scene
async def test_a_flow_keeps_the_definitions_that_it_started_with(b: Bench) -> None:
    await b.load("(defn rate [] 1) (defflow leaf [] (rate)) (defflow main [] (receive) [(rate) (leaf) @(start leaf)])")
    old = await b.start("main")
    await b.load("(defn rate [] 2)")
    new = await b.start("main")
    await b.restart()
    for flow in (old, new):
        await b.engine.send(flow, 1)
    assert await b.result(old) == [1, 1, 1], "start and calls use the parent's definitions"
    assert await b.result(new) == [2, 2, 2]
    assert await b.result(await b.start("leaf")) == 2, "from outside, the newest"


@scene
async def test_a_function_value_finds_globals_at_its_own_version(b: Bench) -> None:
    await b.load("(defn rate [] 1) (defflow leaf [] (rate)) (defflow give [] {:f (fn [] [(rate) (leaf) @(start leaf)])})")
    given = await b.cell("(def handle (start give))")
    await b.result(given)
    await b.load("(defn rate [] 2) (defflow use [g] ((:f @g)))")
    assert await b.result(await b.cell("(use handle)")) == [1, 1, 1]
    assert await b.result(await b.cell("[(rate) ((:f @handle))]")) == [2, [1, 1, 1]]


@scene
async def test_a_function_carries_what_it_captured(b: Bench) -> None:
    await b.load("(defflow leaf [f] (receive) (f 1)) (defflow main [] (let [n 10] (leaf (fn [x] (+ n x)))))")
    flow = await b.start("main")
    await b.restart()
    await b.engine.send(b.child(flow, 1), "go")
    assert await b.result(flow) == 11


@scene
async def test_a_cells_pin_moves_with_its_own_defs(b: Bench) -> None:
    await b.load("(defn rate [] 1)")
    cell = await b.cell("(def a (rate)) (receive) (def c (rate)) [a c (rate)]")
    await b.load("(defn rate [] 2)")
    await b.engine.send(cell, 1)
    assert await b.result(cell) == [1, 1, 2], "before its second def it saw what was there when it began"


@pytest.mark.parametrize("source", ["(defflow main [] (def x 1))", "(defflow main [] (async (defn f [] 1)))", "(defn f [] (fn [] (defflow g [] 1)))"])
def test_def_inside_is_an_error(stores: Stores, source: str) -> None:
    @scene
    async def play(b: Bench) -> None:
        with pytest.raises(SourceError, match="definitions stand at the top level"):
            await b.load(source)

    play(stores)


@scene
async def test_the_top_level_of_a_file_and_macros_may_not_wait(b: Bench) -> None:
    for source in ("(def x (now))", "(def x (rand))", '(sleep #dur "1s")', "(defmacro m [] (now)) (defn f [] (m))"):
        with pytest.raises((LispError, SourceError), match="may not wait, nor read time or chance"):
            await b.load(source)
    assert await b.result(await b.cell("(uuid? (random-uuid))")) is True, "a cell may"


@scene
async def test_a_program_from_another_version_runs_as_it_was(b: Bench) -> None:
    await b.load("(defflow leaf [] :old) (defflow give [] [leaf])")
    given = await b.start("give")
    await b.result(given)
    cell = await b.cell("(def programs @(start give))")
    await b.result(cell)
    await b.load("(defflow leaf [] :new)")
    assert await b.result(await b.cell("[((nth programs 0)) @(start (nth programs 0)) (leaf)]")) == ["old", "old", "new"]


# What passes between flows


@scene
async def test_values_pass_between_flows_kind_for_kind(b: Bench) -> None:
    await b.load(
        """(defflow leaf [x] (send (first x) [:k 1.0 #{1} '(1) #inst "2026" #dur "1s" 1M "s" nil 'sym]) x)
           (defflow main []
             (let [back (leaf [(self) {:a [1 2.0 :k 'sym #{1} '(1 2) #dur "1s" 1.50M]}])]
               [(= (nth back 1) {:a [1 2.0 :k 'sym #{1} '(1 2) #dur "1s" 1.50M]}) (pr-str (receive)) (= (first back) (self))]))"""
    )
    same, printed, handle = await b.result(await b.start("main"))
    assert (same, handle) == (True, True)
    assert printed == '[:k 1.0 #{1} (1) #inst "2026-01-01T00:00:00.000-00:00" #dur "1s" 1M "s" nil sym]'


@scene
async def test_an_atom_cannot_leave_its_flow(b: Bench) -> None:
    await b.load(
        """(defflow leaf [a] a) (defflow give [] (atom 1))
           (defflow main []
             [(try (leaf (atom 1)) (catch :type e :refused)) (try (send (self) (atom 1)) (catch :type e :refused)) (try (give) (catch :default e :refused))])"""
    )
    assert await b.result(await b.start("main")) == ["refused", "refused", "refused"]


@scene
async def test_nothing_that_may_change_is_shared_between_flows(b: Bench) -> None:
    await b.load("(defflow leaf [p] (await p)) (defflow main [] (let [p (async (receive))] (leaf p)))")
    flow = await b.start("main")
    leaf = b.child(flow, 1)
    mine = b.engine.actors[flow].process
    its = b.engine.actors[leaf].process
    assert mine is not None and its is not None
    ours = {id(p) for p in mine.state.open.values()} & {id(p) for p in its.state.open.values()}
    assert not ours
    await b.engine.send(flow, 3)
    assert await b.result(flow) == 3
