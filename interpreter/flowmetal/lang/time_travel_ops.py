"""The operations that go back in a flow's past, or change what it goes on with: fork, upgrade!.

Each is a step of the flow that asks; the engine performs it. What is wrong with the arguments is said before the
step has its number.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.flow_ops import flow_id_of, options_of
from flowmetal.lang.frames import Fiber
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.printer import pr_str
from flowmetal.lang.values import kw

FORK_OPTIONS = ("at", "with", "upgrade", "adopt-rollbacks", "dry-run")


@op(
    "flow", "fork", 2, 2, "([flow {:keys [at with upgrade adopt-rollbacks dry-run]}])",
    "A new flow that shares a flow's history before step :at. With :with that step's outcome is this value; without it the step is asked anew, under the "
    "current definitions with :upgrade true. What is shared is never sent again. Rollbacks that were registered before stay with the original, unless "
    ":adopt-rollbacks true. With :dry-run true only a map that says what would be shared, and what may be done again.",
)  # fmt: skip
def _fork(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = options_of(args[1], FORK_OPTIONS, "fork")
    step = options.get(kw("at"))
    if type(step) is not int or step < 1:
        raise LispError(f"the :at of fork is the number of a step, from 1, but is {pr_str(step)}", type="value")
    return m.ask(fiber, "fork", flow_id_of(args[0]), [options])


@op(
    "flow", "upgrade!", 1, 2, "([flow] [flow {:keys [dry-run]}])",
    "Moves a flow to the current definitions, if these ask for all that it has asked for; else :replay/mismatch says where they differ. A map with :from and "
    ":to, the versions. With :dry-run true nothing is changed.",
)  # fmt: skip
def _upgrade(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options: Map = options_of(args[1], ("dry-run",), "upgrade!") if len(args) > 1 and args[1] is not None else EMPTY_MAP
    return m.ask(fiber, "upgrade", flow_id_of(args[0]), [options])
