"""Polling, nurseries, deadlines, and runs that begin anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lives import HandClock, life, play, settle
from stores import several

from flowmetal.testing import run_source
from flowmetal.testing.audit import audit

PROGRAMS = """
(defforeign work [n])
(defflow nap [d] (sleep d) d)
(defflow bad [] (sleep #dur "1s") (throw (ex-info "bad" {:type :my/bad})))
(defflow forever [] (try (sleep #dur "99d") (finally (sleep #dur "1h"))))
(defflow count-down [n] (let [m (receive)] (if (pos? n) (continue-as (dec n)) [:done m])))
(defn hours [t] (/ (time/seconds (time/between t (now))) 3600))
"""


def held(test: str) -> None:
    (result,) = run_source(f"{PROGRAMS}(deftest it {test})")
    assert result.ok, result
    assert result.passed


# poll


def test_poll_waits_between_two_looks_and_gives_the_value_that_until_holds_of() -> None:
    held("""(let [n (atom 0) t (now)]
      (is (= 3 (poll {:every #dur "10s" :until (fn [v] (= v 3))} (swap! n inc))))
      (is (= 20 (time/seconds (time/between t (now))))))""")


def test_poll_ends_with_its_timeout_or_gives_else() -> None:
    held("""(is (thrown? :flow/timeout (poll {:every #dur "10s" :timeout #dur "1m"} nil)))
      (is (= :no (poll {:every #dur "10s" :timeout #dur "1m" :else :no} (sleep #dur "1d"))))
      (is (thrown-with-msg? :value #":every" (poll {} nil)))""")


# nursery


def test_a_nursery_ends_after_all_that_was_begun_inside() -> None:
    held("""(let [t (now)]
      (is (= :v (nursery (start nap #dur "1h") (async (sleep #dur "2h") (async (sleep #dur "1h"))) :v)))
      (is (= 3 (hours t))))""")


def test_a_failure_in_a_nursery_cancels_the_rest_and_is_thrown_after_the_clean_up() -> None:
    held("""(let [hs (atom []) t (now)]
      (is (thrown? :my/bad (nursery (swap! hs conj (start forever))
                                    (swap! hs conj (async (sleep #dur "10d")))
                                    (start bad)
                                    (sleep #dur "5d"))))
      (is (= 3601 (time/seconds (time/between t (now)))))
      (is (= :cancelled (status (first @hs)))))""")


def test_a_race_inside_a_nursery_may_have_losers() -> None:
    held("""(is (= [:fast :v] (nursery [(race (do (sleep #dur "1h") :slow) (do (sleep #dur "1s") :fast)) (deref (async :v))])))""")


def test_flows_of_a_nursery_end_with_their_parent_when_that_is_cancelled() -> None:
    (result,) = run_source("""
      (defflow leaf [] (receive))
      (defflow tree [] (nursery (start-with {:id "leaf"} leaf) (sleep #dur "1d")))
      (deftest it (let [h (start tree)] (settle!) (cancel! h) (settle!) (is (= [:cancelled :cancelled] [(status h) (status "leaf")]))))""")
    assert result.ok, result


# continue-as


def test_continue_as_begins_anew_under_the_same_id_and_mailbox() -> None:
    held("""(let [h (start count-down 2)]
      (send h :a) (send h :b)
      (settle!)
      (is (= :waiting (status h)))
      (send h :c)
      (is (= [:done :c] @h)))""")


def test_the_past_of_each_run_can_be_looked_at() -> None:
    held("""(let [h (start count-down 2)]
      (send h :a) (send h :b) (settle!)
      (is (= [2 1 0] (mapv (fn [k] (get-in (state-at h k) [:stack 0 :locals :n])) [1 3 5]))))""")


def test_finally_runs_at_the_end_of_a_run_and_catch_does_not_stop_it() -> None:
    (result,) = run_source("""
      (defforeign note [x])
      (defflow again [n]
        (try (saga (on-rollback (note :undone)) (if (pos? n) (continue-as (dec n)) :over))
             (catch :default e :caught)
             (finally (note n))))
      (deftest it (with-foreign {note (fn [x] nil)} (is (= :over @(start again 2))) (is (= [[2] [1] [0]] (calls 'note)))))""")
    assert result.ok, result


@pytest.mark.parametrize("form", ["(await (async (continue-as)))", '(with-timeout #dur "1h" (continue-as))', "(race (continue-as))"])
def test_continue_as_stands_in_the_flows_own_body(form: str) -> None:
    (result,) = run_source(f'(defflow f [] {form}) (deftest it (is (thrown-with-msg? :value #"own body" @(start f))))')
    assert result.ok, result


@several
def test_a_run_of_many_is_woken_from_its_last_begin_only(store: Any) -> None:
    async def scene() -> None:
        clock = HandClock()
        async with life(store, clock) as engine:
            await engine.load('(defflow f [n] (sleep #dur "1h") (log {:n n}) (if (< n 5) (continue-as (inc n)) (receive)))', file="f.flow")
            await engine.start_flow("f", [0], flow_id="f")
            for _ in range(3):
                await settle(engine, 3600)
        async with life(store, clock, keep_snapshot=lambda process: False) as engine:
            for _ in range(3):
                await settle(engine, 3600)
            assert engine.actors["f"].process is not None
            assert engine.actors["f"].process.state.program.args == [5]
            await engine.send("f", "end")
            assert (await engine.result("f") or {})["result"] == "end"
            runs = [row for row in engine.store.rows("f") if row.kind in ("flow-started", "flow-continued")]
            assert len({json.loads(row.data)["run"] for row in runs}) == 6
            (row,) = engine.store.query("SELECT count(*) AS n, count(DISTINCT step) AS steps FROM effects WHERE flow_id = 'f'").plain()
            assert row["n"] == row["steps"]

    play(scene)


RECEIVING = """
(defflow one-a-run [n] (let [m (receive)] (if (< n 2) (continue-as (inc n)) [n m])))
(defflow leaves-one [n]
  (if (pos? n)
    (receive {:timeout #dur "1h" :else :none})
    (let [p (async (receive {:match {:n 2}}))] (async (await p)) (:n (receive {:match {:n 1}})) (continue-as 1))))
"""


@pytest.mark.parametrize("lasting", [False, True])
@several
def test_a_message_that_an_earlier_run_took_is_not_given_to_a_later_one(store: Any, lasting: bool) -> None:
    async def scene() -> None:
        clock = HandClock()
        options: dict[str, Any] = {} if lasting else {"keep_snapshot": lambda process: False}
        async with life(store, clock, **options) as engine:
            await engine.load(RECEIVING, file="f.flow")
            await engine.start_flow("one-a-run", [0], flow_id="f")
            await engine.send("f", "a")
            await settle(engine)
        async with life(store, clock, **options) as engine:
            await engine.send("f", "b")
            await settle(engine)
            assert (await engine.flow("f"))["status"] == "waiting"
            await engine.send("f", "c")
            assert (await engine.result("f") or {})["result"] == [2, "c"]

    play(scene)


@several
def test_a_message_that_a_run_did_not_come_to_take_is_there_for_the_next(store: Any) -> None:
    async def scene() -> None:
        clock = HandClock()
        async with life(store, clock, keep_snapshot=lambda process: False) as engine:
            await engine.load(RECEIVING, file="f.flow")
            await engine.start_flow("leaves-one", [0], flow_id="f")
            await settle(engine)
            await engine.control("f", "pause")
            await engine.send("f", {"n": 1})
            await engine.send("f", {"n": 2})
            await engine.control("f", "resume")
            assert (await engine.result("f") or {})["result"] == {"n": 2}
            audit(store, engine.definitions.registry)

    play(scene)


# start-with


def test_a_flow_has_as_long_as_it_was_given() -> None:
    held("""(let [h (start-with {:timeout #dur "1h"} nap #dur "2h") t (now) g (start-with {:timeout #dur "3h"} nap #dur "2h")]
      (is (thrown? :flow/timeout @h))
      (is (= 1 (hours t)))
      (is (= :failed (status h)))
      (is (= #dur "2h" @g)))""")


def test_what_start_with_does_not_know_is_refused() -> None:
    held("""(is (thrown? :type (start-with {:timeout 3} nap #dur "1s")))
      (is (thrown? :value (start-with {:on-failure :retry} nap #dur "1s")))
      (is (thrown? :value (start-with {:colour :red} nap #dur "1s")))""")


FAILING = """
(defforeign undo [n])
(defflow fails [] (saga (on-rollback (undo 1)) (now) (try (/ 1 0) (catch :my/other e 0) (finally (undo 2)))))
(defflow catches [] (try (/ 1 0) (catch :arithmetic e :caught)))
"""


def test_a_flow_that_is_to_pause_on_failure_stops_where_it_failed_before_anything_is_undone() -> None:
    (result,) = run_source(f"""{FAILING}(deftest it
      (with-foreign {{undo (fn [n] nil)}}
        (let [h (start-with {{:on-failure :pause}} fails) waiter (async (deref h))]
          (settle!)
          (is (= :paused (status h)))
          (is (= [] (calls 'undo)))
          (is (= :open (promise-status waiter)))
          (is (= 1 (get-in (last (history h)) [:data :step])))
          (resume! h)
          (is (thrown? :arithmetic @h))
          (is (= [[2] [1]] (calls 'undo)))
          (is (= :failed (status h)))
          (is (= :caught @(start-with {{:on-failure :pause}} catches))))))""")
    assert result.ok, result
