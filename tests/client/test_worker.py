"""Python functions that answer flows: in the process that hosts the store, and in one that is attached to it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import end_host, kill
from stores import Stores

import flowmetal
from flowmetal.client.host_file import lock_holder

PROGRAM = """
(defforeign charge-card "Charges." [order amount] {:retry {:max-attempts 3 :initial #dur "10ms"}})
(defflow buy [order] (charge-card order 5))
(defflow call-it [name args] (call name args))
(defflow many [n] (reduce + (pmap (fn [i] (call "double" [i])) (range n))))
"""

FORGETFUL = """
import asyncio, sys, flowmetal
async def main():
    begun = asyncio.Event()
    async def charge(order, amount):
        begun.set()
        await asyncio.sleep(600)
    fm = await flowmetal.open_async(sys.argv[1])
    await fm.eval('(defforeign charge-card "" [o a]) (defflow buy [order] (charge-card order 5))')
    await fm.provide("charge-card", charge)
    await fm.start("buy", 1, id="f-1")
    await begun.wait()
asyncio.run(main())
"""


@pytest.fixture
def fm(stores: Stores) -> Iterator[flowmetal.Flowmetal]:
    with flowmetal.open(stores.quick_at().url) as fm:
        fm.eval(PROGRAM)
        yield fm


def test_a_function_is_called_with_plain_data_and_its_result_is_the_value(fm: flowmetal.Flowmetal) -> None:
    seen: list[Any] = []

    @fm.function("charge-card")
    def charge(order: Any, amount: int) -> Any:
        seen.append((order, amount, threading.current_thread() is threading.main_thread()))
        return {"id": "ch_1", "lines": (1, 2)}

    assert fm.start("buy", {"id": "A-17"}).result(10) == {"id": "ch_1", "lines": [1, 2]}
    assert seen == [({"id": "A-17"}, 5, False)]
    assert charge("B", 1)["id"] == "ch_1", "it stays an ordinary function"


def test_async_functions_run_side_by_side(fm: flowmetal.Flowmetal) -> None:
    together: list[int] = []
    running = 0

    @fm.function
    async def double(n: int) -> int:
        nonlocal running
        running += 1
        together.append(running)
        while max(together) < 4:
            await asyncio.sleep(0)
        running -= 1
        return 2 * n

    assert fm.start("many", 8).result(20) == 56
    assert max(together) >= 4


def test_async_functions_run_on_the_loop_of_their_program(stores: Stores, tmp_path: Path) -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def charge(order: Any, amount: int) -> Any:
            seen.extend([asyncio.get_running_loop(), flowmetal.current_call().attempt])
            return "paid"

        async with flowmetal.open_async(stores.at(tmp_path / "store.duckdb").url) as fm:
            await fm.eval(PROGRAM)
            await fm.provide("charge-card", charge)
            assert await (await fm.start("buy", "A-17")).result(10) == "paid"
        assert seen == [asyncio.get_running_loop(), 1]

    asyncio.run(main())


def test_a_call_outlives_a_program_that_never_closed_its_store(stores: Stores, tmp_path: Path) -> None:
    store = stores.at(tmp_path / "store.duckdb").url
    done = subprocess.run([sys.executable, "-c", FORGETFUL, store], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with flowmetal.open(store) as fm:
        fm.function("charge-card")(lambda order, amount: "paid later")
        assert fm.flow("f-1").result(10) == "paid later"


def test_a_failed_call_is_tried_again_under_the_same_key(fm: flowmetal.Flowmetal) -> None:
    calls: list[tuple[str, int]] = []

    @fm.function("charge-card")
    def charge(order: str, amount: int) -> str:
        call = flowmetal.current_call()
        calls.append((call.key, call.attempt))
        if call.attempt < 3:
            raise ConnectionError("busy")
        return "paid"

    flow = fm.start("buy", "A")
    assert flow.result(10) == "paid"
    assert [attempt for _, attempt in calls] == [1, 2, 3] and len({key for key, _ in calls}) == 1
    assert fm.sql("SELECT attempts FROM effects WHERE flow_id = ?", [flow.id]).fetchall() == [(3,)]


@pytest.mark.parametrize(
    ("error", "type_"),
    [(ValueError("no such card"), "python/ValueError"), (flowmetal.FlowmetalError("no such card", type="card/unknown", data={"n": 1}), "card/unknown")],
)
def test_what_a_function_raises_is_thrown_in_the_flow(fm: flowmetal.Flowmetal, error: Exception, type_: str) -> None:
    @fm.function("charge-card")
    def charge(order: str, amount: int) -> str:
        raise error

    with pytest.raises(flowmetal.FlowFailed, match="no such card") as failed:
        fm.start("buy", "A").result(10)
    assert failed.value.type == type_


def test_a_result_that_is_no_data_fails_the_call(fm: flowmetal.Flowmetal) -> None:
    @fm.function("odd")
    def odd() -> object:
        return object()

    with pytest.raises(flowmetal.FlowFailed, match="cannot be passed to a flow"):
        fm.start("call-it", "odd", []).result(10)


def test_a_function_may_be_defined_anew(fm: flowmetal.Flowmetal) -> None:
    for n in (1, 2):
        fm.function("which")(lambda n=n: n)
        assert fm.start("call-it", "which", []).result(10) == n


def test_a_call_waits_for_its_function_to_be_provided(fm: flowmetal.Flowmetal) -> None:
    flow = fm.start("call-it", "later", [1])
    assert flow.status in ("running", "waiting")

    @fm.function("later")
    def later(n: int) -> int:
        return n + 1

    assert flow.result(10) == 2


def test_there_is_no_current_call_outside() -> None:
    with pytest.raises(flowmetal.FlowmetalError, match="no foreign call here"):
        flowmetal.current_call()


def test_every_method_has_an_asynchronous_twin(stores: Stores) -> None:
    async def main() -> None:
        async with flowmetal.open_async(stores.quick_at().url) as fm:

            @fm.function
            async def add(a: int, b: int) -> int:
                return a + b

            assert await fm.eval('(call "add" [1 2])') == 3
            assert await fm.publish("t", {"n": 1}, key="k") == await fm.publish("t", {"n": 1}, key="k")

    asyncio.run(main())


def test_an_event_published_from_python_reaches_a_flow(fm: flowmetal.Flowmetal) -> None:
    flow = fm.eval('(defflow listen [] (next-event (subscribe "news"))) (start listen)')
    deadline = time.monotonic() + 10
    while flow.status != "waiting":
        assert time.monotonic() < deadline
    fm.publish("news", {"headline": "it works"})
    assert flow.result(10) == {"headline": "it works"}


HOST = """
import flowmetal, sys, threading
with flowmetal.open(sys.argv[1]) as fm:
    fm.eval(sys.argv[2])
    @fm.function("charge-card")
    def charge(order, amount):
        print("sent", flowmetal.current_call().key, flush=True)
        threading.Event().wait()
    fm.start("buy", "A-17", id="order")
    threading.Event().wait()
"""


def test_a_host_that_is_killed_while_its_function_runs_loses_nothing(stores: Stores, tmp_path: Path) -> None:
    """The call is made again, under the same key, by whoever provides the function next."""
    store = stores.at(tmp_path / "flowmetal.duckdb")
    with subprocess.Popen([sys.executable, "-c", HOST, store.url, PROGRAM], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        first = host.stdout.readline().split()[1]
        kill(host.pid)
    with flowmetal.open(store.url) as fm:
        keys: list[str] = []

        @fm.function("charge-card")
        def charge(order: str, amount: int) -> str:
            keys.append(flowmetal.current_call().key)
            return f"paid {order}"

        assert fm.result("order", 20) == "paid A-17"
    assert keys == [first]


ATTACHED = """
import flowmetal, sys
with flowmetal.open(sys.argv[1]) as fm:
    assert fm.start("buy", "B").result(30) == "served"
"""


def test_a_program_that_is_attached_gets_its_calls_answered_by_the_host(stores: Stores, tmp_path: Path) -> None:
    store = stores.at(tmp_path / "flowmetal.duckdb")
    with flowmetal.open(store.url) as fm:
        fm.eval(PROGRAM)
        fm.function("charge-card")(lambda order, amount: "served")
        done = subprocess.run([sys.executable, "-c", ATTACHED, store.url], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert lock_holder(store) is None
    end_host(store)


def test_functions_provided_one_after_the_other_are_all_asked_for_again(stores: Stores) -> None:
    """What was asked for before the last function was provided does not stand in the way."""
    with flowmetal.open(stores.quick_at().url) as fm:
        fm.function("first")(lambda: 1)
        fm.function("second")(lambda: 2)
        fm.eval("(defforeign first []) (defforeign second []) (defflow both [] [(second) (first) (second) (second)])")
        begun = time.monotonic()
        assert [fm.start("both").result(timeout=20) for _ in range(3)] == [[2, 1, 2, 2]] * 3
        assert time.monotonic() - begun < 20
