"""Queues, schedules, nurseries, runs that begin anew: with the process killed, and commits refused, at every commit."""

from __future__ import annotations

import pytest

from flowmetal.runtime.connector import Call, Failed
from flowmetal.testing import Program, check

pytestmark = pytest.mark.slow


class Mended:
    """An outside where the work 2 fails until the work 7 was done; with the work 0 it is new."""

    def __init__(self) -> None:
        self.mended = False

    def __call__(self, call: Call) -> object:
        """The outcome of a call."""
        n = call.args[0]
        self.mended = n == 7 or (self.mended and n != 0)
        return Failed("user", "not yet") if n == 2 and not self.mended else {"target": call.target}


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
    "retry": Program(
        """(defforeign work [n])
           (defflow leaf [] (saga (on-rollback (work 9)) (work 1) (println "on") (let [p (async (:target (work 2)))] (sleep #dur "1s") @p)))
           (defflow main []
             (work 0)
             (let [h (start-with {:on-failure :pause} leaf)]
               (sleep #dur "1h")
               (work 7)
               [(status h) (do (retry! h "again") @h)]))""",
        answer=Mended(),
    ),
    "retry of a flow that has ended": Program(
        """(defforeign work [n])
           (defflow leaf [] (let [t (timer #dur "3h")] (println "on") (work 1) (try (work 2) (finally (println "off"))) @t))
           (defflow main []
             (work 0)
             (let [h (start leaf)]
               [(try @h (catch :default e (sleep #dur "1h") (work 7) (status h))) (do (retry! h) @h)]))""",
        answer=Mended(),
    ),
    "step": Program(
        """(defforeign work [n])
           (defflow leaf [] (let [a (async (work (receive))) b (async (work (receive)))] (println "on") (now) [(:target @a) (:target @b)]))
           (defflow main []
             (let [h (start leaf)]
               (sleep #dur "1s") (pause! h) (send h 1) (send h 2)
               [(loop [n 0] (if (= :paused (status h)) (do (step! h) (sleep #dur "1s") (recur (inc n))) n)) @h]))""",
    ),
    "saga cancelled while its call is under way": Program(
        """(defforeign work [n] {:timeout #dur "1h"})
           (defforeign undo [r])
           (defflow main [] (async (saga (undoable (work 1) (fn [r] (undo r))))) :over)"""
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
