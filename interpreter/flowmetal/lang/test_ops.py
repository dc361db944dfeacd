"""Operations of tests: they ask the test's director, which answers on the test's own virtual time.

They work only in a flow of kind `test`, the body of a `deftest`; `report*` alone works anywhere, and
prints outside of a test what it would have counted inside.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.definitions import ALIASES, REFERRED
from flowmetal.lang.evaluate import raised
from flowmetal.lang.flow_ops import flow_id_of
from flowmetal.lang.frames import Fiber
from flowmetal.lang.functions import MachineOp
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import OPS, op
from flowmetal.lang.persistent import Map
from flowmetal.lang.prelude_forms import prelude
from flowmetal.lang.primitives.registry import TABLE, primitive
from flowmetal.lang.printer import display_str, pr_str
from flowmetal.lang.requests import Mark
from flowmetal.lang.values import Duration, ErrorValue, Symbol, kw

TEST = "test"
"""The kind of a flow that is the body of a deftest."""


def _ask(m: Machine, fiber: Fiber, name: str, target: str, args: list[Any]) -> Any:
    """A step of a test, which waits for the director's answer."""
    if m.state.kind != TEST:
        raise LispError(
            f"{name} works only inside a deftest, which has a clock and a store of its own", type="value", hint="run it with: flowmetal test FILE.flow"
        )
    _, promise = m.request(fiber, f"test/{name}", target, args)
    return m.wait(fiber, "value", [promise], owned=True)


def _step(name: str, low: int, high: int, arglists: str, doc: str) -> None:
    @op("test", name, low, high, arglists, doc)
    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        return _ask(m, fiber, name, "", args)


@op("test", "advance!", 1, 1, "([duration])", "Moves a test's clock, running all that falls due on the way, in order, until nothing more can run.")
def _advance(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    d = args[0]
    if not isinstance(d, Duration) or d.micros < 0:
        raise LispError(f'advance! needs a duration such as #dur "10s", but found {pr_str(d)}', type="type")
    return _ask(m, fiber, "advance!", "", args)


@op("test", "calls", 1, 1, "([name])", 'The argument vectors that a foreign function was called with in this test; of "POST /path", the requests.')
def _calls(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return _ask(m, fiber, "calls", _name(args[0]), [])


@op("test", "results", 2, 2, "([flow operation])", "The outcomes of one operation in a flow, in order: {:value v} or {:error e} of each that has ended.")
def _results(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return _ask(m, fiber, "results", flow_id_of(args[0]), [_name(args[1])])


@op("test", "result", 1, 1, "([flow])", "The value of a flow that has ended; its error is thrown. Does not wait: @ does.")
def _result(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return _ask(m, fiber, "result", flow_id_of(args[0]), [])


_step("serve*", 2, 2, "([kind names])", "Says that this test answers calls of these names; the server's number.")
_step("unserve*", 1, 1, "([server])", "Ends what serve* began.")
_step("next-call*", 1, 1, "([server])", "Waits for the next call of what a server answers: {:id :name :args}.")
_step("answer*", 2, 2, "([id outcome])", "Answers a call: {:value v} or {:error e}.")


def _name(x: Any) -> str:
    """The name of a foreign function, or an operation, as a symbol, a string or the function itself."""
    if isinstance(x, (Symbol, str)):
        return display_str(x)
    name = getattr(x, "name", None)
    if isinstance(name, str):
        return f"{x.ns}/{name}" if isinstance(x, MachineOp) else name
    raise LispError(f"expected a name such as 'charge-card, but found {pr_str(x)}", type="type")


@primitive("test", "function-name?*", "([symbol])", "Whether a symbol names a function of the library, so that is may show its arguments.")
def _is_function_name(symbol: Any) -> bool:
    if not isinstance(symbol, Symbol):
        return False
    for ns in REFERRED if symbol.ns is None else (ALIASES.get(symbol.ns, symbol.ns),):
        form = prelude().get(f"{ns}/{symbol.name}")
        if (ns, symbol.name) in TABLE or (ns, symbol.name) in OPS or (form is not None and form.kind == "defn"):
            return True
    return False


# Reports


@op("test", "report*", 1, 1, "([event])", "Counts an assertion in the test that runs; outside of one, prints a failure.")
def _report(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    event: Map = args[0]
    span, _ = m._place(fiber)
    if span is not None:
        event = event.assoc(kw("file"), span.source.name).assoc(kw("line"), span.line).assoc(kw("column"), span.column)
    error = event.get(kw("error"))
    if isinstance(error, ErrorValue):
        event = event.assoc(kw("actual"), f"{pr_str(error.type)}: {raised(error).render()}").assoc(kw("error"), pr_str(error.type))
    if m.state.kind == TEST:
        m.outbox.append(Mark("log", fiber.id, event))
    elif event.get(kw("test")) in (kw("fail"), kw("error")):
        m.outbox.append(Mark("output", fiber.id, _printed(event)))
    return None


def _printed(event: Map) -> str:
    place = f" at {event.get(kw('file'))}:{event.get(kw('line'))}" if kw("line") in event else ""
    message = event.get(kw("message"))
    lines = [f"FAIL{place}", *([f"  {message}"] if message is not None else [])]
    return "\n".join([*lines, f"  expected: {event.get(kw('expected'))}", f"    actual: {event.get(kw('actual'))}"]) + "\n"
