"""Random programs, random outcomes, random trouble, against a model that knows nothing of any of it.

The model is in `terms.py`: what a program may come to, and which effects it must and may ask for. A run starts such
programs, answers their calls, posts callbacks, sends messages, moves time, pauses, resumes, goes step by step, retries,
cancels, terminates, forks, upgrades, exports and imports; kills the process between any two commits, refuses commits, loses snapshots and all
else that is derived. At the end nothing is disturbed any more: every flow ends as the model allows, nothing that was
acknowledged is missing, each effect has one key, what was to be undone is undone once, and the log keeps its promises.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from simulation import Simulation, family, labels_asked
from stores import Stores
from terms import ERROR, Term, Written, terms, undone, written

from flowmetal.runtime.retried import live
from flowmetal.store import kinds
from flowmetal.store.protocol import Store
from flowmetal.testing import Faults
from flowmetal.testing.audit import OUTCOMES, audit
from flowmetal.testing.faults import AFTER, BEFORE

LONG = os.environ.get("FLOWMETAL_LONG") == "1"
FLOWS, FORKS = 4, 3
GIVEN_UP = ("effect/interrupted", "flow/failed")
"""What a fork gets of an effect that it shares, and of a call of a flow, when the original gives it up."""
numbers = st.integers(0, 9)


class Flows(RuleBasedStateMachine):
    """What may happen to the flows of a store."""

    def __init__(self, make_store: Callable[[Faults], Store]) -> None:
        super().__init__()
        self.it = Simulation(make_store)
        self.begun: list[Written] = []

    # What clients do

    @rule(term=terms)
    @precondition(lambda self: len(self.begun) < FLOWS)
    def start(self, term: Term) -> None:
        program = written(f"f{len(self.begun)}", term)
        self.begun.append(program)
        self.it.begin(program)

    @rule(n=numbers)
    @precondition(lambda self: self.begun)
    def start_again(self, n: int) -> None:
        self.it.begin(self.begun[n % len(self.begun)])

    @rule(n=numbers, action=st.sampled_from(["pause", "pause", "resume", "resume", "step", "step", "cancel", "terminate"]))
    @precondition(lambda self: self.it.known())
    def control(self, n: int, action: str) -> None:
        known = self.it.known()
        self.it.control(known[n % len(known)], action)

    @rule(n=numbers)
    @precondition(lambda self: self.failed())
    def retry(self, n: int) -> None:
        failed = self.failed()
        self.it.control(failed[n % len(failed)], "retry")

    @rule(n=numbers, number=st.integers(0, 2))
    @precondition(lambda self: self.receives())
    def send(self, n: int, number: int) -> None:
        receives = self.receives()
        self.it.send(*receives[n % len(receives)], number)

    @rule(n=numbers, pick=st.integers(0, 30), given=st.booleans(), upgrade=st.booleans())
    @precondition(lambda self: self.it.known() and len(self.it.forks) < FORKS)
    def fork(self, n: int, pick: int, given: bool, upgrade: bool) -> None:
        known = self.it.known()
        self.it.fork(known[n % len(known)], pick, given, upgrade)

    @rule(n=numbers)
    @precondition(lambda self: self.begun)
    def redefine(self, n: int) -> None:
        self.it.redefine(self.begun[n % len(self.begun)].name)

    @rule(n=numbers)
    @precondition(lambda self: self.it.known())
    def upgrade(self, n: int) -> None:
        known = self.it.known()
        self.it.upgrade(known[n % len(known)])

    @rule(n=numbers)
    @precondition(lambda self: self.it.http.tokens)
    def post(self, n: int) -> None:
        tokens = sorted(self.it.http.tokens)
        self.it.post(tokens[n % len(tokens)])

    @rule()
    @precondition(lambda self: self.it.wishes)
    def insist(self) -> None:
        self.it.insist()

    @rule(n=numbers)
    @precondition(lambda self: self.it.known())
    def move(self, n: int) -> None:
        known = self.it.known()
        self.it.move(known[n % len(known)])

    # What workers and servers do

    @rule(most=st.integers(1, 4), seconds=st.sampled_from([60.0, 60.0, 60.0, 0.0]))
    def lease(self, most: int, seconds: float) -> None:
        self.it.lease(most, seconds)

    @rule(n=numbers)
    @precondition(lambda self: self.it.leased)
    def answer(self, n: int) -> None:
        self.it.answer(n % len(self.it.leased))

    @rule(open_=st.booleans())
    def http(self, open_: bool) -> None:
        (self.it.http.gate.set if open_ else self.it.http.gate.clear)()

    # What time and the machine do

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 60.0, 3600.0]))
    def advance(self, seconds: float) -> None:
        self.it.advance(seconds)

    @rule(rounds=st.integers(1, 9))
    def tick(self, rounds: int) -> None:
        self.it.tick(rounds)

    @rule()
    def settle(self) -> None:
        self.it.settle()

    @rule(after=st.integers(1, 6), when=st.sampled_from([BEFORE, AFTER]), kill=st.booleans())
    def arm(self, after: int, when: str, kill: bool) -> None:
        self.it.arm(after, when, kill)

    @rule(drop=st.booleans(), fuel=st.sampled_from([7, 20_000]), resident=st.sampled_from([0, 64]), keep=st.sampled_from(["worth", "always", "never"]))
    def crash(self, drop: bool, fuel: int, resident: int, keep: str) -> None:
        self.it.crash(drop, fuel, resident, keep)

    # What is true at any time

    @invariant()
    def lives(self) -> None:
        self.it.revive()

    @invariant()
    def what_was_paused_stands(self) -> None:
        for flow_id in self.it.paused:
            row = self.it.store.flow_row(flow_id)
            assert row is not None and row["status"] in ("paused", "completed", "failed", "cancelled", "moved"), row

    def receives(self) -> list[tuple[str, str]]:
        """Flows, and labels of which they may wait for messages."""
        return [(flow, label) for flow in self.it.known() for label, kind in self.it.program(flow).labels.items() if kind == "receive"]

    def failed(self) -> list[str]:
        """Flows that have failed."""
        return [flow_id for flow_id in self.it.known() if (self.it.store.flow_row(flow_id) or {})["status"] == "failed"]

    def teardown(self) -> None:
        try:
            self.it.finish()
            check(self.it)
        finally:
            self.it.close()


def check(it: Simulation) -> None:
    """Compares what there is with the model."""
    assert not it.reports, it.reports
    assert not it.http.broken, it.http.broken
    asked = {row["flow_id"]: labels_asked(it.store, row["flow_id"]) for row in it.store.flow_rows(None, None, 10_000, None)}
    keys: dict[str, str] = {}
    for label, key in (each for labels in asked.values() for each in labels):
        assert key is None or keys.setdefault(key, label) == label, f"the key {key} is of two effects"
    for flow_id in it.known():
        check_flow(it, flow_id, Counter(label for member in family(it.store, flow_id) for label, _ in asked[member]))
    assert set(it.programs) | set(it.forks) <= set(asked)
    check_sent(it, keys)
    check_acknowledged(it)
    check_queue(it)
    audit(it.store, it.engine.definitions.registry)


def check_flow(it: Simulation, flow_id: str, mine: Counter[str]) -> None:
    """One flow ended as one of its program's worlds says, or as it was made to."""
    row = it.store.flow_row(flow_id)
    assert row is not None, f"{flow_id} is not there"
    program, controls, fork = it.program(flow_id), it.controls[flow_id], flow_id in it.forks
    about = f"{flow_id} {program.source}: {row['status']} {row['result']} {row['error']}, asked for {mine}"
    ending = (_frozen(row["result"]), None) if row["status"] == "completed" else (None, (row["error"] or {}).get("type"))
    worlds = [world for world in program.worlds if (world.value, world.error) == ending]
    cancelled = "terminate" in controls or any("cancel" in it.controls[each] for each in line(it, flow_id))
    if controls.get("terminate"):
        assert ending[1] == "flow/terminated", about
    if cancelled or (fork and ending[1] in GIVEN_UP):
        assert worlds or row["status"] == "cancelled" or ending[1] in (ERROR, *GIVEN_UP), about
        most: Counter[str] = Counter()
        for world in program.worlds:
            most |= Counter(dict(undone(world.may)))
        assert all(n <= most[label] for label, n in mine.items()), f"{about}, not {most}"
    else:
        least = [{} if fork and program.runs else dict(world.must) for world in worlds]
        fitting = [world for world, must in zip(worlds, least, strict=True) if _within(must, mine, dict(world.may), fork)]
        assert fitting, f"{about}: not one of {program.worlds}"
    for mark, labels in program.sagas:
        for label in labels:
            due, done = mine[label] - mine[mark], mine[f"undo {label}"]
            assert done == due or ((controls.get("terminate") or fork) and done <= due), f"{about}: {label} is to be undone {due} times"


