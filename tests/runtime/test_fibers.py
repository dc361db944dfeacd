"""Fibers, promises and what combines them: order, ends, cells."""

from __future__ import annotations

from typing import Any

import pytest
from bench import Bench, scene
from stores import Stores

from flowmetal.errors import LispError
from flowmetal.runtime.connector import Call, Failed
from flowmetal.store import kinds

WORK = "(defforeign work [n]) "


def answering(b: Bench, answers: dict[str, Any]) -> None:
    """The world gives these answers, by the first argument."""
    b.world.answer = lambda call: answers[str(call.args[0])]


# Order


@scene
async def test_a_new_fiber_joins_the_end_of_the_run_queue(b: Bench) -> None:
    await b.load('(defflow main [] (let [a (async (println "a") (async (println "c"))) b (async (println "b"))] (println "main") (await b) (await (await a))))')
    flow = await b.start("main")
    assert "".join(row["text"] for row in b.rows(flow, kinds.OUTPUT)) == "main\na\nb\nc\n"


@scene
async def test_waiters_on_one_promise_wake_in_the_order_in_which_they_began_to_wait(b: Bench) -> None:
    await b.load(
        """(defflow main []
             (let [p (timer #dur "10s")
                   w (fn [d name] (async (sleep d) @p (println name)))]
               (all [(w #dur "3s" "third") (w #dur "1s" "first") (w #dur "2s" "second")])))"""
    )
    flow = await b.start("main")
    await b.ending(flow)
    assert "".join(row["text"] for row in b.rows(flow, kinds.OUTPUT)) == "first\nsecond\nthird\n"


@scene
async def test_arrivals_are_taken_one_by_one_and_only_when_every_fiber_waits(b: Bench) -> None:
    await b.load(
        """(defflow main []
             (let [a (async (:n (receive {:match {:to "a"}}))) c (async (:n (receive {:match {:to "c"}})))]
               (select [a c])))"""
    )
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    await b.engine.send(flow, {"to": "c", "n": 1})
    await b.engine.send(flow, {"to": "a", "n": 2})
    await b.engine.control(flow, "resume")
    assert await b.result(flow) == [1, 1], "what arrived first won, whatever arrived at the same time"


# Ends


@scene
async def test_a_flow_ends_with_its_first_fiber_and_cancels_the_others(b: Bench) -> None:
    await b.load('(defflow main [] (async (try (receive) (catch :flow/cancelled e (log (ex-message e))))) (sleep #dur "1s") :over)')
    flow = await b.start("main")
    assert await b.result(flow) == "over"
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == ["the flow has ended"]
    assert b.kinds(flow)[-1] == kinds.FLOW_COMPLETED


@scene
async def test_a_flow_waits_for_the_clean_up_of_its_fibers(b: Bench) -> None:
    await b.load('(defflow main [] (async (try (receive) (finally (sleep #dur "5s") (log "clean")))) (sleep #dur "1s") :over)')
    flow = await b.start("main")
    await b.advance("2s")
    assert b.status(flow) == "waiting"
    await b.advance("5s")
    assert b.status(flow) == "completed"
    assert b.kinds(flow)[-3:] == [kinds.LOG, kinds.PROMISE_SETTLED, kinds.FLOW_COMPLETED]


@scene
async def test_when_a_flow_ends_its_callbacks_answer_410_and_its_timers_go(b: Bench) -> None:
    await b.load('(defflow main [] (callback) (timer #dur "1h") :over)')
    flow = await b.start("main")
    assert b.status(flow) == "completed"
    assert len(b.engine.timers) == 0
    assert (await b.engine.settle_callback(b.token(flow, 1), {"late": True}))[0] == "ended"
    assert [row["step"] for row in b.rows(flow, kinds.EFFECT_CANCELLED)] == [1, 2], "the history says what became of each"
    await b.restart()
    assert len(b.engine.timers) == 0
    assert (await b.engine.settle_callback(b.token(flow, 1), {"late": True}))[0] == "ended"


@scene
async def test_a_callback_is_settled_once(b: Bench) -> None:
    await b.load("(defflow main [] (let [c (callback)] [@c @c (receive)]))")
    flow = await b.start("main")
    token = b.token(flow, 1)
    first = await b.engine.settle_callback(token, {"n": 1})
    assert first[0] == "accepted" and first[1]
    assert await b.engine.settle_callback(token, {"n": 1}) == ("again", first[1])
    assert (await b.engine.settle_callback(token, {"n": 2}))[0] == "conflict"
    assert (await b.engine.settle_callback("nonsense", 1))[0] == "unknown"
    await b.engine.send(flow, 3)
    assert await b.result(flow) == [{"n": 1}, {"n": 1}, 3]


