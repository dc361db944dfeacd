"""Fibers and promises: who waits for what, what wakes them, how they are cancelled, how a flow ends.

In: outcomes, one at a time, and what the program asks of promises. Out: actions in `outbox`, and
fibers that are ready to run. The one rule: a fiber that waits is woken by the outcome that it waits
for, or by its cancel, and waiters on one promise wake in the order in which they began to wait.

A cancel is thrown where its fiber waits, once; what runs after that (`catch`, `finally`) is clean-up
and is not cancelled again. A cancel that finds its fiber inside a `finally` comes after it.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.frames import CANCEL_ASKED, CANCEL_THROWN, RUNNING, Fiber, State, Wait
from flowmetal.lang.functions import CANCELLED, DONE, FAILED, OPEN, PENDING, Atom, Promise
from flowmetal.lang.persistent import Map, Vector
from flowmetal.lang.requests import Action, CellResult, Define, Ended, FiberEnded, Subscribe, Withdraw
from flowmetal.lang.thrown import Thrown
from flowmetal.lang.values import ErrorValue, Var, kw

UNSURE = frozenset({kw("flow/timeout"), kw("http/timeout"), kw("effect/interrupted")})
"""Errors of a call that may have happened all the same."""


class Fibers:
    """The fibers and promises of one flow's state."""

    __slots__ = ("fiber", "outbox", "state")

    def __init__(self, state: State) -> None:
        self.state = state
        self.outbox: list[Action] = []
        """What the program asked for, in order; whoever runs the machine empties it."""
        self.fiber: Fiber | None = None
        """The one that runs."""

    def new_fiber(self) -> Fiber:
        """A fiber at the end of the run queue, with the promise of what it will give."""
        state = self.state
        number = state.next_fiber
        state.next_fiber += 1
        promise = Promise(f"f{number}")
        fiber = Fiber(number, promise)
        state.fibers[number] = fiber
        state.open[promise.id] = promise
        state.ready.append(number)
        return fiber

    # Waiting

    def wait(self, fiber: Fiber, mode: str, promises: list[Promise], keys: list[Any] | None = None, *, owned: bool = False) -> Any:
        """Waits as `Wait` says; gives the value at once where the outcome is there."""
        wait = Wait(mode, promises, keys if keys is not None else [None] * len(promises), owned)
        over, decisive = wait.over()
        if over:
            return outcome(wait, decisive)
        self.check_cancel(fiber)
        for p in promises:
            if p.status == OPEN:
                self._wait_for(fiber, p)
        fiber.wait = wait
        return PENDING

    def _wait_for(self, fiber: Fiber, p: Promise) -> None:
        p.waiters.append(fiber.id)
        if p.flow is not None and (p.flow, p.id) not in self.state.open:
            self.state.open[p.flow, p.id] = p
            self.outbox.append(Subscribe(fiber.id, p.flow, p.id))

    def own(self, p: Promise) -> Promise:
        """The one promise of this state that stands for `p`: this flow's own where `p` came back to it as a
        reference, and of another flow's the one that is waited for already."""
        if p.flow is None:
            return p
        if p.flow == self.state.flow_id and p.id in self.state.open:
            return self.state.open[p.id]
        return self.state.open.get((p.flow, p.id), p)

    def settle(self, key: Any, value: Any, error: ErrorValue | None) -> bool:
        """Settles an open promise and wakes who waits for it; False when it is not open."""
        promise = self.state.open.pop(key, None)
        if promise is None:
            return False
        self._settle(promise, value, error)
        return True

    def _settle(self, promise: Promise, value: Any, error: ErrorValue | None) -> None:
        promise.status = DONE if error is None else FAILED
        promise.value = value if error is None else error
        waiters, promise.waiters = promise.waiters, []
        for number in waiters:
            fiber = self.state.fibers.get(number)
            if fiber is not None and fiber.wait is not None:
                self._wake(fiber, promise)

    def _wake(self, fiber: Fiber, promise: Promise) -> None:
        wait = fiber.wait
        assert wait is not None
        if not wait.decided(promise):
            return
        self._stop_waiting(fiber)
        if fiber.cancel == CANCEL_THROWN and wait.mode == "settled" and undone_by(fiber, promise):
            note_outcome(fiber, promise)
        try:
            fiber.value = outcome(wait, promise)
        except Thrown as e:
            fiber.error = fiber.error or e.error

    def _stop_waiting(self, fiber: Fiber) -> None:
        assert fiber.wait is not None
        for p in fiber.wait.promises:
            if fiber.id in p.waiters:
                p.waiters.remove(fiber.id)
        fiber.wait = None
        self.state.ready.append(fiber.id)

    # Nurseries

    def open_nursery(self, fiber: Fiber, children: Atom, body: Promise) -> Any:
        """Waits for a nursery's body and for all children that are begun in it meanwhile, or for the first failure."""
        self.state.fibers[int(str(body.id)[1:])].nursery = children
        children.value = Vector.of([fiber.id, body])
        return self.wait(fiber, "all", [body])

    def adopt(self, fiber: Fiber, child: Promise) -> None:
        """A fiber or a flow was begun: the nursery around it, if there is one, waits for it too."""
        if fiber.nursery is None:
            return
        child = self.own(child)
        fiber.nursery.value = fiber.nursery.value.conj(child)
        owner = self.state.fibers.get(fiber.nursery.value.nth(0))
        wait = owner.wait if owner is not None else None
        if owner is None or wait is None or child.status != OPEN:
            return
        wait.promises.append(child)
        wait.keys.append(None)
        wait.left += 1
        self._wait_for(owner, child)
        if wait.mode == "settled":  # the nursery has failed: who is born now ends too
            for other in self.fibers_of([child]):
                self.cancel_fiber(other, "the nursery has failed")

    # Cancelling

    def cancel(self, reason: Any) -> None:
        """Asks the flow to end: `:flow/cancelled` at the next wait of its first fiber; of all of them in a cell."""
        state = self.state
        cell = state.kind == "cell"
        began = state.main is None or state.main.status == OPEN
        for fiber in list(state.fibers.values()):
            if cell or not began or fiber.promise is state.main:
                self.cancel_fiber(fiber, reason)
        if cell:
            state.cancelled = True
            if not began:
                state.ending = (None, ErrorValue(CANCELLED, reason_text(reason)))

    def cancel_fiber(self, fiber: Fiber, reason: Any) -> None:
        """Asks one fiber to end; where it waits for something of its own, that is withdrawn."""
        if fiber.cancel != RUNNING:
            return
        fiber.reason = reason
        wait = fiber.wait
        if wait is None or fiber.shield:
            fiber.cancel = CANCEL_ASKED
            return
        fiber.cancel = CANCEL_THROWN
        fiber.error = ErrorValue(CANCELLED, reason_text(reason))
        if wait.owned and (any(p.op == "call" for p in wait.promises) or undone_by(fiber, wait.promises[0])):
            # The child cleans up first, what is to be undone is awaited; its end, whatever it is, throws the cancel here.
            fiber.wait = Wait("settled", wait.promises, wait.keys, False)
            self.outbox += [Withdraw(int(p.id), reason_text(reason), True) for p in wait.promises]
            return
        if wait.owned:
            self.withdraw(wait.promises, reason)
        self._stop_waiting(fiber)

    def withdraw(self, promises: list[Promise], reason: Any) -> None:
        """Open steps that nobody waits for any more."""
        for p in promises:
            if p.status == OPEN and isinstance(p.id, int) and self.state.open.pop(p.id, None) is not None:
                p.status, p.value = FAILED, ErrorValue(CANCELLED, reason_text(reason))
                self.outbox.append(Withdraw(p.id, reason_text(reason)))

    def fibers_of(self, promises: list[Promise]) -> list[Fiber]:
        """The fibers that settle these promises; what else settles one is nobody's to cancel here."""
        return [f for p in promises for f in self.state.fibers.values() if f.promise is p and f is not self.fiber]

    def check_cancel(self, fiber: Fiber) -> None:
        """Throws `:flow/cancelled` when a cancel was asked for and it may be thrown here."""
        if fiber.cancel == CANCEL_ASKED and not fiber.shield:
            fiber.cancel = CANCEL_THROWN
            raise Thrown(ErrorValue(CANCELLED, reason_text(fiber.reason)))

    # Ending

    def end_fiber(self, fiber: Fiber, value: Any, error: ErrorValue | None) -> None:
        """A fiber is over: its promise is settled. With the first one, a flow ends and its other fibers are cancelled."""
        state = self.state
        if error is not None and error.type is CANCELLED and isinstance(fiber.reason, ErrorValue):
            error = fiber.reason
        del state.fibers[fiber.id]
        state.open.pop(fiber.promise.id, None)
        self._settle(fiber.promise, value, error)
        if fiber.promise is not state.main:
            self.outbox.append(FiberEnded(fiber.id, fiber.promise.id, value, error))
            return
        state.ending = (value, error)
        if state.kind != "cell":
            for other in list(state.fibers.values()):
                self.cancel_fiber(other, "the flow has ended")
        elif state.fibers or (state.open and not state.cancelled):
            self.outbox.append(CellResult(value, error))

    def finish(self) -> None:
        """Says that the flow has ended, once: when its fibers are over, and in a cell that was not cancelled its promises too."""
        state = self.state
        if state.ending is None or state.fibers or (state.kind == "cell" and state.open and not state.cancelled):
            return
        self.outbox.append(Ended(*state.ending))
        state.ending = None

    # Definitions

    def define(self, fiber: Fiber, ns: str, name: str, kind: str, meta: dict[str, Any], value: Any) -> None:
        """Asks for a definition; the fiber goes on when its version is known."""
        state = self.state
        if state.kind not in ("cell", "load"):
            raise LispError(f"{name} cannot be defined inside a flow", type="compile/syntax")
        if isinstance(value, Atom) and value.facts is not None:
            raise LispError("an atom that is given to a top-level def is shared by all flows: it has no metadata, no validator and no watches", type="value")
        if kind == "ns":
            state.program.ns = ns
        state.next_define += 1
        number = state.next_define
        promise = Promise(f"d{number}")
        state.open[promise.id] = promise
        promise.waiters.append(fiber.id)
        fiber.wait = Wait("value", [promise], [None], False)
        self.outbox.append(Define(number, fiber.id, ns, name, kind, meta, value, fiber.frames[-1].arity.code.root))

    def defined(self, number: int, version: int, ns: str, name: str) -> None:
        """A definition is in the log: what follows sees it."""
        self.state.pin = max(self.state.pin, version)
        promise = self.state.open.get(f"d{number}")
        if promise is not None and promise.waiters:
            fiber = self.state.fibers[promise.waiters[0]]
            for frame in fiber.frames:
                frame.locals[0] = max(frame.locals[0], version)
        self.settle(f"d{number}", None if name == "*ns*" else Var(ns, name), None)


