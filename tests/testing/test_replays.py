"""Recorded histories done again under new code."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from stores import Stores

from flowmetal.errors import LispError
from flowmetal.runtime.clock import Chance, VirtualClock
from flowmetal.runtime.engine import Engine
from flowmetal.store.protocol import Store
from flowmetal.testing import Replay, World, replay

PROGRAM = """(defforeign charge [x])
(defn fee [x] (+ x 1))
(defflow kid [n] (charge n))
(defflow order [n]
  (let [m (receive)]
    (charge (fee n))
    (sleep #dur "1h")
    [(kid n) m (count (str (random-uuid)))]))
(defflow breaks [] (charge 1) (throw (ex-info "no" {:type :shop/out})))
(defflow waits [] (charge 1) (receive))
(defflow loops [n] (charge n) (if (zero? n) :done (continue-as (dec n))))
"""


async def _record(store: Store) -> bytes:
    engine = Engine(store, connectors=[World()], clock=VirtualClock(), chance=Chance(7))
    await engine.open()
    try:
        await engine.load(PROGRAM, file="old.flow")
        order, _ = await engine.start_flow("order", [5])
        await engine.send(order, {"k": 1})
        others = [(await engine.start_flow(name, args))[0] for name, args in (("breaks", []), ("waits", []), ("loops", [3]))]
        for flow in (order, others[0], others[2]):
            assert await engine.result(flow, 20) is not None
        while (await engine.flow(others[1]))["status"] != "waiting" or (await engine.flow(others[1]))["steps"] < 2:
            await asyncio.sleep(0)
        return await engine.keeping.export([order, *others])
    finally:
        await engine.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, module_stores: Stores) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "f.flowlog"
    path.write_bytes(asyncio.run(_record(module_stores.quick())))
    return path


def done(recorded: Path, tmp_path: Path, program: str) -> dict[str, Replay]:
    code = tmp_path / "new.flow"
    code.write_text(program)
    return {each.name: each for each in replay([code], recorded)}


def test_the_same_code_agrees(recorded: Path, tmp_path: Path) -> None:
    found = done(recorded, tmp_path, PROGRAM)
    assert {name: each.difference for name, each in found.items()} == dict.fromkeys(["order", "kid", "breaks", "waits", "loops"])
    assert {name: each.status for name, each in found.items()}["waits"] == "waiting"


def test_code_that_differs_where_nobody_sees_agrees(recorded: Path, tmp_path: Path) -> None:
    found = done(recorded, tmp_path, ";; moved down\n" + PROGRAM.replace("(defn fee [x] (+ x 1))", "(defn fee [y] (inc y)) (defn more [] 1)"))
    assert all(each.ok for each in found.values())


CHANGES = {
    "another argument": ("(+ x 1)", "(+ x 2)", "order", ["step 2", "recorded as foreign charge at", "now asks for foreign charge at", "new.flow:6"]),
    "another step": ('(sleep #dur "1h")', "(now)", "order", ["step 3", "sleep", "now asks for"]),
    "a step less": ("(charge (fee n))", "nil", "order", ["step 2", "foreign charge", "now asks for sleep"]),
    "an end before": ("(charge n))", "n)", "kid", ["step 1", "now ends before it"]),
    "another end": ("[(kid n) m (count", "[(kid n) m :x (count", "order", ["ended with", "and now ended with"]),
    "another error": (":shop/out}", ":shop/in}", "breaks", [":shop/out", "and now failed with :shop/in"]),
    "a failure": ("(charge 1) (receive)", "(charge 1) (/ 1 0)", "waits", ["step 2", "receive", "now fails before it"]),
    "a step more": ("(count (str (random-uuid)))]", "(count (str (random-uuid))) (now)]", "order", ["one step more"]),
    "no such flow": ("(defflow waits", "(defflow waited", "waits", ["there is no flow waits"]),
    "in a later run": (":done (continue-as", ":finished (continue-as", "loops", ["ended with :done, and now ended with :finished"]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_first_difference_is_told(recorded: Path, tmp_path: Path, what: str) -> None:
    old, new, flow, said = CHANGES[what]
    assert old in PROGRAM
    found = done(recorded, tmp_path, PROGRAM.replace(old, new))
    difference = found[flow].difference
    assert difference is not None and not [text for text in said if text not in difference], difference
    assert not {name: each.difference for name, each in found.items() if name != flow and not each.ok}


def test_files_that_are_none_are_told(recorded: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.flowlog"
    cut.write_bytes(recorded.read_bytes()[:-10])
    code = tmp_path / "new.flow"
    code.write_text(PROGRAM)
    for path in (cut, tmp_path / "none"):
        with pytest.raises(LispError):
            replay([code], path)