def line(it: Simulation, flow_id: str) -> list[str]:
    """A flow, and those from whose history it has its own: what it was forked from, and so on."""
    return [flow_id, *(line(it, it.forks[flow_id]) if flow_id in it.forks else [])]


def _within(must: dict[str, int], mine: Counter[str], may: dict[str, int], fork: bool) -> bool:
    """Whether each effect was asked for as often as it must and may be. A fork leaves the rollbacks that it shares to the original."""
    return all(mine[label] >= n or (fork and label.startswith("undo ")) for label, n in must.items()) and all(
        n <= may.get(label, 0) for label, n in mine.items()
    )


def check_sent(it: Simulation, keys: dict[str, str]) -> None:
    """What was sent was asked for, under its own key; what has an outcome was sent."""
    sent = {key: label for label, each in it.sent.items() for key in each}
    assert sent.items() <= keys.items()
    assert set(it.http.sent) <= set(keys)
    for flow in it.store.flow_rows(None, None, 10_000, None):
        key_of = dict(labels_asked_by_step(it, flow["flow_id"]))
        for row in it.store.rows(flow["flow_id"]):
            if row.kind == kinds.EFFECT_COMPLETED and row.step in key_of:
                assert key_of[row.step] in sent or it.http.sent[key_of[row.step]], f"step {row.step} of {row.flow_id} came from nowhere"