@scene
async def test_a_promise_is_settled_by_one_row_and_who_awaits_it_has_one_of_its_own(b: Bench) -> None:
    await b.load("(defflow leaf [p] [(await p) (await p)]) (defflow main [] (let [p (async (receive))] (let [h (start leaf p) g (start leaf p)] [@h @g])))")
    flow = await b.start("main")
    await b.engine.send(flow, "x")
    assert await b.result(flow) == [["x", "x"], ["x", "x"]]
    assert [row["promise"] for row in b.rows(flow, kinds.PROMISE_SETTLED)] == ["f2"]
    for step in (1, 2):
        leaf = b.child(flow, step)
        assert [row["result"] for row in b.rows(leaf, kinds.AWAIT_SETTLED)] == ["x"]


@scene
async def test_a_promise_of_a_flow_that_ended_without_settling_it_fails(b: Bench) -> None:
    await b.load("(defflow give [] (callback)) (defflow main [] (try (await (give)) (catch :flow/ended e :gone)))")
    assert await b.result(await b.start("main")) == "gone"


@scene
async def test_two_promises_of_one_flow_are_awaited_each_for_itself(b: Bench) -> None:
    await b.load("(defflow leaf [ps] (all [(async @(nth ps 0)) (async @(nth ps 1))])) (defflow main [] (let [a (callback) c (callback)] (leaf [a c])))")
    flow = await b.start("main")
    await b.engine.settle_callback(b.token(flow, 1), 1)
    await b.settle()
    await b.restart()
    await b.engine.settle_callback(b.token(flow, 2), 2)
    assert await b.result(flow) == [1, 2]


@scene
async def test_a_promise_comes_back_to_its_own_flow(b: Bench) -> None:
    await b.load(
        """(defflow main []
             (let [p (async (receive {:match {:k 1}}))]
               (send (self) {:p p}) (send (self) {:p p})
               (let [q (:p (receive {:match {}}))]
                 (send (self) {:k 1})
                 [(:k @q) (:k @p) (:k @(:p (receive)))])))"""
    )
    assert await b.result(await b.start("main")) == [1, 1, 1]


# Cells


@scene
async def test_a_cell_gives_its_result_and_goes_on(b: Bench) -> None:
    cell = await b.cell("(def p (async (receive))) :given")
    assert (await b.engine.result(cell, 0)) == {"status": "completed", "result": "given", "printed": ":given", "handle": None, "ns": "user"}
    assert b.status(cell) == "waiting"
    other = await b.cell("@p")
    assert await b.engine.result(other, 0) is None
    await b.engine.send(cell, {"n": 5})
    assert await b.result(other) == {"n": 5}
    await b.settle()
    assert b.status(cell) == "completed"
    assert b.kinds(cell).count(kinds.FLOW_COMPLETED) == 1


@scene
async def test_a_callback_of_one_cell_is_awaited_in_another(b: Bench) -> None:
    cell = await b.cell("(def done (callback)) (:url done)")
    assert (await b.result(cell)).startswith("http://127.0.0.1:8421/v1/callbacks/")
    other = await b.cell("(:ok (await done))")
    await b.restart()
    assert (await b.engine.settle_callback(b.token(cell, 1), {"ok": 1}))[0] == "accepted"
    assert await b.result(other) == 1
    await b.settle()
    assert b.status(cell) == "completed", "its last promise was settled"


@scene
async def test_a_cell_ends_by_cancel_too(b: Bench) -> None:
    cell = await b.cell('(def p (callback)) (def q (async (try (receive) (finally (sleep #dur "1s") (log "clean"))))) 1')
    assert b.status(cell) == "waiting"
    await b.engine.control(cell, "cancel", reason="enough")
    await b.advance("1s")
    assert b.status(cell) == "cancelled"
    assert [row["data"] for row in b.rows(cell, kinds.LOG)] == ["clean"]
    assert (await b.engine.settle_callback(b.token(cell, 1), 1))[0] == "ended"


