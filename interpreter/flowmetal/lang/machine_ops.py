"""Functions of the library that need the machine: they call functions, wait, or ask for steps.

Each takes (machine, fiber, args) and gives a value, or PENDING when the value comes later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.frames import CANCEL_ASKED, Fiber
from flowmetal.lang.functions import (
    OPEN, Atom, Callback, Closure, Delay, FlowHandle, FlowProgram, ForeignStub, MachineOp, MultiFn, Promise, is_function, leaf_function,
)  # fmt: skip
from flowmetal.lang.machine import Machine, Thrown
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Set, Vector, list_of
import flowmetal.lang.primitives  # noqa: F401  fills the tables
from flowmetal.lang.primitives.leaf_calls import is_leaf
from flowmetal.lang.primitives.registry import LOOPS, primitive
from flowmetal.lang.printer import display_str, pr_str
from flowmetal.lang.requests import Mark
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, Var, kw

OPS: dict[tuple[str, str], MachineOp] = {}

Op = Callable[[Machine, Fiber, list[Any]], Any]


def op(ns: str, name: str, low: int, high: int | None, arglists: str, doc: str, example: str = "") -> Callable[[Op], Op]:
    """Registers a machine operation as `ns/name`."""

    def register(fn: Op) -> Op:
        OPS[ns, name] = MachineOp(ns, name, fn, low, high, arglists, doc, example)
        return fn

    return register


# Calling


def _loop(ns: str, name: str) -> None:
    loop, at = LOOPS[ns, name]

    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        f = args[at]
        if type(f) is Closure:
            args[at] = leaf_function(f, fiber.frames[-1].locals[0])
        return loop.fn(*args)

    OPS[ns, name] = MachineOp(ns, name, run, loop.low, loop.high, loop.arglists, loop.doc)


for _key in LOOPS:
    _loop(*_key)


@op("core", "apply", 1, None, "([f & args] )", "Calls f with args, the last of which is a collection that is spread.", "(apply + 1 [2 3]) ;=> 6")
def _apply(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    from flowmetal.lang.primitives.sequences import spread

    f, *rest = args
    return m.invoke(fiber, f, [*rest[:-1], *spread(rest[-1])] if rest else [])


@op("core", "throw", 1, 1, "([error])", "Throws an error made by ex-info, or caught before.")
def _throw(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if not isinstance(args[0], ErrorValue):
        raise LispError(f"throw needs an error made by ex-info, but was given {pr_str(args[0])}", type="type")
    raise Thrown(args[0])


# Atoms


@op("core", "atom", 1, None, "([value])", "A cell in this flow's own state.", "@(atom 1) ;=> 1")
def _atom(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return Atom(args[0])


def _need_atom(a: Any) -> Atom:
    if not isinstance(a, Atom):
        raise LispError(f"expected an atom, but found {pr_str(a)}", type="type")
    return a


@op("core", "reset!", 2, 2, "([atom value])", "Sets an atom; gives the value.", "(reset! (atom 1) 2) ;=> 2")
def _reset(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    _need_atom(args[0]).value = args[1]
    return args[1]


@op("core", "compare-and-set!", 3, 3, "([atom old new])", "Sets an atom if it holds old; whether it did.")
def _compare_and_set(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    a = _need_atom(args[0])
    if a.value is args[1] or a.value == args[1]:
        a.value = args[2]
        return True
    return False


# Delays


@primitive("core", "delay*", "([f])", "A delay of what a function gives.")
def _make_delay(f: Any) -> Delay:
    return Delay(f)


@primitive("core", "delay?", "([x])", "Whether x was made by delay.", "(delay? (delay 1)) ;=> true")
def _is_delay(x: Any) -> bool:
    return isinstance(x, Delay)


@primitive("core", "delay-function*", "([d])", "The function that a delay calls.")
def _delay_function(d: Any) -> Any:
    return d.function


@primitive("core", "set-delay*", "([d value])", "Gives a delay its value.")
def _set_delay(d: Any, value: Any) -> Any:
    d.function, d.value = None, value
    return value


@primitive("core", "realized?", "([x])", "Whether a delay was computed, or a promise is settled, as far as this flow knows.", "(realized? (delay 1)) ;=> false")
def _realized(x: Any) -> bool:
    if isinstance(x, Delay):
        return x.function is None
    if isinstance(x, Promise):
        return x.status != OPEN
    raise LispError(f"realized? needs a delay or a promise, but found {pr_str(x)}", type="type")


# Waiting


@op("core", "deref", 1, 1, "([x])", "What a promise, a flow's handle, an atom or a var holds; waits for it where it must. Also written @x.", "@(atom 1) ;=> 1")
def _deref(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    x = args[0]
    if isinstance(x, Atom):
        return x.value
    if isinstance(x, Delay):
        return x.value if x.function is None else m.call_library(fiber, "compute-delay*", [x])
    if isinstance(x, Var):
        binding = m.definitions.lookup(x.ns, x.name, m.state.pin)
        return binding.value if binding else None
    if isinstance(x, Promise):
        return m.wait(fiber, "value", [m.own(x)])
    inner = getattr(x, "deref", None)
    if inner is not None:
        return inner()
    raise LispError(f"@ needs a promise, a flow, an atom or a var, but found {pr_str(x)}", type="type")


@op("flow", "async*", 1, 1, "([f])", "Calls f in a fiber of its own; its promise. `async` is its macro.")
def _async(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.spawn(args[0])


def _promises(m: Machine, items: Any) -> list[Promise]:
    out = []
    for p in items:
        if not isinstance(p, Promise):
            raise LispError(f"expected a promise, but found {pr_str(p)}", type="type", hint="wrap the expression in (async …)")
        out.append(m.own(p))
    return out


@op("flow", "select*", 1, 1, "([promises])", "Waits for the first settled of a map or vector of promises: [key value]. Others are left.")
def _select(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    x = args[0]
    if isinstance(x, Map):
        keys, values = list(x.keys()), list(x.values())
    elif isinstance(x, (Vector, List)):
        values = list(x)
        keys = list(range(len(values)))
    else:
        raise LispError(f"select needs a map or a vector of promises, but found {pr_str(x)}", type="type")
    if not values:
        raise LispError("select of no promises would wait for ever", type="value")
    return m.wait(fiber, "select", _promises(m, values), keys)


@op("flow", "await-settled*", 1, 1, "([promises])", "Waits until all promises are settled, whatever their outcome.")
def _await_settled(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    open_ = [p for p in _promises(m, args[0]) if p.status == OPEN]
    return m.wait(fiber, "settled", open_) if open_ else None


@op("flow", "cancel-fibers*", 2, 2, "([promises reason])", "Cancels the fibers that settle these promises, and withdraws steps.")
def _cancel_fibers(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    promises = _promises(m, args[0])
    for p in promises:
        for other in list(m.state.fibers.values()):
            if other.promise is p and other is not fiber:
                m.cancel_fiber(other, args[1])
    m.withdraw([p for p in promises if p.op in ("timer", "receive")], args[1])
    return None


@op("flow", "withdraw-receives*", 1, 1, "([promises])", "Gives back what a receive in a select asked for and did not get.")
def _withdraw_receives(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    m.withdraw([p for p in _promises(m, args[0]) if p.op == "receive"], "another promise of the select was first")
    return None


@op("flow", "promise-status", 1, 1, "([p])", "Whether a promise is :open, :done or :failed, as far as this flow knows.")
def _promise_status(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return kw(("open", "done", "failed")[m.own(_promises(m, args)[0]).status])


# Time, chance and identity: recorded


def _instant(ns: str, name: str, low: int, high: int, arglists: str, doc: str) -> None:
    @op(ns, name, low, high, arglists, doc)
    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        request, _ = m.request(fiber, name, "", args, instant=True)
        return request.supplied


_instant("flow", "now", 0, 0, "([])", "The time, recorded: the same after a restart.")
_instant("flow", "rand", 0, 1, "([] [n])", "A random number from 0 up to 1 (or n), recorded.")
_instant("flow", "rand-int", 1, 1, "([n])", "A random integer from 0 up to n, recorded.")
_instant("flow", "random-uuid", 0, 0, "([])", "A random UUID, recorded.")
_instant("flow", "shuffle", 1, 1, "([coll])", "The elements in a random order, recorded.")


@op("flow", "self", 0, 0, "([])", "The handle of the flow that runs this.")
def _self(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return FlowHandle(m.state.flow_id, m.state.program.name)


@op("flow", "parent", 0, 0, "([])", "The handle of the flow that called or started this one with itself as parent; nil without one.")
def _parent(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return FlowHandle(m.state.parent, "") if m.state.parent else None


# Promises of the outside


def _duration(x: Any, what: str) -> Any:
    if isinstance(x, (Duration, Instant)):
        return x
    raise LispError(f'{what} needs a duration such as #dur "10s", but found {pr_str(x)}', type="type")


@op("flow", "timer", 1, 1, "([duration-or-instant])", "A promise that is settled with nil when the time has come.")
def _timer(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    _, promise = m.request(fiber, "timer", "", [_duration(args[0], "timer")])
    return promise


@op("flow", "sleep", 1, 1, "([duration])", "Waits. No upper bound; survives restarts.")
def _sleep(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    _, promise = m.request(fiber, "sleep", "", [_duration(args[0], "sleep")])
    return m.wait(fiber, "value", [promise], owned=True)


@op("flow", "sleep-until", 1, 1, "([instant])", "Waits until an instant.")
def _sleep_until(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if not isinstance(args[0], Instant):
        raise LispError(f"sleep-until needs an instant, but found {pr_str(args[0])}", type="type")
    return _sleep(m, fiber, args)


@op("flow", "callback", 0, 1, "([] [options])", "A promise with an unguessable single-use :url and :token; a POST there settles it.")
def _callback(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    request, _ = m.request(fiber, "callback", "", args, supply=True)
    token, url = request.supplied
    request.key = token
    promise = Callback(request.step, url, token)
    m.state.open[request.step] = promise
    return promise


# Mailbox


@op("flow", "receive", 0, 1, "([] [{:keys [match timeout else]}])", "The next matching message of this flow's mailbox; waits for it.")
def _receive(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    _, promise = m.request(fiber, "receive", "", args)
    return m.wait(fiber, "value", [promise], owned=True)


@op("flow", "receive-promise*", 0, 1, "([] [options])", "The promise of the next matching message: receive inside select.")
def _receive_promise(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.request(fiber, "receive", "", args)[1]


def flow_id_of(x: Any) -> str:
    """The flow that a handle or an id names."""
    if isinstance(x, FlowHandle) and x.flow is not None:
        return x.flow
    if isinstance(x, str) and x:
        return x
    raise LispError(f"expected a flow's handle or id, but found {pr_str(x)}", type="type")


def _on_flow(name: str, low: int, high: int, arglists: str, doc: str) -> None:
    @op("flow", name, low, high, arglists, doc)
    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        target = flow_id_of(args[0])
        _, promise = m.request(fiber, name.rstrip("!"), target, args[1:])
        return m.wait(fiber, "value", [promise], owned=True)


_on_flow("send", 2, 2, "([flow message])", "Puts a message into a flow's mailbox.")
_on_flow("pause!", 1, 2, "([flow] [flow reason])", "Pauses a flow: it records what arrives and consumes nothing.")
_on_flow("resume!", 1, 1, "([flow])", "Lets a paused flow go on.")
_on_flow("cancel!", 1, 2, "([flow] [flow reason])", "Cancels a flow: :flow/cancelled is thrown where it waits.")
_on_flow("terminate!", 1, 2, "([flow] [flow reason])", "Ends a flow at once, without its clean-up.")
_on_flow("status", 1, 1, "([flow])", "A flow's status, as a keyword.")
_on_flow("history", 1, 1, "([flow])", "A flow's events, as a vector of maps.")
_on_flow("state-at", 2, 2, "([flow step])", "A flow as it was when it asked for a step: stack, locals, position, what it waited for.")


@op("flow", "flows", 0, 1, "([] [{:keys [status name limit]}])", "Flows of this store, newest first, as a vector of maps.")
def _flows(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    _, promise = m.request(fiber, "flows", "", args)
    return m.wait(fiber, "value", [promise], owned=True)


# Flows


def _program(f: Any, what: str) -> FlowProgram:
    if not isinstance(f, FlowProgram):
        hint = "define it with defflow" if is_function(f) else None
        raise LispError(f"{what} needs a program made by defflow, but found {pr_str(f)}", type="type", hint=hint)
    return f


@op("flow", "start", 1, None, "([f & args])", "Begins a flow; its handle, at once.")
def _start(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return _begin(m, fiber, EMPTY_MAP, _program(args[0], "start"), args[1:])


@op("flow", "start-with", 2, None, "([options f & args])", "Begins a flow with options: :id, :tags, :with-parent.")
def _start_with(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if not isinstance(args[0], Map):
        raise LispError(f"start-with needs a map of options, but found {pr_str(args[0])}", type="type")
    return _begin(m, fiber, args[0], _program(args[1], "start-with"), args[2:])


def _begin(m: Machine, fiber: Fiber, options: Map, f: FlowProgram, args: list[Any]) -> FlowHandle:
    request, _ = m.request(fiber, "start", f.full_name, args, options=options, instant=True)
    request.child = request.supplied
    return FlowHandle(request.supplied, f.full_name)


@op("core", "http-request*", 1, 1, "([options])", "Sends an HTTP request; the functions of http are made of it.")
def _http_request(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = args[0]
    url = options.get(kw("url"))
    if not isinstance(url, str):
        raise LispError(f"an http request needs a URL as a string, but found {pr_str(url)}", type="type")
    method = options.get(kw("method"))
    name = "get" if method is None else method.name if isinstance(method, Keyword) else str(method).lower()
    _, promise = m.request(fiber, f"http/{name}", url, args)
    return m.wait(fiber, "value", [promise], owned=True)


@op("flow", "call", 1, 3, "([name] [name args] [name args options])", "Calls a foreign function by name.")
def _call(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    name = display_str(args[0]).lstrip(":")
    options = args[2] if len(args) > 2 else EMPTY_MAP
    _, promise = m.request(fiber, "foreign", name, list(args[1] if len(args) > 1 and args[1] is not None else []), options=options)
    return m.wait(fiber, "value", [promise], owned=True)


# The history


def _mark(name: str, kind: str, arglists: str, doc: str) -> None:
    @op("flow", name, 1, 1, arglists, doc)
    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        m.outbox.append(Mark(kind, fiber.id, args[0]))
        return None


_mark("log", "log", "([data])", "Writes data into the flow's history.")
_mark("checkpoint", "checkpoint", "([label])", "Marks a place in the flow's history.")
_mark("set-info!", "info", "([data])", "What the flow says of itself: the column info of its row.")


def _printer(name: str, show: Callable[[Any], str], end: str) -> None:
    @op("core", name, 0, None, "([& values])", f"Prints values{' and a newline' if end else ''}.")
    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        m.outbox.append(Mark("output", fiber.id, " ".join(show(a) for a in args) + end))
        return None


_printer("print", display_str, "")
_printer("println", display_str, "\n")
_printer("pr", pr_str, "")
_printer("prn", pr_str, "\n")


@op("core", "newline", 0, 0, "([])", "Prints a newline.")
def _newline(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    m.outbox.append(Mark("output", fiber.id, "\n"))
    return None


@op("core", "flush", 0, 0, "([])", "Does nothing: what is printed is shown when it is on disk.")
def _flush(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return None


@op("flow", "check-cancel*", 0, 0, "([])", "Throws :flow/cancelled when this fiber was asked to end.")
def _check_cancel(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if fiber.cancel == CANCEL_ASKED:
        m._throw_cancel(fiber)
    return None


# Makers that the definition forms and templates expand to


@primitive("core", "flow-program", "([ns name f])", "What defflow makes.")
def _flow_program(ns: Any, name: Any, f: Any) -> Any:
    return FlowProgram(ns, name, f)


@primitive("core", "foreign-stub", "([name params options])", "What defforeign makes.")
def _foreign_stub(name: Any, params: Any, options: Any) -> Any:
    return ForeignStub(name, params, options)


@primitive("core", "multi-fn", "([name dispatch default])", "What defmulti makes.")
def _multi_fn(name: Any, dispatch: Any, default: Any) -> Any:
    return MultiFn(name, dispatch, default, EMPTY_MAP)


def _need_multi(x: Any) -> MultiFn:
    if not isinstance(x, MultiFn):
        raise LispError(f"expected a multimethod, but found {pr_str(x)}", type="type")
    return x


@primitive("core", "add-method", "([multi value f])", "The multimethod with one method more; defmethod defines it.")
def _add_method(multi: Any, value: Any, f: Any) -> Any:
    multi = _need_multi(multi)
    return MultiFn(multi.name, multi.dispatch, multi.default, multi.methods.assoc(value, f))


@primitive("core", "get-method", "([multi value])", "The method for a dispatch value, or nil.")
def _get_method(multi: Any, value: Any) -> Any:
    return _need_multi(multi).method(value)


@primitive("core", "find-method*", "([multi value])", "The method for a dispatch value; an error where there is none.")
def _find_method(multi: Any, value: Any) -> Any:
    found = _need_multi(multi).method(value)
    if found is None:
        raise LispError(f"no method of {multi.name} for the dispatch value {pr_str(value)}", type="value")
    return found


@primitive("core", "methods", "([multi])", "The methods of a multimethod, by dispatch value.")
def _methods(multi: Any) -> Any:
    return _need_multi(multi).methods


@primitive("core", "dispatch-of*", "([multi])", "The dispatch function of a multimethod.")
def _dispatch_of(multi: Any) -> Any:
    return _need_multi(multi).dispatch


@primitive("core", "template-list", "([coll])", "The list that a syntax-quoted list becomes.")
def _template_list(coll: Any) -> Any:
    return list_of(coll if coll is not None else ())


@primitive("core", "destructured-map", "([x])", "What a map pattern takes apart: key-value arguments become a map.")
def _destructured_map(x: Any) -> Any:
    if isinstance(x, List):
        items = list(x)
        if len(items) == 1 and isinstance(items[0], Map):
            return items[0]
        tail = EMPTY_MAP
        if len(items) % 2 and isinstance(items[-1], Map):
            tail = items.pop()
        if len(items) % 2:
            raise LispError(f"no value given for the key {pr_str(items[-1])}", type="value")
        result = Map.of(zip(items[::2], items[1::2], strict=True))
        for k, v in tail.items():
            result = result.assoc(k, v)
        return result
    return x


@primitive("core", "leaf?", "([f n])", "Whether f with n arguments cannot suspend: a library function, keyword, map, set, vector, or a function of such calls only.")
def _leaf(f: Any, n: Any) -> Any:
    if type(f) is Closure:
        arity = f.code.arity(n)
        return arity is not None and arity.leaf is not None
    return is_leaf(f)


@primitive("core", "fn?", "([x])", "Whether x is a function.", "(fn? inc) ;=> true")
def _fn(x: Any) -> Any:
    return is_function(x)


@primitive("core", "ifn?", "([x])", "Whether x can be called.", "(ifn? :a) ;=> true")
def _ifn(x: Any) -> Any:
    return is_function(x) or isinstance(x, (Keyword, Map, Set, Vector, Var)) or is_leaf(x)


@primitive("flow", "promise?", "([x])", "Whether x is a promise.")
def _is_promise(x: Any) -> Any:
    return isinstance(x, Promise)
