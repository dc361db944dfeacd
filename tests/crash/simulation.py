"""A store, the engines that live on it one after the other, and an outside that remembers all.

In: what a test does to them, one thing at a time. Out: what was acknowledged to whom, and which effects were seen under
which keys. A call that was cut off is made again, with the same request id, until it is acknowledged: as clients do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from terms import DEFINITIONS, ERROR, Written

from flowmetal.errors import FlowConflict, FlowEnded, LeaseLost, LispError, StoreError
from flowmetal.lang.plain import to_plain
from flowmetal.runtime import retried, snapshots
from flowmetal.runtime.clock import Chance
from flowmetal.runtime.connector import Call, Failed, Outcome
from flowmetal.runtime.engine import Engine
from flowmetal.runtime.flowlog import read
from flowmetal.runtime.fork import Wish as Fork
from flowmetal.store import kinds
from flowmetal.store.protocol import Store
from flowmetal.testing import Faults, World
from flowmetal.testing.faults import Crash
from flowmetal.testing.virtual_loop import ThreadlessLoop

FUNCTIONS = ("work", "flaky", "once")
SNAPSHOTS: dict[str, Callable[[Any], bool]] = {
    "worth": snapshots.worth, "always": lambda process: not process.ended, "never": lambda process: False,
}  # fmt: skip
SECONDS = 20.0
"""Real seconds after which a call that is not answered is a failure."""


@dataclass(slots=True)
class Clock:
    """A clock that the test moves."""

    time: int = 1_767_225_600_000_000
    virtual: bool = False

    def now(self) -> int:
        """The time."""
        return self.time


class Http(World):
    """Answers requests as their labels say; while it is `slow` they are only taken, and answered later."""

    ops = frozenset({"http/request"})

    def __init__(self, **more: Any) -> None:
        super().__init__(self.by_label, **more)
        self.gate = asyncio.Event()
        self.tokens: dict[str, str] = {}
        """The callbacks' tokens that were told, each with the label of its effect."""

    async def perform(self, call: Call) -> Outcome:
        """Performs one call."""
        outcome = await super().perform(call)
        await self.gate.wait()
        return outcome

    def by_label(self, call: Call) -> Any:
        """The answer."""
        label = label_of(call)
        body = to_plain(call.args[0])[0].get("json") or {}
        if "token" in body:
            self.tokens[body["token"]] = label
        return Failed(ERROR, "it answers with an error") if label.endswith("http-bad") else {"v": label}


def label_of(call: Call) -> str:
    """The label of a request is the end of its address."""
    return call.target.rsplit("/", 1)[1]


@dataclass(slots=True)
class Wish:
    """A call of a client, to be made again until it is acknowledged."""

    call: Callable[[Engine], Awaitable[Any]]
    acknowledged: Callable[[Any], None]


