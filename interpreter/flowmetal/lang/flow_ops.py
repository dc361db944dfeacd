"""The operations of flows: promises and fibers, steps, the mailbox, other flows.

Each takes (machine, fiber, args) and gives a value, or PENDING when the value comes later. What is
wrong with the arguments is said before the step has its number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.frames import Fiber
from flowmetal.lang.functions import Callback, FlowHandle, FlowProgram, Promise, is_function
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Set, Vector
from flowmetal.lang.primitives.sequences import spread
from flowmetal.lang.printer import display_str, pr_str
from flowmetal.lang.requests import FLOW_ID, FLOW_ID_TEXT
from flowmetal.lang.secrets import Secret
from flowmetal.lang.values import Duration, Instant, Keyword, Symbol, kw

# Promises and fibers


@op("flow", "async*", 1, 1, "([f])", "Calls f in a fiber of its own; its promise. `async` is its macro.")
def _async(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    promise = m.spawn(args[0])
    m.adopt(fiber, promise)
    return promise


@op("flow", "spawn*", 1, 1, "([f])", "async* for those who see to the fiber's end themselves: no nursery waits for it.")
def _spawn(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.spawn(args[0])


def _promises(m: Machine, items: Any) -> list[Promise]:
    out = []
    if not isinstance(items, (Vector, List, Set, list, type(None))):
        raise LispError(f"expected a vector of promises, but found {pr_str(items)}", type="type")
    for p in items or ():
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
    return m.wait(fiber, "settled", _promises(m, args[0]))


@op("flow", "end-fibers*", 2, 2, "([promises reason])", "Cancels the fibers that settle these promises, and waits for their clean-up.")
def _end_fibers(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    fibers = m.fibers_of(_promises(m, args[0]))
    for other in fibers:
        m.cancel_fiber(other, args[1])
    return m.wait(fiber, "settled", [f.promise for f in fibers])


@op("flow", "all*", 1, 1, "([promises])", "Waits for the values of all promises, as a vector, or for the first failure, which it throws.")
def _all(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.wait(fiber, "all", _promises(m, args[0]))


@op("flow", "any*", 1, 1, "([promises])", "Waits for the first value of promises; throws the last failure when all have failed.")
def _any(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    promises = _promises(m, args[0])
    if not promises:
        raise LispError("any of no promises has no value", type="value")
    return m.wait(fiber, "any", promises)


@op("flow", "withdraw*", 3, 3, "([kind promises reason])", "Withdraws the timers or receives among promises: nobody waits for them any more.")
def _withdraw(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    m.withdraw([p for p in _promises(m, args[1]) if p.op == args[0]], args[2])
    return None


@op("flow", "promise-status", 1, 1, "([p])", "Whether a promise is :open, :done or :failed, recorded.")
def _promise_status(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    (p,) = _promises(m, args)
    return m.ask(fiber, "promise-status", p.flow or m.state.flow_id, [p.id])


# Time, chance and identity: recorded

_Check = Callable[[list[Any]], list[Any]]


def _instant(name: str, low: int, high: int, arglists: str, doc: str, check: _Check = lambda args: args) -> None:
    @op("flow", name, low, high, arglists, doc)
    def run(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
        request, _ = m.request(fiber, name, "", check(args), instant=True)
        return request.supplied


def _number(args: list[Any]) -> list[Any]:
    if args and type(args[0]) not in (int, float):
        raise LispError(f"rand needs a number, but found {pr_str(args[0])}", type="type")
    return args


def _bound(args: list[Any]) -> list[Any]:
    if type(args[0]) is not int or args[0] <= 0:
        raise LispError(f"rand-int needs a positive integer, but found {pr_str(args[0])}", type="value")
    return args


def _shuffled(coll: Any) -> Vector:
    if isinstance(coll, (Vector, List, Set)):
        return Vector.of(coll)
    raise LispError(f"shuffle needs a list, vector or set, but found {pr_str(coll)}", type="type")


_instant("now", 0, 0, "([])", "The time, recorded: the same after a restart.")
_instant("rand", 0, 1, "([] [n])", "A random number from 0 up to 1 (or n), recorded.", _number)
_instant("rand-int", 1, 1, "([n])", "A random integer from 0 up to n, recorded.", _bound)
_instant("random-uuid", 0, 0, "([])", "A random UUID, recorded.")
_instant("shuffle", 1, 1, "([coll])", "The elements in a random order, recorded.", lambda args: [_shuffled(args[0])])


@op("flow", "self", 0, 0, "([])", "The handle of the flow that runs this.")
def _self(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return FlowHandle(m.state.flow_id, m.state.program.name)


@op("flow", "parent", 0, 0, "([])", "The handle of the flow that called or started this one with itself as parent; nil without one.")
def _parent(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return FlowHandle(m.state.parent, "") if m.state.parent else None


# Promises of the outside


def need_when(x: Any, what: str) -> Any:
    """`x`, which must be a duration or an instant."""
    if isinstance(x, (Duration, Instant)):
        return x
    raise LispError(f'{what} needs a duration such as #dur "10s", but found {pr_str(x)}', type="type")


@op("flow", "timer", 1, 1, "([duration-or-instant])", "A promise that is settled with nil when the time has come.")
def _timer(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    _, promise = m.request(fiber, "timer", "", [need_when(args[0], "timer")])
    return promise


@op("flow", "sleep", 1, 1, "([duration])", "Waits. No upper bound; survives restarts.")
def _sleep(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.ask(fiber, "sleep", "", [need_when(args[0], "sleep")])


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


def options_of(x: Any, known: tuple[str, ...], what: str) -> Map:
    """A map of options; a name that is not known is an error, not a silence."""
    if not isinstance(x, Map):
        raise LispError(f"{what} takes a map of options, but found {pr_str(x)}", type="type")
    for key in x.keys():
        if not (isinstance(key, Keyword) and key.ns is None and key.name in known):
            names = " ".join(f":{name}" for name in known)
            raise LispError(f"{what} does not know the option {pr_str(key)}; it has {names}", type="value")
    return x


# Mailbox


def _receive_args(args: list[Any]) -> list[Any]:
    if args and args[0] is not None:
        options = options_of(args[0], ("match", "timeout", "else"), "receive")
        if kw("timeout") in options:
            need_when(options.get(kw("timeout")), "the :timeout of receive")
    return args


@op("flow", "receive", 0, 1, "([] [{:keys [match timeout else]}])", "The next matching message of this flow's mailbox; waits for it.")
def _receive(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.ask(fiber, "receive", "", _receive_args(args))


@op("flow", "receive-promise*", 0, 1, "([] [options])", "The promise of the next matching message: receive inside select.")
def _receive_promise(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.request(fiber, "receive", "", _receive_args(args))[1]


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
        return m.ask(fiber, name.rstrip("!"), flow_id_of(args[0]), args[1:])


_on_flow("send", 2, 2, "([flow message])", "Puts a message into a flow's mailbox.")
_on_flow("pause!", 1, 2, "([flow] [flow reason])", "Pauses a flow: it records what arrives and consumes nothing.")
_on_flow("resume!", 1, 1, "([flow])", "Lets a paused flow go on.")
_on_flow("step!", 1, 1, "([flow])", "Lets a paused flow go on to its next step, where it is paused again; of what came meanwhile it takes one outcome.")
_on_flow(
    "retry!", 1, 2, "([flow] [flow reason])",
    "Lets a flow that has failed, or is paused where it failed, go on: the step that failed is asked anew, under its own idempotency key.",
)  # fmt: skip
_on_flow("cancel!", 1, 2, "([flow] [flow reason])", "Cancels a flow: :flow/cancelled is thrown where it waits.")
_on_flow("terminate!", 1, 2, "([flow] [flow reason])", "Ends a flow at once, without its clean-up.")
_on_flow("status", 1, 1, "([flow])", "A flow's status, as a keyword.")
_on_flow(
    "state-diff", 3, 3, "([flow step step])",
    "What changed in a flow from one step to another (nil is now): frames left and entered, locals old and new, promises opened and settled.",
)  # fmt: skip


@op(
    "flow", "state-at", 2, 3, "([flow step] [flow step {:keys [transition]}])",
    "A flow as it was when it asked for a step: stack, locals, position, what it waited for. With :transition, after so many transitions from there.",
)  # fmt: skip
def _state_at(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if len(args) > 2 and args[2] is not None:
        options = options_of(args[2], ("transition",), "state-at")
        if type(options.get(kw("transition"), 0)) is not int:
            raise LispError(f"the :transition of state-at is a number, not {pr_str(options.get(kw('transition')))}", type="type")
    return m.ask(fiber, "state-at", flow_id_of(args[0]), args[1:])


def _need_count(options: Map, name: str, what: str) -> None:
    given = options.get(kw(name), 1)
    if type(given) is not int or given < 1:
        raise LispError(f"the :{name} of {what} must be a positive integer, but is {pr_str(given)}", type="value")


@op(
    "flow", "history", 1, 2, "([flow] [flow {:keys [kind after limit]}])",
    "A flow's events, in order, as a vector of maps: of a :kind (or those in a vector or set), :after a seq, no more than :limit.",
)  # fmt: skip
def _history(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if len(args) > 1 and args[1] is not None:
        options = options_of(args[1], ("kind", "after", "limit"), "history")
        _need_count(options, "limit", "history")
        _need_count(options, "after", "history")
    return m.ask(fiber, "history", flow_id_of(args[0]), args[1:])


@op(
    "flow", "flows", 0, 1, "([] [{:keys [status name kind parent tags limit]}])",
    "Flows of this store, newest first, as a vector of maps: of a :status, a :name, a :kind, a :parent, whose :tags match a pattern; 100, or :limit.",
)  # fmt: skip
def _flows(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if args and args[0] is not None:
        options = options_of(args[0], ("status", "name", "kind", "parent", "tags", "limit"), "flows")
        _need_count(options, "limit", "flows")
        if options.get(kw("parent")) is not None:
            args = [options.assoc(kw("parent"), flow_id_of(options.get(kw("parent"))))]
    return m.ask(fiber, "flows", "", args)


# Flows


def _program(f: Any, what: str) -> FlowProgram:
    if not isinstance(f, FlowProgram):
        hint = "define it with defflow" if is_function(f) else None
        raise LispError(f"{what} needs a program made by defflow, but found {pr_str(f)}", type="type", hint=hint)
    return f


@op("flow", "start", 1, None, "([f & args])", "Begins a flow; its handle, at once.")
def _start(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return _begin(m, fiber, EMPTY_MAP, _program(args[0], "start"), args[1:])


START_OPTIONS = ("id", "tags", "at", "queue", "priority", "timeout", "on-failure", "with-parent")


@op(
    "flow", "start-with", 2, None, "([options f & args])",
    "Begins a flow with options: :id, :tags, :at (an instant or a duration from now), :queue and :priority in it, "
    ":timeout (of the whole flow, from its beginning), :on-failure :pause (it stops where it failed, until retry! or resume!), :with-parent.",
)  # fmt: skip
def _start_with(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = options_of(args[0], START_OPTIONS, "start-with")
    check_start_options(options)
    return _begin(m, fiber, options, _program(args[1], "start-with"), args[2:])


def check_start_options(options: Map) -> None:
    """Raises LispError for options of `start-with` that mean nothing."""
    if not isinstance(options.get(kw("timeout"), Duration(0)), Duration):
        raise LispError(f"the :timeout of start-with must be a duration, but is {pr_str(options.get(kw('timeout')))}", type="type")
    if options.get(kw("on-failure")) not in (None, kw("pause")):
        raise LispError(f"the :on-failure of start-with can be :pause, but is {pr_str(options.get(kw('on-failure')))}", type="value")
    queue = options.get(kw("queue"))
    if queue is not None and not (isinstance(queue, (Keyword, Symbol)) or (isinstance(queue, str) and queue)):
        raise LispError(f"the :queue of start-with is named by a string or a keyword, not by {pr_str(queue)}", type="type")
    if type(options.get(kw("priority"), 0)) is not int:
        raise LispError(f"the :priority of start-with must be an integer, but is {pr_str(options.get(kw('priority')))}", type="value")
    given = options.get(kw("id"))
    if given is not None and not (isinstance(given, str) and FLOW_ID.fullmatch(given)):
        raise LispError(f"{FLOW_ID_TEXT}, not {pr_str(given)[:80]}", type="value")
    if kw("at") in options:
        need_when(options.get(kw("at")), "the :at of start-with")


def _begin(m: Machine, fiber: Fiber, options: Map, f: FlowProgram, args: list[Any]) -> FlowHandle:
    if fiber.nursery is not None:
        options = options.assoc(kw("with-parent"), True)
    request, _ = m.request(fiber, "start", f.full_name, args, options=options, instant=True)
    m.bear(fiber, request, f)
    handle = FlowHandle(request.supplied, f.full_name)
    m.adopt(fiber, handle)
    return handle


# Functions of the outside


@op("core", "http-request*", 1, 1, "([options])", "Sends an HTTP request; the functions of http are made of it.")
def _http_request(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = args[0]
    url = options.get(kw("url")) if isinstance(options, Map) else None
    if isinstance(url, Secret):
        url = url.to_plain()
    if not isinstance(url, str):
        raise LispError(f"an http request needs a URL as a string, but found {pr_str(url)}", type="type")
    method = options.get(kw("method"))
    name = "get" if method is None else method.name if isinstance(method, Keyword) else display_str(method).lower()
    return m.ask(fiber, f"http/{name}", url, args)


CALL_OPTIONS = ("retry", "timeout", "attempt-timeout", "idempotency-key", "queue", "priority", "at-most-once")
"""What the options of a stub and of `call` may be."""


@op("flow", "call", 1, 3, "([name] [name args] [name args options])", "Calls a foreign function by name. Options are those of defforeign.")
def _call(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    name = display_str(args[0]).lstrip(":")
    options = options_of(args[2], CALL_OPTIONS, "call") if len(args) > 2 and args[2] is not None else EMPTY_MAP
    return m.ask(fiber, "foreign", name, list(spread(args[1])) if len(args) > 1 and args[1] is not None else [], options=options)