@scene
async def test_cancelling_a_cell_that_waits_cancels_all_of_it(b: Bench) -> None:
    cell = await b.cell("(def p (async (receive))) (callback) @p")
    await b.engine.control(cell, "cancel")
    await b.settle()
    assert b.status(cell) == "cancelled"
    answer = await b.engine.result(cell, 0)
    assert answer is not None and (answer["status"], answer["error"]["type"]) == ("cancelled", "flow/cancelled")


@scene
async def test_the_result_of_a_cell_can_be_awaited_while_it_goes_on(b: Bench) -> None:
    cell = await b.cell("(def me (self)) (def p (callback)) 7")
    other = await b.cell("@me")
    assert await b.result(other) == 7
    assert b.status(cell) == "waiting"


@scene
async def test_a_cell_may_end_in_what_cannot_be_stored(b: Bench) -> None:
    cell = await b.cell("(atom 1)")
    answer = await b.engine.result(cell, 0)
    assert answer is not None and (answer["status"], answer["printed"]) == ("completed", "#atom[1]")


# Combinators

FORMS = [
    ("(race (do (sleep #dur \"2s\") 1) (do (sleep #dur \"1s\") 2))", 2),
    ("(race 1 (sleep #dur \"1d\"))", 1),
    ("(all [])", []),
    ("(all [(async 1) (async (sleep #dur \"1s\") 2) (timer #dur \"2s\")])", [1, 2, None]),
    ("(any [(async (throw (ex-info \"a\" {}))) (async (sleep #dur \"1s\") 2)])", 2),
    ("(mapv #(contains? % :error) (all-settled [(async 1) (async (throw (ex-info \"a\" {})))]))", [False, True]),
    ("(all-settled [])", []),
    ("(select {:a (timer #dur \"2s\") :b (timer #dur \"1s\")})", ["b", None]),
    ("(select [(timer #dur \"2s\") (async 5)])", [1, 5]),
    ("(let [p (async 1)] (sleep #dur \"1s\") (select {:x (timer #dur \"1s\") :p p}))", ["p", 1]),
    ("(pmap inc [1 2 3])", [2, 3, 4]),
    ("(pmap inc [])", []),
    ("(pmap (fn [n] (sleep (nth [#dur \"3s\" #dur \"2s\" #dur \"1s\"] n)) n) [0 1 2] {:max 2})", [0, 1, 2]),
    ("(with-timeout #dur \"1s\" 5)", 5),
    ("(try (with-timeout #dur \"1s\" (sleep #dur \"2s\")) (catch :flow/timeout e :late))", "late"),
    ("(await (async 1) {:timeout #dur \"1s\"})", 1),
    ("(await (timer #dur \"1h\") {:timeout #dur \"1s\" :else nil})", None),
    ("(await (timer #dur \"1h\") {:timeout #dur \"1s\" :else :gave-up})", "gave-up"),
    ("(try (await (timer #dur \"1h\") {:timeout #dur \"1s\"}) (catch :flow/timeout e :late))", "late"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "value"), FORMS, ids=[form for form, _ in FORMS])
def test_combinators(stores: Stores, form: str, value: Any) -> None:
    @scene
    async def play(b: Bench) -> None:
        assert await b.run(f"(defflow main [] {form})") == value
        assert len(b.engine.timers) == 0, "nothing that nobody waits for is left open"

    play(stores)


ERRORS = [
    ("(all [(async (throw (ex-info \"no\" {:type :x/no})))])", "x/no"),
    ("(race (throw (ex-info \"no\" {:type :x/no})) (sleep #dur \"1h\"))", "x/no"),
    ("(any [(async (throw (ex-info \"a\" {:type :x/a}))) (async (sleep #dur \"1s\") (throw (ex-info \"b\" {:type :x/b})))])", "x/b"),
    ("(any [])", "value"),
    ("(select {})", "value"),
    ("(select 5)", "type"),
    ("(all [1])", "type"),
    ("(pmap (fn [n] (if (= n 2) (throw (ex-info \"two\" {:type :x/two})) (sleep #dur \"1d\"))) [1 2 3])", "x/two"),
    ("(pmap inc [1] {:max 0})", "value"),
    ("(select {:p (async (throw (ex-info \"no\" {:type :x/no})))})", "x/no"),
    ("@5", "type"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "type_"), ERRORS, ids=[form for form, _ in ERRORS])
def test_what_fails_in_a_combinator(stores: Stores, form: str, type_: str) -> None:
    @scene
    async def play(b: Bench) -> None:
        with pytest.raises(LispError) as caught:
            await b.run(f"(defflow main [] {form})")
        assert caught.value.type == type_

    play(stores)