def labels_asked_by_step(it: Simulation, flow_id: str) -> list[tuple[int, str]]:
    """The key of each step that asked something of the outside."""
    return [(int(key.rsplit("/", 1)[1]), key) for _, key in labels_asked(it.store, flow_id) if key is not None]


def check_acknowledged(it: Simulation) -> None:
    """What was acknowledged is in the log, once."""
    outcomes = Counter(
        (row.flow_id, row.step) for flow in it.store.flow_rows(None, None, 10_000, None) for row in live(it.store.rows(flow["flow_id"])) if row.kind in OUTCOMES
    )
    for flow_id, task, label in it.answered.values():  # a retry may have taken it back since: it stays in the log
        found = [row for row in it.store.rows(flow_id) if row.kind in OUTCOMES and json.loads(row.data).get("task") == task]
        assert len(found) == 1, f"the answer to {label} was acknowledged, and is {len(found)} times in the log"
    for token in it.posted:
        row = it.store.find(kinds.EFFECT_REQUESTED, token)
        assert row is not None
        maker = json.loads(row.data).get("linked", {}).get("flow", row.flow_id)  # a fork's is found first where the original has come back
        settled = [flow_id for flow_id in (row.flow_id, maker, *it.forks) if outcomes[flow_id, row.step]]
        assert settled, f"a callback of {row.flow_id} was acknowledged, and is not in the log"
    for flow_id, key in it.messages:
        found = [row for row in it.store.rows(flow_id) if row.kind == kinds.MESSAGE_RECEIVED and row.key == f"{flow_id}/{key}"]
        assert len(found) == 1, f"message {key} was acknowledged, and is {len(found)} times in the log"


def check_queue(it: Simulation) -> None:
    """In a queue for one there was one at a time."""
    changes: list[tuple[int, int]] = []
    for flow in it.store.flow_rows(None, None, 10_000, None):
        rows = it.store.rows(flow["flow_id"])
        began = [row.pos for row in rows if row.kind == kinds.EFFECT_COMPLETED and row.step == 0]
        if json.loads(rows[0].data).get("queue") == "narrow" and flow["flow_id"] not in it.moved and not any(row.kind == kinds.FLOW_PAUSED for row in rows):
            began = began or ([] if any(row.step == 0 for row in rows) else [rows[0].pos])
            changes += [(pos, 1) for pos in began] + ([(rows[-1].pos, -1)] if began else [])
    inside = 0
    for _, change in sorted(changes):
        inside += change
        assert inside in (0, 1), "two flows at a time in a queue for one"


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value


@pytest.mark.one_store("each example is played again exactly, and a server is asked on a thread of its own")
def test_flows_end_as_the_model_says_whatever_happens(stores: Stores) -> None:
    examples = {"max_examples": 3_000, "stateful_step_count": 40} if LONG else {"max_examples": 50, "stateful_step_count": 25}
    run_state_machine_as_test(lambda: Flows(stores.quick), settings=settings(**examples))
