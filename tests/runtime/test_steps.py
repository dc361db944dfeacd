"""Steps: what is numbered and what is not, under which key, and at which time."""

from __future__ import annotations

import pytest
from bench import Bench, scene
from stores import Stores

from flowmetal.errors import LispError
from flowmetal.runtime.dispatch import WAITING_OPS
from flowmetal.runtime.inside import OPS as INSIDE
from flowmetal.store import kinds

NUMBERED = {
    "(work 1)": ["foreign"],
    '(call "work" [1])': ["foreign"],
    '(http/get "http://x/")': ["http/get"],
    '(http/post "http://x/" {:json {}})': ["http/post"],
    "(callback)": ["callback"],
    '(timer #dur "1s")': ["timer"],
    '(sleep #dur "1s")': ["sleep"],
    "(start leaf)": ["start"],
    "(leaf)": ["call"],
    '(receive {:timeout #dur "1s" :else 1})': ["receive"],
    "(send (self) 1)": ["send"],
    "(now)": ["now"],
    "(rand)": ["rand"],
    "(rand 5)": ["rand"],
    "(rand-int 5)": ["rand-int"],
    "(random-uuid)": ["random-uuid"],
    "(shuffle [1 2])": ["shuffle"],
    "(status (self))": ["status"],
    "(count (history (self)))": ["history"],
    "(count (flows))": ["flows"],
    '(promise-status (timer #dur "1s"))': ["timer", "promise-status"],
}
UNNUMBERED = [
    "@(async 1)", "(await (async 1))", "(select {:a (async 1)})", "(race 1 2)", "(all [(async 1)])", "(any [(async 1)])", "(all-settled [(async 1)])",
    "(pmap inc [1 2])", "(let [a (atom 1)] (swap! a inc) @a)", "(log 1)", '(checkpoint "a")', "(set-info! {})", "(println 1)", "(self)", "(parent)",
]  # fmt: skip


@pytest.mark.parametrize("form", NUMBERED)
def test_a_step_is_a_request(stores: Stores, form: str) -> None:
    @scene
    async def play(b: Bench) -> None:
        await b.load(f"(defforeign work [n]) (defflow leaf [] 1) (defflow main [] {form} :done)")
        flow = await b.start("main")
        await b.ending(flow)
        assert b.ops(flow) == NUMBERED[form]
        assert [row["step"] for row in b.rows(flow, kinds.EFFECT_REQUESTED, kinds.VALUE_RECORDED)] == list(range(1, len(NUMBERED[form]) + 1))

    play(stores)


@pytest.mark.parametrize("form", UNNUMBERED)
def test_what_only_arranges_is_no_step(stores: Stores, form: str) -> None:
    @scene
    async def play(b: Bench) -> None:
        await b.load(f"(defflow main [] {form} :done)")
        flow = await b.start("main")
        await b.ending(flow)
        assert b.ops(flow) == []

    play(stores)


@scene
async def test_with_timeout_numbers_its_timer_only(b: Bench) -> None:
    await b.load('(defflow main [] (with-timeout #dur "1h" 1))')
    flow = await b.start("main")
    assert b.ops(flow) == ["timer"]


@scene
async def test_steps_are_numbered_as_the_machine_makes_them(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (let [a (async (work :a)) b (async (work :b))] (work :main) [@a @b]))")
    flow = await b.start("main")
    asked = [(row["step"], row["args"]) for row in b.rows(flow, kinds.EFFECT_REQUESTED)]
    assert asked == [(1, ["main"]), (2, ["a"]), (3, ["b"])], "the first fiber runs until it waits, then the others, in order of their making"


@scene
async def test_a_mistake_in_the_arguments_takes_no_number(b: Bench) -> None:
    await b.load(
        """(defflow leaf [] 1)
           (defflow main []
             (doseq [f [(fn [] (rand-int 0)) (fn [] (rand "a")) (fn [] (sleep 5)) (fn [] (timer nil)) (fn [] (shuffle 1)) (fn [] (receive {:timeout 5}))
                        (fn [] (receive {:nope 1})) (fn [] (start 1)) (fn [] (start-with {:id "no good"} leaf)) (fn [] (start-with {:nope 1} leaf))
                        (fn [] (send 5 1)) (fn [] (sleep-until 1)) (fn [] (send (self) (atom 1))) (fn [] (flows {:limit 0}))]]
               (try (f) (throw (ex-info "was accepted" {:type :test/accepted})) (catch :test/accepted e (throw e)) (catch :default e nil)))
             (random-uuid))"""
    )
    flow = await b.start("main")
    assert b.status(flow) == "completed", b.rows(flow)[-1]
    assert b.ops(flow) == ["random-uuid"]


