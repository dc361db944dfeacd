"""Messages: who gets which, in which order, once."""

from __future__ import annotations

from typing import Any

import pytest
from bench import Bench, scene
from stores import both

from flowmetal.errors import FlowEnded, FlowNotFound
from flowmetal.lang.plain import from_plain
from flowmetal.runtime.book import Book
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds


def consumed(b: Bench, flow: str) -> list[Any]:
    """The ids of consumed messages, in the order of the rows that consumed them."""
    return [row["message_id"] for row in b.rows(flow, kinds.EFFECT_COMPLETED) if "message_id" in row]


@scene
async def test_messages_are_received_in_the_order_of_arrival(b: Bench) -> None:
    await b.load("(defflow main [] [(receive) (receive) (receive)])")
    flow = await b.start("main")
    for n in (1, 2, 3):
        await b.engine.send(flow, n)
    assert await b.result(flow) == [1, 2, 3]


@scene
async def test_a_message_waits_in_the_mailbox(b: Bench) -> None:
    await b.load('(defflow main [] (sleep #dur "1h") [(receive) (receive)])')
    flow = await b.start("main")
    await b.engine.send(flow, 1)
    await b.restart()
    await b.engine.send(flow, 2)
    assert await b.result(flow) == [1, 2]


@scene
async def test_a_pattern_takes_the_first_that_matches_and_leaves_the_others(b: Bench) -> None:
    await b.load('(defflow main [] [(receive {:match {:kind "b" :n #{1 2}}}) (receive) (receive)])')
    flow = await b.start("main")
    for message in ({"kind": "a"}, {"kind": "b", "n": 3}, {"kind": "b", "n": 2}):
        await b.engine.send(flow, message)
    assert await b.result(flow) == [{"kind": "b", "n": 2}, {"kind": "a"}, {"kind": "b", "n": 3}]


@scene
async def test_receivers_are_served_in_the_order_of_asking(b: Bench) -> None:
    await b.load('(defflow main [] (all [(async [:a (receive)]) (async [:b (receive)]) (async [:c (receive {:match {:to "c"}})])]))')
    flow = await b.start("main")
    for message in ({"to": "c"}, {"to": "x"}, {"to": "c"}):
        await b.engine.send(flow, message)
    assert await b.result(flow) == [["a", {"to": "c"}], ["b", {"to": "x"}], ["c", {"to": "c"}]]


@scene
async def test_a_receive_that_loses_in_a_select_gives_its_message_back(b: Bench) -> None:
    await b.load(
        """(defflow main []
             (let [c (callback)
                   first (select {:c c :m (receive)})]
               [(nth first 0) (receive {:timeout #dur "1s" :else :lost})]))"""
    )
    flow = await b.start("main")
    await b.engine.control(flow, "pause")
    await b.engine.settle_callback(b.token(flow, 1), 1)
    await b.engine.send(flow, {"n": 2}, key="m")
    await b.engine.control(flow, "resume")
    assert await b.result(flow) == ["c", {"n": 2}]
    assert consumed(b, flow)[-1] == "m"


@scene
async def test_a_message_that_was_delivered_and_not_taken_goes_back_in_its_place(b: Bench) -> None:
    """Both outcomes of the select are in the log before the flow takes the first of them."""
    await b.load(
        """(defflow main []
             (let [t (timer #dur "1s") [k] (select {:t t :m (receive {:match {:n 2}})})]
               [k (receive) (receive)]))"""
    )
    flow = await b.start("main")

    def both(process: Any) -> list[Draft]:
        fired = b.engine.dispatcher.timer_outcome(process, 1)
        assert fired is not None
        message = Draft(kinds.MESSAGE_RECEIVED, None, None, {"message_id": "two", "source": "test"}, {"message": from_plain({"n": 2})})
        return [fired, message]

    await b.engine.send(flow, {"n": 1})
    await b.engine.deliver(flow, both)
    await b.engine.send(flow, {"n": 3})
    assert await b.result(flow) == ["t", {"n": 1}, {"n": 2}]
    steps = [(row["step"], row["kind"]) for row in b.rows(flow) if row.get("message_id") == "two"]
    assert steps == [(None, "message-received"), (2, "effect-completed"), (2, "effect-cancelled"), (4, "effect-completed")]
    relation = b.store.query("SELECT consumed_at IS NULL AS kept, idempotency_key FROM messages WHERE message_id = 'two'")
    assert relation.rows == [(False, None)]
    effects = b.store.query("SELECT step, status FROM effects WHERE op = 'receive' ORDER BY step")
    assert effects.rows == [(2, "cancelled"), (3, "completed"), (4, "completed")]


