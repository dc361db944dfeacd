"""Values and machine states to text: the half of the codec that writes.

In: a value or a state. Out: a document, as `codec` describes it. A rule a kind, in the table at the end.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang import functions as f
from flowmetal.lang.definitions import LINE_BITS
from flowmetal.lang.frames import Fiber, Frame, Program, State, Wait
from flowmetal.lang.leaves import Pinned
from flowmetal.lang.persistent import Chain, Cons, Link, Map, Seq, Set, Vector
from flowmetal.lang.primitives.reducibles import AGAIN, END, Reduced, Reducible
from flowmetal.lang.primitives.registry import Primitive
from flowmetal.lang.primitives.transients import Transient
from flowmetal.lang.secrets import Secret
from flowmetal.lang.sorted import SortedMap, SortedSet
from flowmetal.lang.spans import Span
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, Regex, Symbol, Var, kw

FORMAT = 1
_SCALAR = frozenset({type(None), bool, int})
_INLINE_TEXT = 64
POSITION = (1 << LINE_BITS) - 1
_SHOWN_LINE = 200
"""How much of a source line is kept with an error that stands in it."""


class Encoder:
    """Encodes one document. `flow` is the flow that owns promises met on the way; None for a state."""

    def __init__(self, flow: str | None, pin: int | None) -> None:
        self.flow = flow
        self.pin = pin
        self.positions = False
        """Whether a version is written without its line, so that it is the same in every store."""
        self.memo: dict[Any, list[int]] = {}
        self.alive: list[Any] = []
        self.nodes: list[Any] = []
        self.todo: deque[tuple[int, Any]] = deque()

    def version(self, number: Any) -> Any:
        """A version as it is written."""
        return number & POSITION if self.positions and number is not None else number

    def ref(self, x: Any) -> Any:
        """What stands for `x` inside a node."""
        kind = type(x)
        if kind in _SCALAR or (kind is str and len(x) <= _INLINE_TEXT):
            return x
        known = self.memo.get(id(x))
        if known is not None:
            return known
        index = len(self.nodes)
        self.nodes.append(None)
        self.memo[id(x)] = reference = [index]
        self.alive.append(x)
        self.todo.append((index, x))
        return reference

    def finish(self, x: Any) -> str:
        """The document of `x`."""
        root = self.ref(x)
        while self.todo:
            index, node = self.todo.popleft()
            rule = _ENCODE.get(type(node))
            if rule is None:
                raise LispError(f"{type(node).__name__} cannot be stored", type="type")
            payload = rule(self, index, node)
            meta = getattr(node, "meta", None)
            if meta is not None and payload[0] != "fn":
                payload = ["^", self.ref(meta), payload]
            self.nodes[index] = payload
        return json.dumps([FORMAT, root, self.nodes], separators=(",", ":"), allow_nan=False)


def encode_value(x: Any, flow: str, pin: int) -> str:
    """A value as it leaves a flow: promises and closures know where they came from."""
    return Encoder(flow, pin).finish(x)


def encode_question(x: Any, flow: str) -> str:
    """A value as it is compared: the same in every store to which its flow may be moved."""
    encoder = Encoder(flow, 0)
    encoder.positions = True
    return encoder.finish(x)


def encode_state(state: State) -> str:
    """A machine state, exactly."""
    return Encoder(None, None).finish(state)


# Encoding rules: (encoder, index, value) → node


def _float(e: Encoder, i: int, x: float) -> list[Any]:
    return ["f", repr(x)]


def _vector(e: Encoder, i: int, x: Vector) -> list[Any]:
    return ["v", *[e.ref(y) for y in x]]


def _chain(e: Encoder, i: int, x: Chain) -> list[Any]:
    if x._rest is None:
        return ["e"]
    kind = type(x)
    items: list[Any] = []
    node: Any = x
    while type(node) is kind and node._rest is not None:
        if items:
            if node.meta is not None or id(node) in e.memo:
                break
            e.memo[id(node)] = [i, len(items)]
        items.append(e.ref(node._first))
        node = node._rest
    return ["l" if kind is Cons else "k", e.ref(node), *items]


def _seq(e: Encoder, i: int, x: Seq) -> list[Any]:
    if x._count <= 32:
        return ["q", *[e.ref(y) for y in x]]
    return ["Q", e.ref(_Shared.of(e, x._items)), x._start, x._count]


class _Shared:
    """An array that several windows look at."""

    __slots__ = ("items",)

    def __init__(self, items: Any) -> None:
        self.items = items

    @staticmethod
    def of(e: Encoder, items: Any) -> _Shared:
        known: dict[int, _Shared] = e.__dict__.setdefault("arrays", {})
        if id(items) not in known:
            known[id(items)] = _Shared(items)
        return known[id(items)]


def _map(e: Encoder, i: int, x: Map) -> list[Any]:
    return ["m", *[e.ref(y) for pair in x.items() for y in pair]]


def _shown_place(span: Span) -> list[Any]:
    """A span with the line that it is shown in."""
    line = span.source.line(span.line)[:_SHOWN_LINE]
    end = span.end_column if span.end_line == span.line else len(line) + 1
    return [span.source.name, span.line, span.column, end, line, *([True] if span.source.library else [])]


def _error(e: Encoder, i: int, x: ErrorValue) -> list[Any]:
    place = _shown_place(x.span) if x.span is not None else None
    trace = [[str(name), [s.source.name, s.line, s.column] if s is not None else None] for name, s in x.trace]
    return ["err", e.ref(x.type), e.ref(x.message), e.ref(x.data), e.ref(x.cause), json.dumps([place, trace])]


def _closure(e: Encoder, i: int, x: f.Closure) -> list[Any]:
    version = x.version if x.version is not None else e.pin
    return ["fn", e.ref(x.code.root), x.code.index, e.version(version), e.ref(x.meta), *[e.ref(y) for y in x.captures]]


def _promise(e: Encoder, i: int, x: f.Promise) -> list[Any]:
    if e.flow is not None:
        return ["p", x.id, x.flow or e.flow, x.op, 0, None]
    return ["p", x.id, x.flow, x.op, x.status, e.ref(x.value), *x.waiters]


def _callback(e: Encoder, i: int, x: f.Callback) -> list[Any]:
    if e.flow is not None:
        return ["cb", x.id, x.flow or e.flow, e.ref(x.url), e.ref(x.token), 0, None]
    return ["cb", x.id, x.flow, e.ref(x.url), e.ref(x.token), x.status, e.ref(x.value), *x.waiters]


def _handle(e: Encoder, i: int, x: f.FlowHandle) -> list[Any]:
    return ["h", x.flow, e.ref(x.program), *([x.status, e.ref(x.value), *x.waiters] if e.flow is None else [0, None])]


def _atom(e: Encoder, i: int, x: f.Atom) -> list[Any]:
    if e.flow is not None:
        raise LispError("an atom belongs to its flow: pass its value, or give the atom to a top-level def", type="type")
    return ["a", e.ref(x.value)] if x.facts is None else ["a", e.ref(x.value), e.ref(x.facts)]


def _transient(e: Encoder, i: int, x: Transient) -> list[Any]:
    if e.flow is not None:
        raise LispError("a transient belongs to its flow: pass (persistent! t)", type="type")
    return ["tr", e.ref(x.value)]


def _root(e: Encoder, i: int, x: f.Root) -> list[Any]:
    return ["root", x.ns, e.version(x.pin), x.file, x.line, x.column, "" if x.prelude else e.ref(x.text), x.prelude]


def _frame(e: Encoder, i: int, x: Frame) -> list[Any]:
    code, L = x.arity.code, x.locals
    params = None if x.arity is code.variadic else x.arity.params
    head = [e.ref(code.root), code.index, params, x.pc, [list(h) for h in x.handlers], L[0], type(L[0]) is Pinned, len(x.stack)]
    return ["frame", *head, *[e.ref(y) for y in x.stack], *[e.ref(y) for y in L[1:]]]


def _fiber(e: Encoder, i: int, x: Fiber) -> list[Any]:
    value = None if x.value is f.PENDING else [e.ref(x.value)]
    return [
        "fiber",
        x.id,
        e.ref(x.promise),
        e.ref(x.wait),
        value,
        e.ref(x.error),
        x.cancel,
        e.ref(x.reason),
        x.shield,
        e.ref(x.saga),
        e.ref(x.undoing),
        e.ref(x.nursery),
        *[e.ref(y) for y in x.frames],
    ]


def _wait(e: Encoder, i: int, x: Wait) -> list[Any]:
    return ["wait", x.mode, x.owned, x.left, len(x.promises), *[e.ref(y) for y in x.promises], *[e.ref(y) for y in x.keys]]


def _program(e: Encoder, i: int, x: Program) -> list[Any]:
    return ["run", e.ref(x.name), e.ref(x.body), e.ref(x.source), x.ns, x.file, x.index, x.total, *[e.ref(y) for y in x.args]]


def _state(e: Encoder, i: int, x: State) -> list[Any]:
    ending = None if x.ending is None else [e.ref(x.ending[0]), e.ref(x.ending[1])]
    keys = [list(k) if isinstance(k, tuple) else k for k in x.open]
    head = [x.flow_id, x.run, x.kind, x.pin, e.ref(x.program), x.parent, x.steps, x.next_fiber, x.next_define, e.ref(x.main), ending, x.cancelled]
    return ["state", head, list(x.ready), keys, [e.ref(p) for p in x.open.values()], [e.ref(y) for y in x.fibers.values()]]


def _reducible(e: Encoder, i: int, x: Reducible) -> list[Any]:
    ended = bool(x.seen) and x.seen[-1] is END
    seen = x.seen[:-1] if ended else x.seen
    return ["rdb", x.kind, ended, len(x.args), e.ref(x.after), *[e.ref(y) for y in x.args], *[e.ref(y) for y in seen]]


_ENCODE: dict[type, Callable[[Encoder, int, Any], list[Any]]] = {
    str: lambda e, i, x: ["t", x],
    float: _float,
    Decimal: lambda e, i, x: ["d", str(x)],
    bytes: lambda e, i, x: ["b", base64.b64encode(x).decode()],
    uuid.UUID: lambda e, i, x: ["u", str(x)],
    Keyword: lambda e, i, x: [":", x.ns, x.name],
    Symbol: lambda e, i, x: ["y", x.ns, x.name],
    Instant: lambda e, i, x: ["in", x.micros],
    Duration: lambda e, i, x: ["du", x.micros],
    Regex: lambda e, i, x: ["r", x.pattern],
    Var: lambda e, i, x: ["var", x.ns, x.name],
    Vector: _vector,
    Cons: _chain,
    Link: _chain,
    Seq: _seq,
    _Shared: lambda e, i, x: ["arr", *[e.ref(y) for y in x.items]],
    Map: _map,
    Set: lambda e, i, x: ["s", *[e.ref(y) for y in x]],
    SortedMap: lambda e, i, x: ["sm", e.ref(x.comparator.function), e.version(x.comparator.version), *[e.ref(y) for pair in x.items() for y in pair]],
    SortedSet: lambda e, i, x: ["ss", e.ref(x.body.comparator.function), e.version(x.body.comparator.version), *[e.ref(y) for y in x]],
    ErrorValue: _error,
    f.Closure: _closure,
    f.Root: _root,
    f.Promise: _promise,
    f.Callback: _callback,
    f.FlowHandle: _handle,
    f.Atom: _atom,
    f.SharedAtom: lambda e, i, x: ["shared", x.id, e.ref(x.begins)],
    Transient: _transient,
    f.Delay: lambda e, i, x: ["delay", e.ref(x.function), e.ref(x.value)],
    f.FlowProgram: lambda e, i, x: ["flow", x.ns, x.name, e.ref(x.body)],
    f.ForeignStub: lambda e, i, x: ["stub", x.name, e.ref(x.params), e.ref(x.options)],
    f.MultiFn: lambda e, i, x: ["multi", x.name, *[e.ref(y) for y in (x.dispatch, x.default, x.methods, x.preferences, x.hierarchy)]],
    Primitive: lambda e, i, x: ["prim", x.ns, x.name],
    f.MachineOp: lambda e, i, x: ["op", x.ns, x.name],
    Secret: lambda e, i, x: ["secret", *[e.ref(part if isinstance(part, str) else kw(part[0])) for part in x.parts]],
    Reduced: lambda e, i, x: ["red", e.ref(x.value)],
    Reducible: _reducible,
    type(AGAIN): lambda e, i, x: ["again"],
    Frame: _frame,
    Fiber: _fiber,
    Wait: _wait,
    Program: _program,
    State: _state,
}