class Simulation:
    """Everything that there is. Methods without `async` are what a test does."""

    def __init__(self, make_store: Callable[[Faults], Store]) -> None:
        self.loop = ThreadlessLoop()
        self.reports: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: None if isinstance(context.get("exception"), Crash) else self.reports.append(context))
        self.faults = Faults()
        self.store = make_store(self.faults)
        self.clock = Clock()
        self.http = Http(store=self.store, dead=lambda: self.faults.dead)
        self.lives = 0
        self.programs: dict[str, Written] = {}
        self.forks: dict[str, str] = {}
        """Flows that are forks, and what each was forked from."""
        self.moved: set[str] = set()
        """Flows that have come back from a file."""
        self.wishes: list[Wish] = []
        self.leased: list[dict[str, Any]] = []
        """Foreign calls that a worker has in hand, of this life or of one before."""
        self.sent: dict[str, set[str]] = defaultdict(set)
        """The keys under which foreign calls were leased, by label."""
        self.times: dict[str, int] = defaultdict(int)
        """How often each key was leased."""
        self.answered: dict[str, tuple[str, str, str]] = {}
        """The keys of foreign calls whose answer was acknowledged, each with its flow, the task that was answered, and its label."""
        self.posted: set[str] = set()
        self.messages: set[tuple[str, str]] = set()
        self.controls: dict[str, dict[str, bool]] = defaultdict(dict)
        """What was asked of each flow, and whether it was acknowledged before the flow's end."""
        self.paused: set[str] = set()
        self.loose: Counter[str] = Counter()
        """How many calls that may let a flow go on are not acknowledged yet: each may have taken effect, or may yet."""
        self._numbers = itertools.count()
        self.engine: Engine
        self.run(self._open({}))
        self.run(self._declare())

    def run(self, work: Awaitable[Any]) -> Any:
        """Runs something to its end."""
        return self.loop.run_until_complete(asyncio.wait_for(work, SECONDS))

    async def _open(self, options: dict[str, Any]) -> None:
        while True:
            self.lives += 1
            self.faults.reborn()
            self.engine = Engine(
                self.store, connectors=[self.http], clock=self.clock, chance=Chance(self.lives), retry_seconds=0.0, **options
            )  # fmt: skip
            try:
                await self.engine.open()
                return
            except StoreError:
                await self.engine.abandon()

    async def _declare(self) -> None:
        await self.engine.load(DEFINITIONS, file="effects.flow")
        await self.engine.result(await self.engine.eval("(queue :narrow {:concurrency 1})"))

    # The process

    def crash(self, drop: bool = False, fuel: int = 20_000, resident: int = 64, keep: str = "worth") -> None:
        """The process is killed, and another one opens the store, under other conditions."""

        async def again() -> None:
            self.faults.dead = True
            await self.engine.abandon()
            if drop:
                self.store.drop_derived()
            await self._open({"fuel": fuel, "resident": resident, "keep_snapshot": SNAPSHOTS[keep]})

        self.run(again())

    def revive(self) -> None:
        """If the process has died of an armed fault, another one opens the store."""
        if self.faults.dead:
            self.crash()

    def arm(self, after: int, when: str, kill: bool) -> None:
        """One of the next commits fails."""
        self.faults.kill = kill
        self.faults.points = frozenset({(self.faults.commits + after, when)})

    def tick(self, rounds: int) -> None:
        """Lets the loop go some rounds, whatever is under way then."""

        async def go() -> None:
            for _ in range(rounds):
                await asyncio.sleep(0)

        self.run(go())

    def settle(self) -> None:
        """Lets it go on until nothing is under way, or the process is dead."""

        async def go() -> None:
            quiet = 0
            while quiet < 8 and not self.faults.dead:
                await asyncio.sleep(0)
                quiet = 0 if self.engine.tasks and self.http.gate.is_set() else quiet + 1

        self.run(go())

    def advance(self, seconds: float) -> None:
        """Moves the clock."""
        self.clock.time += int(seconds * 1e6)
        self.run(self._arm())

    def advance_to_next(self) -> None:
        """Moves the clock to the next due time."""
        due = self.engine.timers.next_due()
        self.advance(max(0.0, ((due or 0) - self.clock.time) / 1e6))

    async def _arm(self) -> None:
        self.engine.timers.arm()
        await asyncio.sleep(0.0)

    # Clients

    def wish(self, call: Callable[[Engine], Awaitable[Any]], acknowledged: Callable[[Any], None]) -> None:
        """A client makes a call."""
        self.wishes.append(Wish(call, acknowledged))
        self.insist()

    def insist(self) -> None:
        """Clients make the calls again that were not acknowledged."""
        wishes, self.wishes = self.wishes, []
        for wish in wishes:
            done, answer = self.run(self._attempt(wish.call))
            if done:
                wish.acknowledged(answer)
            else:
                self.wishes.append(wish)

    async def _attempt(self, call: Callable[[Engine], Awaitable[Any]]) -> tuple[bool, Any]:
        """Makes a call: whether it was answered, and what was answered."""
        if self.faults.dead:
            return False, None
        work = asyncio.ensure_future(call(self.engine))
        death = asyncio.ensure_future(self.faults.died.wait())
        await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return False, None
        try:
            return True, work.result()
        except StoreError:
            return False, None

    def begin(self, program: Written) -> None:
        """Starts a program's flow, under its own name."""
        request = f"start-{next(self._numbers)}"
        self.programs[program.name] = program

        async def call(engine: Engine) -> str:
            await engine.load("\n".join(program.source), file=f"{program.name}.flow")
            return (await engine.start_flow(program.name, [], flow_id=program.name, request_id=request))[0]

        def acknowledged(flow_id: str) -> None:
            assert flow_id == program.name
            assert self.store.last_seq(flow_id), "a start was acknowledged, and is not on disk"

        self.wish(call, acknowledged)

    def fork(self, flow_id: str, pick: int, given: bool, upgrade: bool) -> None:
        """Forks a flow at one of its steps; `given` its outcome, where there is one that changes nothing."""
        asked = [row for row in self.store.rows(flow_id) if row.kind in (kinds.EFFECT_REQUESTED, kinds.VALUE_RECORDED) and row.step]
        if not asked:
            return
        row = asked[pick % len(asked)]
        data = json.loads(row.data)
        outcome = (data["args"][0],) if given and data["op"] == "foreign" and not data["args"][0].endswith(".bad") else ()
        request = f"fork-{next(self._numbers)}"

        async def call(engine: Engine) -> str | None:
            try:
                return await engine.forks.fork(flow_id, Fork(row.step or 0, outcome, upgrade), request_id=request)
            except LispError as error:
                assert error.type == "value" or (outcome and error.type == "replay/mismatch"), error
                return None

        self.wish(call, lambda fork_id: self.forks.setdefault(fork_id, flow_id) if fork_id is not None else None)

    def redefine(self, flow_id: str) -> None:
        """A program is loaded in other words."""
        source = self.program(flow_id).rewritten(next(self._numbers))
        self.wish(lambda engine: engine.load(source, file=f"{flow_id}.flow"), lambda _: None)

    def upgrade(self, flow_id: str) -> None:
        """A flow moves to the newest definitions, which do the same."""
        request = f"upgrade-{next(self._numbers)}"

        async def call(engine: Engine) -> bool:
            try:
                return bool((await engine.upgrades.upgrade(flow_id, by="test", request_id=request))["flow_id"])
            except (FlowEnded, FlowConflict):
                return False

        self.wish(call, lambda _: None)

    def move(self, flow_id: str) -> None:
        """Flows are exported, are told that they have moved, and come back from their file."""
        flows = [member for member in family(self.store, flow_id) if member in self.open()] or [flow_id]
        file: list[bytes] = []
        gone: list[bool] = []

        async def call(engine: Engine) -> bool:
            try:
                if not file:
                    self.clock.time += 1  # a file is known again by what is in it: no two are alike
                    file.append(await engine.keeping.export(flows))
                if not gone:
                    await engine.keeping.mark_moved(read(file[0]).open)
                    gone.append(True)
            except FlowConflict:  # they wait for another, or have gone on
                return False
            await engine.keeping.import_flows(file[0])
            return True

        def acknowledged(moved: bool) -> None:
            self.moved.update(read(file[0]).flows if moved else ())

        self.wish(call, acknowledged)

    def program(self, flow_id: str) -> Written:
        """What a flow does."""
        while flow_id in self.forks:
            flow_id = self.forks[flow_id]
        return self.programs[flow_id]

    def known(self) -> list[str]:
        """The flows that are on disk."""
        return [name for name in (*self.programs, *self.forks) if self.store.last_seq(name)]

    def control(self, flow_id: str, action: str) -> None:
        """Controls a flow."""
        request = f"control-{next(self._numbers)}"
        self.controls[flow_id].setdefault(action, False)

        async def call(engine: Engine) -> bool:
            try:
                await engine.control(flow_id, action, by="test", request_id=request)
                return True
            except (FlowEnded, FlowConflict):  # it is over; it is not paused, and is told to go by one step; it has not failed
                return False

        def acknowledged(done: bool) -> None:
            self.controls[flow_id][action] |= done
            if action != "pause":
                self.loose[flow_id] -= 1
                self.paused.discard(flow_id)
            elif done and not self.loose[flow_id]:
                self.paused.add(flow_id)

        if action != "pause":
            self.loose[flow_id] += 1
            self.paused.discard(flow_id)
        self.wish(call, acknowledged)

    def send(self, flow_id: str, label: str, number: int) -> None:
        """Sends the message that a `receive` of this label matches; the same number is the same message."""
        key = f"{label}-{number}"

        async def call(engine: Engine) -> bool:
            try:
                await engine.send(flow_id, {"k": label, "v": label}, key=key)
                return True
            except FlowEnded:
                return False

        self.wish(call, lambda done: self.messages.add((flow_id, key)) if done else None)

    def post(self, token: str) -> None:
        """Posts to a callback."""
        body = {"v": self.http.tokens[token]}

        def acknowledged(answer: tuple[str, str]) -> None:
            assert answer[0] in ("accepted", "again", "ended"), answer
            assert answer[0] != "ended" or token not in self.posted, "what was acknowledged is forgotten"
            if answer[0] != "ended":
                self.posted.add(token)

        self.wish(lambda engine: engine.settle_callback(token, body), acknowledged)

    # Workers

    def lease(self, most: int, seconds: float = 60.0) -> None:
        """A worker takes some calls."""

        done, tasks = self.run(self._attempt(lambda engine: engine.foreign.lease(FUNCTIONS, most=most, wait=0.0, lease=seconds)))
        for task in tasks if done else []:
            label, key = task["args"][0], task["idempotency_key"]
            self.leased.append(task)
            self.times[key] += 1
            self.sent[label].add(key)
            assert not label.endswith(".once") or self.times[key] == 1, f"{label} was sent twice"
            before = self.answered.pop(key, None)
            assert before is None or "retry" in self.controls[task["flow_id"]], f"{label} was sent again although its outcome is recorded"

    def answer(self, number: int) -> None:
        """A worker answers a call that it has."""
        task = self.leased[number]
        label = task["args"][0]

        async def call(engine: Engine) -> bool:
            try:
                if label.endswith(".bad") and not label.startswith("undo"):
                    await engine.foreign.fail(task["id"], {"type": ERROR, "message": "as it was to be"})
                elif label.endswith(".flaky") and task["attempt"] < 3:
                    await engine.foreign.fail(task["id"], {"type": "my/busy", "message": "not yet"})
                    return False
                else:
                    await engine.foreign.complete(task["id"], label)
                return True
            except LeaseLost:
                return False

        done, taken = self.run(self._attempt(call))
        if done:
            self.leased.remove(task)
        if done and taken:
            self.answered[task["idempotency_key"]] = (task["flow_id"], task["id"], label)

    # The end

    def finish(self) -> None:
        """Everything comes that is waited for, and nothing is disturbed any more: every flow ends."""
        self.faults.points = frozenset()
        self.http.gate.set()
        if set(self.engine.foreign.leases) - {task["id"] for task in self.leased}:
            self.crash()  # a worker was not told what it has leased: it would take a minute until another gets it
        for number in range(400):
            self.revive()
            self.insist()
            self._resume()
            self._answer_all(number)
            self.settle()
            if not self.open() and not self.wishes and not self.engine.tasks:
                return
            self.advance_to_next()
        raise AssertionError(f"flows stand still: {[(f, self.store.flow_row(f), self.store.rows(f)[-4:]) for f in self.open()]}")

    def _resume(self) -> None:
        for row in self.store.flow_rows("paused", None, 1000, None):
            self.control(row["flow_id"], "resume")

    def _answer_all(self, number: int) -> None:
        self.settle()
        self.lease(100)
        for _ in range(len(self.leased)):
            self.answer(0)
        for token in set(self.http.tokens) - self.posted:
            self.post(token)
        for flow_id in set(self.known()) & set(self.open()):
            for label in [label for label, kind in self.program(flow_id).labels.items() if kind == "receive"]:
                self.send(flow_id, label, 100 + number)

    def open(self) -> list[str]:
        """The flows that have not ended."""
        return self.store.open_flows()

    def close(self) -> None:
        """Ends all."""
        self.run(self.engine.abandon())
        self.store.close()
        self.loop.close()


