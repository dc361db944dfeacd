"""Retry: the step that failed is asked anew, and nothing else."""

from __future__ import annotations

import json

import pytest
from bench import Bench, scene
from stores import both

from flowmetal.errors import FlowConflict, FlowNotFound
from flowmetal.runtime.connector import Call, Failed
from flowmetal.runtime.control import Make
from flowmetal.store import kinds
from flowmetal.testing.audit import audit

SHOP = """
(defforeign charge [n])
(defforeign ship [n])
(defforeign refund [r])
(defforeign notify [n])
(defflow order [] (saga (undoable (charge 1) (fn [r] (refund r))) (ship 2)))
(defflow watched [] @(start-with {:on-failure :pause :id "child"} order))
"""


class Broken:
    """An outside world in which some functions fail for the time being."""

    def __init__(self, b: Bench, *targets: str) -> None:
        self.targets = set(targets)
        self.calls: list[str] = []
        b.world.answer = self.answer

    def answer(self, call: Call) -> object:
        """Fails, or gives the name back."""
        self.calls.append(call.target)
        return Failed("user", f"{call.target} is broken") if call.target in self.targets else call.target

    def mend(self) -> None:
        """All is well from now on."""
        self.targets.clear()


def audited(b: Bench) -> None:
    """The log keeps its promises."""
    audit(b.store, b.engine.definitions.registry)


async def has_its_turn_when_a_is_over(b: Bench) -> None:
    """The flow `b` waits in a queue for the place that `a` has, and begins when that is over."""
    assert [row for row in b.store.rows("b") if row.step == 1] == [], "it waits for its turn"
    await b.engine.send("a", "over")
    await b.settle()
    assert next(row.kind for row in b.store.rows("b") if row.step == 1) == kinds.EFFECT_REQUESTED


