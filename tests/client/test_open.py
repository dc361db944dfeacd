"""`flowmetal.open`: the same questions to a program that hosts and to one that is attached."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from stores import Stores

import flowmetal
from flowmetal.client.client import ENDED
from flowmetal.client.host_file import HostInfo, lock_holder
from flowmetal.client.remote import RemoteClient
from flowmetal.client.store_url import resolve

ORDERS = """\
(defflow add [a b] (+ a b))
(defflow same [x] x)
(defflow waits [] {:got (receive)})
(defflow naps [] (sleep #dur "1h") :rested)
(defflow boom [] (throw (ex-info "it broke" {:why "test"})))
"""


@pytest.fixture(scope="module", params=["hosting", "attached", "memory", "postgres"])
def fm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, module_stores: Stores) -> Iterator[flowmetal.Flowmetal]:
    if request.param in ("memory", "postgres") and module_stores.kind != "duckdb":
        pytest.skip("stays on its store: it runs on it every time")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "orders.flow").write_text(ORDERS)
    store = ":memory:" if request.param == "memory" else module_stores.at(folder / "x.duckdb").url
    if request.param == "postgres":
        store = request.getfixturevalue("postgres").store()
    with flowmetal.open(store) as host:
        host.load(folder / "orders.flow")
        if request.param != "attached":
            yield host
        else:
            with flowmetal.open(store) as attached:
                assert isinstance(attached._fm.client, RemoteClient)
                yield attached


def test_eval_gives_python_data(fm: flowmetal.Flowmetal) -> None:
    assert fm.eval("(+ 1 2)") == 3
    assert fm.eval("{:a [1 nil true] :b #{1}}") == {"a": [1, None, True], "b": [1]}
    assert fm.eval("nil") is None


def test_eval_gives_a_handle_as_a_flow(fm: flowmetal.Flowmetal) -> None:
    flow = fm.eval("(start add 1 2)")
    assert isinstance(flow, flowmetal.Flow)
    assert flow.result(timeout=30) == 3


def test_eval_raises(fm: flowmetal.Flowmetal) -> None:
    with pytest.raises(flowmetal.SourceError) as source:
        fm.eval("(nope)")
    assert source.value.type == "compile/unresolved"
    assert "eval:1:2" in source.value.render()
    with pytest.raises(flowmetal.SourceError) as unread:
        fm.eval("(+ 1")
    assert unread.value.type == "reader/eof"
    with pytest.raises(flowmetal.FlowFailed) as failed:
        fm.eval('(throw (ex-info "no" {:a 1}))')
    assert (failed.value.type, failed.value.message, failed.value.data) == ("user", "no", {"a": 1})


def test_load(fm: flowmetal.Flowmetal, tmp_path: Path) -> None:
    (tmp_path / "more.flow").write_text("(defn triple [x] (* 3 x))")
    version = fm.load(tmp_path / "more.flow")
    assert isinstance(version, int)
    assert fm.eval("(triple 2)") == 6
    (tmp_path / "bad.flow").write_text("(defn f [")
    with pytest.raises(flowmetal.SourceError) as caught:
        fm.load(tmp_path / "bad.flow")
    assert "bad.flow:1:" in caught.value.render()
    with pytest.raises(flowmetal.SourceError, match=r"missing\.flow"):
        fm.load(tmp_path / "missing.flow")


def test_start_and_result(fm: flowmetal.Flowmetal) -> None:
    flow = fm.start("add", 20, 22)
    assert flow.result(timeout=30) == 42
    assert flow.status == "completed"
    assert fm.result(flow.id) == 42
    assert fm.flow(flow.id[:12]) == flow
    assert fm.status(flow.id) == "completed"
    assert repr(flow) == f"<flow {flow.id}>"


def test_python_values_become_json(fm: flowmetal.Flowmetal) -> None:
    given = {
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "for": timedelta(minutes=2),
        "price": Decimal("1.5"),
        "n": Decimal(3),
        "pair": (1, 2),
    }
    expected = {"at": "2026-01-02T00:00:00Z", "for": 120.0, "price": 1.5, "n": 3, "pair": [1, 2]}
    assert fm.start("same", given).result(timeout=30) == expected
    with pytest.raises(flowmetal.FlowmetalError, match="object cannot be passed"):
        fm.start("same", object())


def test_the_same_id_is_the_same_flow(fm: flowmetal.Flowmetal) -> None:
    first = fm.start("add", 1, 2, id="order-1")
    assert fm.start("add", 1, 2, id="order-1") == first
    with pytest.raises(flowmetal.FlowmetalError) as caught:
        fm.start("add", 1, 3, id="order-1")
    assert caught.value.type == "flow/conflict"


def test_failure_cancel_timeout(fm: flowmetal.Flowmetal) -> None:
    with pytest.raises(flowmetal.FlowFailed, match="it broke") as failed:
        fm.start("boom").result(timeout=30)
    assert failed.value.type == "user"
    flow = fm.start("waits")
    with pytest.raises(flowmetal.FlowTimeout, match=flow.id):
        flow.result(timeout=0.01)
    flow.cancel("no longer needed")
    with pytest.raises(flowmetal.FlowCancelled):
        flow.result(timeout=30)
    nap = fm.start("naps")
    nap.terminate()
    with pytest.raises(flowmetal.FlowCancelled) as terminated:
        nap.result(timeout=30)
    assert terminated.value.type == "flow/terminated"
    with pytest.raises(flowmetal.FlowmetalError) as ended:
        nap.send(1)
    assert ended.value.type == "flow/ended"


def test_pause_send_resume(fm: flowmetal.Flowmetal) -> None:
    flow = fm.start("waits")
    flow.pause()
    assert flow.status == "paused"
    assert flow.send({"n": 1}, key="k") == flow.send({"n": 1}, key="k")
    with pytest.raises(flowmetal.FlowTimeout):
        flow.result(timeout=0.05)
    flow.resume()
    assert flow.result(timeout=30) == {"got": {"n": 1}}


def test_history_and_state(fm: flowmetal.Flowmetal) -> None:
    flow = fm.start("waits")
    following = flow.follow()
    assert next(following)["kind"] == "flow-started"
    flow.send(1)
    kinds = [row["kind"] for row in following]
    assert kinds[-1] == "flow-completed"
    assert [row["kind"] for row in flow.events()][1:] == kinds
    assert flow.events(after=len(kinds))[0]["kind"] == "flow-completed"
    assert list(flow.follow(after=len(kinds) + 1)) == []
    assert flow.state(step=1)["stack"][0]["line"] == 3


def test_unknown_flow(fm: flowmetal.Flowmetal) -> None:
    for call in (fm.flow, fm.status, fm.result, fm.events, fm.state, fm.cancel):
        for name in ("no-such-flow", "not an id"):
            with pytest.raises(flowmetal.FlowNotFound):
                call(name)
    with pytest.raises(flowmetal.FlowmetalError, match="no-such-program"):
        fm.start("no-such-program")


def test_flows_and_sql(fm: flowmetal.Flowmetal) -> None:
    flow = fm.start("waits")
    assert flow.id in {row["flow_id"] for row in fm.flows(status="waiting")} | {row["flow_id"] for row in fm.flows(status="running")}
    assert len(fm.flows(limit=1)) == 1
    relation = fm.sql("SELECT flow_id, created_at, args FROM flows WHERE flow_id = ?", [flow.id])
    ((flow_id, created_at, args),) = relation.fetchall()
    assert (flow_id, args, relation.columns) == (flow.id, [], ["flow_id", "created_at", "args"])
    assert created_at.tzinfo is not None
    assert abs(datetime.now(UTC) - created_at) < timedelta(minutes=5)
    with pytest.raises(flowmetal.FlowmetalError) as refused:
        fm.sql("DELETE FROM flows")
    assert refused.value.type == "sql/refused"
    flow.cancel()


def test_statuses(fm: flowmetal.Flowmetal) -> None:
    flow = fm.start("add", 1, 2)
    flow.result(timeout=30)
    assert flow.row()["status"] in ENDED


def test_many_threads_one_store(fm: flowmetal.Flowmetal) -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda n=n: results.append(fm.start("add", n, 1).result(timeout=60))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(1, 9))


def test_closing_gives_the_store_back(stores: Stores, tmp_path: Path) -> None:
    store = stores.at(tmp_path / "x.duckdb")
    with flowmetal.open(store.url) as fm:
        assert lock_holder(store) == os.getpid()
        (tmp_path / "o.flow").write_text(ORDERS)
        fm.load(tmp_path / "o.flow")
        flow = fm.start("waits")
    assert lock_holder(store) is None
    assert HostInfo.read(store) is None
    with flowmetal.open(store.url) as fm:
        again = fm.flow(flow.id)
        again.send(5)
        assert again.result(timeout=30) == {"got": 5}
    fm.close()


def test_a_program_may_forget_to_close(stores: Stores, tmp_path: Path) -> None:
    store = stores.at(tmp_path / "x.duckdb")
    program = "import flowmetal, sys; fm = flowmetal.open(sys.argv[1]); print(fm.eval('(+ 1 2)'))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, store.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
    assert lock_holder(store) is None
    assert HostInfo.read(store) is None


def test_the_asynchronous_face(stores: Stores, tmp_path: Path) -> None:
    store = stores.at(tmp_path / "x.duckdb").url

    async def scene() -> None:
        (tmp_path / "o.flow").write_text(ORDERS)
        async with flowmetal.open_async(store) as fm:
            await fm.load(tmp_path / "o.flow")
            flow = await fm.start("waits")
            other = await flowmetal.open_async(store)
            waiting = asyncio.ensure_future((await other.flow(flow.id)).result())
            await flow.send(1)
            assert await waiting == {"got": 1}
            assert await flow.status() == "completed"
            assert [row["kind"] async for row in flow.follow()][-1] == "flow-completed"
            assert (await fm.sql("SELECT 1")).fetchall() == [(1,)]
            await other.close()

    asyncio.run(scene())


def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "x.duckdb").write_text("garbage" * 1000)
    with pytest.raises(flowmetal.StoreError, match=r"x\.duckdb"):
        flowmetal.open(tmp_path / "x.duckdb")
    with pytest.raises(flowmetal.StoreError, match="folder"):
        flowmetal.open(tmp_path)
    assert lock_holder(resolve(tmp_path / "x.duckdb")) is None


def test_importing_costs_next_to_nothing() -> None:
    program = "import sys, flowmetal; print([m for m in ('asyncio', 'duckdb', 'httpx', 'flowmetal.lang') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert set(dir(flowmetal)) == set(flowmetal.__all__)
    with pytest.raises(AttributeError):
        _ = flowmetal.no_such_name  # type: ignore[attr-defined]
