"""Flows that move between stores: what they waited for, they go on waiting for there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, scene
from stores import Stores

from flowmetal.errors import FlowConflict, FlowEnded, FlowmetalError, LeaseLost, LispError, StoreError
from flowmetal.runtime import flowlog
from flowmetal.runtime.fork import Wish
from flowmetal.store import kinds
from flowmetal.testing.faults import AFTER, BEFORE, Faults

PLACES = itertools.count(100, 100)
"""Chance differs from place to place."""


@contextlib.asynccontextmanager
async def elsewhere(here: Bench, source: str = "", store: Any = None) -> AsyncIterator[Bench]:
    """Another store, with its engine."""
    bench = Bench(here.stores)
    bench.lives = next(PLACES)
    if store is not None:
        bench.store = bench.world.store = store
    await bench.open()
    try:
        if source:
            await bench.load(source)
        yield bench
    finally:
        await bench.engine.close()


async def export(bench: Bench, *flows: str) -> bytes:
    """A file, and its open flows marked."""
    data = await bench.engine.keeping.export(flows)
    await bench.engine.keeping.mark_moved(json.loads(data.splitlines()[0])["open"], by="test")
    await bench.settle()
    return data


async def move(a: Bench, b: Bench, *flows: str) -> None:
    """Flows go from one store to another."""
    b.clock.time = max(a.clock.time, b.clock.time)
    done = await b.engine.keeping.import_flows(await export(a, *flows))
    assert set(flows) <= set(done["flows"]) and done["new"]
    await b.settle()


OTHER = '(defn label [x] (str "b" x)) (defflow kid [n] :theirs) (defforeign work [n])'
"""What the other store has under the same names."""
LABEL = '(defn label [x] (str "a" x))'


@scene
async def test_a_timer_goes_on_where_the_flow_is(a: Bench) -> None:
    await a.load(f'{LABEL} (defflow main [] (sleep #dur "1h") (label 1))')
    flow = await a.start("main")
    await a.advance("50m")
    async with elsewhere(a, OTHER) as b:
        await move(a, b, flow)
        await b.advance("9m")
        assert b.status(flow) == "waiting"
        assert await b.result(flow) == "a1"
        await a.advance("2h")
    assert a.status(flow) == "moved"
    assert [r["kind"] for r in a.rows(flow)][-1] == kinds.FLOW_MOVED


@scene
async def test_a_flow_that_was_retried_after_its_end_moves(a: Bench) -> None:
    await a.load('(defflow main [] (:v (await (callback) {:timeout #dur "1h"})))')
    flow = await a.start("main")
    await a.advance("1h")
    assert a.status(flow) == "failed"
    await a.engine.control(flow, "retry")
    await a.settle()
    async with elsewhere(a, OTHER) as b:
        await move(a, b, flow)
        assert b.status(flow) == "waiting"
        await b.engine.settle_callback(a.token(flow, 1), {"v": 7})
        assert await b.result(flow) == 7


@scene
async def test_flows_that_share_a_callback_come_back_again_and_again(a: Bench) -> None:
    await a.load('(defflow main [] (let [c (callback)] (sleep #dur "1s") [(:v (await c)) (receive)]))')
    flow = await a.start("main")
    await a.advance("2s")
    token = a.token(flow, 1)
    family = [flow, await a.engine.forks.fork(flow, Wish(2)), await a.engine.forks.fork(flow, Wish(2))]
    for moved in ([flow], family, [flow]):
        await a.engine.keeping.import_flows(await export(a, *moved))
    assert (await a.engine.settle_callback(token, {"v": 4}))[0] == "accepted"
    await a.settle()
    for moved in ([family[1]], [flow], family, [family[2]]):
        await a.engine.keeping.import_flows(await export(a, *moved))
    for member in family:
        await a.engine.send(member, "m")
    assert [await a.result(member) for member in family] == [[4, "m"]] * 3


@scene
async def test_a_fork_that_has_the_outcome_of_a_shared_callback_comes_back_beside_another(a: Bench) -> None:
    await a.load("(defforeign work [n]) (defflow main [] (let [c (callback)] (work 1) (receive) (work 2) (receive) (:n @c)))")
    flow = await a.start("main")
    before = await a.engine.forks.fork(flow, Wish(2))
    await a.settle()
    assert (await a.engine.settle_callback(a.token(flow, 1), {"n": 7}))[0] == "accepted"
    await a.engine.send(flow, "go on")
    await a.settle()
    after = await a.engine.forks.fork(flow, Wish(4))
    await a.settle()
    await a.engine.keeping.import_flows(await export(a, after))
    for fork, messages in ((before, 2), (after, 1)):
        for n in range(messages):
            await a.engine.send(fork, n)
        assert await a.result(fork) == 7


@scene
async def test_a_flow_whose_file_was_lost_is_exported_again(a: Bench) -> None:
    await a.load(f"{LABEL} (defflow main [] (label (receive)))")
    flow = await a.start("main")
    await export(a, flow)
    async with elsewhere(a, OTHER) as b:
        await b.engine.keeping.import_flows(await export(a, flow))
        await b.engine.send(flow, 7)
        assert await b.result(flow) == "a7"
    assert a.kinds(flow).count(kinds.FLOW_MOVED) == 1


@scene
async def test_a_callback_settles_a_flow_that_has_come_back_and_its_fork(a: Bench) -> None:
    await a.load('(defflow main [] (let [c (callback)] (sleep #dur "1s") (:v (await c))))')
    flow = await a.start("main")
    await a.advance("2s")
    fork = await a.engine.forks.fork(flow, Wish(2))
    await a.engine.keeping.import_flows(await export(a, flow))
    await a.engine.settle_callback(a.token(flow, 1), {"v": 7})
    assert [await a.result(flow), await a.result(fork)] == [7, 7]


@scene
async def test_a_callback_is_answered_there_and_gone_here(a: Bench) -> None:
    await a.load(f"{LABEL} (defflow main [] (let [c (callback)] (label (await c))))")
    flow = await a.start("main")
    token = a.token(flow, 1)
    async with elsewhere(a, OTHER) as b:
        await move(a, b, flow)
        assert (await a.engine.settle_callback(token, 1))[0] == "ended"
        assert (await b.engine.settle_callback(token, 7))[0] == "accepted"
        assert await b.result(flow) == "a7"
        assert (await b.engine.settle_callback(token, 7))[0] == "again"


@scene
async def test_mailbox_and_messages(a: Bench) -> None:
    await a.load("(defflow main [] (let [x (receive {:match {:k 2}}) y (receive)] [x y (receive)]))")
    flow = await a.start("main")
    await a.engine.send(flow, {"k": 1})
    await a.settle()
    async with elsewhere(a) as b:
        await move(a, b, flow)
        with pytest.raises(FlowEnded):
            await a.engine.send(flow, {"k": 2})
        await b.engine.send(flow, {"k": 2})
        await b.engine.send(flow, 3)
        assert await b.result(flow) == [{"k": 2}, {"k": 1}, 3]


@scene
async def test_a_foreign_call_is_made_again_under_its_key(a: Bench) -> None:
    await a.load("(defforeign work [n]) (defflow main [] (work 5))")
    a.world.ops = a.world.ops - {"foreign"}
    await a.restart()
    flow = await a.start("main")
    tasks = await a.engine.foreign.lease(["work"], most=1, wait=0, lease=60)
    async with elsewhere(a, OTHER) as b:
        b.world.ops = b.world.ops - {"foreign"}
        await b.restart()
        await move(a, b, flow)
        with pytest.raises(FlowmetalError):
            await a.engine.foreign.complete(tasks[0]["id"], 1)
        (task,) = await b.engine.foreign.lease(["work"], most=1, wait=0, lease=60)
        assert task["idempotency_key"] == tasks[0]["idempotency_key"]
        await b.engine.foreign.complete(task["id"], 25)
        assert await b.result(flow) == 25


@scene
async def test_a_lease_ends_when_its_flow_moves_even_if_that_comes_back(a: Bench) -> None:
    await a.load("(defforeign work [n]) (defflow main [] [(work 5) (receive)])")
    a.world.ops = a.world.ops - {"foreign"}
    await a.restart()
    flow = await a.start("main")
    (before,) = await a.engine.foreign.lease(["work"], most=1, wait=0, lease=60)
    await a.engine.keeping.import_flows(await export(a, flow))
    await a.settle()
    with pytest.raises(LeaseLost):
        await a.engine.foreign.complete(before["id"], 1)
    (task,) = await a.engine.foreign.lease(["work"], most=1, wait=0, lease=60)
    assert task["idempotency_key"] == before["idempotency_key"]
    await a.engine.foreign.complete(task["id"], 25)
    await a.settle()
    with pytest.raises(LeaseLost):
        await a.engine.foreign.complete(before["id"], 1)
    assert len(a.rows(flow, "effect-completed")) == 1
    await a.engine.send(flow, "go")
    assert await a.result(flow) == [25, "go"]


@scene
async def test_an_http_call_in_flight_is_made_again_under_its_key(a: Bench) -> None:
    a.world.dead = lambda: True
    await a.load('(defflow main [] (:json (http/get "http://x.test/")))')
    flow, _ = await a.engine.start_flow("main", [])
    while not a.engine.dispatcher.calls:
        await asyncio.sleep(0)
    async with elsewhere(a) as b:
        b.clock.time = a.clock.time
        await b.engine.keeping.import_flows(await export(a, flow))
        assert await b.result(flow) == {"ok": True}
        (key,) = b.world.sent
        assert key.endswith("/1") and b.rows(flow, "flow-started")[0]["run"] in key
    assert not a.engine.dispatcher.calls


@scene
async def test_children_go_along(a: Bench) -> None:
    await a.load(f'{LABEL} (defflow kid [f] (sleep #dur "1h") (f 1)) (defflow main [n] [(kid (fn [x] (label (+ x n)))) (label n)])')
    flow = await a.start("main", 5)
    kid = a.child(flow, 1)
    with pytest.raises(FlowConflict, match=f"belongs to flow {flow}"):
        await a.engine.keeping.export([kid])
    async with elsewhere(a, OTHER) as b:
        await move(a, b, flow)
        assert a.status(kid) == "moved"
        assert await b.result(flow) == ["a6", "a5"]
        assert b.status(kid) == "completed"


@scene
async def test_new_flows_of_the_other_store_see_nothing_of_it(a: Bench) -> None:
    await a.load(f"{LABEL} (defflow main [] (receive) (label 1)) (defflow only-a [] 1)")
    flow = await a.start("main")
    async with elsewhere(a, f"{OTHER} (defflow mine [] (label 2))") as b:
        before = b.engine.definitions.version
        await move(a, b, flow)
        assert b.engine.definitions.version == before
        with pytest.raises(LispError):
            await b.engine.start_flow("only-a", [])
        await b.load("(defn label [x] :again)")
        assert b.engine.definitions.version == before + 1
        assert await b.result(await b.start("mine")) == "again"
        await b.engine.send(flow, 0)
        assert await b.result(flow) == "a1"


@scene
async def test_what_it_starts_there_is_of_its_definitions(a: Bench) -> None:
    await a.load(f"{LABEL} (defflow kid [n] (label n)) (defflow main [] (receive) [(kid 1) @(start kid 2)])")
    flow = await a.start("main")
    async with elsewhere(a, OTHER) as b:
        await move(a, b, flow)
        await b.engine.send(flow, 0)
        assert await b.result(flow) == ["a1", "a2"]


@scene
async def test_it_outlives_restarts_there(a: Bench) -> None:
    await a.load(f'{LABEL} (defflow main [] (receive) (sleep #dur "1h") (label 1))')
    flow = await a.start("main")
    async with elsewhere(a, OTHER) as b:
        await move(a, b, flow)
        await b.restart()
        await b.engine.send(flow, 0)
        await b.restart()
        assert await b.result(flow) == "a1"


@scene
async def test_two_stores_definitions_side_by_side(a: Bench) -> None:
    source = '(defn label [x] (str "{0}" x)) (defflow main [] (receive) (label 1))'
    async with elsewhere(a, source.format("c")) as c, elsewhere(a, source.format("b")) as b:
        await a.load(source.format("a"))
        of_a, of_c, of_b = await a.start("main"), await c.start("main"), await b.start("main")
        await move(a, b, of_a)
        await move(c, b, of_c)
        again = await a.start("main")
        await a.load("(defn label [x] :newer)")
        newer = await a.start("main")
        await move(a, b, again, newer)
        for flow in (of_a, of_b, of_c, again, newer):
            await b.engine.send(flow, 0)
        assert [await b.result(f) for f in (of_a, of_b, of_c, again, newer)] == ["a1", "b1", "c1", "a1", "newer"]
        lines = {row[0] >> 32 for row in (await b.engine.sql("SELECT version FROM definitions")).rows}
        assert lines == {0, 1, 2}


@scene
async def test_there_and_back_again(a: Bench) -> None:
    await a.load(f"{LABEL} (defflow main [] [(receive) (receive) (label 1)])")
    flow = await a.start("main")
    async with elsewhere(a, OTHER) as b:
        await move(a, b, flow)
        await b.engine.send(flow, "there")
        await b.settle()
        await move(b, a, flow)
        assert b.status(flow) == "moved" and a.status(flow) == "waiting"
        await a.restart()
        await a.engine.send(flow, "back")
        assert await a.result(flow) == ["there", "back", "a1"]
        assert (await a.engine.flow(flow))["definitions_version"] == a.engine.definitions.version


@scene
async def test_an_export_is_undone_by_importing_it_where_it_came_from(a: Bench) -> None:
    await a.load("(defflow main [] (receive)) (defflow done [] 1)")
    flow, done = await a.start("main"), await a.start("done")
    data = await export(a, flow, done)
    assert (await a.engine.keeping.import_flows(data))["new"]
    await a.engine.send(flow, 1)
    assert await a.result(flow) == 1
    assert not (await a.engine.keeping.import_flows(data))["new"]
    assert a.status(flow) == "completed"


@scene
async def test_flows_that_are_over_stay_and_are_there_too(a: Bench) -> None:
    await a.load('(defflow main [n] (log "x") {:n n :big (apply str (repeat 70000 "x"))})')
    flow = await a.start("main", 1)
    data = await a.engine.keeping.export([flow])
    assert json.loads(data.splitlines()[0])["open"] == {}
    assert a.status(flow) == "completed"
    async with elsewhere(a, OTHER) as b:
        await b.engine.keeping.import_flows(data)
        assert await b.result(flow) == await a.result(flow)
        assert [(r.seq, r.kind, r.at, r.data) for r in b.store.rows(flow)][1:] == [(r.seq, r.kind, r.at, r.data) for r in a.store.rows(flow)][1:]
        assert (await b.engine.state(flow))["status"] == "completed"
        with pytest.raises(FlowConflict, match="is here already"):
            other = await b.start("kid", 1, flow_id="twin")
            await a.load("(defflow twin [] 1)")
            await a.start("twin", flow_id=other)
            await b.engine.keeping.import_flows(await a.engine.keeping.export([other]))


@scene
async def test_shared_atoms_bring_their_value(a: Bench) -> None:
    await a.load("(def box (atom 0)) (defflow main [] (swap! box + 5) (receive) (swap! box inc))")
    flow = await a.start("main")
    async with elsewhere(a) as b:
        await move(a, b, flow)
        await b.engine.send(flow, 0)
        assert await b.result(flow) == 6


@scene
async def test_what_cannot_leave_is_refused_and_goes_on(a: Bench) -> None:
    await a.load("""(defflow waits [] (receive {:match {:go 1}}))
        (defflow holds [h] @h)
        (defflow reads [] (next-event (subscribe "t")))
        (defflow asks [h] (ask h 1))""")
    waits = await a.start("waits")
    cell = await a.cell("(def w (start waits)) (start holds w) (start asks w) 1")
    flows = {row["name"]: row["flow_id"] for row in a.store.flow_rows("waiting")}
    target = next(row["flow_id"] for row in a.store.flow_rows("waiting", "waits") if row["flow_id"] != waits)
    for flow, why in ((flows["holds"], "waits for flow"), (flows["asks"], "waits for flow"), (target, "waits for flow")):
        with pytest.raises(FlowConflict, match=why):
            await a.engine.keeping.export([flow])
    reads = await a.start("reads")
    with pytest.raises(FlowConflict, match="subscribed to t"):
        await a.engine.keeping.export([reads])
    open_cell = await a.cell("(receive)")
    with pytest.raises(FlowConflict, match="is a cell"):
        await a.engine.keeping.export([open_cell])
    assert a.status(cell) == "completed"
    async with elsewhere(a) as b:
        await move(a, b, target, flows["holds"], flows["asks"])
        await b.engine.send(target, {"go": 1})
        assert await b.result(flows["holds"]) == {"go": 1}
        with pytest.raises(LispError, match="ended without a reply"):
            await b.result(flows["asks"])


@scene
async def test_a_flow_that_goes_on_meanwhile_is_not_marked(a: Bench) -> None:
    await a.load("(defflow main [] [(receive) (receive)])")
    flow = await a.start("main")
    data = await a.engine.keeping.export([flow])
    await a.engine.send(flow, 1)
    await a.settle()
    with pytest.raises(FlowConflict, match="has gone on meanwhile"):
        await a.engine.keeping.mark_moved(json.loads(data.splitlines()[0])["open"])
    await a.engine.send(flow, 2)
    assert await a.result(flow) == [1, 2]


@scene
async def test_marking_twice_is_marking_once(a: Bench) -> None:
    await a.load("(defflow main [] (receive))")
    flow = await a.start("main")
    data = await export(a, flow)
    await a.engine.keeping.mark_moved(json.loads(data.splitlines()[0])["open"])
    assert a.kinds(flow).count(kinds.FLOW_MOVED) == 1
    with pytest.raises(FlowEnded):
        await a.engine.control(flow, "resume")
    await a.restart()
    assert a.status(flow) == "moved"
    assert [row["message"]["status"] for row in a.rows("$topic/$flows")][-1] == "moved"


@pytest.mark.parametrize("point", [BEFORE, AFTER])
@pytest.mark.parametrize("kill", [False, True])
def test_an_import_that_fails_is_whole_or_not_at_all(stores: Stores, point: str, kill: bool) -> None:
    """And done again, it is done once."""

    @scene
    async def play(a: Bench) -> None:
        await a.load(f'{LABEL} (defflow main [] (sleep #dur "1h") (label 1))')
        flow = await a.start("main")
        data = await export(a, flow)
        faults = Faults(kill=kill)
        async with elsewhere(a, OTHER, stores.quick(faults)) as b:
            b.clock.time = a.clock.time
            faults.points = frozenset({(faults.commits + 1, point)})
            with pytest.raises(StoreError):
                await b.engine.keeping.import_flows(data)
            faults.points = frozenset()
            assert bool(b.store.rows(flow)) == (point == AFTER)
            if kill:
                faults.reborn()
                await b.restart()
            done = await b.engine.keeping.import_flows(data)
            assert done == {"flows": [flow], "new": point == BEFORE}
            assert await b.result(flow) == "a1"
            assert b.kinds(flow).count(kinds.FLOW_STARTED) == 1

    play(stores)


@pytest.mark.parametrize("point", [BEFORE, AFTER])
def test_an_export_that_fails_loses_nothing(stores: Stores, point: str) -> None:
    """The flow goes on in one of the two places, and its file is whole."""

    @scene
    async def play(a: Bench) -> None:
        faults = Faults(kill=True)
        async with elsewhere(a, f"{LABEL} (defflow main [] (receive) (label 1))", stores.quick(faults)) as c:
            flow = await c.start("main")
            data = await c.engine.keeping.export([flow])
            faults.points = frozenset({(faults.commits + 1, point)})
            with pytest.raises(StoreError):
                await c.engine.keeping.mark_moved(json.loads(data.splitlines()[0])["open"])
            faults.points = frozenset()
            faults.reborn()
            await c.restart()
            assert c.status(flow) == ("waiting" if point == BEFORE else "moved")
            here = c
            if point == AFTER:
                await a.engine.keeping.import_flows(data)
                here = a
            await here.engine.send(flow, 1)
            assert await here.result(flow) == "a1"

    play(stores)


def test_between_files(stores: Stores, tmp_path: Path) -> None:
    """The same, from one DuckDB file to another, with a large value and a restart."""

    @scene
    async def play(a: Bench) -> None:
        one, two = stores.open(tmp_path / "a.duckdb"), stores.open(tmp_path / "b.duckdb")
        try:
            async with elsewhere(a, f'{LABEL} (defflow main [] (let [s (apply str (repeat 70000 "x"))] (receive) [(count s) (label 1)]))', one) as x:
                flow, _ = await x.engine.start_flow("main", [])
                async for _ in x.engine.watch(flow):
                    if (await x.engine.flow(flow))["status"] == "waiting":
                        break
                data = await export(x, flow)
                assert await x.engine.result(flow, 1) is not None
            async with elsewhere(a, OTHER, two) as y:
                await y.engine.keeping.import_flows(data)
            async with elsewhere(a, store=two) as y:
                await y.engine.send(flow, 1)
                ended = await y.engine.result(flow, 10)
                assert ended is not None and ended["result"] == [70000, "a1"]
        finally:
            one.close()
            two.close()

    play(stores)


# Files that are none


async def some_file(here: Bench) -> bytes:
    async with elsewhere(here, "(defn g [x] x) (defflow main [] (g (receive)))") as a:
        return await a.engine.keeping.export([await a.start("main")])


@scene
async def test_a_file_that_is_cut_off_or_damaged_is_refused_and_nothing_is_written(a: Bench) -> None:
    data = await some_file(a)
    lines = data.splitlines(keepends=True)
    bad = [data[:n] for n in range(0, len(data), 97)] + [b"".join(lines[:n]) for n in range(len(lines))]
    bad += [b"".join([*lines[:n], *lines[n + 1 :]]) for n in range(len(lines))]
    bad += [data[:n] + bytes([data[n] ^ 1]) + data[n + 1 :] for n in range(0, len(data), 41)]
    bad += [data + b"\n", data + data, b"\x00" * 100, b"PAR1", b'{"flowlog":1}\n', b"[]", b'{"flowlog":1,"a":' + b"[" * 100_000]
    before = a.store.last_pos()
    for text in bad:
        with pytest.raises(LispError):
            await a.engine.keeping.import_flows(text)
    assert a.store.last_pos() == before


def forged(data: bytes, change: Any) -> bytes:
    """The file with other lines, and a hash that fits."""
    lines = [json.loads(line) for line in data.splitlines()][:-1]
    change(lines)
    body = "".join(json.dumps(line) + "\n" for line in lines).replace('{"flowlog": ', '{"flowlog":').encode()
    end = {"end": body.count(b"\n") + 1, "sha256": hashlib.sha256(body).hexdigest()}
    return body + json.dumps(end).encode() + b"\n"


HOSTILE = {
    "a newer format": lambda lines: lines[0].update(flowlog=2),
    "no flows": lambda lines: lines.__delitem__(slice(1, None)),
    "a stream": lambda lines: lines[-1].update(flow="$requests"),
    "a kind of streams": lambda lines: lines[-1].update(kind="request"),
    "an unknown kind": lambda lines: lines[-1].update(kind="x"),
    "a hole": lambda lines: lines[-1].update(seq=9),
    "a beginning that is none": lambda lines: lines[-3]["data"].pop("run"),
    "data that are none": lambda lines: lines[-1].update(data=[1]),
    "a document that is none": lambda lines: lines[-1].update(exact={"x": "import os"}),
    "a time that is none": lambda lines: lines[-1].update(at="now"),
    "a number beyond all": lambda lines: lines[-1].update(at=10**30),
    "a line of no kind": lambda lines: lines.append({"x": 1}),
    "a parent elsewhere": lambda lines: lines[-3]["data"].update(parent="victim"),
    "a definition of nobody": lambda lines: lines[1].update(definition=1 << 40),
    "lines that are none": lambda lines: lines[0].update(lines={"x": 1}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_was_forged_is_refused(stores: Stores, what: str) -> None:
    @scene
    async def play(a: Bench) -> None:
        data = await some_file(a)
        assert flowlog.read(forged(data, lambda lines: None)).flows
        before = a.store.last_pos()
        with pytest.raises(LispError):
            await a.engine.keeping.import_flows(forged(data, HOSTILE[what]))
        assert a.store.last_pos() == before

    play(stores)


@scene
async def test_a_history_that_the_code_does_not_do_is_paused_and_says_so(a: Bench) -> None:
    async with elsewhere(a, "(defflow main [] (now) (receive))") as c:
        data = await c.engine.keeping.export([await c.start("main")])

    def other_code(lines: list[dict[str, Any]]) -> None:
        definition = next(line for line in lines if "definition" in line)
        definition["exact"]["value"] = definition["exact"]["value"].replace("(now)", "(rand)")

    done = await a.engine.keeping.import_flows(forged(data, other_code))
    await a.settle()
    await a.engine.send(done["flows"][0], 1)
    await a.settle()
    assert a.status(done["flows"][0]) == "paused"
    assert "is recorded as now" in a.rows(done["flows"][0], kinds.FLOW_PAUSED)[-1]["reason"]


@scene
async def test_a_token_of_another_flow_is_not_taken_over(a: Bench) -> None:
    await a.load("(defflow main [] (await (callback)))")
    flow = await a.start("main")
    data = await a.engine.keeping.export([flow])

    def renamed(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if "flow" in line:
                line["flow"] = "other"

    with pytest.raises(FlowConflict, match="has the key of a row"):
        await a.engine.keeping.import_flows(forged(data, renamed))
    assert (await a.engine.settle_callback(a.token(flow, 1), 1))[0] == "accepted"
    assert await a.result(flow) == 1


@scene
async def test_a_fork_of_a_fork_leaves_with_the_flow_that_asked_for_what_it_waits_for(a: Bench) -> None:
    await a.load("(defforeign work [n]) (defflow main [] (let [c (callback)] (work 1) (receive) (:n @c)))")
    flow = await a.start("main")
    first = await a.engine.forks.fork(flow, Wish(2))
    await a.settle()
    second = await a.engine.forks.fork(first, Wish(2))
    await a.settle()
    with pytest.raises(FlowConflict, match=f"{second} waits for flow {flow}"):
        await a.engine.keeping.export([second])
    await a.engine.control(first, "terminate")
    await a.settle()
    with pytest.raises(FlowConflict, match=f"{second} waits for flow {flow}"):
        await a.engine.keeping.export([second, first])