@scene
async def test_the_key_of_an_effect_is_the_run_and_the_step(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (now) (work 1) (work 2))")
    flow = await b.start("main", flow_id="mine")
    run = b.rows(flow, kinds.FLOW_STARTED)[0]["run"]
    assert len(run) == 36
    assert list(b.world.sent) == [f"{run}/2", f"{run}/3"]


@scene
async def test_flow_ids(b: Bench) -> None:
    await b.load("(defflow main [] (receive))")
    for good in ("a", "A-1._:z", "x" * 200):
        assert (await b.engine.start_flow("main", [], flow_id=good))[0] == good
    for bad in ("a b", "ä", "x" * 201, "a/b", "a\n", "$x"):
        with pytest.raises(LispError, match="a flow id is"):
            await b.engine.start_flow("main", [], flow_id=bad)
    await b.engine.start_flow("main", [], flow_id="order-1")
    await b.engine.start_flow("main", [], flow_id="order-11")
    assert await b.engine.resolve("order-1") == "order-1", "an exact id wins over a prefix"
    assert await b.engine.resolve("order-11") == "order-11"


@scene
async def test_time_never_goes_back_in_a_flow(b: Bench) -> None:
    await b.load("(defflow main [] (let [t (now)] (receive) (let [u (now)] [(time/seconds (time/between t u)) (= t u)])))")
    flow = await b.start("main")
    before = b.clock.time
    b.clock.time -= 3_600_000_000
    await b.engine.send(flow, 1)
    assert await b.result(flow) == [0.0, True]
    times = [row["at"] for row in b.rows(flow)]
    assert times == sorted(times)
    assert times[-1] >= before


@scene
async def test_a_restart_does_not_take_time_back(b: Bench) -> None:
    await b.load("(defflow main [] (let [t (now)] (receive) (= t (now))))")
    flow = await b.start("main")
    b.clock.time -= 3_600_000_000
    await b.restart()
    await b.engine.send(flow, 1)
    assert await b.result(flow) is True


@scene
async def test_a_due_time_is_absolute_and_written_with_the_request(b: Bench) -> None:
    await b.load('(defflow main [] (sleep #dur "1h") :up)')
    flow = await b.start("main")
    (asked,) = b.rows(flow, kinds.EFFECT_REQUESTED)
    assert asked["due_at"] == "2026-01-01T01:00:00Z"
    b.clock.time += 1_800_000_000
    await b.restart()
    await b.advance("29m")
    assert b.status(flow) == "waiting", "a restart does not begin the time anew"
    await b.advance("1m")
    assert b.status(flow) == "completed"


@scene
async def test_a_sleep_has_no_upper_bound(b: Bench) -> None:
    await b.load('(defflow main [] (sleep #dur "300000000d"))')
    flow = await b.start("main")
    assert b.status(flow) == "waiting"
    await b.restart()
    assert b.status(flow) == "waiting"
    await b.engine.control(flow, "cancel")
    assert b.status(flow) == "cancelled"


@scene
async def test_a_time_that_is_over_is_due_at_once(b: Bench) -> None:
    assert await b.run('(defflow main [] (sleep #dur "-1s") (sleep-until #inst "2020") (await (timer #inst "2020")) :now)') == "now"
    assert b.clock.time == 1_767_225_600_000_000


@scene
async def test_a_clock_belongs_to_a_store(b: Bench) -> None:
    from flowmetal.errors import StoreError
    from flowmetal.runtime.clock import VirtualClock
    from flowmetal.runtime.engine import Engine

    engine = Engine(b.store, clock=VirtualClock())
    with pytest.raises(StoreError, match="lives in real time"):
        await engine.open()


def test_the_table_of_operations_is_closed() -> None:
    assert not WAITING_OPS & INSIDE
