"""Programs for the crash simulation: between them they use every durable form there is.

Each is a name and a `Program`: source text with a flow `main`, and, where the outside has a part in it, a driver that
every life of the process begins anew. Their results do not depend on what chance gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flowmetal.errors import FlowEnded, FlowNotFound
from flowmetal.runtime.connector import Call, Failed
from flowmetal.runtime.engine import Engine
from flowmetal.store import kinds
from flowmetal.testing import Program

Driver = Callable[[Engine, str], Any]


def callbacks(count: int) -> Driver:
    """Answers the flow's first callbacks, as soon as they are there; one that was answered in an earlier life is refused."""

    async def drive(engine: Engine, flow_id: str) -> None:
        answered = 0
        async for _ in engine.watch(flow_id):
            rows = await engine.writer.call(engine.store.rows, flow_id)
            asked = [row for row in rows if row.kind == kinds.EFFECT_REQUESTED and json.loads(row.data)["op"] == "callback"]
            for n, row in enumerate(asked[answered:], answered + 1):
                assert row.key is not None
                await engine.settle_callback(row.key, {"n": n})
            answered = len(asked)
            if answered >= count or (rows and rows[-1].kind in kinds.ENDING):
                return

    return drive


def messages(*sent: Any) -> Driver:
    """Sends the flow messages, each under its own key."""

    async def drive(engine: Engine, flow_id: str) -> None:
        try:
            for n, message in enumerate(sent):
                await engine.send(flow_id, message, key=f"m{n}")
        except FlowEnded:  # it had all of them in an earlier life
            return

    return drive


async def until_it_waits(engine: Engine, flow_id: str) -> None:
    """Returns when the flow waits, or has waited."""
    async for _ in engine.watch(flow_id):
        if await engine.writer.call(engine.store.rows, flow_id, 0, 1, kinds.ENDING | {kinds.FLOW_WAITING}):
            return


def actions(*named: str) -> Driver:
    """Controls the flow when it waits; an action on a flow that has ended was done in an earlier life."""

    async def drive(engine: Engine, flow_id: str) -> None:
        await until_it_waits(engine, flow_id)
        try:
            for name in named:
                await engine.control(flow_id, name, reason="by the driver", by="test")
        except (FlowEnded, FlowNotFound):
            return

    return drive


def fails_for(*targets: str) -> Callable[[Call], Any]:
    """A world in which calls of these targets fail."""
    return lambda call: Failed("user", f"no {call.target}") if call.target in targets else {"did": call.target, "args": len(call.args)}


