"""The machine: (state, outcome) → (state', requests). No I/O, no clock, no threads.

`run` takes instructions until every fiber waits or the fuel is burnt; what the program asked for
stands in `outbox`. `settle`, `defined` and `cancel` bring outcomes in, one at a time, in the order
of the log. What a program may see of time and chance comes through `supply`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang import compiler as c
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.failing import fails_flow
from flowmetal.lang.fibers import Fibers
from flowmetal.lang.frames import Fiber, Frame, State
from flowmetal.lang.functions import (
    PENDING,
    Closure,
    FlowProgram,
    ForeignStub,
    MachineOp,
    MultiFn,
    Promise,
    arity_error,
    locals_of,
)  # fmt: skip
from flowmetal.lang.instructions import RULES
from flowmetal.lang.origin import Origin
from flowmetal.lang.persistent import EMPTY_MAP, Map, Vector, seq_of
from flowmetal.lang.primitives.leaf_calls import call_leaf, call_primitive, is_leaf
from flowmetal.lang.primitives.reducibles import AGAIN, Unrealized
from flowmetal.lang.primitives.registry import Primitive, plural
from flowmetal.lang.printer import pr_str
from flowmetal.lang.python_tier import TURN, Abandon, enter, enter_loop, turn
from flowmetal.lang.requests import Request
from flowmetal.lang.thrown import Held, StopAt, error_value, trace
from flowmetal.lang.values import ErrorValue, Var, kw

MAX_FRAMES = 10_000
TURN_CHECK = 500
"""Transitions between two looks at what the second tier has left of its turn."""
UNKNOWN, IDEMPOTENCY_KEY, TIMEOUT = kw("unknown"), kw("idempotency-key"), kw("timeout")
UNDOABLE = frozenset({"foreign", "call", "sh", "sql/query"})
"""Besides HTTP requests, the steps that `undoable` may know by their key."""


class Machine(Fibers):
    """Runs one flow's state. `next_form` compiles the next form of a cell."""

    __slots__ = ("admit", "definitions", "hold", "next_form", "origin", "stop_at", "supply", "tiers")

    def __init__(
        self, definitions: Definitions, state: State, supply: Callable[[Request], Any],
        next_form: Callable[[State], Closure | None] | None = None, admit: Callable[[Request], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(state)
        self.definitions = definitions
        self.supply = supply
        self.next_form = next_form
        self.admit = admit
        """Called with each request before it is made; what it raises is thrown into the program."""
        self.tiers = True
        """Whether pure code may run as Python functions; for tests that compare both ways."""
        self.hold = False
        """Whether `run` raises `Held` for an error that would end the flow, before anything is unwound."""
        self.origin = Origin()
        """Where the flow's past comes from, when it is a fork."""
        self.stop_at: int | None = None
        """A step at whose request `run` raises `StopAt`: to look at the state there."""

    # Beginning

    def begin(self) -> None:
        """Makes the first fiber."""
        state = self.state
        fiber = self.new_fiber()
        state.main = fiber.promise
        program = state.program
        if program.body is not None:
            self._begin_call(fiber, program.body, list(program.args))

    def _begin_call(self, fiber: Fiber, f: Any, args: list[Any]) -> None:
        self.fiber = fiber
        try:
            if type(f) is Closure:  # nothing of it runs before its fiber's turn
                self._push_frame(fiber, f, args)
                return
            value = self.invoke(fiber, f, args)
        except Exception as e:  # noqa: BLE001  whatever it is, it is the program's
            fiber.error = error_value(e)
            return
        if value is not PENDING:
            fiber.value = value

    def spawn(self, f: Any) -> Promise:
        """A new fiber that calls `f`, at the end of the run queue; its promise."""
        current = self.fiber
        fiber = self.new_fiber()
        if current is not None:
            fiber.saga, fiber.nursery, fiber.undoing = current.saga, current.nursery, current.undoing
        self._begin_call(fiber, f, [])
        self.fiber = current
        return fiber.promise

    def spawn_library(self, ns: str, name: str, args: list[Any]) -> Promise:
        """A new fiber that calls a function of the prelude."""
        helper = self.definitions.lookup(ns, name, self.state.pin)
        assert helper is not None
        fiber = self.new_fiber()
        self._begin_call(fiber, helper.value, args)
        self.fiber = None
        return fiber.promise

    # Running

    def run(self, fuel: int) -> int:
        """Runs ready fibers until none is ready or the fuel is burnt; the fuel that is left."""
        state = self.state
        turn.left = TURN
        while state.ready and fuel > 0:
            fiber = state.fibers.get(state.ready[0])
            if fiber is None or fiber.wait is not None:
                state.ready.popleft()
                continue
            self.fiber = fiber
            part = min(fuel, TURN_CHECK)
            fuel += self._run_fiber(fiber, part) - part
            if turn.left <= 0:
                return 0
            if fiber.wait is not None or fiber.id not in state.fibers:
                state.ready.popleft()
        self.finish()
        return fuel

    def _run_fiber(self, fiber: Fiber, fuel: int) -> int:
        while fuel > 0 and fiber.wait is None:
            if fiber.error is not None:
                error = self._unwind(fiber, fiber.error)
                if error is not None:
                    self.end_fiber(fiber, None, error)
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
                except Exception as e:  # noqa: BLE001  it becomes the program's error, whatever it is
                    fiber.error = error_value(e, fiber.frames[-1].span if fiber.frames else None)
                    fuel -= 1
        return fuel

    def _next_form(self, fiber: Fiber) -> bool:
        """Goes on with the next form of a cell; False when the fiber has ended."""
        value, fiber.value = fiber.value, None
        if fiber.promise is self.state.main and self.next_form is not None:
            try:
                closure = self.next_form(self.state)
            except Exception as e:  # noqa: BLE001  whatever a text may bring about is an error of the program
                fiber.error = error_value(e)
                return True
            if closure is not None:
                self._begin_call(fiber, closure, [])
                return True
        self.end_fiber(fiber, value, None)
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
                elif op == 7:  # RETURN
                    fiber.value = stack.pop()
                    frames.pop()
                    break
                elif RULES[op](self, fiber, frame, ins):
                    break
            if fiber.wait is not None:
                return fuel
        return fuel

    # Calls

    def invoke(self, fiber: Fiber, f: Any, args: list[Any]) -> Any:
        """Calls `f`: gives its value, or PENDING when a frame was pushed or the fiber waits."""
        if type(f) is Closure:
            value = self._without_frame(fiber, f, args)
            if value is not PENDING:
                return value
            self._push_frame(fiber, f, args)
            return PENDING
        if type(f) is Primitive:
            return call_primitive(f, args)
        if type(f) is MachineOp:
            if len(args) < f.low or (f.high is not None and len(args) > f.high):
                raise LispError(f"{f.name} was given {plural(str(len(args)))}: it takes {f.arglists}", type="arity")
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

    def _without_frame(self, fiber: Fiber, f: Closure, args: list[Any]) -> Any:
        """Calls a function that is a leaf, or pure as far as the second tier sees; PENDING where it needs a frame.

        What fails here runs again in a frame, so that the error has its place in the stack.
        """
        arity = f.code.arity(len(args))
        if arity is None:
            raise arity_error(f, len(args))
        tier = arity.tier if self.tiers else None
        if tier is not None and (tier.function or tier.ready(arity)) and turn.left > 0:
            try:
                return enter(tier, arity, self._version(fiber, f), f, args)
            except Abandon:
                return PENDING
        if arity.leaf is not None:
            try:
                return arity.leaf(locals_of(f, arity, args, self._version(fiber, f)))
            except Exception:  # noqa: BLE001  it is raised again in the frame
                return PENDING
        return PENDING

    def go_round(self, fiber: Fiber, frame: Frame, at: int, slots: list[int], values: list[Any]) -> bool:
        """The next turn of a loop, with which the second tier goes on where it can; whether the frame has ended."""
        for slot, value in zip(slots, values, strict=True):
            frame.locals[slot] = value
        frame.pc = at
        tier = frame.arity.tier
        loop = tier.loop(frame.arity, at) if tier is not None and self.tiers and turn.left > 0 else None
        if tier is None or loop is None:
            return False
        try:
            fiber.value = enter_loop(tier, loop, frame.locals)
        except Abandon:
            return False
        fiber.frames.pop()
        return True

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
        if fiber.undoing is not None and not fiber.shield and (op in UNDOABLE or op.startswith("http/")):
            known, asked, awaited = fiber.undoing
            known.value, asked.value = Map.of([(UNKNOWN, self._key_of(request))]), Vector.of([request.step, 0])
            awaited.value = request.step if TIMEOUT in options_of_call(request) else None
        promise = Promise(state.steps, None, op)
        if not instant:
            state.open[promise.id] = promise
        return request, promise

    def key(self, step: int) -> str:
        """The idempotency key of a step, unless the program gives one."""
        return f"{self.origin.run_of(step, self.state.run)}/{step}"

    def _key_of(self, request: Request) -> Any:
        """The idempotency key of a call."""
        given = options_of_call(request).get(IDEMPOTENCY_KEY)
        return self.key(request.step) if given is None else given

    def _place(self, fiber: Fiber) -> tuple[Any, str]:
        """The innermost place in the user's own source."""
        for frame in reversed(fiber.frames):
            if frame.arity.code.root.prelude is None and frame.span is not None:
                return frame.span, frame.arity.code.name
        return (fiber.frames[-1].span, fiber.frames[-1].arity.code.name) if fiber.frames else (None, "")

    def ask(self, fiber: Fiber, op: str, target: str, args: list[Any], *, options: Map = EMPTY_MAP) -> Any:
        """Makes a request and waits for its outcome; a cancel that was asked for comes before the request."""
        self.check_cancel(fiber)
        _, promise = self.request(fiber, op, target, args, options=options)
        return self.wait(fiber, "value", [promise], owned=True)

    def call_flow(self, fiber: Fiber, f: FlowProgram, args: list[Any]) -> Any:
        """Runs a program as a child and waits for its result."""
        self.check_cancel(fiber)
        request, promise = self.request(fiber, "call", f.full_name, args, supply=True)
        self.bear(fiber, request, f)
        return self.wait(fiber, "value", [promise], owned=True)

    def bear(self, fiber: Fiber, request: Request, f: FlowProgram) -> None:
        """Notes which flow a request begins, and under which definitions: those of the code that asks, or the program's
        own where it came from another flow."""
        request.child = request.supplied
        request.pin = self._version(fiber, f.body)

    def call_foreign(self, fiber: Fiber, f: ForeignStub, args: list[Any]) -> Any:
        """Asks for a foreign function and waits for its answer."""
        return self.ask(fiber, "foreign", f.name, args, options=f.options)

    def _unwind(self, fiber: Fiber, error: ErrorValue) -> ErrorValue | None:
        """Goes to the innermost handler; gives the error back, with its trace, where there is none."""
        frames = fiber.frames
        if not error.trace:
            own = error.span is not None and not error.span.source.library
            place = error.span if own else self._place(fiber)[0]
            error = ErrorValue(error.type, error.message, error.data, error.cause, place, trace(fiber))
        if self.hold and fails_flow(self.state, fiber, error):
            fiber.error = error
            raise Held(error)
        fiber.value, fiber.error = PENDING, None
        while frames:
            frame = frames[-1]
            if frame.handlers:
                frame.pc, depth, slot, fiber.shield = frame.handlers.pop()
                del frame.stack[depth:]
                frame.locals[slot] = error
                return None
            frames.pop()
        return error


def _takes_value(ins: tuple[Any, ...]) -> bool:
    return ins[0] in (c.CALL, c.CALL_LEAVES, c.DEF)


def options_of_call(request: Request) -> Map:
    """The options of a call; those of an HTTP request are its argument."""
    options = request.args[0] if request.op.startswith("http/") and request.args else request.options
    return options if isinstance(options, Map) else EMPTY_MAP
