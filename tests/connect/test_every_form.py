"""The durable forms, each with its options: the same in a flow and in a notebook's cell. What a form does in detail, its own tests say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stores import Stores

from flowmetal.connect.deferred import connectors
from flowmetal.connect.secrets import secrets_of
from flowmetal.runtime.clock import VirtualClock
from flowmetal.runtime.engine import Engine

PROGRAM = """
(defflow kid [n] (sleep #dur "1s") (* n 2))
(defflow bad [] (throw (ex-info "bad" {:type :my/bad})))
(defflow mail [] (let [a (receive {:match {:kind "b"}}) c (receive) d (receive {:timeout #dur "1s" :else :none})] [(:n a) (:n c) d]))
(defflow clerk [] (let [m (receive)] (reply m {:got (:q m)})))
(defflow again [n] (if (< n 3) (continue-as (inc n)) n))
(defforeign f "doc" [x] {:retry {:max-attempts 2 :initial #dur "1s" :backoff 2.0 :max #dur "5s" :jitter 0.1 :on #{:my/x}} :timeout #dur "10s"
                         :attempt-timeout #dur "5s" :idempotency-key "k" :queue :q :at-most-once true})
(def shared (atom 1))
"""
FORMS: list[tuple[str, Any]] = [
    ('@(start-with {:id "k" :tags {:a 1} :queue :q :priority 3 :at #dur "1s" :timeout #dur "1h" :on-failure :pause :with-parent true} kid 4)', 8),
    ('(= (start-with {:id "k"} kid 4) (start-with {:id "k"} kid 4))', True),
    ("@(async (kid 3))", 6),
    ("(try (call 'f [1] {:timeout #dur \"1s\"}) (catch :flow/timeout e :late))", "late"),
    ('(await (async (f 1)) {:timeout #dur "3s" :else :late})', "late"),
    ('(try (http/get "http://127.0.0.1:9/" {:retry {:max-attempts 2 :initial #dur "10ms"} :timeout #dur "9s"}) (catch :http/connect e :no))', "no"),
    ('(:out (sh ["sh" "-c" "cat; echo $A; pwd"] {:timeout #dur "5s" :env {:A "b"} :cwd "/" :stdin "x"}))', "xb\n/\n"),
    ('(let [c (callback)] [(string? (:url c)) (string? (:token c)) (await c {:timeout #dur "1s" :else :none})])', [True, True, "none"]),
    ('(let [h (start mail)] (send h {:kind "a" :n 1}) (send h {:kind "b" :n 2}) @h)', [2, 1, "none"]),
    ('(ask (start clerk) {:q 7} {:timeout #dur "5s"})', {"got": 7}),
    ("(let [n (atom 0)] (poll {:every #dur \"1s\" :timeout #dur \"10s\" :until #(> % 2)} (swap! n inc)))", 3),
    ('(let [s (subscribe "t" {:where {:k "p"} :from :now})] (publish "t" {:k "q"}) (publish "t" {:k "p"}) (next-event s))', {"k": "p"}),
    ('(topic "x" {:retain #dur "1d"})', None),
    ('[(sleep #dur "1s") (sleep-until (time/plus (now) #dur "1s")) @(timer #dur "1s")]', [None, None, None]),
    ('[(schedule "s" {:cron "0 3 * * *" :tz "Europe/Berlin" :catch-up :one :overlap :skip} kid 1) (unschedule "s")]', [None, True]),
    ('(queue :q {:concurrency 2 :rate [100 #dur "1m"] :priority 1})', None),
    ('[(select {:a (timer #dur "5s") :b (async 1)}) (select [(timer #dur "5s") (async 1)])]', [["b", 1], [1, 1]]),
    ('[(race (do (sleep #dur "5s") 1) 2) (all [(async 1) (async 2)]) (any [(async (bad)) (async 2)])]', [2, [1, 2], 2]),
    ("(mapv keys (all-settled [(async (bad)) (async 2)]))", [["error"], ["value"]]),
    ("(pmap kid [1 2 3] {:max 2})", [2, 4, 6]),
    ('[(try (with-timeout #dur "1s" (sleep #dur "1h")) (catch :flow/timeout e :late)) (nursery (start kid 1) :ok)]', ["late", "ok"]),
    ("[(inst? (now)) (float? (rand)) (int? (rand-int 5)) (count (shuffle [1 2])) (uuid? (random-uuid))]", [True, True, True, 2, True]),
    ("(saga (undoable (kid 1) (fn [r] r)) (on-rollback (log 1)) 5)", 5),
    ("@(start again 0)", 3),
    ("(let [a (atom 1)] (swap! a inc) (reset! a 5) [@a @shared (swap! shared + 2)])", [5, 1, 3]),
    ('[(checkpoint "x") (log {:a 1}) (set-info! {:b 2})]', [None, None, None]),
    ("[(parent) (status (self)) (promise-status (async 1)) (vector? (history (self)))]", [None, "running", "done", True]),
    ('(do (kid 1) (count (flows {:name "kid" :status :completed :limit 1})))', 1),
    ('(do @(start-with {:tags {:a 1 :b 2}} kid 1) @(start-with {:tags {:a 2}} kid 1) (kid 9) (mapv :args (flows {:tags {:a 1} :limit 5})))', [[1]]),
    ("(do (kid 1) [(count (flows {:parent (self) :kind :child})) (count (flows {:parent \"nobody\"}))])", [1, 0]),
    ('(let [h (start kid 1)] @h (mapv :kind (history h {:kind [:effect-requested "flow-completed"]})))', ["effect-requested", "flow-completed"]),
    ("(let [h (start kid 1)] @h (mapv :seq (history h {:after 1 :limit 2})))", [2, 3]),
    ("(do (now) (:step (state-at (self) 1)))", 1),
    ("(let [h (start kid 5)] @h @(fork h {:at 1 :with 9}))", 10),
    ('(let [h (start mail)] [(pause! h) (resume! h) (cancel! h "x") (terminate! (start mail))])', [None] * 4),
    ("(let [h (start kid 1)] (pause! h) (step! h) (:upgraded (upgrade! h)))", False),
    ('(sql/query "sqlite:///:memory:" "SELECT 1 AS n WHERE 1 > ?" [0])', [{"n": 1}]),
    ('(str "B " (secret "X"))', "B #secret[X]"),
    ('[(defsource z {:url "sqlite:///nowhere" :sql "SELECT 1" :every #dur "1h" :topic "z" :lag #dur "1m" :key :id}) (defsource z nil)]', [None, None]),
]  # fmt: skip


@pytest.mark.parametrize("cell", [False, True], ids=["flow", "cell"])
@pytest.mark.parametrize(("form", "value"), FORMS, ids=[form[:40] for form, _ in FORMS])
def test_a_form_with_its_options(form: str, value: Any, cell: bool, stores: Stores) -> None:
    async def scene() -> dict[str, Any] | None:
        engine = Engine(stores.quick(), connectors=connectors(secrets_of(None)), clock=VirtualClock())
        await engine.open()
        try:
            await engine.load(PROGRAM if cell else f"{PROGRAM} (defflow main [] {form})", file="p.flow")
            flow_id = await engine.eval(form) if cell else (await engine.start_flow("main", []))[0]
            return await engine.result(flow_id, 20)
        finally:
            await engine.close()

    answer = asyncio.run(scene())
    assert answer is not None
    assert answer.get("result", answer) == value