@scene
async def test_a_cancelled_receive_gives_its_message_back(b: Bench) -> None:
    await b.load("(defflow main [] (try (receive {:match {:n 1}}) (catch :flow/cancelled e (log (receive)))))")
    flow = await b.start("main")

    def both(process: Any) -> list[Draft]:
        cancel = Draft(kinds.CANCEL_REQUESTED, None, None, {"reason": None, "by": None})
        return [cancel, Draft(kinds.MESSAGE_RECEIVED, None, None, {"message_id": "one", "source": "test"}, {"message": from_plain({"n": 1})})]

    await b.engine.deliver(flow, both)
    await b.settle()
    assert b.status(flow) == "cancelled"
    assert [row["data"] for row in b.rows(flow, kinds.LOG)] == [{"n": 1}]


@scene
async def test_a_receive_in_a_race_that_is_lost_leaves_the_message(b: Bench) -> None:
    await b.load('(defflow main [] [(race (receive) (do (sleep #dur "1s") :slept)) (receive)])')
    flow = await b.start("main")
    await b.advance("1s")
    await b.engine.send(flow, "kept")
    assert await b.result(flow) == ["slept", "kept"]


@scene
async def test_the_time_of_a_receive(b: Bench) -> None:
    await b.load(
        """(defflow main []
             [(receive {:timeout #dur "1s" :else :a}) (receive {:timeout #dur "1s" :else nil})
              (try (receive {:timeout #dur "1s"}) (catch :flow/timeout e :b)) (receive {:timeout #dur "1s" :else :c})])"""
    )
    flow = await b.start("main")
    await b.advance("3s")
    await b.engine.send(flow, "in time")
    assert await b.result(flow) == ["a", None, "b", "in time"]
    assert len(b.engine.timers) == 0


@both
@scene
async def test_a_message_with_a_key_arrives_once(b: Bench) -> None:
    await b.load("(defflow main [] [(receive) (receive)])")
    flow = await b.start("main")
    assert await b.engine.send(flow, 1, key="k") == await b.engine.send(flow, 1, key="k") == "k"
    await b.restart()
    await b.engine.send(flow, 1, key="k")
    await b.engine.send(flow, 2, key="other")
    assert await b.result(flow) == [1, 2]


@scene
async def test_send_to_a_flow_that_has_ended(b: Bench) -> None:
    await b.load("(defflow leaf [] 1) (defflow main [h] (try (send h 1) (catch :flow/ended e (ex-message e))))")
    leaf = await b.start("leaf")
    with pytest.raises(FlowEnded, match=f"flow {leaf} has ended"):
        await b.engine.send(leaf, 1)
    assert await b.result(await b.start("main", leaf)) == f"flow {leaf} has ended"


@scene
async def test_send_to_no_flow(b: Bench) -> None:
    await b.load('(defflow main [] (try (send "nobody" 1) (catch :flow/not-found e :none)))')
    assert await b.result(await b.start("main")) == "none"
    with pytest.raises(FlowNotFound):
        await b.engine.send("nobody", 1)


@scene
async def test_a_flow_sends_to_itself(b: Bench) -> None:
    assert await b.run("(defflow main [] (send (self) {:a #{1}}) (receive))") == {"a": [1]}


@scene
async def test_the_view_of_messages_has_one_row_a_delivery(b: Bench) -> None:
    await b.load("(defflow main [] (receive) (await (callback)))")
    flow = await b.start("main")
    await b.engine.send(flow, {"a": 1}, key="one")
    await b.engine.send(flow, {"a": 2}, key="two")
    await b.engine.settle_callback(b.token(flow, 2), {"c": 3})
    found = b.store.query("SELECT message_id, topic, consumed_at IS NOT NULL, data FROM messages WHERE flow_id = ? ORDER BY received_at, message_id", [flow])
    assert [row[1:] for row in found.rows if row[0] in ("one", "two")] == [(None, True, '{"a":1}'), (None, False, '{"a":2}')]
    assert len(found.rows) == 3


def test_matching_asks_no_more_than_it_must() -> None:
    book = Book()
    assert book.match() == []
