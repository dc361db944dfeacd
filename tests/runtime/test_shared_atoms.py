"""Atoms given to a top-level def: shared by all flows, each look a step, each change made once."""

from __future__ import annotations

from typing import Any

import pytest
from lives import HandClock, life, play, settle
from stores import several

from flowmetal.testing import Program, check, run_source

COUNTER = """
(def counter (atom 0))
(defflow bump [n] (sleep #dur "1s") (swap! counter + n))
(defflow seen [] @counter)
"""


def held(test: str) -> None:
    (result,) = run_source(f"{COUNTER}(deftest it {test})")
    assert result.ok, result
    assert result.passed


def test_all_flows_see_one_value_and_no_change_is_lost() -> None:
    held("""(let [hs (mapv (fn [n] (start bump n)) [1 2 3 4])]
      (run! deref hs)
      (is (= 10 @counter @(start seen))))""")


def test_all_that_changes_an_atom_changes_a_shared_one() -> None:
    held("""(is (= [true 5 5] [(compare-and-set! counter 0 5) @counter (reset! counter 5)]))
      (is (= [[5 6] [6 7] false 7] [(swap-vals! counter inc) (reset-vals! counter 7) (compare-and-set! counter 0 1) @counter]))
      (is (= true (atom? counter)))
      (is (= 12 (let [k 5] (swap! counter (fn [v] (+ v k))))))""")


def test_each_look_and_each_change_is_one_recorded_step() -> None:
    held("""(let [h (start bump 1)]
      @h
      (is (= ["sleep" "swap!"] (keep (fn [e] (when (:step e) (get-in e [:data :op]))) (history h)))))""")


@pytest.mark.parametrize("form", ['(fn [v] (sleep #dur "1s") v)', "(fn [v] (rand))", "(fn [v] @counter)"])
def test_the_function_that_changes_it_may_not_wait(form: str) -> None:
    held(f"""(is (thrown-with-msg? :value #"may not wait" (swap! counter {form})))
      (is (= 0 @counter))""")


def test_a_function_that_computes_too_long_is_stopped_with_a_word_on_what_to_do() -> None:
    held("""(is (thrown-with-msg? :limit #"compute first" (swap! counter (fn [v] (loop [] (recur))))))
      (is (= 0 @counter))""")


def test_a_function_that_throws_changes_nothing() -> None:
    held("""(is (thrown? :type (swap! counter + "a"))) (is (= 0 @counter))""")


@several
def test_its_value_outlives_the_process_and_defining_it_again_keeps_it(store: Any) -> None:
    async def scene() -> None:
        clock = HandClock()
        async with life(store, clock) as engine:
            await engine.load(COUNTER, file="counter.flow")
            await engine.start_flow("bump", [5], flow_id="b")
            await settle(engine, 2)
        async with life(store, clock) as engine:
            await engine.load(COUNTER, file="counter.flow")
            cell = await engine.eval("[@counter (swap! counter inc)]")
            assert (await engine.result(cell) or {})["result"] == [5, 6]
            cell = await engine.eval("(def mine (atom {:a 1})) (swap! mine assoc :b 2) @mine")
            assert (await engine.result(cell) or {})["result"] == {"a": 1, "b": 2}

    play(scene)


def test_a_failure_makes_no_difference() -> None:
    source = "(def counter (atom 0)) (defflow leaf [n] (swap! counter + n)) (defflow main [] (leaf 1) (leaf 2) (reset-vals! counter (inc @counter)))"
    outcomes = check(Program(source))
    assert outcomes[0].ending["result"] == [3, 4]