@scene
async def test_a_flow_that_is_paused_at_its_failed_step_goes_on_there_and_its_parent_never_knows(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(SHOP)
    flow = await b.start("watched")
    assert (b.status("child"), b.status(flow)) == ("paused", "waiting")
    world.mend()
    await b.engine.control("child", "retry", reason="mended", by="ann")
    assert await b.result(flow) == "ship"
    assert world.calls == ["charge", "ship", "ship"], "nothing was undone, and nothing but the failed step was asked again"
    (row,) = b.rows("child", kinds.FLOW_RETRIED)
    assert (row["reason"], row["by"]) == ("mended", "ann")
    audited(b)


@both
@scene
async def test_the_step_keeps_its_number_and_its_idempotency_key(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(SHOP)
    await b.start("watched")
    world.mend()
    await b.engine.control("child", "retry")
    await b.settle()
    run = json.loads(b.store.rows("child")[0].data)["run"]
    assert (b.world.sent[f"{run}/1"], b.world.sent[f"{run}/2"]) == (1, 2)
    effects = (await b.engine.sql("SELECT step, status, result FROM effects WHERE flow_id = 'child' ORDER BY step")).rows
    assert effects == [(1, "completed", '"charge"'), (2, "completed", '"ship"')]


@scene
async def test_what_fails_again_can_be_retried_again(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(SHOP)
    flow = await b.start("watched")
    for _ in range(3):
        await b.engine.control("child", "retry")
        await b.settle()
        assert b.status("child") == "paused"
        await b.restart()
    world.mend()
    await b.engine.control("child", "retry")
    assert await b.result(flow) == "ship"
    assert world.calls == ["charge"] + ["ship"] * 5
    audited(b)


@scene
async def test_the_same_request_again_retries_once(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(SHOP)
    await b.start("watched")
    for _ in range(3):
        await b.engine.control("child", "retry", request_id="once")
        await b.settle()
    assert world.calls.count("ship") == 2


@scene
async def test_a_flow_that_has_ended_goes_on_under_its_own_id_when_its_clean_up_asked_for_nothing(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load("""
      (defforeign charge [n]) (defforeign ship [n])
      (defflow main []
        (let [done (callback) late (timer #dur "1h") c (charge 1)]
          (println "charged")
          (try (ship c) (finally (println "tried")))
          [c @done @late]))""")
    flow = await b.start("main")
    assert b.status(flow) == "failed"
    token = b.store.rows(flow)[1].key
    assert token is not None
    assert (await b.engine.settle_callback(token, 1))[0] == "ended"
    world.mend()
    await b.restart()
    row = await b.engine.control(flow, "retry")
    assert (row["status"], row["error"], row["finished_at"]) == ("running", None, None)
    await b.settle()
    await b.restart()
    assert (await b.engine.settle_callback(token, "delivered"))[0] == "accepted"
    await b.settle()
    assert b.status(flow) == "waiting", "the timer stands where it stood"
    assert await b.result(flow) == ["charge", "delivered", None]
    assert world.calls == ["charge", "ship", "ship"]
    assert [row["text"] for row in b.rows(flow, kinds.OUTPUT)] == ["charged\n", "tried\n", "tried\n"]
    effects = (await b.engine.sql("SELECT step, status FROM effects ORDER BY step")).rows
    assert effects == [(n, "completed") for n in (1, 2, 3, 4)]
    audited(b)


@scene
async def test_a_flow_whose_clean_up_reached_the_outside_is_forked_not_retried(b: Bench) -> None:
    Broken(b, "ship")
    await b.load(SHOP)
    flow = await b.start("order")
    before = b.kinds(flow)
    with pytest.raises(FlowConflict, match=r"asked for step 3 \(foreign\), which cannot be taken back") as raised:
        await b.engine.control(flow, "retry")
    assert f"flowmetal fork {flow} --at 2" in str(raised.value.hint)
    assert b.kinds(flow) == before


@scene
async def test_whichever_fibers_failure_would_fail_the_flow_it_pauses_before_anything_is_undone(b: Bench) -> None:
    programs = {
        "fiber": "(let [p (async (try (ship 1) (finally (refund 1))))] @p)",
        "all": '(all [(async (sleep #dur "1d")) (async (saga (on-rollback (refund 1)) (ship 1)))])',
        "pmap": "(pmap (fn [n] (try (ship n) (finally (refund n)))) [1 2])",
        "with-timeout": '(with-timeout #dur "1h" (try (ship 1) (finally (refund 1))))',
        "nested": "@(async @(async (try (ship 1) (finally (refund 1)))))",
        "nursery": '(nursery (async (ship 1)) (try (sleep #dur "1h") (finally (refund 1))))',
    }
    for name, body in programs.items():
        world = Broken(b, "ship")
        await b.load(SHOP + f'(defflow main [] {body} :done) (defflow top [] @(start-with {{:on-failure :pause :id "{name}"}} main))')
        await b.start("top")
        assert b.status(name) == "paused", name
        assert "refund" not in world.calls, name
        world.mend()
        await b.restart()
        await b.engine.control(name, "retry")
        assert (await b.ending(name))["result"] == "done", name
    audited(b)


@scene
async def test_a_failure_that_the_flow_deals_with_pauses_nothing(b: Bench) -> None:
    programs = {
        "caught": "(let [p (async (ship 1))] (try @p (catch :default e :caught)))",
        "settled": "(do (all-settled [(async (ship 1))]) :caught)",
        "any": '(any [(async (ship 1)) (async (do (sleep #dur "1s") :caught))])',
        "nobody": '(do (async (ship 1)) (sleep #dur "1s") :caught)',
    }
    for name, body in programs.items():
        Broken(b, "ship")
        await b.load(SHOP + f'(defflow main [] {body}) (defflow top [] @(start-with {{:on-failure :pause :id "{name}"}} main))')
        assert await b.result(await b.start("top")) == "caught", name


@scene
async def test_code_that_fails_by_itself_is_not_retried_and_says_how_to_go_on(b: Bench) -> None:
    world = Broken(b)
    await b.load(SHOP + "(defflow main [] (charge 1) (/ 1 0))")
    flow = await b.start("main")
    with pytest.raises(FlowConflict, match=r"failed in its own code at test.flow:8:\d+, after step 1 \(foreign charge\) had completed") as raised:
        await b.engine.control(flow, "retry")
    assert f"flowmetal fork {flow} --at 1 --upgrade" in str(raised.value.hint)
    assert world.calls == ["charge"]


@scene
async def test_code_that_fails_of_what_another_flow_gave_is_not_retried(b: Bench) -> None:
    await b.load('(defflow other [] 5) (defflow main [] (throw (ex-info (str "no " @(start other)) {})))')
    flow = await b.start("main")
    with pytest.raises(FlowConflict, match="failed in its own code"):
        await b.engine.control(flow, "retry")


@scene
async def test_a_step_that_only_looks_is_asked_again_when_the_code_fails_of_its_answer(b: Bench) -> None:
    answers = [{"status": 503}, {"status": 200}]
    b.world.answer = lambda call: answers.pop(0)
    await b.load('(defflow main [] (let [r (http/get "http://x")] (when (not= 200 (:status r)) (throw (ex-info "not ready" {}))) :ready))')
    flow = await b.start("main")
    assert b.status(flow) == "failed"
    await b.engine.control(flow, "retry")
    assert await b.result(flow) == "ready"


@scene
async def test_an_await_that_ran_out_of_time_waits_anew_for_its_whole_time(b: Bench) -> None:
    await b.load('(defflow main [] (await (callback) {:timeout #dur "1h"}))')
    flow = await b.start("main")
    token = b.store.rows(flow)[1].key
    await b.advance("2h")
    assert b.status(flow) == "failed"
    await b.engine.control(flow, "retry")
    await b.advance("30m")
    assert b.status(flow) == "waiting"
    assert token is not None
    await b.engine.settle_callback(token, "at last")
    assert await b.result(flow) == "at last"
    audited(b)


@scene
async def test_a_called_flow_is_called_anew(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(SHOP + "(defflow leaf [] (ship 1)) (defflow calls [] (leaf))")
    caller = await b.start("calls")
    world.mend()
    first = b.child(caller, 1)
    with pytest.raises(FlowConflict, match="was called by") as raised:
        await b.engine.control(first, "retry")
    assert f"flowmetal retry {caller}" in str(raised.value.hint)
    await b.engine.control(caller, "retry")
    assert await b.result(caller) == "ship"
    assert len((await b.engine.flows(name="leaf"))["items"]) == 2
    audited(b)


@scene
async def test_a_flow_that_failed_of_another_goes_on_when_that_was_retried(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(SHOP + '(defflow leaf [] (ship 1)) (defflow main [] @(start-with {:id "leaf"} leaf))')
    flow = await b.start("main")
    assert (b.status(flow), b.status("leaf")) == ("failed", "failed")
    world.mend()
    await b.engine.control("leaf", "retry")
    await b.settle()
    await b.engine.control(flow, "retry")
    await b.restart()
    assert await b.result(flow) == "ship"
    audited(b)


@scene
async def test_who_asks_meanwhile_waits_for_the_new_end(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(SHOP + "(defflow main [] (ship (receive)))")
    flow = await b.start("main")
    await b.engine.send(flow, 1)
    await b.settle()
    assert (await b.engine.result(flow, 0) or {})["status"] == "failed"
    world.mend()
    b.world.answer = lambda call: world.answer(call)
    await b.engine.control(flow, "retry")
    assert await b.result(flow) == "ship"
    assert (await b.engine.result(flow, 0) or {})["result"] == "ship"


@scene
async def test_what_cannot_be_retried_says_so(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (receive))")
    flow = await b.start("main")
    with pytest.raises(FlowConflict, match="has not failed: it is waiting"):
        await b.engine.control(flow, "retry")
    await b.engine.control(flow, "pause")
    with pytest.raises(FlowConflict, match="is paused, and has not failed"):
        await b.engine.control(flow, "retry")
    await b.engine.control(flow, "cancel")
    await b.settle()
    with pytest.raises(FlowConflict, match="has not failed: it is cancelled"):
        await b.engine.control(flow, "retry")
    cell = await b.cell("(/ 1 0)")
    with pytest.raises(FlowConflict, match="is a cell"):
        await b.engine.control(cell, "retry")


@scene
async def test_a_call_at_most_once_is_asked_anew_after_a_crash_too(b: Bench) -> None:
    """What was sent before the retry is over: a crash between the retry and the sending must not take it for a sending that nobody answered."""
    await b.engine.abandon()
    b.world.ops = frozenset({"http/request"})  # type: ignore[misc]
    await b.open()
    await b.load("(defforeign charge [n] {:at-most-once true}) (defflow main [] (charge 1))")
    flow = await b.start("main")
    (task,) = await b.engine.foreign.lease(["charge"])
    await b.engine.foreign.fail(task["id"], {"type": "bank/closed", "message": "closed"}, retry=False)
    await b.settle()
    assert b.status(flow) == "failed"
    await b.engine.control(flow, "retry")
    await b.restart()
    await b.settle()
    (again,) = await b.engine.foreign.lease(["charge"])
    assert (again["attempt"], again["idempotency_key"]) == (1, task["idempotency_key"])
    await b.engine.foreign.complete(again["id"], "charged")
    assert await b.result(flow) == "charged"
    audited(b)


@scene
async def test_a_flow_of_a_queue_has_its_place_again(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(
        SHOP
        + """
      (defflow leaf [n] (ship n) (receive))
      (defflow main [] (queue :q {:concurrency 1}) (start-with {:queue :q :id "a"} leaf 1) :begun)
      (defflow next [] (start-with {:queue :q :id "b"} leaf 2) :begun)"""
    )
    await b.result(await b.start("main"))
    assert b.status("a") == "failed"
    world.mend()
    await b.engine.control("a", "retry")
    await b.settle()
    await b.result(await b.start("next"))
    assert (b.status("a"), b.store.rows("b")[-1].kind) == ("waiting", kinds.FLOW_WAITING)
    await has_its_turn_when_a_is_over(b)


@scene
async def test_a_flow_retries_another(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(SHOP + '(defflow main [] (let [h (start-with {:on-failure :pause} order)] (receive) (retry! h "mended") @h))')
    flow = await b.start("main")
    world.mend()
    await b.engine.send(flow, 1)
    assert await b.result(flow) == "ship"
    audited(b)


@scene
async def test_what_else_failed_meanwhile_is_asked_anew_with_it(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(SHOP + '(defflow main [] (pmap (fn [n] (ship n)) [1 2 3])) (defflow top [] @(start-with {:on-failure :pause :id "m"} main))')
    flow = await b.start("top")
    world.mend()
    await b.engine.control("m", "retry")
    assert await b.result(flow) == ["ship"] * 3
    assert world.calls == ["ship"] * 6
    audited(b)


@scene
async def test_what_the_flow_had_done_before_it_took_the_failure_stays_although_its_rows_come_later(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(
        SHOP
        + """
      (defflow main []
        (let [mail (async (let [m (receive)] (println "mail" m) (notify m)))
              s (async (ship (receive)))]
          [@mail @s]))"""
    )
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    await b.engine.send(flow, 1)
    await b.engine.control(flow, "resume")
    await b.engine.send(flow, 2)
    await b.settle()
    assert b.status(flow) == "failed"
    world.mend()
    await b.engine.control(flow, "retry")
    assert await b.result(flow) == ["notify", "ship"]
    assert [row["text"] for row in b.rows(flow, kinds.OUTPUT)] == ["mail 1\n"]
    assert sorted(world.calls) == ["notify", "ship", "ship"]
    audited(b)


@scene
async def test_a_flow_of_a_queue_that_was_paused_where_it_failed_keeps_its_place_after_a_restart(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(
        SHOP
        + """
      (defflow leaf [n] (ship n) (receive))
      (defflow main [] (queue :q {:concurrency 1}) (start-with {:queue :q :id "a" :on-failure :pause} leaf 1) :begun)
      (defflow next [] (start-with {:queue :q :id "b"} leaf 2) :begun)"""
    )
    await b.result(await b.start("main"))
    assert b.status("a") == "paused"
    world.mend()
    await b.engine.control("a", "retry")
    await b.settle()
    await b.restart()
    await b.result(await b.start("next"))
    await has_its_turn_when_a_is_over(b)


@scene
async def test_a_retry_that_comes_to_nothing_leaves_no_place_in_a_queue(b: Bench) -> None:
    Broken(b, "ship")
    await b.load(SHOP + '(defflow leaf [] (ship 1)) (defflow main [] (queue :q {:concurrency 1}) (start-with {:queue :q :id "a"} leaf) :begun)')
    await b.result(await b.start("main"))

    async def gone(flow_id: str, make: Make) -> None:
        raise FlowNotFound(flow_id)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(b.engine, "deliver", gone)
        with pytest.raises(FlowNotFound):
            await b.engine.control("a", "retry")
    assert b.engine.queues.flows == {}


@scene
async def test_a_flow_that_was_retried_where_it_awaited_another_and_was_upgraded_waits_for_the_next(b: Bench) -> None:
    world = Broken(b, "charge")
    source = """
      (defforeign charge [n])
      (defflow paid [] (charge 1))
      (defflow main [] @(start-with {:id "first"} paid) (receive) @(start-with {:id "second"} paid))"""
    await b.load(source)
    flow = await b.start("main")
    assert b.status(flow) == "failed"
    world.mend()
    for each in ("first", flow):
        await b.engine.control(each, "retry")
        await b.settle()
    await b.load(source.replace("(receive)", "(receive) (println 1)"))
    assert (await b.engine.upgrades.upgrade(flow))["upgraded"]
    await b.engine.send(flow, "go on")
    await b.settle()
    assert [(row["flow"], row.get("anew", False)) for row in b.rows(flow, kinds.AWAIT)] == [("first", False), ("first", True), ("second", False)]
    assert await b.result(flow) == "charge"
    audited(b)
