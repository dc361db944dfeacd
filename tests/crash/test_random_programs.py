"""Programs that nobody thought of: made of durable forms at random, with failures at random commits.

What is asked of each: it ends; its log keeps every promise (`audit`); no effect is sent before its request is on disk,
nor after its outcome is; each key asks for one thing. A program whose result does not depend on what is first ends as
it does calmly.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from stores import Stores

from flowmetal.store.protocol import Store
from flowmetal.testing import Conditions, Faults, Program
from flowmetal.testing.crash import run
from flowmetal.testing.faults import AFTER, BEFORE

DEFINITIONS = """
(defforeign work [n])
(defflow square [n] (work n) (* n n))
(defflow nap [n] (try (sleep #dur "2s") n (finally (work n))))
"""
DURATIONS = st.sampled_from(["0s", "1s", "2s", "5s"])
NUMBERS = st.integers(0, 9)

leaves = st.one_of(
    NUMBERS.map(str),
    NUMBERS.map(lambda n: f"(:args (work {n}))"),
    NUMBERS.map(lambda n: f"(square {n})"),
    NUMBERS.map(lambda n: f"(nap {n})"),
    NUMBERS.map(lambda n: f"@(start square {n})"),
    DURATIONS.map(lambda d: f'(sleep #dur "{d}")'),
    st.just('(do (println "p") (log 1) (count (str (random-uuid))))'),
    st.just("(do (send (self) {:n 1}) (:n (receive {:match {:n 1}})))"),
)


def certain(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Forms whose value does not depend on what comes first."""
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda xs: f"[{' '.join(xs)}]"),
        st.lists(inner, min_size=1, max_size=3).map(lambda xs: f"(all [{' '.join(f'(async {x})' for x in xs)}])"),
        st.tuples(inner, inner).map(lambda p: f"(let [p (async {p[0]}) v {p[1]}] [v @p])"),
        st.tuples(inner, inner).map(lambda p: f"(try {p[0]} (finally {p[1]}))"),
        inner.map(lambda x: f'(try (throw (ex-info "thrown" {{:v {x}}})) (catch :user e (:v (ex-data e))))'),
        st.tuples(inner, st.integers(1, 2)).map(lambda p: f"(pmap (fn [x] [x {p[0]}]) [1 2 3] {{:max {p[1]}}})"),
        inner.map(lambda x: f"(let [a (atom 0)] (swap! a inc) {x} @a)"),
    )


def racing(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Forms whose value depends on what comes first, too."""
    return st.one_of(
        certain(inner),
        st.tuples(inner, inner).map(lambda p: f"(race {p[0]} {p[1]})"),
        st.tuples(inner, DURATIONS).map(lambda p: f'(try (with-timeout #dur "{p[1]}" {p[0]}) (catch :flow/timeout e :late))'),
        st.tuples(inner, DURATIONS).map(lambda p: f'(select {{:p (async {p[0]}) :t (timer #dur "{p[1]}") :m (receive {{:match {{:never 1}}}})}})'),
        st.tuples(inner, inner).map(lambda p: f"(any [(async {p[0]}) (async {p[1]})])"),
        inner.map(lambda x: f'(await (async {x}) {{:timeout #dur "1s" :else :gave-up}})'),
    )


points = st.lists(st.tuples(st.integers(1, 25), st.sampled_from([BEFORE, AFTER])), min_size=1, max_size=2)
conditions = st.builds(
    Conditions, fuel=st.sampled_from([1, 7, 20_000]), renew=st.booleans(), forget=st.booleans(),
    snapshots=st.sampled_from(["worth", "always", "never"]), drop=st.booleans(),
)  # fmt: skip


def program(body: str) -> Program:
    """A program with this body; its effects answer with what they were given."""
    return Program(f"{DEFINITIONS} (defflow main [] {body})", answer=lambda call: {"args": list(call.args)})


def again(stores: Stores) -> Callable[[Faults], Store] | None:
    """Opens an empty store, and that one whenever it is asked again: for DuckDB the one in memory, which a run makes by itself."""
    path = Path(f"run-{next(_runs)}")
    return None if stores.kind == "duckdb" else lambda faults: stores.open(path, faults)


_runs = itertools.count()


@given(body=st.recursive(leaves, certain, max_leaves=8), points=points, kill=st.booleans(), how=conditions)
def test_a_program_ends_as_it_does_calmly(module_stores: Stores, body: str, points: list[tuple[int, str]], kill: bool, how: Conditions) -> None:
    async def scene() -> None:
        calm = await run(program(body))
        other = await run(program(body), Faults(points, kill=kill), how, make_store=again(module_stores))
        assert other.ending == calm.ending
        assert not other.world.broken

    asyncio.run(scene())


@given(body=st.recursive(leaves, racing, max_leaves=8), points=points, kill=st.booleans(), how=conditions)
def test_whatever_comes_first_the_log_keeps_its_promises(module_stores: Stores, body: str, points: list[tuple[int, str]], kill: bool, how: Conditions) -> None:
    async def scene() -> None:
        other = await run(program(body), Faults(points, kill=kill), how, make_store=again(module_stores))
        assert other.ending["status"] == "completed", other.ending
        assert not other.world.broken

    asyncio.run(scene())


@given(body=st.recursive(leaves, certain, max_leaves=5), fuel=st.sampled_from([3, 50, 1000]))
def test_fuel_and_forgetting_make_no_difference(module_stores: Stores, body: str, fuel: int) -> None:
    async def scene() -> None:
        calm = await run(program(body))
        other = await run(program(body), None, Conditions(fuel=fuel, renew=True, forget=True, snapshots="always"), make_store=again(module_stores))
        assert other.ending == calm.ending
        assert not other.world.broken

    asyncio.run(scene())