PROGRAMS: dict[str, Program] = {
    "steps": Program('(defforeign work [n]) (defflow main [] (loop [i 0 done []] (if (< i 3) (recur (inc i) (conj done (:target (work i)))) done)))'),
    "http": Program(
        '(defflow main [] (let [r (http/post "http://x/quote" {:json {:a 1}})] (http/get "http://x/ship") (:status r)))'
    ),
    "recorded values": Program(
        """(defflow main []
             (let [t (now) r (rand) n (rand-int 10) u (random-uuid) s (shuffle [1 2 3])]
               (sleep #dur "1s")
               [(= 3 (count s)) (< -1 n 10) (uuid? u) (<= 0 r 1) (= 1.0 (time/seconds (time/between t (now))))]))"""
    ),
    "time": Program(
        """(defflow main []
             (let [t (now) p (timer #dur "2s")]
               (sleep #dur "1s")
               (sleep-until (time/plus t #dur "90s"))
               (await p)
               (await (timer #dur "14d"))
               (await (callback) {:timeout #dur "10s" :else :silent})))"""
    ),
    "callbacks": Program(
        """(defflow main []
             (let [a (callback) b (callback)]
               (http/post "http://x/notify" {:json {:to (count (:url a))}})
               [(:n (await a)) (:n @b)]))""",
        drive=callbacks(2),
    ),
    "mailbox": Program(
        """(defflow main []
             (let [b (receive {:match {:kind "b"}})
                   a (receive)
                   [k v] (select {:m (receive {:match {:kind "d"}}) :t (timer #dur "1h")})]
               [(:kind b) (:kind a) k (:kind v) (receive {:timeout #dur "1s" :else :none})]))""",
        drive=messages({"kind": "a"}, {"kind": "b"}, {"kind": "d"}),
    ),
    "given back": Program(
        """(defflow main []
             (let [[k v] (select {:t (timer #dur "1s") :m (receive {:match {:n 2}})})
                   lost (race (receive {:match {:n 2}}) (do (sleep #dur "1s") :gave-up))]
               (send (self) {:n 2})
               [k lost (receive) (receive {:timeout #dur "1s" :else :empty})]))"""
    ),
    "fibers": Program(
        """(defforeign work [n])
           (defflow main []
             (let [a (async (:target (work 1))) b (async (sleep #dur "1s") (:target (work 2)))]
               (log {:began 2})
               (checkpoint "both")
               (set-info! {:at "fibers"})
               (println "waiting")
               [@a (await b)]))"""
    ),
    "combinators": Program(
        """(defforeign work [n])
           (defflow main []
             [(race (do (sleep #dur "5s") :slow) (do (sleep #dur "1s") :fast))
              (all [(async (:target (work 1))) (async (sleep #dur "1s") 2)])
              (any [(async (throw (ex-info "no" {}))) (async (sleep #dur "1s") :yes)])
              (mapv (fn [x] (if (:error x) :error (:value x))) (all-settled [(async 1) (async (throw (ex-info "no" {})))]))
              (nth (select [(timer #dur "9s") (timer #dur "2s")]) 0)])"""
    ),
    "all fails": Program(
        """(defflow main []
             (try (all [(async (try (sleep #dur "1d") (finally (sleep #dur "1s") (log "cleaned"))))
                        (async (sleep #dur "1s") (throw (ex-info "broken" {:n 1})))])
                  (catch :default e [(ex-message e) (:n (ex-data e))])))"""
    ),
    "pmap": Program(
        """(defforeign work [n])
           (defflow main [] (mapv :target (pmap (fn [n] (sleep #dur "1s") (work n)) [1 2 3 4] {:max 2})))"""
    ),
    "timeouts": Program(
        """(defforeign work [n])
           (defflow main []
             (let [a (try (with-timeout #dur "1s" (sleep #dur "1h")) (catch :flow/timeout e :late))
                   b (with-timeout #dur "1h" (:target (work 1)))
                   c (try (with-timeout #dur "1s" (try (sleep #dur "1h") (finally (work 2)))) (catch :flow/timeout e :late))]
               [a b c]))"""
    ),
    "children": Program(
        """(defforeign work [n])
           (defflow leaf [n] (work n) (* n n))
           (defflow main []
             (let [h (start leaf 3) g (start-with {:id "named" :tags {:of "main"}} leaf 4)]
               [(leaf 2) @h (await g) @(start-with {:id "named"} leaf 4)]))"""
    ),
    "a child that fails": Program(
        """(defflow leaf [] (sleep #dur "1s") (throw (ex-info "leaf broke" {:type :leaf/broke :n 7})))
           (defflow main [] (try (leaf) (catch :leaf/broke e (:n (ex-data e)))))"""
    ),
    "a call is cancelled": Program(
        """(defforeign work [n])
           (defflow leaf [] (try (sleep #dur "1h") (finally (work 1) (sleep #dur "1s"))))
           (defflow main [] (race (leaf) (do (sleep #dur "1s") :quick)))"""
    ),
    "with parent": Program(
        """(defflow leaf [] (receive))
           (defflow free [] (sleep #dur "1d") :free)
           (defflow main [] (start-with {:with-parent true} leaf) (start free) (sleep #dur "1s") :over)"""
    ),
    "begins later": Program(
        """(defflow leaf [] :begun)
           (defflow main [] (let [h (start-with {:at #dur "1h"} leaf)] [(status h) @h]))"""
    ),
    "catch and finally": Program(
        """(defforeign work [n]) (defforeign undo [n])
           (defflow main []
             (try (work 1) (work 2)
                  (catch :user e (undo 2) (ex-message e))
                  (finally (undo 1))))""",
        answer=fails_for("work"),
    ),
    "cancelled": Program(
        """(defforeign undo [n])
           (defflow main []
             (try (receive) (catch :default e :never) (catch :flow/cancelled e (undo 1)) (finally (sleep #dur "1s") (undo 2))))""",
        drive=actions("cancel"),
    ),
    "terminated": Program("(defflow leaf [] (receive)) (defflow main [] (try (leaf) (finally (sleep #dur \"1h\"))))", drive=actions("terminate")),
    "paused": Program("(defflow main [] (sleep #dur \"1s\") (receive))", drive=None),
    "control of others": Program(
        """(defflow leaf [] (try (receive) (finally (sleep #dur "1s"))))
           (defflow main []
             (let [a (start leaf) b (start leaf) c (start leaf)]
               (pause! a) (send a 1) (resume! a) (cancel! b "enough") (terminate! c)
               [@a (try @b (catch :flow/failed e (:cause (ex-data e)))) (try @c (catch :flow/failed e (:cause (ex-data e))))
                (status a) (try (send b 2) (catch :flow/ended e :ended))]))"""
    ),
    "promises go round": Program(
        """(defflow leaf [p] (await p))
           (defflow main []
             (let [p (async (sleep #dur "1s") {:a [1 :b]}) c (callback)]
               (send (self) {:p p})
               [(leaf p) (await (:p (receive))) (await p) (promise-status p) (:n (leaf c))]))""",
        drive=callbacks(1),
    ),
    "functions go round": Program(
        """(defn twice [x] (* 2 x))
           (defflow leaf [f] (f 4))
           (defflow give [] (fn [x] (twice (twice x))))
           (defflow main [] (let [k 10] [(leaf (fn [x] (+ k (twice x)))) ((give) 1)]))"""
    ),
    "atoms": Program(
        """(defflow main []
             (let [a (atom 0) ps (mapv (fn [i] (async (sleep #dur "1s") (swap! a + i))) [1 2 3])]
               (all ps) (reset! a (* 10 @a)) @a))"""
    ),
    "prints": Program(
        '(defflow main [] (println "a") (print "b") (sleep #dur "1s") (println "c") (loop [i 0] (if (< i 3) (do (prn i) (recur (inc i))) :done)))'
    ),
    "many rows": Program('(defforeign work [n]) (defflow main [] (loop [i 0] (if (< i 12) (do (now) (when (zero? (mod i 4)) (work i)) (recur (inc i))) i)))'),
    "big values": Program('(defflow main [] (let [a (loop [i 0 x ["leaf"]] (if (< i 12) (recur (inc i) [x x]) x))] (sleep #dur "1s") (count (str a))))'),
    "an error ends it": Program('(defforeign work [n]) (defflow main [] (work 1) (sleep #dur "1s") (throw (ex-info "the end" {:type :my/end :n 1})))'),
}  # fmt: skip


async def _pause_and_resume(engine: Engine, flow_id: str) -> None:
    await until_it_waits(engine, flow_id)
    try:
        await engine.control(flow_id, "pause", by="test")
        await engine.send(flow_id, {"n": 1}, key="m")
        await engine.control(flow_id, "resume", by="test")
    except FlowEnded:
        return


PROGRAMS["paused"].drive = _pause_and_resume
