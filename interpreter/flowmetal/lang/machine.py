"""The machine: (state, outcome) → (state', requests). No I/O, no clock, no threads.

`run` takes instructions until every fiber waits or the fuel is burnt; what the program asked for
stands in `outbox`. `settle`, `defined` and `cancel` bring outcomes in, one at a time, in the order
of the log. What a program may see of time and chance comes through `supply`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.errors import FlowmetalError, LispError
from flowmetal.lang import compiler as c
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.frames import CANCEL_ASKED, CANCEL_THROWN, RUNNING, Fiber, Frame, State, Wait
from flowmetal.lang.functions import (
    CANCELLED, DONE, FAILED, OPEN, PENDING, Closure, FlowProgram, ForeignStub, MachineOp, MultiFn, Promise, arity_error, locals_of,
)  # fmt: skip
from flowmetal.lang.leaves import BUILDERS
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Vector, seq_of
from flowmetal.lang.primitives.leaf_calls import call_leaf, call_primitive, is_leaf
from flowmetal.lang.primitives.reducibles import AGAIN, Unrealized
from flowmetal.lang.primitives.registry import Primitive
from flowmetal.lang.printer import pr_str
from flowmetal.lang.requests import Action, CellResult, Define, Ended, FiberEnded, Request, Subscribe, Withdraw
from flowmetal.lang.values import ErrorValue, Keyword, Var, kw

MAX_FRAMES = 10_000
DEFAULT = kw("default")


class StopAt(BaseException):
    """The machine stands at the request that it was asked to stop at."""


class Thrown(Exception):
    """An error value on its way up through the machine."""

    def __init__(self, error: ErrorValue) -> None:
        super().__init__(error.message)
        self.error = error


def error_value(e: BaseException, span: Any = None) -> ErrorValue:
    """The error value of an exception that a leaf raised."""
    if isinstance(e, Thrown):
        return e.error
    if isinstance(e, FlowmetalError):
        data = e.data if isinstance(e.data, Map) else None
        message = f"{e.message}; {e.hint}" if e.hint else e.message
        return ErrorValue(kw(e.type), message, data, None, e.span or span)
    if isinstance(e, RecursionError):
        return ErrorValue(kw("limit"), "the data nests too deep for this operation", None, None, span)
    if isinstance(e, MemoryError):
        return ErrorValue(kw("limit"), "not enough memory for this operation", None, None, span)
    if isinstance(e, OverflowError):
        return ErrorValue(kw("arithmetic"), f"a number is too large: {e}", None, None, span)
    if isinstance(e, (TypeError, AttributeError)):
        return ErrorValue(kw("type"), f"wrong kind of value: {e}", None, None, span)
    if isinstance(e, (ValueError, KeyError, IndexError, ArithmeticError)):
        return ErrorValue(kw("value"), f"bad value: {e}", None, None, span)
    raise e


class Machine:
    """Runs one flow's state. `compile_next` compiles the next form of a cell."""

    def __init__(
        self, definitions: Definitions, state: State, supply: Callable[[Request], Any],
        next_form: Callable[[State], Closure | None] | None = None, admit: Callable[[Request], None] | None = None,
    ) -> None:  # fmt: skip
        self.definitions = definitions
        self.state = state
        self.supply = supply
        self.next_form = next_form
        self.admit = admit
        """Called with each request before it is made; what it raises is thrown into the program."""
        self.outbox: list[Action] = []
        self.fiber: Fiber | None = None
        self.stop_at: int | None = None
        """A step at whose request `run` raises `StopAt`: to look at the state there."""

    # Beginning

    def begin(self) -> None:
        """Makes the first fiber."""
        state = self.state
        fiber = self._new_fiber()
        state.main = fiber.promise
        program = state.program
        if program.body is not None:
            self._begin_call(fiber, program.body, list(program.args))

    def _begin_call(self, fiber: Fiber, f: Any, args: list[Any]) -> None:
        self.fiber = fiber
        try:
            value = self.invoke(fiber, f, args)
        except Exception as e:
            fiber.error = error_value(e)
            return
        if value is not PENDING:
            fiber.value = value

    def _new_fiber(self) -> Fiber:
        state = self.state
        number = state.next_fiber
        state.next_fiber += 1
        promise = Promise(f"f{number}")
        fiber = Fiber(number, promise)
        state.fibers[number] = fiber
        state.open[promise.id] = promise
        state.ready.append(number)
        return fiber

    def spawn(self, f: Any) -> Promise:
        """A new fiber that calls `f`, at the end of the run queue; its promise."""
        current = self.fiber
        fiber = self._new_fiber()
        self._begin_call(fiber, f, [])
        self.fiber = current
        return fiber.promise

    # Running

    def run(self, fuel: int) -> int:
        """Runs ready fibers until none is ready or the fuel is burnt; the fuel that is left."""
        state = self.state
        while state.ready and fuel > 0:
            fiber = state.fibers.get(state.ready[0])
            if fiber is None or fiber.wait is not None:
                state.ready.popleft()
                continue
            self.fiber = fiber
            fuel = self._run_fiber(fiber, fuel)
            if fiber.wait is not None or fiber.id not in state.fibers:
                state.ready.popleft()
        return fuel

    def _run_fiber(self, fiber: Fiber, fuel: int) -> int:
        while fuel > 0 and fiber.wait is None:
            if fiber.error is not None:
                error, fiber.error = fiber.error, None
                if not self._unwind(fiber, error):
                    self._end_fiber(fiber, None, error)
                    return fuel
            elif not fiber.frames:
                if not self._next_form(fiber):
                    return fuel
            else:
                try:
                    fuel = self._execute(fiber, fuel)
                except Unrealized as e:
                    self._realize(fiber, e)
                    fuel -= 1
                except Exception as e:
                    fiber.error = error_value(e, fiber.frames[-1].span if fiber.frames else None)
                    fuel -= 1
        return fuel

    def _next_form(self, fiber: Fiber) -> bool:
        """Goes on with the next form of a cell; False when the fiber has ended."""
        value, fiber.value = fiber.value, None
        if fiber.promise is self.state.main and self.next_form is not None:
            try:
                closure = self.next_form(self.state)
            except FlowmetalError as e:
                fiber.error = error_value(e)
                return True
            if closure is not None:
                self._begin_call(fiber, closure, [])
                return True
        self._end_fiber(fiber, value, None)
        return False

    def _execute(self, fiber: Fiber, fuel: int) -> int:
        """The inner loop: runs the top frame, and those it calls, until the fiber waits or ends."""
        frames = fiber.frames
        while frames:
            frame = frames[-1]
            instructions, stack, L = frame.arity.instructions, frame.stack, frame.locals
            if fiber.value is not PENDING and fiber.value is not AGAIN and frame.pc and _takes_value(instructions[frame.pc - 1]):
                stack.append(fiber.value)
            fiber.value = PENDING
            while True:
                if fuel <= 0:
                    return 0
                fuel -= 1
                ins = instructions[frame.pc]
                frame.pc += 1
                op = ins[0]
                if op == 0:  # PUSH
                    stack.append(ins[1](L))
                elif op == 1:  # RETURN_LEAF
                    value = ins[1](L)
                    frames.pop()
                    fiber.value = value
                    break
                elif op == 2:  # JUMP_UNLESS_LEAF
                    t = ins[1](L)
                    if t is None or t is False:
                        frame.pc = ins[2]
                elif op == 3:  # CALL
                    count = ins[1]
                    args = stack[len(stack) - count :]
                    del stack[len(stack) - count :]
                    f = stack.pop()
                    try:
                        value = self.invoke(fiber, f, args)
                    except Unrealized:
                        stack += [f, *args]
                        raise
                    if value is PENDING:
                        break
                    stack.append(value)
                elif op == 4:  # SET_LEAF
                    L[ins[1]] = ins[2](L)
                elif op == 5:  # CALL_LEAVES
                    f, *args = [leaf(L) for leaf in ins[1]]
                    value = self.invoke(fiber, f, args)
                    if value is PENDING:
                        break
                    stack.append(value)
                elif op == 6:  # RECUR_LEAVES
                    values = [leaf(L) for leaf in ins[3]]
                    for slot, value in zip(ins[2], values, strict=True):
                        L[slot] = value
                    frame.pc = ins[1]
                elif op == 7:  # RETURN
                    fiber.value = stack.pop()
                    frames.pop()
                    break
                else:
                    _OPS[op](self, fiber, frame, ins)
                    if fiber.wait is not None:
                        return fuel
            if fiber.wait is not None:
                return fuel
        return fuel

    # Calls

    def invoke(self, fiber: Fiber, f: Any, args: list[Any]) -> Any:
        """Calls `f`: gives its value, or PENDING when a frame was pushed or the fiber waits."""
        if type(f) is Closure:
            arity = f.code.arity(len(args))
            if arity is not None and arity.leaf is not None:
                try:
                    return arity.leaf(locals_of(f, arity, args, self._version(fiber, f)))
                except Exception:  # noqa: BLE001, S110  it runs again below in a frame, so that the error has its place in the stack
                    pass
            self._push_frame(fiber, f, args)
            return PENDING
        if type(f) is Primitive:
            return call_primitive(f, args)
        if type(f) is MachineOp:
            if len(args) < f.low or (f.high is not None and len(args) > f.high):
                raise LispError(f"{f.name} was given {len(args)} arguments: it takes {f.arglists}", type="arity")
            return f.fn(self, fiber, args)
        if is_leaf(f):
            return call_leaf(f, *args)
        if isinstance(f, FlowProgram):
            return self.call_flow(fiber, f, args)
        if isinstance(f, ForeignStub):
            return self.call_foreign(fiber, f, args)
        if isinstance(f, MultiFn):
            return self.call_library(fiber, "call-multi", [f, seq_of(args)])
        if isinstance(f, Var):
            binding = self.definitions.lookup(f.ns, f.name, self.state.pin)
            if binding is not None:
                return self.invoke(fiber, binding.value, args)
        raise LispError(f"{pr_str(f)} cannot be called: it is not a function", type="type")

    def call_library(self, fiber: Fiber, name: str, args: list[Any]) -> Any:
        """Calls a function of the prelude by its name in `core`."""
        helper = self.definitions.lookup("core", name, self.state.pin)
        assert helper is not None
        return self.invoke(fiber, helper.value, args)

    def _push_frame(self, fiber: Fiber, f: Closure, args: list[Any]) -> None:
        arity = f.code.arity(len(args))
        if arity is None:
            raise arity_error(f, len(args))
        if len(fiber.frames) >= MAX_FRAMES:
            raise LispError(f"calls nest deeper than {MAX_FRAMES}: use loop and recur, or reduce", type="stack-overflow")
        fiber.frames.append(Frame(arity, locals_of(f, arity, args, self._version(fiber, f))))

    def _version(self, fiber: Fiber, f: Closure) -> int:
        """The definitions version that a call of `f` sees: its own, or its caller's."""
        if f.version is not None:
            return f.version
        return fiber.frames[-1].locals[0] if fiber.frames else self.state.pin

    def _realize(self, fiber: Fiber, needed: Unrealized) -> None:
        """Computes elements that a primitive asked for; then the same instruction runs again."""
        fiber.frames[-1].pc -= 1
        self.call_library(fiber, "realize*", [needed.source, needed.count])

    def request(
        self, fiber: Fiber, op: str, target: str, args: list[Any], *, options: Map = EMPTY_MAP, instant: bool = False, supply: bool = False
    ) -> tuple[Request, Promise]:
        """Numbers a request and puts it into the outbox; its promise is open unless it is instant."""
        state = self.state
        if instant is False and fiber.cancel == CANCEL_ASKED:
            self._throw_cancel(fiber)
        span, function = self._place(fiber)
        request = Request(state.steps + 1, fiber.id, op, target, args, options, span, function, instant)
        if self.admit is not None:
            self.admit(request)
        state.steps += 1
        if state.steps == self.stop_at:
            raise StopAt
        if instant or supply:
            request.supplied = self.supply(request)
        self.outbox.append(request)
        promise = Promise(state.steps, None, op)
        if not instant:
            state.open[promise.id] = promise
        return request, promise

    def _place(self, fiber: Fiber) -> tuple[Any, str]:
        """The innermost place in the user's own source."""
        for frame in reversed(fiber.frames):
            if frame.arity.code.root.prelude is None and frame.span is not None:
                return frame.span, frame.arity.code.name
        return (fiber.frames[-1].span, fiber.frames[-1].arity.code.name) if fiber.frames else (None, "")

    def call_flow(self, fiber: Fiber, f: FlowProgram, args: list[Any]) -> Any:
        """Runs a program as a child and waits for its result."""
        request, promise = self.request(fiber, "call", f.full_name, args, supply=True)
        request.child = request.supplied
        return self.wait(fiber, "value", [promise], owned=True)

    def call_foreign(self, fiber: Fiber, f: ForeignStub, args: list[Any]) -> Any:
        """Asks for a foreign function and waits for its answer."""
        _, promise = self.request(fiber, "foreign", f.name, args, options=f.options)
        return self.wait(fiber, "value", [promise], owned=True)

    # Waiting

    def wait(self, fiber: Fiber, mode: str, promises: list[Promise], keys: list[Any] | None = None, *, owned: bool = False) -> Any:
        """Waits as `Wait` says; gives the value at once where the outcome is there."""
        keys = keys if keys is not None else [None] * len(promises)
        for i, p in enumerate(promises):
            if p.status != OPEN:
                return _outcome(mode, keys[i], p)
        if fiber.cancel == CANCEL_ASKED and not owned:
            self._throw_cancel(fiber)
        for p in promises:
            p.waiters.append(fiber.id)
            if p.flow is not None and p.flow != self.state.flow_id and (p.flow, p.id) not in self.state.open:
                self.state.open[p.flow, p.id] = p
                self.outbox.append(Subscribe(fiber.id, p.flow, p.id))
            elif p.flow is not None and self.state.open.get((p.flow, p.id)) not in (None, p):
                self.state.open[p.flow, p.id].waiters.append(fiber.id)
        fiber.wait = Wait(mode, promises, keys, owned)
        return PENDING

    def own(self, p: Promise) -> Promise:
        """This flow's own promise where `p` came back from outside as a reference to it."""
        if p.flow == self.state.flow_id and p.id != "result":
            return self.state.open.get(p.id, p)
        return p

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
        found = next((i for i, p in enumerate(wait.promises) if p is promise or p.same(promise)), None)
        if found is None:
            return
        if wait.mode == "settled" and any(p.status == OPEN and p is not promise for p in wait.promises):
            return
        self._stop_waiting(fiber)
        try:
            fiber.value = _outcome(wait.mode, wait.keys[found], promise)
        except Thrown as e:
            fiber.error = e.error

    def _stop_waiting(self, fiber: Fiber) -> None:
        assert fiber.wait is not None
        for p in fiber.wait.promises:
            if fiber.id in p.waiters:
                p.waiters.remove(fiber.id)
        fiber.wait = None
        self.state.ready.append(fiber.id)

    # Cancelling

    def cancel(self, reason: Any) -> None:
        """Asks the flow to end: `:flow/cancelled` at the next wait of its first fiber (of all, in a cell)."""
        state = self.state
        for fiber in list(state.fibers.values()):
            if fiber.promise is state.main or state.main is None or state.main.status != OPEN:
                self.cancel_fiber(fiber, reason)
        if not state.fibers:
            self.outbox.append(Ended(None, ErrorValue(CANCELLED, _reason(reason))))

    def cancel_fiber(self, fiber: Fiber, reason: Any) -> None:
        """Asks one fiber to end; where it waits for something of its own, that is withdrawn."""
        if fiber.cancel != RUNNING:
            return
        fiber.reason = reason
        if fiber.wait is None:
            fiber.cancel = CANCEL_ASKED
            return
        fiber.cancel = CANCEL_THROWN
        error = ErrorValue(CANCELLED, _reason(reason))
        wait = fiber.wait
        if wait.owned and any(p.op == "call" for p in wait.promises):
            # The child cleans up first; its end, whatever it is, throws the cancel here.
            fiber.wait = Wait("settled", wait.promises, wait.keys, False)
            fiber.error = error
            self.outbox += [Withdraw(int(p.id), _reason(reason), True) for p in wait.promises]
            return
        if wait.owned:
            self.withdraw(wait.promises, reason)
        self._stop_waiting(fiber)
        fiber.error = error

    def withdraw(self, promises: list[Promise], reason: Any) -> None:
        """Open steps that nobody waits for any more."""
        for p in promises:
            if p.status == OPEN and isinstance(p.id, int) and self.state.open.pop(p.id, None) is not None:
                p.status, p.value = FAILED, ErrorValue(CANCELLED, _reason(reason))
                self.outbox.append(Withdraw(p.id, _reason(reason)))

    def _throw_cancel(self, fiber: Fiber) -> None:
        fiber.cancel = CANCEL_THROWN
        raise Thrown(ErrorValue(CANCELLED, _reason(fiber.reason)))

    # Ending

    def _unwind(self, fiber: Fiber, error: ErrorValue) -> bool:
        """Goes to the innermost handler; False when there is none."""
        frames = fiber.frames
        if not error.trace:
            error = ErrorValue(error.type, error.message, error.data, error.cause, error.span or self._place(fiber)[0], trace(fiber))
        fiber.value = PENDING
        while frames:
            frame = frames[-1]
            if frame.handlers:
                frame.pc, depth, slot = frame.handlers.pop()
                del frame.stack[depth:]
                frame.locals[slot] = error
                return True
            frames.pop()
        fiber.error = None
        fiber.value = error
        return False

    def _end_fiber(self, fiber: Fiber, value: Any, error: ErrorValue | None) -> None:
        state = self.state
        if error is not None:
            error = fiber.value if isinstance(fiber.value, ErrorValue) else error
        del state.fibers[fiber.id]
        state.open.pop(fiber.promise.id, None)
        self._settle(fiber.promise, value, error)
        main = fiber.promise is state.main
        if main:
            state.ending = (value, error)
        else:
            self.outbox.append(FiberEnded(fiber.id, fiber.promise.id, value, error))
        cell = state.kind == "cell"
        if main and cell and (state.fibers or state.open):
            self.outbox.append(CellResult(value, error))
        if main and not cell:
            for other in list(state.fibers.values()):
                self.cancel_fiber(other, "the flow has ended")
        if not state.fibers and state.ending is not None and not (cell and state.open):
            self.outbox.append(Ended(*state.ending))

    def end_if_idle(self) -> None:
        """A cell ends with its last fiber and promise."""
        state = self.state
        if state.kind == "cell" and not state.fibers and not state.open and state.ending is not None:
            self.outbox.append(Ended(*state.ending))

    # Definitions

    def define(self, fiber: Fiber, ns: str, name: str, kind: str, meta: dict[str, Any], value: Any) -> None:
        """Asks for a definition; the fiber goes on when its version is known."""
        state = self.state
        if state.kind not in ("cell", "load"):
            raise LispError(f"{name} cannot be defined inside a flow", type="compile/syntax")
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
        self.state.pin = version
        promise = self.state.open.get(f"d{number}")
        if promise is not None and promise.waiters:
            fiber = self.state.fibers[promise.waiters[0]]
            for frame in fiber.frames:
                frame.locals[0] = max(frame.locals[0], version)
        self.settle(f"d{number}", None if name == "*ns*" else Var(ns, name), None)


