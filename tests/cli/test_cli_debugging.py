"""Looking into a flow and helping it on, from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import Cli
from forks import Forks
from processes import end_host
from stores import Stores

SOURCE = """\
(def courier (atom :closed))
(defflow ship [order]
  (if (= :closed @courier)
    (throw (ex-info "the courier is closed" {:type :courier/closed}))
    {:shipped order}))
(defn pack [order box]
  (let [label (str order "/" box)]
    (ship label)))
(defflow fulfil [order]
  (let [begun (now)
        box   (inc 3)]
    (pack order box)))
(defflow opens [] (reset! courier :open))
(defflow closes [] (reset! courier :closed))
(defflow counts [] (let [a (receive) b (now)] (receive) [a :counted]))
(defforeign nobody [n])
(defflow forsaken [] (nobody 1))
(defflow one [] (let [other (receive)] @other))
(defflow two [first] (send first (self)) @first)
(defflow circle [] (let [a (start-with {:id "circle-a"} one)] (start-with {:id "circle-b"} two a) :begun))
(defflow careful [] @(start-with {:id "careful", :on-failure :pause} fulfil "B-2"))
"""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, forks: Forks, module_stores: Stores) -> object:
    cli = Cli(tmp_path_factory.mktemp("debugging"), forks, module_stores)
    cli.ok("load", cli.file(SOURCE, "debugging.flow"))
    yield cli
    end_host(cli.store)


@pytest.fixture
def failed(cli: Cli) -> str:
    cli.ok("result", cli.ok("start", "closes").out.strip())
    flow = cli.ok("start", "fulfil", '"A-1"').out.strip()
    assert cli("result", flow).code == 1
    return flow


def test_show_says_where_a_flow_failed_with_its_stack_and_locals(cli: Cli, failed: str) -> None:
    said = cli.ok("show", failed).out
    assert "failed of  :courier/closed" in said
    assert re.search(r"debugging.flow:4:5\n +\(throw .*\n +\^+\n +in pack at debugging.flow:8:5", said), said
    assert re.search(r"stack where it failed:\n  pack  line 8:5\n.*\n      order = A-1\n      box = 4\n      label = A-1/4\n  fulfil  line 12:5", said), said
    state = cli.ok("show", failed, "--json").json()["state"]
    assert [frame["function"] for frame in state["stack"]] == ["pack", "fulfil"]


def test_retry_goes_on_where_it_failed(cli: Cli, failed: str) -> None:
    assert cli.ok("retry", failed).out.startswith(failed)
    assert cli("result", failed).code == 1, "it is still closed"
    cli.ok("result", cli.ok("start", "opens").out.strip())
    cli.ok("retry", failed, "--reason", "it has opened")
    assert cli.ok("result", failed).json() == {"shipped": "A-1/4"}
    refused = cli("retry", failed)
    assert refused.code == 2 and "has not failed: it is completed" in refused.err


def test_retry_of_all_for_which_a_condition_holds(cli: Cli, failed: str) -> None:
    paused = cli.ok("start", "counts").out.strip()
    cli.ok("pause", paused)
    cli.ok("start", "careful", "--id", f"of-{failed}")
    cli.ok("result", cli.ok("start", "opens").out.strip())
    done = cli.ok("retry", "--where", f"flow_id IN ('{failed}', '{paused}', 'careful')", "--json")
    assert {row["flow_id"] for row in done.rows()} == {failed, "careful"}, "what a person paused has not failed"
    assert cli.ok("result", "careful").json() == {"shipped": "B-2/4"}
    assert cli("retry", "--where", "false").err.strip() == "no failed flow fits"


def test_step_by_step(cli: Cli) -> None:
    flow = cli.ok("start", "counts").out.strip()
    refused = cli("step", flow)
    assert refused.code == 2 and "only a paused flow goes step by step" in refused.err and f"flowmetal pause {flow}" in refused.err
    cli.ok("pause", flow)
    cli.ok("send", flow, "1")
    assert re.fullmatch(rf"{flow} (paused|going on by one step)\n", cli.ok("step", flow).out)
    state = cli.ok("show", flow, "--json").json()
    assert (state["status"], state["state"]["step"]) == ("paused", 2)
    cli.ok("resume", flow)
    cli.ok("send", flow, "2")
    assert cli.ok("result", flow).json() == [1, "counted"]


def test_transitions(cli: Cli, failed: str) -> None:
    first = cli.ok("show", failed, "--at", "1", "--transition", "0", "--json").json()
    total = first["transitions"]
    last = cli.ok("show", failed, "--at", "1", "--transition", str(total), "--json").json()
    assert [frame["function"] for frame in last["stack"]] == ["pack", "fulfil"]
    assert f"stack {total} of {total} transitions after it asked for step 1" in cli.ok("show", failed, "--at", "1", "--transition", str(total)).out
    beyond = cli("show", failed, "--at", "1", "--transition", str(total + 1))
    assert beyond.code == 2 and f"made {total} transitions" in beyond.err
    assert cli("show", failed, "--transition", "1").code == 2


def test_the_difference_of_two_steps(cli: Cli, failed: str) -> None:
    said = cli.ok("show", failed, "--at", "1", "--diff", "2").out
    assert "from step 1 to step 2:\nfiber 1 went on\n  ~ fulfil  line 10:15 → line 12:5\n" in said
    assert "  +     box = 4\n  + pack  line 8:5\n" in said
    assert "nothing has changed" in cli.ok("show", failed, "--at", "2", "--diff", "2").out
    assert cli.ok("show", failed, "--at", "1", "--diff", "now", "--json").json()["to"]["status"] == "failed"
    assert cli("show", failed, "--at", "1", "--diff", "x").code == 2
    assert cli("show", failed, "--diff", "2").code == 2
    assert cli("show", failed, "--at", "1", "--diff", "99").code == 2


def test_doctor_names_flows_that_are_stuck(cli: Cli) -> None:
    cli.ok("result", cli.ok("start", "circle").out.strip())
    cli.ok("send", "circle-a", "0")  # it takes the first message that comes, which is that of circle-b
    stuck = {flow["flow_id"]: flow for flow in cli.ok("doctor", "--json").json()["stuck"]}
    assert {"circle-a", "circle-b"} <= set(stuck)
    assert stuck["circle-a"]["what"] == "deadlock"
    said = cli.ok("doctor").out
    assert "circle-b two" in said and "→ end one of them: flowmetal cancel circle-b" in said


def test_the_pages_example_is_what_the_terminal_shows(cli: Cli) -> None:
    assert "flowmetal show 3f2a --at 1 --diff 2" in (Path(__file__).parents[2] / "docs" / "debugging.md").read_text(encoding="utf-8")