def labels_asked(store: Store, flow_id: str) -> list[tuple[str, str | None]]:
    """What a flow asked of the outside: label and idempotency key, request by request; what it marked has no key, nor has
    what it shares with the flow that it was forked from, unless it has asked that anew."""
    out: list[tuple[str, str | None]] = []
    run = ""
    anew = {row.step for row in store.rows(flow_id) if retried.is_anew(row)}
    rows = [row for row in store.rows(flow_id) if not retried.is_anew(row)]
    shared = max((row.seq for row in rows if row.kind == kinds.FLOW_FORKED), default=0)
    for row in rows:
        data = json.loads(row.data)
        run = data["run"] if row.kind in (kinds.FLOW_STARTED, kinds.FLOW_CONTINUED) else run
        key = f"{run}/{row.step}" if row.seq > shared or row.step in anew else None
        if row.kind == kinds.EFFECT_REQUESTED and data["op"] == "foreign":
            out.append((data["args"][0], key))
        elif row.kind == kinds.EFFECT_REQUESTED and data["op"].startswith("http"):
            out.append((data["target"].rsplit("/", 1)[1], key))
        elif row.kind == kinds.LOG:
            out.append((data["data"], None))
    return out


def family(store: Store, flow_id: str) -> list[str]:
    """A flow, and all that it started or called, and so on."""
    rows = [row for row in store.rows(flow_id) if row.kind in (kinds.EFFECT_REQUESTED, kinds.VALUE_RECORDED)]
    by_step = {row.step: json.loads(row.data).get("child") for row in rows}  # a call that was retried has called another flow
    return [flow_id, *(each for child in dict.fromkeys(by_step.values()) if child is not None for each in family(store, child))]
