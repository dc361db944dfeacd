"""The operations on a run as a whole: nurseries, which end after all that they began; a run's deadline; a run that begins anew."""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.frames import CANCEL_THROWN, Fiber
from flowmetal.lang.functions import CONTINUED, FlowHandle
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.persistent import Map, Vector
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.thrown import Thrown
from flowmetal.lang.values import ErrorValue, kw


@op("flow", "open-nursery*", 2, 2, "([children f])", "Calls f in a fiber, and waits for it and for all that is begun in it; `nursery` is made of it.")
def _open_nursery(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.open_nursery(fiber, args[0], m.spawn(args[1]))


@primitive("flow", "handle?*", "([x])", "Whether x is the handle of a flow.")
def _is_handle(x: Any) -> bool:
    return isinstance(x, FlowHandle)


@op("flow", "expire*", 1, 1, "([d])", "The time that the flow was given is over: it is cancelled, and fails with :flow/timeout.")
def _expire(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    reason = ErrorValue(kw("flow/timeout"), "the time that the flow was given is over", Map.of([(kw("timeout"), args[0])]))
    main = next((f for f in m.state.fibers.values() if f.promise is m.state.main), None)
    if main is not None:
        m.cancel_fiber(main, reason)
    return None


@op(
    "flow", "continue-as", 0, None, "([& args])",
    "Ends this run of the flow, and begins it anew with other arguments and an empty history: under the same id, with the same mailbox. `finally` blocks run.",
)  # fmt: skip
def _continue_as(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    m.check_cancel(fiber)
    if m.state.kind == "cell" or fiber.promise is not m.state.main:
        raise LispError("continue-as stands in a flow's own body: not in a cell, and not inside async, race, nursery or a time-out", type="value")
    if fiber.shield or fiber.cancel == CANCEL_THROWN:
        raise LispError("a flow that is cleaning up cannot begin anew", type="value")
    request, _ = m.request(fiber, "continue-as", m.state.program.name, args, instant=True)
    data = Map.of([(kw("args"), Vector.of(args)), (kw("run"), request.supplied)])
    raise Thrown(ErrorValue(CONTINUED, "the flow begins anew", data))