@scene
async def test_combinators_return_after_the_clean_up_of_the_losers(b: Bench) -> None:
    await b.load(
        """(defflow main []
             [(race 1 (try (sleep #dur "1d") (finally (sleep #dur "5s") (log "raced"))))
              (try (all [(async (try (sleep #dur "1d") (finally (sleep #dur "5s") (log "all")))) (async (sleep #dur "1s") (throw (ex-info "no" {})))])
                   (catch :default e 2))
              (try (with-timeout #dur "1s" (try (sleep #dur "1d") (finally (sleep #dur "5s") (log "timeout")))) (catch :flow/timeout e 3))
              (log "end")])"""
    )
    flow = await b.start("main")
    await b.ending(flow)
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == ["raced", "all", "timeout", "end"]
    assert b.clock.time - 1_767_225_600_000_000 == (5 + 6 + 6) * 1_000_000


@scene
async def test_combinators_never_cancel_handles_that_are_passed_in(b: Bench) -> None:
    await b.load(
        """(defflow leaf [] (receive))
           (defflow main []
             (let [h (start leaf)]
               (race @h (sleep #dur "1s"))
               (try (all [h (async (throw (ex-info "no" {})))]) (catch :default e nil))
               (any [h (async 1)])
               (try (with-timeout #dur "1s" @h) (catch :flow/timeout e nil))
               (await h {:timeout #dur "1s" :else nil})
               (status h)))"""
    )
    flow = await b.start("main")
    assert await b.result(flow) == "waiting"


@scene
async def test_a_loser_that_called_a_flow_ends_that_flow_first(b: Bench) -> None:
    await b.load('(defflow leaf [] (try (receive) (finally (sleep #dur "5s")))) (defflow main [] (race (leaf) (sleep #dur "1s")) :over)')
    flow = await b.start("main")
    await b.advance("2s")
    leaf = b.child(flow, 1)
    assert (b.status(flow), b.status(leaf)) == ("waiting", "waiting")
    await b.advance("5s")
    assert (b.status(flow), b.status(leaf)) == ("completed", "cancelled")
    assert b.rows(flow, kinds.EFFECT_CANCELLING)[0]["reason"]


@scene
async def test_pmap_runs_no_more_at_once_than_it_is_told(b: Bench) -> None:
    running, most = set(), []

    def answer(call: Call) -> Any:
        running.add(call.idempotency_key)
        return {"ok": True}

    b.world.answer = answer
    await b.load(WORK + '(defflow main [] (count (pmap (fn [n] (work n) (sleep #dur "1s") n) (range 10) {:max 3})))')
    flow = await b.start("main")
    while b.status(flow) != "completed":
        most.append(sum(1 for row in b.engine.actors[flow].process.open.values() if row.op == "sleep"))  # type: ignore[union-attr]
        await b.advance("1s")
    assert max(most) == 3
    assert b.rows(flow)[-1]["result"] == 10


@scene
async def test_a_failure_of_a_fiber_that_nobody_awaits_is_in_the_history(b: Bench) -> None:
    await b.load('(defflow main [] (async (throw (ex-info "alone" {:n 1}))) (sleep #dur "1s") :fine)')
    flow = await b.start("main")
    assert await b.result(flow) == "fine"
    (settled,) = b.rows(flow, kinds.PROMISE_SETTLED)
    assert settled["error"]["message"] == "alone"


@scene
async def test_the_cancel_of_another_is_an_error_like_any_other(b: Bench) -> None:
    await b.load(
        """(defflow main []
             (let [p (async (sleep #dur "1h"))]
               (try (all [p (async (throw (ex-info "no" {})))]) (catch :default e nil))
               (try @p (catch :default e [:caught (ex-message e)]))))"""
    )
    assert await b.result(await b.start("main")) == ["caught", "another promise failed"]


@scene
async def test_a_failed_effect_fails_into_the_fiber_that_asked(b: Bench) -> None:
    b.world.answer = lambda call: Failed("http/status", "it said 500") if call.args[0] == 2 else {"n": call.args[0]}
    await b.load(WORK + "(defflow main [] [(:n (work 1)) (try (work 2) (catch :http/status e (ex-message e))) (:n (work 3))])")
    assert await b.result(await b.start("main")) == [1, "it said 500", 3]
