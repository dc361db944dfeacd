"""What outlives what: interrupts, restarts, kills, two kernels on one store, a cell that is run again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from kernel_driver import Notebook

from flowmetal import Flowmetal

LONG = '(println "begun") (sleep #dur "1h")'


def cell_flow(fm: Flowmetal, source: str) -> str:
    """The newest flow of a cell with that text."""
    found = fm.sql("SELECT flow_id FROM events WHERE kind = 'flow-started' AND data->>'source' = ? ORDER BY pos DESC LIMIT 1", [source])
    return str(found.fetchall()[0][0])


def begin(nb: Notebook, code: str) -> Any:
    """Runs a cell until it has printed `begun`."""
    cell = nb.send(code)
    nb.until_output("begun")
    return cell


# Interrupt


def test_an_interrupt_frees_the_notebook_at_once_and_cancels_the_cell_a_second_later(nb: Notebook) -> None:
    with nb.open() as fm:
        nb.ok("(defflow outlives [] (receive)) (def outliving (start outlives))")
        cell = begin(nb, LONG)
        flow = cell_flow(fm, LONG)
        before = datetime.now(UTC)
        nb.interrupt()
        nb.finish(cell)
        assert cell.error["ename"] == "Interrupted"
        assert nb.ok("(+ 1 1)").value == "2"
        assert fm.status(wait_for_end(fm, flow)) == "cancelled"
        asked = next(datetime.fromisoformat(e["at"]) for e in fm.events(flow) if e["kind"] == "cancel-requested")
        freed = cell.messages[-1]["header"]["date"]
        assert freed < asked  # the notebook is free first: a shutdown might follow
        assert asked - before >= timedelta(seconds=1)
        assert nb.ok("(status outliving)").value == ":waiting"


def test_an_interrupt_stops_python_that_computes_or_sleeps(nb: Notebook) -> None:
    for body in ("while True: pass", "import time; time.sleep(600)", "import asyncio; await asyncio.sleep(600)"):
        cell = nb.send(f"%%python\nprint('begun', flush=True)\n{body}")
        nb.until_output("begun")
        nb.interrupt()
        nb.finish(cell, timeout=10)
        assert cell.error["ename"] in ("KeyboardInterrupt", "CancelledError"), body
    assert nb.ok("(+ 2 2)").value == "4"


def test_an_interrupt_of_an_idle_notebook_does_nothing(nb: Notebook) -> None:
    nb.interrupt()
    assert nb.ok("(+ 3 3)").value == "6"


def test_an_interrupted_cell_that_is_run_again_goes_on_with_the_same_flow(nb: Notebook) -> None:
    code = '(println "begun") (get (receive) :answer)'
    with nb.open() as fm:
        cell = begin(nb, code)
        flow = cell_flow(fm, code)
        nb.interrupt()
        nb.finish(cell)
        again = nb.send(code)
        nb.until(lambda m: m["msg_type"] == "stream" and "attached" in m["content"]["text"])
        fm.send(flow, {"answer": 42})
        assert nb.finish(again).value == "42"
        assert cell_flow(fm, code) == flow


# A cell that still runs


def test_again_starts_a_cell_anew_that_still_runs(nb: Notebook) -> None:
    code = '(println "begun") (:word (receive))'
    with nb.open() as fm:
        cell = begin(nb, code)
        first = cell_flow(fm, code)
        nb.interrupt()
        nb.finish(cell)
        anew = nb.send(f"%%again\n{code}")
        nb.until_output("begun")
        second = cell_flow(fm, f"\n{code}")
        assert second != first
        fm.send(second, {"word": "anew"})
        assert nb.finish(anew).value == '"anew"'


def test_a_new_kernel_of_the_same_notebook_attaches_to_what_the_killed_one_left(opened: Any) -> None:
    code = '(println "begun") (:word (receive))'
    first = opened(name="orders.ipynb")
    first.ok("(defn known-before [] 7)")
    begin(first, code)
    first.kill()
    second = opened(name="orders.ipynb")
    assert second.ok("(known-before)").value == "7"  # definitions are the store's
    cell = second.send(code)
    second.until(lambda m: m["msg_type"] == "stream" and "attached" in m["content"]["text"])
    with second.open() as fm:
        fm.send(cell_flow(fm, code), {"word": "still here"})
        assert second.finish(cell).value == '"still here"'
        assert fm.sql("SELECT count(*) FROM flows WHERE kind = 'cell'").fetchall() == [(3,)]


def test_another_notebook_does_not_attach_to_it(opened: Any) -> None:
    code = '(println "begun") (:word (receive))'
    one, other = opened(name="one.ipynb"), opened(name="other.ipynb")
    begin(one, code)
    begin(other, code)
    with one.open() as fm:
        assert fm.sql("SELECT count(*) FROM flows WHERE kind = 'cell' AND status = 'waiting'").fetchall() == [(2,)]


# Ends of a kernel


def test_a_restart_cancels_the_running_cell_and_keeps_definitions_and_flows(opened: Any) -> None:
    nb = opened()
    nb.ok("(defflow stays [] (receive)) (def kept (start stays))")
    begin(nb, LONG)
    with nb.open() as fm:
        flow = cell_flow(fm, LONG)
        nb.restart()
        assert fm.status(flow) == "cancelled"
        assert nb.ok("(status kept)").value == ":waiting"
        assert nb.run("seen").of("error")
        fm.send(fm.flows(name="stays")[0]["flow_id"], {"n": 1})
        assert nb.ok("@kept").value == "{:n 1}"


def test_a_shutdown_leaves_the_running_cell_alone_though_jupyter_interrupts_first(opened: Any) -> None:
    nb = opened()
    begin(nb, LONG)
    with nb.open() as fm:
        flow = cell_flow(fm, LONG)
        nb.shutdown()
        assert not nb.kernel.is_alive()
        assert fm.status(flow) == "waiting"
        assert [e["kind"] for e in fm.events(flow) if "cancel" in e["kind"]] == []


def test_a_killed_kernel_is_nothing_to_a_flow(opened: Any) -> None:
    nb = opened()
    nb.ok("(defflow goes-on [n] (+ n (:n (receive)))) (def going (start goes-on 1))")
    kernel = psutil.Process(nb.kernel.provisioner.process.pid)
    kernel.kill()
    with nb.open() as fm:
        flow = fm.flow(fm.flows(name="goes-on")[0]["flow_id"])
        flow.send({"n": 41})
        assert flow.result(timeout=20) == 42


# The host


def test_two_kernels_share_one_store_and_a_killed_host_is_replaced_unseen(opened: Any) -> None:
    one, two = opened(), opened()
    one.ok("(defflow meets [] (:who (receive))) (def meeting (start meets))")
    assert two.ok("(status meeting)").value == ":waiting"
    waiting = begin(one, '(println "begun") @meeting')
    host = one.host()
    host.kill()
    host.wait(timeout=30)
    assert two.ok('(send meeting {:who "two"}) (+ 1 1)').value == "2"
    assert one.finish(waiting).value == '"two"'
    assert one.host().pid != host.pid
    assert one.ok("(+ 4 4)").value == "8"


def wait_for_end(fm: Flowmetal, flow: str) -> str:
    """Waits until a flow has ended; its id."""
    for row in fm.flow(flow).follow():
        if row["kind"] in ("flow-completed", "flow-failed", "flow-cancelled"):
            return flow
    raise AssertionError(f"{flow} did not end")
