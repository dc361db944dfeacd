"""Schedules: flows that begin by the calendar.

In: declarations, from flows; the clock. Out: rows of the stream `$schedules`, and flows. The one rule: that a
time was dealt with, and the flow that begins then, are in one commit, so no crash begins a flow twice or loses one.
A time is missed when nobody was there, or awake, for more than `GRACE`: `:catch-up` says what becomes of it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError
from flowmetal.lang.equality import equal
from flowmetal.lang.persistent import Map, Vector
from flowmetal.lang.requests import FLOW_ID
from flowmetal.lang.values import Instant, Keyword, kw
from flowmetal.runtime import recovery
from flowmetal.runtime.calendars import Calendar, calendar
from flowmetal.runtime.launch import launch
from flowmetal.runtime.process import find_program, loader
from flowmetal.runtime.queues import begins_later
from flowmetal.runtime.rows import Draft, to_draft, to_row
from flowmetal.runtime.supply import child_id
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Duplicate, StoreConflict

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

GRACE = 60_000_000
"""Microseconds after which a time that nobody saw to counts as missed."""
DUE = kw("schedule/due")
"""An argument that stands for the time for which a flow is begun."""
MOST_TIMES = 10_000
ONE = Map.of([(kw("concurrency"), 1)])
CATCH_UP = ("none", "one", "all")
OVERLAP = ("skip", "queue", "all")


@dataclass(slots=True, eq=False)
class Schedule:
    """One schedule, as its rows tell it."""

    number: int
    name: str
    flow: str
    args: Vector
    options: Map
    calendar: Calendar
    last: int
    """The last time that was dealt with."""
    paused: bool = False
    last_flow: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def option(self, name: str, default: str) -> str:
        """An option that is one of some words."""
        given = self.options.get(kw(name))
        return given.name if isinstance(given, Keyword) else default

    @property
    def next_at(self) -> int | None:
        """When it is due next; None while it is paused."""
        return None if self.paused else self.calendar.after(self.last)

    @property
    def overlap(self) -> str:
        """What becomes of a time that comes while the last flow runs; of all that were missed, each waits for the one before."""
        return self.option("overlap", "queue" if self.option("catch-up", "one") == "all" else "skip")

    @property
    def queue(self) -> str | None:
        """The queue in which its flows wait for one another, where they do."""
        return f"$schedule/{self.name}" if self.overlap == "queue" else None


class Schedules:
    """The schedules of a store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[str, Schedule] = {}
        self.numbers = 0

    async def open(self) -> None:
        """Reads the schedules, whatever was known of them; those that were missed meanwhile are seen to."""
        load = loader(self.engine.definitions.registry)
        rows = await self.engine.writer.call(self.engine.store.rows, kinds.SCHEDULES_STREAM)
        for schedule in self.known.values():
            self.engine.timers.discard(kinds.SCHEDULES_STREAM, schedule.number)
        self.known.clear()
        for row in rows:
            self._note(to_draft(row, load))
        for schedule in self.known.values():
            self._arm(schedule)

    def _note(self, draft: Draft) -> None:
        name, kind = draft.facts["name"], draft.kind
        if kind == kinds.SCHEDULE_DECLARED:
            self._declared(draft)
            return
        schedule = self.known.get(name)
        if schedule is None:  # it was removed while its row was written
            return
        if kind == kinds.SCHEDULE_REMOVED:
            del self.known[name]
            self.engine.timers.discard(kinds.SCHEDULES_STREAM, schedule.number)
            return
        if kind in (kinds.SCHEDULE_PAUSED, kinds.SCHEDULE_RESUMED):
            schedule.paused = kind == kinds.SCHEDULE_PAUSED
            schedule.last = max(schedule.last, draft.at)
        elif "due_at" in draft.facts:
            schedule.last = Instant.parse(draft.facts["due_at"]).micros
        schedule.last_flow = draft.facts.get("flow_id") or schedule.last_flow

    def _declared(self, draft: Draft) -> None:
        options: Map = draft.values["options"]
        before = self.known.get(draft.facts["name"])
        if before is None:
            self.numbers += 1
        self.known[draft.facts["name"]] = Schedule(
            before.number if before else self.numbers, draft.facts["name"], draft.facts["flow"], draft.values["args"], options, _calendar(options, draft.at),
            draft.at, before is not None and before.paused, before.last_flow if before else None,
        )  # fmt: skip

    # Declaring

    async def declare(self, name: str, options: Map, flow: str, args: Vector, key: str, by: str) -> None:
        """Makes a schedule, or changes it; the same again changes nothing."""
        there = self.known.get(name)
        if there is not None and there.flow == flow and equal(there.args, args) and equal(there.options, options):
            return
        now = self.engine.clock.now()
        check_options(options)
        found = _calendar(options, now)
        find_program(self.engine.definitions.registry, flow, self.engine.definitions.version)
        facts = {"name": name, "flow": flow, "by": by, "next_due_at": _text(found.after(now))}
        draft = Draft(kinds.SCHEDULE_DECLARED, None, None, facts, {"options": options, "args": args}, key=key, at=now)
        rows = [to_row(kinds.SCHEDULES_STREAM, 0, draft), self.engine.queues.declaration(f"$schedule/{name}", ONE, None, by)]
        try:
            await self.engine.commit(Commit(rows, unique=(kinds.SCHEDULE_DECLARED, key)))
        except Duplicate:  # the answer to the first time was lost, and others may have come after it
            await self.open()
        else:
            self._note(draft)
            self._arm(self.known[name])
        self.engine.queues.note(f"$schedule/{name}", ONE)

    async def remove(self, name: str, key: str, by: str) -> bool:
        """Ends a schedule, once for each key; whether there was one. Flows that it began go on."""
        if name in self.known:
            await self._write(kinds.SCHEDULE_REMOVED, {"name": name, "by": by}, key)
            return True
        return await self.engine.writer.call(self.engine.store.find, kinds.SCHEDULE_REMOVED, key) is not None

    async def control(self, name: str, action: str, by: str = "", request_id: str | None = None) -> dict[str, Any]:
        """`pause`, `resume` or `trigger`: the name, and what came of it. Raises LispError for a schedule that is none."""
        schedule = self._named(name)
        if action == "trigger":
            return {"name": name, "flow_id": await self._trigger(schedule, by, request_id or self.engine.chance.uuid().hex)}
        if action not in ("pause", "resume"):
            raise LispError(f"unknown control {action} of a schedule", type="value")
        if schedule.paused != (action == "pause"):
            kind = kinds.SCHEDULE_PAUSED if action == "pause" else kinds.SCHEDULE_RESUMED
            after = None if action == "pause" else schedule.calendar.after(self.engine.clock.now())
            await self._write(kind, {"name": name, "by": by, "next_due_at": _text(after)})
            self._arm(schedule)
        return {"name": name, "paused": schedule.paused, "next_due_at": _text(schedule.next_at)}

    def _named(self, name: str) -> Schedule:
        schedule = self.known.get(name)
        if schedule is None:
            known = ", ".join(sorted(self.known)) or "there are none"
            raise LispError(f"there is no schedule {name}; known are: {known}", type="value")
        return schedule

    async def _write(self, kind: str, facts: dict[str, Any], key: str | None = None) -> None:
        draft = Draft(kind, None, None, facts, key=key, at=self.engine.clock.now())
        try:
            await self.engine.commit(Commit([to_row(kinds.SCHEDULES_STREAM, 0, draft)], unique=None if key is None else (kind, key)))
        except Duplicate:  # the answer to the first time was lost, and others may have come after it
            await self.open()
        else:
            self._note(draft)

    # Time

    def _arm(self, schedule: Schedule) -> None:
        self.engine.timers.discard(kinds.SCHEDULES_STREAM, schedule.number)
        due = schedule.next_at
        if due is not None and self.engine.sharing.leads:
            self.engine.timers.add(due, kinds.SCHEDULES_STREAM, schedule.number)

    def due(self, number: int) -> None:
        """The time of a schedule has come."""
        schedule = next((s for s in self.known.values() if s.number == number), None)
        if schedule is not None:
            self.engine.insist(lambda: self._see_to(schedule))

    async def _see_to(self, schedule: Schedule) -> None:
        async with schedule.lock:
            while self.known.get(schedule.name) is schedule and self.engine.sharing.leads and not self.engine.closing:
                now = self.engine.clock.now()
                due = schedule.next_at
                if due is None or due > now:
                    break
                missed = False
                if schedule.option("catch-up", "one") != "all":
                    due = schedule.calendar.until(now) or due
                    missed = now - due > GRACE and schedule.option("catch-up", "one") == "none"
                await (self._skip(schedule, due, "it was missed") if missed else self._fire(schedule, due))
            if self.known.get(schedule.name) is schedule:
                self._arm(schedule)

    async def _fire(self, schedule: Schedule, due: int) -> None:
        if schedule.overlap == "skip" and await self._still_runs(schedule):
            await self._skip(schedule, due, "the flow before it has not ended")
            return
        flow_id = flow_id_for(schedule.name, due)
        try:
            await self._start(schedule, flow_id, due, {"due_at": _text(due), "next_due_at": _text(schedule.calendar.after(due))}, f"{schedule.name}\n{due}")
        except LispError as e:
            await self._skip(schedule, due, e.message)

    async def _still_runs(self, schedule: Schedule) -> bool:
        if schedule.last_flow is None:
            return False
        rows = await self.engine.writer.call(self.engine.store.rows, schedule.last_flow, 0, None, kinds.ENDING | {kinds.FLOW_STARTED, kinds.FLOW_RETRIED})
        return bool(rows) and rows[-1].kind not in kinds.ENDING

    async def _skip(self, schedule: Schedule, due: int, reason: str) -> None:
        facts = {"name": schedule.name, "due_at": _text(due), "next_due_at": _text(schedule.calendar.after(due)), "reason": reason}
        await self._write(kinds.SCHEDULE_SKIPPED, facts)

    async def _trigger(self, schedule: Schedule, by: str, request_id: str) -> str:
        now = self.engine.clock.now()
        flow_id = f"{flow_id_for(schedule.name, now)}-{child_id(request_id, 0)[:6]}"
        facts = {"triggered": True, "by": by, "next_due_at": _text(schedule.next_at)}
        return await self._start(schedule, flow_id, now, facts, f"{schedule.name}\n{request_id}")

    async def _start(self, schedule: Schedule, flow_id: str, due: int, facts: dict[str, Any], key: str) -> str:
        """Begins the flow of a time, and gives its id; one that was begun for it before (by a backfill) is that flow."""
        engine = self.engine
        version = engine.definitions.version
        program = find_program(engine.definitions.registry, schedule.flow, version)
        args = Vector.of([Instant(due) if arg is DUE else arg for arg in schedule.args])
        tags = {"schedule": schedule.name, "due": _text(due)}
        started = engine.started(program.full_name, "flow", args, version, by=f"schedule {schedule.name}", tags=tags, queue=schedule.queue)
        first = [started, *begins_later(started, None, schedule.queue, 0)]
        fired = Draft(kinds.SCHEDULE_FIRED, None, None, {"name": schedule.name, "flow_id": flow_id, **facts}, key=key, at=engine.clock.now())
        row = to_row(kinds.SCHEDULES_STREAM, 0, fired)
        unique = (kinds.SCHEDULE_FIRED, key)
        try:
            await launch(engine, flow_id, first, [row], unique)
        except Duplicate as e:
            flow_id = fired.facts["flow_id"] = json.loads(e.row.data)["flow_id"]
            await recovery.recover_flow(engine, flow_id, 0)
        except StoreConflict:
            await engine.commit(Commit([row], unique=unique))
        self._note(fired)
        return flow_id

    def times(self, name: str, since: int, until: int) -> list[int]:
        """The due times of a schedule between two moments, both included; no more than `MOST_TIMES`."""
        found: list[int] = []
        at, times = since - 1, self._named(name).calendar
        while (due := times.after(at)) is not None and due <= until and len(found) < MOST_TIMES:
            found.append(due)
            at = due
        return found

    async def begin_for(self, name: str, due: int, by: str) -> tuple[str, bool]:
        """Begins the flow of a time, past or not, unless there is one: its id, and whether this call made it."""
        schedule, flow_id = self._named(name), flow_id_for(name, due)
        if await self.engine.writer.call(self.engine.store.last_seq, flow_id) > 0:
            return flow_id, False
        await self._start(schedule, flow_id, due, {"triggered": True, "for": _text(due), "by": by, "next_due_at": _text(schedule.next_at)}, flow_id)
        return flow_id, True


def _calendar(options: Map, start: int) -> Calendar:
    zone = options.get(kw("tz"))
    return calendar(options.get(kw("cron")) or options.get(kw("every")), "UTC" if zone is None else zone, start)


def check_options(options: Map) -> None:
    """Raises LispError for options that no schedule can have."""
    for name, known in (("catch-up", CATCH_UP), ("overlap", OVERLAP)):
        given = options.get(kw(name))
        if given is not None and not (isinstance(given, Keyword) and given.name in known):
            raise LispError(f"the :{name} of a schedule is one of {' '.join(':' + k for k in known)}", type="value")


def flow_id_for(name: str, due: int) -> str:
    """The id of the flow that a name begins for a time: the same for both, always."""
    text = datetime.fromtimestamp(due / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    flow_id = f"{name}:{text}"
    return flow_id if FLOW_ID.fullmatch(flow_id) else child_id(name, due)


def _text(micros: int | None) -> str | None:
    return None if micros is None else Instant(micros).format()