def _outcome(mode: str, key: Any, promise: Promise) -> Any:
    if mode == "settled":
        return None
    if promise.status == FAILED:
        raise Thrown(promise.value)
    return Vector.of([key, promise.value]) if mode == "select" else promise.value


def _reason(reason: Any) -> str:
    return reason if isinstance(reason, str) and reason else "the flow was cancelled"


def trace(fiber: Fiber) -> tuple[Any, ...]:
    """(function, span) of each frame, innermost first; long ones folded."""
    frames = [(f.arity.code.name or "fn", f.span) for f in reversed(fiber.frames)]
    return tuple(frames if len(frames) <= 40 else [*frames[:20], (f"… {len(frames) - 40} more …", None), *frames[-20:]])


def _takes_value(ins: tuple[Any, ...]) -> bool:
    return ins[0] in (c.CALL, c.CALL_LEAVES, c.DEF)


# The rarer operations: a table from op to rule


def _jump(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.pc = ins[1]


def _jump_unless(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    t = frame.stack.pop()
    if t is None or t is False:
        frame.pc = ins[1]


def _set(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.locals[ins[1]] = frame.stack.pop()


def _exec(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    ins[1](frame.locals)


def _pop(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.stack.pop()


def _recur(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    slots = ins[2]
    values = frame.stack[len(frame.stack) - len(slots) :]
    del frame.stack[len(frame.stack) - len(slots) :]
    for slot, value in zip(slots, values, strict=True):
        frame.locals[slot] = value
    frame.pc = ins[1]


def _build(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    count = ins[2]
    items = frame.stack[len(frame.stack) - count :]
    del frame.stack[len(frame.stack) - count :]
    frame.stack.append(BUILDERS[ins[1]](items))


def _try(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.locals[ins[2]] = None
    frame.handlers.append((ins[1], len(frame.stack), ins[2]))


def _end_try(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.handlers.pop()


def _catch(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    _, error_slot, wanted, slot, otherwise = ins
    error: ErrorValue = frame.locals[error_slot]
    if _catches(wanted, error):
        frame.locals[slot] = error
        frame.locals[error_slot] = None
    else:
        frame.pc = otherwise


def _catches(wanted: Keyword, error: ErrorValue) -> bool:
    return error.type is wanted or (wanted is DEFAULT and error.type is not CANCELLED)


def _rethrow(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    raise Thrown(frame.locals[ins[1]])


def _end_catch(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    error = frame.locals[ins[1]]
    if isinstance(error, ErrorValue) and error.type is CANCELLED and fiber.cancel == CANCEL_THROWN:
        raise Thrown(error)


def _end_finally(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    error = frame.locals[ins[1]]
    if error is not None:
        raise Thrown(error)


def _def(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    _, ns, name, kind, facts = ins
    m.define(fiber, ns, name, kind, facts.meta, frame.stack.pop())


def _patch(m: Machine, fiber: Fiber, frame: Frame, ins: tuple[Any, ...]) -> None:
    frame.locals[ins[1]].captures[:] = ins[2](frame.locals).captures


_OPS: dict[int, Callable[[Machine, Fiber, Frame, tuple[Any, ...]], None]] = {
    c.JUMP: _jump, c.JUMP_UNLESS: _jump_unless, c.SET: _set, c.EXEC: _exec, c.POP: _pop, c.RECUR: _recur, c.BUILD: _build, c.TRY: _try,
    c.END_TRY: _end_try, c.CATCH: _catch, c.RETHROW: _rethrow, c.END_CATCH: _end_catch, c.END_FINALLY: _end_finally, c.DEF: _def, c.PATCH: _patch,
}  # fmt: skip
__all__ = ["EMPTY_MAP", "List", "Machine", "Thrown", "error_value", "trace"]
