"""The operations that declare what lasts: queues, schedules, database sources.

Each is a step of the flow; the engine performs it. What is wrong with the arguments is said before the
step has its number, as far as it can be seen there.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.flow_ops import options_of
from flowmetal.lang.frames import Fiber
from flowmetal.lang.functions import FlowProgram
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.persistent import EMPTY_MAP, Map, Vector
from flowmetal.lang.printer import pr_str
from flowmetal.lang.values import Duration, Keyword, Symbol, kw

SCHEDULE_OPTIONS = ("cron", "every", "tz", "catch-up", "overlap")


def name_of(x: Any, what: str) -> str:
    """The name that a string, a keyword or a symbol gives."""
    if isinstance(x, (Keyword, Symbol)):
        return x.text.lstrip(":")
    if isinstance(x, str) and x and len(x) <= 200 and not x.startswith("$"):
        return x
    raise LispError(f"{what} is named by a string of 1 to 200 characters or a keyword, not by {pr_str(x)}", type="type")


@op(
    "flow", "queue", 1, 2, "([name] [name {:keys [concurrency rate priority]}])",
    "Declares a queue: at most :concurrency things of it at once, and of :rate [n d] at most n in a time d, across every interpreter of the store. "
    "Workers are given the work of a queue of a greater :priority first.",
    '(queue :mails {:concurrency 4 :rate [100 #dur "1m"]}) ;=> nil',
)  # fmt: skip
def _queue(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = options_of(args[1], ("concurrency", "rate", "priority"), "queue") if len(args) > 1 and args[1] is not None else EMPTY_MAP
    return m.ask(fiber, "queue", name_of(args[0], "a queue"), [options])


def _schedule_options(spec: Any) -> Map:
    if isinstance(spec, str):
        return Map.of([(kw("cron"), spec)])
    if isinstance(spec, Duration):
        return Map.of([(kw("every"), spec)])
    if not isinstance(spec, Map):
        raise LispError(f"schedule needs a cron expression, a duration or a map with :cron or :every, but found {pr_str(spec)}", type="type")
    options = options_of(spec, SCHEDULE_OPTIONS, "schedule")
    cron, every = options.get(kw("cron")), options.get(kw("every"))
    if isinstance(cron, str) == isinstance(every, Duration):
        raise LispError('the map of schedule has either :cron "…" or :every #dur "…"', type="value")
    if not isinstance(options.get(kw("tz"), "UTC"), str):
        raise LispError(f'the :tz of schedule is a name such as "Europe/Berlin", not {pr_str(options.get(kw("tz")))}', type="type")
    return options


@op(
    "flow", "schedule", 3, None, "([name when f & args])",
    "Starts a flow by the calendar. `when` is a cron expression, a duration, or a map with :cron or :every and :tz (UTC), :catch-up :none :one :all "
    "(what becomes of times that were missed), :overlap :skip :queue :all (of one while the last flow runs). An argument :schedule/due is the time it is for.",
    '(schedule :nightly {:cron "30 2 * * *" :tz "Europe/Berlin"} greet "Ada") ;=> nil',
)  # fmt: skip
def _schedule(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    name, when, f = args[:3]
    if not isinstance(f, FlowProgram):
        raise LispError(f"schedule needs a program made by defflow, but found {pr_str(f)}", type="type", hint="define it with defflow")
    return m.ask(fiber, "schedule", name_of(name, "a schedule"), [_schedule_options(when), f.full_name, Vector.of(args[3:])])


@op("flow", "unschedule", 1, 1, "([name])", "Ends a schedule; whether there was one. Flows that it began go on.", "(unschedule :no-such) ;=> false")
def _unschedule(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.ask(fiber, "unschedule", name_of(args[0], "a schedule"), [])


SOURCE_OPTIONS = ("sql", "url", "every", "topic", "lag", "key", "column", "from", "done")


@op("flow", "source*", 2, 2, "([name options])", "Declares a database source. `defsource` is made of it.")
def _source(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = None if args[1] is None else options_of(args[1], SOURCE_OPTIONS, "defsource")
    return m.ask(fiber, "defsource", name_of(args[0], "a source"), [options])
