"""Forks: a new flow that shares another's past up to a step, and repeats none of it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from bench import Bench, scene
from stores import Stores, both

from flowmetal.errors import FlowNotFound, LispError
from flowmetal.lang.plain import from_plain
from flowmetal.runtime.connector import Call, Failed
from flowmetal.runtime.fork import Wish
from flowmetal.store import kinds
from flowmetal.testing.audit import audit

STEPS = """\
(defforeign work [n])
(defflow main [start]
  (let [a (:target (work start))
        b (:n (work 2))]
    (println a)
    [a b (:target (work 3)) (= (self) (self))]))
"""


async def fork(b: Bench, flow_id: str, at: int, *given: Any, **more: Any) -> str:
    """Forks a flow, and lets the fork run until it waits."""
    made = await b.engine.forks.fork(flow_id, Wish(at, tuple(from_plain(g) for g in given), **more), by="test")
    await b.settle()
    audit(b.store, b.engine.definitions.registry)
    return made


@scene
async def test_without_an_outcome_the_step_is_asked_anew(b: Bench) -> None:
    await b.load(STEPS)
    flow = await b.start("main", 1)
    made = await fork(b, flow, 2)
    assert await b.result(made) == await b.result(flow) == ["work", None, "work", True]
    assert sorted(b.world.sent.values()) == [1] * 5, "step 1 is shared, 2 and 3 are the fork's own"
    row = b.store.flow_row(made)
    assert row is not None
    assert (row["name"], row["forked_from"], row["forked_at"], row["args"]) == ("main", flow, 2, [1])
    assert [r["kind"] for r in b.rows(made)][:4] == ["flow-started", "effect-requested", "effect-completed", "flow-forked"]
    assert b.rows(made)[0]["run"] != b.rows(flow)[0]["run"]
    assert [r["text"] for r in b.rows(made, kinds.OUTPUT)] == ["work\n"]


@both
@scene
async def test_with_an_outcome_the_step_has_it(b: Bench) -> None:
    await b.load(STEPS)
    flow = await b.start("main", 1)
    made = await fork(b, flow, 2, {"n": "given"})
    assert await b.result(made) == ["work", "given", "work", True]
    assert len(b.world.sent) == 4, "steps 1 and 2 are shared"
    outcome = next(r for r in b.rows(made, kinds.EFFECT_COMPLETED) if r["step"] == 2)
    assert (outcome["given"], outcome["by"]) == (True, "test")


@scene
async def test_a_step_that_never_had_an_outcome_is_given_one(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (let [m (receive)] (work m) [:got m]))")
    flow = await b.start("main")
    made = await fork(b, flow, 1, "stuck no more")
    assert await b.result(made) == ["got", "stuck no more"]
    assert b.status(flow) == "waiting", "the original is as it was"
    assert b.kinds(flow)[-1] == kinds.FLOW_WAITING


@scene
async def test_of_a_flow_that_has_failed(b: Bench) -> None:
    """The commonest use: the last step failed; from there it is tried again, or told what it came to."""
    b.world.answer = lambda call: Failed("user", "no") if call.args[0] == 2 else {"target": "work", "n": 7}
    await b.load(STEPS)
    flow = await b.start("main", 1)
    with pytest.raises(LispError, match="no"):
        await b.result(flow)
    assert await b.result(await fork(b, flow, 2, {"n": 5})) == ["work", 5, "work", True]
    b.world.answer = lambda call: {"target": "work", "n": 8}
    assert await b.result(await fork(b, flow, 2)) == ["work", 8, "work", True]
    assert b.status(flow) == "failed"


@scene
async def test_a_shared_request_without_an_outcome_is_linked(b: Bench) -> None:
    """It is sent once, by the original, and the fork gets what that gets."""
    answered = asyncio.Event()

    class Slow:
        ops = frozenset({"http/request"})

        async def perform(self, call: Call) -> Any:
            b.world.sent[call.idempotency_key] += 1
            await answered.wait()
            return Failed("http/status", "gone", None)

        async def close(self) -> None:
            pass

    b.engine.dispatcher.connectors["http/request"] = Slow()
    await b.load("""(defforeign work [n])
        (defflow main [] (let [p (async (http/get "http://x/")) a (:target (work 1))] (try @p (catch :http/status e [a (ex-message e)]))))""")
    flow, _ = await b.engine.start_flow("main", [])
    while b.ops(flow) != ["foreign", "http/get"]:
        await asyncio.sleep(0)
    made = await b.engine.forks.fork(flow, Wish(1, (from_plain({"target": "other"}),)))
    while b.status(made) != "waiting":
        await asyncio.sleep(0)
    preview = await b.engine.forks.preview(flow, Wish(1, (None,)))
    assert [(s["step"], s["op"]) for s in preview["linked"]] == [(2, "http/get")]
    answered.set()
    assert await b.result(flow) == ["work", "gone"]
    assert await b.result(made) == ["other", "gone"]
    assert len(b.world.sent) == 2


@scene
async def test_what_the_original_withdraws_may_have_happened(b: Bench) -> None:
    await b.load('(defflow main [] (let [p (async (call \'late [])) q (timer #dur "1h")] (receive) @p))')
    b.engine.dispatcher.connectors.pop("foreign")
    b.engine.dispatcher.desks["foreign"] = b.engine.foreign
    flow = await b.start("main")
    made = await fork(b, flow, 2, "go")
    assert "late" in [r["target"] for r in b.rows(made, kinds.EFFECT_REQUESTED)]
    assert [t["function"] for t in await b.engine.foreign.lease(["late"], most=5)] == ["late"], "only the original's is offered"
    await b.engine.control(flow, "terminate")
    with pytest.raises(LispError, match="may have happened") as caught:
        await b.result(made)
    assert caught.value.type == "effect/interrupted"


@scene
async def test_one_post_settles_a_callback_of_both(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (let [c (callback)] (work (:url c)) (:n @c)))")
    flow = await b.start("main")
    made = await fork(b, flow, 2)
    again = await fork(b, made, 2)
    await b.restart()
    assert (await b.engine.settle_callback(b.token(flow, 1), {"n": 4}))[0] == "accepted"
    assert [await b.result(f) for f in (flow, made, again)] == [4, 4, 4]
    assert (await b.engine.settle_callback(b.token(flow, 1), {"n": 4}))[0] == "again"
    assert (await b.engine.settle_callback(b.token(flow, 1), {"n": 5}))[0] == "conflict"


@scene
async def test_a_callback_outlives_the_flow_that_made_it(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (let [c (callback)] (work 1) (:n @c)))")
    flow = await b.start("main")
    made = await fork(b, flow, 2)
    await b.engine.control(flow, "terminate")
    await b.settle()
    assert b.status(made) == "waiting"
    await b.restart()
    token = b.token(flow, 1)
    assert (await b.engine.settle_callback(token, {"n": 6}))[0] == "accepted"
    assert await b.result(made) == 6
    assert (await b.engine.settle_callback(token, {"n": 6}))[0] == "again"
    assert (await b.engine.settle_callback(token, {"n": 7}))[0] == "conflict"


@scene
async def test_timers_keep_their_due_time(b: Bench) -> None:
    await b.load('(defforeign work [n]) (defflow main [] (let [t (timer #dur "2h")] (work 1) (await t) (now)))')
    flow = await b.start("main")
    await b.advance("1h")
    made = await fork(b, flow, 2)
    due = [r["due_at"] for f in (flow, made) for r in b.rows(f, kinds.EFFECT_REQUESTED) if r["op"] == "timer"]
    assert due[0] == due[1]
    assert await b.result(flow) == await b.result(made) == due[0]


@scene
async def test_children_are_referenced_and_never_cancelled(b: Bench) -> None:
    await b.load("""(defforeign work [n])
        (defflow leaf [x] (receive) x)
        (defflow main []
          (let [h (start leaf 1) p (async (leaf 2))]
            (work 1)
            (cancel! h)
            (race @p (receive))
            [:over (status h)]))""")
    flow = await b.start("main")
    first, second = b.child(flow, 1), b.child(flow, 3)
    made = await fork(b, flow, 4)
    await b.engine.send(made, "m")
    await b.settle()
    assert b.status(second) == "waiting", "the fork's race is won, and the call goes on"
    await b.engine.send(second, "m")
    await b.settle()
    assert [b.status(f) for f in (first, second, flow, made)] == ["cancelled", "completed", "completed", "completed"]
    assert [await b.result(f) for f in (flow, made)] == [["over", "cancelled"]] * 2


@scene
async def test_a_forks_cancel_of_a_shared_child_changes_nothing(b: Bench) -> None:
    await b.load("(defflow leaf [] (receive)) (defflow main [] (let [h (start leaf)] (receive) (cancel! h) (status h)))")
    flow = await b.start("main")
    made = await fork(b, flow, 2, "go")
    assert await b.result(made) == "waiting"
    await b.engine.send(flow, "go")
    assert await b.result(flow) == "cancelled"


@scene
async def test_a_shared_call_that_the_fork_gives_up_goes_on(b: Bench) -> None:
    await b.load("""(defforeign work [n])
        (defflow leaf [] (receive))
        (defflow main [] (try (with-timeout #dur "1h" (let [p (async (work 1))] (leaf))) (catch :flow/timeout e :late)))""")
    flow = await b.start("main")
    step = next(r["step"] for r in b.rows(flow, kinds.EFFECT_REQUESTED) if r["op"] == "call")
    work = next(r["step"] for r in b.rows(flow, kinds.EFFECT_REQUESTED) if r["op"] == "foreign")
    made = await fork(b, flow, work, "given")
    await b.engine.control(made, "cancel")
    await b.settle()
    assert b.status(made) == "cancelled"
    assert b.status(b.child(flow, step)) == "waiting"
    assert await b.result(flow) == "late"


@scene
async def test_the_mailbox_is_empty_and_subscriptions_stand_where_they_stood(b: Bench) -> None:
    await b.load("""(defforeign work [n])
        (defflow main []
          (let [sub (subscribe "t") a (receive) e (next-event sub)]
            (work 1)
            [a e (next-event sub) (receive {:timeout #dur "1s" :else :none})]))""")
    flow = await b.start("main")
    for n in (1, 2):
        await b.engine.send(flow, n)
        await b.engine.topics.publish("t", n)
    await b.settle()
    made = await fork(b, flow, 4)
    assert await b.result(flow) == [1, 1, 2, 2]
    assert await b.result(made) == [1, 1, 2, "none"]
    given = await fork(b, flow, 3, "event")
    assert await b.result(given) == [1, "event", 1, "none"]


@scene
async def test_a_flow_that_writes_to_itself(b: Bench) -> None:
    """In the shared past the fork's own handle and promises are its own, not the original's."""
    await b.load("""(defforeign work [n])
        (defflow main []
          (let [p (async (sleep #dur "1h") 5)]
            (send (self) {:from (self) :p p})
            (let [m (receive)]
              (work 1)
              [(= (self) (:from m)) (do (send (:from m) :second) (receive)) @(:p m) (:id (self))])))""")
    flow = await b.start("main")
    made = await fork(b, flow, next(r["step"] for r in b.rows(flow, kinds.EFFECT_REQUESTED) if r["op"] == "foreign"))
    assert await b.result(flow) == [True, "second", 5, flow]
    assert await b.result(made) == [True, "second", 5, made]


@scene
async def test_recorded_values_and_those_given_for_them(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (let [r (rand) u (random-uuid)] (work 1) [r (str u) (rand-int 1000000)]))")
    flow = await b.start("main")
    first = await b.result(flow)
    same = await b.result(await fork(b, flow, 3))
    assert (same[:2], same[2] == first[2]) == (first[:2], False)
    given = await b.result(await fork(b, flow, 1, 0.5))
    assert given[0] == 0.5
    assert given[1] != first[1]
    anew = await b.result(await fork(b, flow, 1))
    assert anew[0] != first[0]


SAGA = """\
(defforeign charge [n]) (defforeign refund [r]) (defforeign ship [n])
(defflow main []
  (saga
    (undoable (charge 1) refund)
    (on-rollback (refund :registered))
    (ship 1)
    (undoable (charge 2) refund)
    (ship 2)
    (throw (ex-info "no" {:type :my/no}))))
"""


@pytest.mark.parametrize(
    ("at", "given", "adopt", "refunds"),
    [
        (1, False, False, 3),
        (1, True, False, 2),
        (2, False, False, 1),
        (2, True, False, 1),
        (2, False, True, 3),
        (4, False, False, 0),
        (4, True, True, 3),
        (3, False, False, 1),
    ],
)
def test_what_the_original_did_the_original_undoes(stores: Stores, at: int, given: bool, adopt: bool, refunds: int) -> None:
    @scene
    async def play(b: Bench) -> None:
        await b.load(SAGA)
        flow = await b.start("main")
        assert b.status(flow) == "failed"
        made = await fork(b, flow, at, *([{"id": "given"}] if given else []), adopt_rollbacks=adopt)
        assert b.status(made) == "failed"
        own = b.rows(made)[[r["kind"] for r in b.rows(made)].index(kinds.FLOW_FORKED) :]
        assert len([r for r in own if r.get("target") == "refund"]) == refunds

    play(stores)


@scene
async def test_a_call_in_flight_keeps_the_key_under_which_it_was_sent(b: Bench) -> None:
    await b.load("""(defforeign work [n]) (defforeign slow [n]) (defforeign undo [r])
        (defflow main []
          (saga (let [p (async (undoable (call 'slow []) undo))] (work 1) (receive {:timeout #dur "1h"}) @p)))""")
    real = b.world.answer

    async def perform(call: Call) -> Any:
        if call.target == "slow":
            await asyncio.Event().wait()
        return await type(b.world).perform(b.world, call)

    b.world.perform = perform  # type: ignore[method-assign]
    flow, _ = await b.engine.start_flow("main", [])
    while "receive" not in b.ops(flow):
        await asyncio.sleep(0)
    run = b.rows(flow)[0]["run"]
    step = next(r["step"] for r in b.rows(flow, kinds.EFFECT_REQUESTED) if r.get("target") == "slow")
    at = next(r["step"] for r in b.rows(flow, kinds.EFFECT_REQUESTED) if r["op"] == "receive")
    made = await b.engine.forks.fork(flow, Wish(at, adopt_rollbacks=True))
    while b.status(made) != "waiting":
        await asyncio.sleep(0)
    await b.engine.control(made, "cancel")
    while b.status(made) != "cancelled":
        await asyncio.sleep(0)
    (undone,) = [r for r in b.rows(made, kinds.EFFECT_REQUESTED) if r.get("target") == "undo"]
    assert undone["args"] == [{"unknown": f"{run}/{step}"}]
    assert real is b.world.answer


@scene
async def test_a_fork_within_the_clean_up_of_the_original(b: Bench) -> None:
    """In the shared part all rollbacks run as they ran; after it only the fork's own."""
    await b.load(SAGA)
    flow = await b.start("main")
    assert b.ops(flow) == ["foreign"] * 7
    made = await fork(b, flow, 6)
    own = b.rows(made)[[r["kind"] for r in b.rows(made)].index(kinds.FLOW_FORKED) :]
    assert [r["args"] for r in own if r.get("target") == "refund"] == [["registered"]], "the one that it was forked at, and no other"


@scene
async def test_a_fork_of_a_fork(b: Bench) -> None:
    await b.load(STEPS)
    flow = await b.start("main", 1)
    made = await fork(b, flow, 2, {"n": "given"})
    for at in (1, 2, 3):
        again = await fork(b, made, at)
        assert await b.result(again) == ["work", None if at < 3 else "given", "work", True]
        assert b.rows(again)[0]["forked_from"] == made
    assert len(b.world.sent) == 3 + 1 + 3 + 2 + 1


@scene
async def test_only_the_present_run_of_a_flow_that_began_anew(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [n] (work n) (if (pos? n) (continue-as (dec n)) (do (receive) (work :end) n)))")
    flow = await b.start("main", 2)
    steps = {r["step"]: r["op"] for r in b.rows(flow, kinds.EFFECT_REQUESTED, kinds.VALUE_RECORDED)}
    last = max(steps)
    made = await fork(b, flow, last, "m")
    assert await b.result(made) == 0
    assert b.rows(made)[0]["args"] == [0]
    assert b.rows(made, kinds.EFFECT_REQUESTED)[-1]["step"] == last + 1
    with pytest.raises(LispError, match=rf"no step 1 to be forked at: its present run has the steps {last - 1} to {last}"):
        await fork(b, flow, 1)


@scene
async def test_of_a_paused_flow_and_of_one_that_is_not_in_memory(b: Bench) -> None:
    await b.load(STEPS.replace("(println a)", "(receive)"))
    flow = await b.start("main", 1)
    await b.engine.control(flow, "pause")
    await b.restart()
    made = await fork(b, flow, 3, "go")
    assert await b.result(made) == ["work", None, "work", True]
    assert b.status(flow) == "paused"


@scene
async def test_of_a_cell_and_of_a_child(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow leaf [x] (work x) [x (= nil (parent))]) (defflow main [] (leaf 5))")
    cell = await b.cell("(def x 5) (def y (:target (work x))) (def z (receive)) [x y z]")
    made = await fork(b, cell, 2, 9)
    answer = await b.engine.result(made)
    assert answer is not None
    assert answer["result"] == [5, "work", 9]
    flow = await b.start("main")
    child = b.child(flow, 1)
    again = await fork(b, child, 1)
    assert await b.result(again) == [5, False], "what it was told of its parent is as it was"
    row = b.store.flow_row(again)
    assert row is not None
    assert (row["kind"], row["parent_id"]) == ("flow", None)


@scene
async def test_at_a_step_inside_a_fiber(b: Bench) -> None:
    await b.load("""(defforeign work [n])
        (defflow main [] (all [(async (sleep #dur "1s") (:target (work 1))) (async (sleep #dur "2s") [(:target (work 2)) (:target (work 3))])]))""")
    flow = await b.start("main")
    assert await b.result(flow) == ["work", ["work", "work"]]
    at = [r["step"] for r in b.rows(flow, kinds.EFFECT_REQUESTED) if r.get("target") == "work"]
    made = await fork(b, flow, at[1], {"target": "given"})
    assert await b.result(made) == ["work", ["given", "work"]]
    assert len(b.world.sent) == 4


@scene
async def test_a_step_that_the_original_withdrew_can_be_given_an_outcome(b: Bench) -> None:
    await b.load('(defflow main [] (race (receive) (do (sleep #dur "1h") :late)))')
    flow = await b.start("main")
    assert await b.result(flow) == "late"
    step = next(r["step"] for r in b.rows(flow, kinds.EFFECT_REQUESTED) if r["op"] == "receive")
    assert await b.result(await fork(b, flow, step, "in time")) == "in time"


@scene
async def test_under_the_current_definitions(b: Bench) -> None:
    await b.load(STEPS)
    flow = await b.start("main", 1)
    await b.load(STEPS.replace("[a b", "[:new a b"))
    assert await b.result(await fork(b, flow, 3)) == ["work", None, "work", True]
    made = await fork(b, flow, 3, upgrade=True)
    assert await b.result(made) == ["new", "work", None, "work", True]
    assert len(b.world.sent) == 5
    row = b.store.flow_row(made)
    assert row is not None
    assert row["definitions_version"] == b.engine.definitions.version
    await b.load(STEPS.replace("(work 2)", "(work 5)"))
    says = r"step 2 of .* is recorded as foreign work at test.flow:4:15, but now asks for foreign work at test.flow:4:15"
    with pytest.raises(LispError, match=says) as caught:
        await fork(b, flow, 3, upgrade=True)
    assert caught.value.type == "replay/mismatch"
    assert (await b.result(await fork(b, flow, 2, upgrade=True)))[0] == "work"


@scene
async def test_what_may_happen_again_is_said_before(b: Bench) -> None:
    await b.load(SAGA)
    flow = await b.start("main")
    before = b.store.last_pos()
    said = await b.engine.forks.preview(flow, Wish(3))
    assert (said["shared"], said["linked"], said["rollbacks"]) == (2, [], 2)
    assert [(s["step"], s["target"]) for s in said["again"]] == [(3, "charge"), (4, "ship"), (5, "refund"), (6, "refund"), (7, "refund")]
    assert b.store.last_pos() == before
    assert [s["step"] for s in (await b.engine.forks.preview(flow, Wish(3, (1,))))["again"]] == [4, 5, 6, 7]


@scene
async def test_the_same_request_is_one_fork(b: Bench) -> None:
    await b.load(STEPS)
    flow = await b.start("main", 1)
    made = [await b.engine.forks.fork(flow, Wish(2), request_id="r") for _ in range(2)]
    assert made[0] == made[1]
    assert len(b.engine.store.flow_rows()) == 2


@scene
async def test_where_none_can_begin(b: Bench) -> None:
    await b.load(STEPS + "(defflow quiet [] 1) (defflow starts [] (start quiet) (receive))")
    flow = await b.start("main", 1)
    with pytest.raises(LispError, match="no step 9 to be forked at: its present run has the steps 1 to 3"):
        await fork(b, flow, 9)
    with pytest.raises(LispError, match="it has no steps yet"):
        await fork(b, await b.start("quiet"), 1)
    with pytest.raises(LispError, match="its outcome cannot be replaced"):
        await fork(b, await b.start("starts"), 1, "x")
    with pytest.raises(FlowNotFound):
        await fork(b, "nobody", 1)


@scene
async def test_in_the_language(b: Bench) -> None:
    await b.load(STEPS)
    flow = await b.start("main", 1)
    cell = await b.cell(f'(let [h (fork "{flow}" {{:at 2 :with {{:n :kept}}}})] [@h (:name h) (:shared (fork "{flow}" {{:at 2 :dry-run true}}))])')
    answer = await b.engine.result(cell)
    assert answer is not None
    assert answer["printed"] == '[["work" :kept "work" true] "main" 1]'
    for wrong, says in {"{:at 0}": "number of a step", "{:at 1 :from 2}": "does not know the option", "{:at 77}": "no step 77"}.items():
        answer = await b.engine.result(await b.cell(f'(fork "{flow}" {wrong})'))
        assert answer is not None
        assert re.search(says, answer["error"]["message"])


@scene
async def test_a_flow_may_fork_itself(b: Bench) -> None:
    await b.load("""(defforeign work [n])
        (defflow main [] (let [a (rand-int 1000000)] (work 1) (if-let [h (:twin (receive {:timeout #dur "1s" :else {}}))] [:original (= a @h)] a)))""")
    flow = await b.start("main")
    at = next(r["step"] for r in b.rows(flow, kinds.EFFECT_REQUESTED) if r["op"] == "receive")
    cell = await b.cell(f'(let [h (fork "{flow}" {{:at {at}}})] (send "{flow}" {{:twin h}}) :done)')
    assert await b.engine.result(cell) is not None
    assert await b.result(flow) == ["original", True]


@scene
async def test_a_long_history(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (loop [i 0] (if (< i 200) (do (work i) (recur (inc i))) (do (receive) (work :end) i))))")
    flow = await b.start("main")
    made = await fork(b, flow, 201, "go")
    assert await b.result(made) == 200
    assert len(b.world.sent) == 201


@scene
async def test_of_a_flow_that_was_retried(b: Bench) -> None:
    """What the retry took back is not shared: the step has the outcome that counts."""
    b.world.answer = lambda call: Failed("user", "no") if call.args[0] == 2 else {"target": "work", "n": 7}
    await b.load(STEPS)
    flow = await b.start("main", 1)
    assert b.status(flow) == "failed"
    b.world.answer = lambda call: {"target": "work", "n": 8}
    await b.engine.control(flow, "retry")
    assert await b.result(flow) == ["work", 8, "work", True]
    made = await fork(b, flow, 3, {"target": "given"})
    assert await b.result(made) == ["work", 8, "given", True]


@scene
async def test_a_fork_retries_for_itself_what_failed_in_the_original(b: Bench) -> None:
    b.world.answer = lambda call: Failed("user", "no") if call.args[0] == 2 else {"target": "work", "n": 7}
    await b.load("""(defforeign work [n])
        (defflow main [] (let [p (async (:n (work 2)))] (receive {:timeout #dur "1h" :else nil}) @p))""")
    flow = await b.start("main")
    made = await fork(b, flow, 1, None)
    assert b.status(made) == "failed"
    b.world.answer = lambda call: {"n": 9}
    await b.engine.control(made, "retry")
    assert await b.result(made) == 9
    run = b.rows(made)[0]["run"]
    assert b.world.sent[f"{run}/2"] == 1, "under its own key"


@scene
async def test_a_callback_outlives_the_flow_that_made_it_although_that_was_deleted(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (let [c (callback)] (work 1) (:n @c)))")
    flow = await b.start("main")
    token = b.token(flow, 1)
    made = await fork(b, flow, 2)
    await b.engine.control(flow, "terminate")
    await b.engine.keeping.delete(flow)
    await b.restart()
    await b.settle()
    assert b.status(made) == "waiting"
    assert (await b.engine.settle_callback(token, {"n": 6}))[0] == "accepted"
    assert await b.result(made) == 6
