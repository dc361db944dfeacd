"""Whether an error ends the flow: asked before anything is unwound.

In: a flow's state, a fiber, the error that was thrown in it. Out: whether nothing would catch it, neither in this
fiber nor in those that wait for it. The one rule: a flow that is to stop where it fails stops before any clean-up.
"""

from __future__ import annotations

from flowmetal.lang.frames import ENDS_WAIT, Fiber, State, Wait
from flowmetal.lang.functions import CANCELLED, CONTINUED, FAILED
from flowmetal.lang.instructions import is_caught
from flowmetal.lang.values import ErrorValue


def fails_flow(state: State, fiber: Fiber, error: ErrorValue) -> bool:
    """Whether an error thrown in a fiber would be the flow's end: followed from fiber to fiber, to whoever waits."""
    if error.type in (CANCELLED, CONTINUED):
        return False
    todo, seen = [fiber], {fiber.id}
    while todo:
        each = todo.pop()
        if is_caught(each, error):
            continue
        if each.promise is state.main:
            return True
        waiting = [state.fibers[n] for n in each.promise.waiters if n in state.fibers and n not in seen]
        seen.update(other.id for other in waiting)
        todo += [other for other in waiting if other.wait is not None and _is_over(other.wait)]
    return False


def _is_over(wait: Wait) -> bool:
    """Whether a wait ends with an error when one of its promises fails."""
    if wait.mode == "settled":
        return False
    return FAILED in ENDS_WAIT[wait.mode] or wait.left == 1
