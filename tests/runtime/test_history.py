"""What a flow writes into its history besides its steps: prints, marks, its ending; and what the log promises."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from bench import Bench, scene
from lives import HandClock, life, play
from stores import Stores, both, several

from flowmetal.runtime.marks import OUTPUT_LIMIT
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit
from flowmetal.testing import World


def printed(b: Bench, flow: str) -> str:
    """All that a flow has printed."""
    return "".join(row["text"] for row in b.rows(flow, kinds.OUTPUT))


@scene
async def test_adjacent_prints_of_one_slice_are_one_row(b: Bench) -> None:
    await b.load('(defflow main [] (print "a") (println "b" 1) (prn "c") (log 1) (println "d") (receive) (println "e"))')
    flow = await b.start("main")
    assert [row["text"] for row in b.rows(flow, kinds.OUTPUT)] == ['ab 1\n"c"\n', "d\n"]
    await b.engine.send(flow, 1)
    await b.settle()
    assert printed(b, flow) == 'ab 1\n"c"\nd\ne\n'


@scene
async def test_what_was_printed_is_never_printed_again(b: Bench) -> None:
    await b.load("(defflow main [] (loop [i 0] (println i) (receive) (recur (inc i))))")
    flow = await b.start("main")
    for _ in range(3):
        await b.restart()
        await b.engine.send(flow, 1)
    await b.settle()
    assert printed(b, flow) == "0\n1\n2\n3\n"


@scene
async def test_a_print_that_was_on_disk_in_part_goes_on_where_it_was(b: Bench) -> None:
    b.options["fuel"] = 3
    await b.restart()
    await b.load('(defflow main [] (println "a") (println "b") (println "c") (println "d") (println "e") (receive))')
    flow, _ = await b.engine.start_flow("main", [])
    while not b.rows(flow, kinds.OUTPUT):
        import asyncio

        await asyncio.sleep(0)
    b.options["fuel"] = 20_000
    await b.restart()
    await b.settle()
    assert printed(b, flow) == "a\nb\nc\nd\ne\n"


@scene
async def test_output_is_kept_up_to_a_limit_and_says_so(b: Bench) -> None:
    await b.load(
        """(defn line [n] (apply str (repeat n "x")))
           (defflow main [] (let [x (line 99999)] (loop [i 0] (if (< i 15) (do (println x) (receive) (recur (inc i))) :done))))"""
    )
    flow = await b.start("main")
    for n in range(15):
        if n in (5, 12):
            await b.restart()
        await b.engine.send(flow, n)
    assert await b.result(flow) == "done"
    assert len(printed(b, flow)) == OUTPUT_LIMIT == 1 << 20
    assert [row["limit"] for row in b.rows(flow, kinds.TRUNCATED)] == [1 << 20]
    after = b.kinds(flow)[b.kinds(flow).index(kinds.TRUNCATED) :]
    assert kinds.OUTPUT not in after


@scene
async def test_every_character_can_be_printed_and_sent(b: Bench) -> None:
    await b.load(r'(defflow main [x] (println x "\u0000") (log {:n ##NaN :s "\u0000"}) (send (self) x) (= x (receive)))')
    for value in ("a\x00b", "\ud800", "\U0001f600", "\u2028"):
        flow = await b.start("main", value)
        assert await b.result(flow) is True
        for row in b.store.rows(flow):
            row.data.encode("utf-8")
            json.loads(row.data)
            assert "\\u0000" not in row.data and "\\ud800" not in row.data.replace("\\ud83d", "")


@scene
async def test_marks(b: Bench) -> None:
    await b.load('(defflow main [] (log {:a #{1}}) (checkpoint "half") (checkpoint :k) (set-info! {:done 1}) (set-info! {:done 2}) (receive))')
    flow = await b.start("main")
    assert b.rows(flow, kinds.LOG)[0]["data"] == {"a": [1]}
    assert [row["label"] for row in b.rows(flow, kinds.CHECKPOINT)] == ["half", ":k"]
    row = b.store.flow_row(flow)
    assert row is not None and row["info"] == {"done": 2}
    await b.restart()
    await b.engine.send(flow, 1)
    await b.settle()
    assert b.kinds(flow).count(kinds.LOG) == 1


@scene
async def test_what_cannot_be_stored_is_shown_all_the_same(b: Bench) -> None:
    await b.load("(defflow main [] (log (atom 1)) (set-info! [(atom 2)]) (receive))")
    flow = await b.start("main")
    assert b.rows(flow, kinds.LOG)[0]["data"] == "#atom[1]"
    assert b.status(flow) == "waiting"


@scene
async def test_a_result_that_cannot_be_stored_is_an_error(b: Bench) -> None:
    await b.load("(defflow main [] (atom 1))")
    flow = await b.start("main")
    assert (b.status(flow), b.rows(flow)[-1]["error"]["type"]) == ("failed", "type")


@scene
async def test_statuses(b: Bench) -> None:
    await b.load('(defflow waits [] (receive)) (defflow boom [] (throw (ex-info "no" {}))) (defflow fine [] 1)')
    flows = {name: await b.start(name) for name in ("waits", "boom", "fine")}
    assert [b.status(flow) for flow in flows.values()] == ["waiting", "failed", "completed"]
    await b.engine.control(flows["waits"], "terminate")
    assert b.status(flows["waits"]) == "cancelled"


@scene
async def test_the_history_of_the_designs_example(b: Bench) -> None:
    b.world.answer = lambda call: {"json": {"price": 2, "fee": 3}}
    await b.load(
        """(defflow ship [order]
             (let [q (http/post "http://x/quote" {}) done (callback)]
               (http/post "http://x/ship" {:json {:notify (:url done)}})
               (+ (:price (:json q)) (:fee (await done)))))"""
    )
    flow = await b.start("ship", {"id": 1})
    await b.engine.settle_callback(b.token(flow, 2), {"fee": 4})
    assert await b.result(flow) == 6
    assert [(row["kind"], row["step"]) for row in b.rows(flow)] == [
        ("flow-started", None), ("effect-requested", 1), ("effect-completed", 1), ("effect-requested", 2), ("effect-requested", 3),
        ("effect-completed", 3), ("flow-waiting", None), ("effect-completed", 2), ("flow-completed", None),
    ]  # fmt: skip
    assert list(b.world.sent) == [f"{b.rows(flow)[0]['run']}/{n}" for n in (1, 3)]


@scene
async def test_outcome_and_next_request_share_a_commit(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [] (work 1) (work 2) (work 3))")
    commits: list[list[str]] = []
    group = b.store.commit_group

    def counting(what: object) -> object:
        commits.extend([row.kind for row in commit.rows] for commit in what)  # type: ignore[attr-defined]
        return group(what)  # type: ignore[arg-type]

    b.store.commit_group = counting  # type: ignore[method-assign,assignment]
    await b.result(await b.start("main"))
    assert [kinds_[:2] for kinds_ in commits[2:4]] == [["effect-completed", "effect-requested"]] * 2
    assert len(commits) == 5, "one commit a step"


@scene
async def test_positions_order_the_store(b: Bench) -> None:
    await b.load("(defforeign work [n]) (defflow main [n] (work n) (receive))")
    for n in range(5):
        await b.start("main", n)
    rows = [row for flow in b.store.open_flows() for row in b.store.rows(flow)]
    positions = sorted(row.pos for row in rows)
    assert len(set(positions)) == len(positions)
    for flow in b.store.open_flows():
        own = b.store.rows(flow)
        assert [row.seq for row in own] == list(range(1, len(own) + 1))
        assert [row.pos for row in own] == sorted(row.pos for row in own)


@both
@scene
async def test_a_program_that_changed_under_a_flow_is_noticed(b: Bench) -> None:
    """Re-execution compares what is asked for: a difference pauses the flow and names both places."""
    await b.load("(defforeign work [n]) (defflow main [] (work 1) (receive))")
    flow = await b.start("main")
    await b.engine.abandon()
    rows = b.store.rows(flow)
    asked = next(row for row in rows if row.kind == kinds.EFFECT_REQUESTED)
    asked.data = json.dumps(json.loads(asked.data) | {"hash": "0" * 16})
    for commit in (Commit([replace(rows[0], flow_id="$changed", kind=kinds.OUTPUT)], remove={flow: rows[-1].seq}), Commit(rows)):
        (made,) = b.store.commit_group([commit])
        assert not isinstance(made, Exception), made
    await b.open()
    await b.engine.send(flow, "kept")
    await b.settle()
    assert b.status(flow) == "paused"
    reason = b.rows(flow, kinds.FLOW_PAUSED)[0]["reason"]
    assert reason.startswith("step 1 of") and reason.count("foreign work at test.flow:1:40") == 2
    assert b.kinds(flow).count(kinds.MESSAGE_RECEIVED) == 1, "what arrived is kept"


@pytest.mark.parametrize("source", ["(nope)", "(defflow f [", "(receive 1 2)"])
def test_mistakes_in_a_cell_are_its_error(stores: Stores, source: str) -> None:
    @scene
    async def play(b: Bench) -> None:
        cell = await b.cell(source)
        answer = await b.engine.result(cell, 0)
        assert answer is not None and answer["status"] == "failed"
        assert answer["error"]["rendered"]
        assert b.status(cell) == "failed"

    play(stores)


PARTS = {
    "{:kind :effect-requested}": [2, 4],
    '{:kind [:effect-completed "flow-started"]}': [1, 3, 5],
    '{:kind [:effect-requested nil 1 {} [:effect-completed] "no\'; such"]}': [2, 4],
    '{:kind [:flow-walked "x\' OR true --" 7]}': [],
    "{:kind []}": [],
    "{:kind nil :limit 100000000000000000000}": [1, 2, 3, 4, 5, 6],
    "{:limit 2}": [1, 2],
    "{:after 100000000000000000000}": [],
    "{:after 3}": [4, 5, 6],
    "{:kind #{:effect-requested} :after 2 :limit 5}": [4],
}


@several
def test_a_part_of_a_history_is_asked_for(store: Any) -> None:
    async def scene() -> None:
        async with life(store, HandClock(), (World(),)) as engine:
            await engine.load("(defforeign work [n]) (defflow leaf [] (work 1) (work 2))", file="t.flow")
            await engine.result((await engine.start_flow("leaf", [], flow_id="a"))[0])
            parts = " ".join(f'(mapv :seq (history "a" {options}))' for options in PARTS)
            found = await engine.result(await engine.eval(f"[{parts}]"))
            assert found is not None
            assert dict(zip(PARTS, found["result"], strict=True)) == PARTS

    play(scene)