def outcome(wait: Wait, decisive: Promise | None) -> Any:
    """What a wait that is over gives; raises `Thrown` when the promise that decided it failed."""
    mode = wait.mode
    if mode == "settled":
        return None
    if decisive is not None and decisive.status == FAILED:
        raise Thrown(decisive.value)
    if mode == "all":
        return Vector.of([p.value for p in wait.promises])
    assert decisive is not None
    if mode != "select":
        return decisive.value
    return Vector.of([next(k for k, p in zip(wait.keys, wait.promises, strict=True) if p is decisive), decisive.value])


def undone_by(fiber: Fiber, promise: Promise) -> bool:
    """Whether a promise is that of the call with a :timeout which the fiber makes inside `undoable`: a cancel waits for its outcome."""
    return fiber.undoing is not None and promise.op != "call" and fiber.undoing.nth(2).value == promise.id


def note_outcome(fiber: Fiber, promise: Promise) -> None:
    """What became of a call that is to be undone; one of which nobody knows stays known by its key."""
    if promise.status == DONE:
        fiber.undoing.nth(0).value = Map.of([(kw("value"), promise.value)])
    elif promise.value.type not in UNSURE:
        fiber.undoing.nth(0).value = Map.of([(kw("error"), promise.value)])


def reason_text(reason: Any) -> str:
    """The message of a cancel."""
    if isinstance(reason, ErrorValue):
        return reason.message
    return reason if isinstance(reason, str) and reason else "the flow was cancelled"
