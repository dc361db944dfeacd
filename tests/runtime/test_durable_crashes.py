"""Queues, schedules, nurseries, runs that begin anew: with the process killed, and commits refused, at every commit."""

from __future__ import annotations

import pytest

from flowmetal.testing import Program, check

PROGRAMS = {
    "queue": Program(
        """(defforeign work [n])
           (defflow leaf [n] (sleep #dur "1m") (work n) n)
           (defflow main []
             (queue :q {:concurrency 1 :rate [2 #dur "1h"]})
             (let [hs (mapv (fn [n] (start-with {:queue :q} leaf n)) [1 2 3])]
               [(mapv deref hs) (:target (call 'work [4] {:queue :q :timeout #dur "1d"}))]))"""
    ),
    "schedule": Program(
        """(defflow tick [due main] (send main due))
           (defflow main []
             (schedule "s" #dur "1h" tick :schedule/due (self))
             (let [times [(receive) (receive)]] (unschedule "s") (count times)))"""
    ),
    "nursery": Program(
        """(defforeign work [n])
           (defflow leaf [n] (work n) (sleep #dur "1h"))
           (defflow bad [] (sleep #dur "1m") (throw (ex-info "bad" {:type :my/bad})))
           (defflow main []
             [(nursery (start leaf 1) (async (work 2) (async (sleep #dur "2h"))) :v)
              (try (nursery (start leaf 3) (start bad) (async (try (sleep #dur "1d") (finally (work 4))))) (catch :my/bad e :bad))])"""
    ),
    "poll": Program(
        """(defforeign work [n])
           (defflow main [] (let [n (atom 0)] (poll {:every #dur "1m" :timeout #dur "1h"} (work @n) (< 2 (swap! n inc)))))"""
    ),
    "continue-as": Program(
        """(defforeign work [n])
           (defflow main
             ([] (continue-as 2))
             ([n] (let [p (async (sleep #dur "1d"))] (work n) (println n) (if (pos? n) (continue-as (dec n)) :over))))"""
    ),
    "pause on failure": Program(
        """(defforeign work [n])
           (defflow leaf [] (try (work 1) (sleep #dur "1s") (throw (ex-info "bad" {:type :my/bad})) (finally (work 2))))
           (defflow main []
             (let [h (start-with {:on-failure :pause} leaf)]
               (sleep #dur "1h")
               [(status h) (do (resume! h) (try @h (catch :my/bad e :bad)))]))"""
    ),
    "source": Program(
        """(defflow main []
             (defsource rows {:url "db" :sql "SELECT * FROM t WHERE n > :cursor" :every #dur "1m" :lag #dur "3m"})
             (let [s (subscribe "rows" {:from :start}) got (mapv (fn [_] (:n (next-event s))) (range 4))]
               (sleep #dur "5m")
               (defsource rows nil)
               [got (await (async (next-event s)) {:timeout #dur "1h" :else :no-more})]))""",
        answer=lambda call: [{"n": n} for n in range(1, 5) if n > call.args[2]] if call.op == "source/read" else None,
    ),
    "deadline": Program(
        """(defforeign work [n])
           (defflow leaf [] (try (sleep #dur "1d") (finally (work 1))))
           (defflow main [] (try @(start-with {:timeout #dur "1h"} leaf) (catch :flow/timeout e :late)))"""
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_failure_makes_no_difference(name: str) -> None:
    outcomes = check(PROGRAMS[name])
    assert max(outcome.lives for outcome in outcomes) > 1, "no run was killed"
