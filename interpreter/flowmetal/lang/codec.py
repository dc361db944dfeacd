"""The lossless codec: values and machine states ↔ text (JSON), sharing kept.

A document is `[version, root, nodes]`. A scalar stands for itself; everything else is a node,
referred to as `[index]`, or `[index, k]` for the list that remains after k elements of list `index`.
A node is `[tag, parts…]`: the table at the end names every tag. Nothing here recurses on Python's stack.

As a *value* (crossing from one flow to another) a promise becomes a reference that names its flow,
and a closure carries the definitions version that it is to see; as a *state* both stay as they are.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from pyrsistent import pvector

from flowmetal.errors import FlowmetalError, LispError
from flowmetal.lang import functions as f
from flowmetal.lang.frames import Fiber, Frame, Program, State, Wait
from flowmetal.lang.leaves import Pinned
from flowmetal.lang.machine_ops import OPS
from flowmetal.lang.maps import EMPTY_MAP
from flowmetal.lang.persistent import EMPTY_LIST, Chain, Cons, Link, Map, Seq, Set, Vector
from flowmetal.lang.primitives.reducibles import AGAIN, END, Reduced, Reducible
from flowmetal.lang.primitives.registry import TABLE, Primitive
from flowmetal.lang.primitives.sorted_collections import comparator
from flowmetal.lang.primitives.transients import Transient
from flowmetal.lang.secrets import Secret
from flowmetal.lang.sorted import SortedMap, SortedSet
from flowmetal.lang.spans import Source, Span
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, Regex, Symbol, Var, kw

FORMAT = 1
_SCALAR = frozenset({type(None), bool, int})
_INLINE_TEXT = 64
_SHOWN_LINE = 200
"""How much of a source line is kept with an error that stands in it."""

CodeLoader = Callable[[f.Root], f.Root]


class Encoder:
    """Encodes one document. `flow` is the flow that owns promises met on the way; None for a state."""

    def __init__(self, flow: str | None, pin: int | None) -> None:
        self.flow = flow
        self.pin = pin
        self.memo: dict[Any, list[int]] = {}
        self.alive: list[Any] = []
        self.nodes: list[Any] = []
        self.todo: deque[tuple[int, Any]] = deque()

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
    return [span.source.name, span.line, span.column, span.end_column if span.end_line == span.line else len(line) + 1, line]


def _error(e: Encoder, i: int, x: ErrorValue) -> list[Any]:
    place = _shown_place(x.span) if x.span is not None else None
    trace = [[str(name), [s.source.name, s.line, s.column] if s is not None else None] for name, s in x.trace]
    return ["err", e.ref(x.type), e.ref(x.message), e.ref(x.data), e.ref(x.cause), json.dumps([place, trace])]


def _closure(e: Encoder, i: int, x: f.Closure) -> list[Any]:
    version = x.version if x.version is not None else e.pin
    return ["fn", e.ref(x.code.root), x.code.index, version, e.ref(x.meta), *[e.ref(y) for y in x.captures]]


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
    return ["a", e.ref(x.value)]


def _transient(e: Encoder, i: int, x: Transient) -> list[Any]:
    if e.flow is not None:
        raise LispError("a transient belongs to its flow: pass (persistent! t)", type="type")
    return ["tr", e.ref(x.value)]


def _root(e: Encoder, i: int, x: f.Root) -> list[Any]:
    return ["root", x.ns, x.pin, x.file, x.line, x.column, "" if x.prelude else e.ref(x.text), x.prelude]


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
    SortedMap: lambda e, i, x: ["sm", e.ref(x.comparator.function), x.comparator.version, *[e.ref(y) for pair in x.items() for y in pair]],
    SortedSet: lambda e, i, x: ["ss", e.ref(x.body.comparator.function), x.body.comparator.version, *[e.ref(y) for y in x]],
    ErrorValue: _error,
    f.Closure: _closure,
    f.Root: _root,
    f.Promise: _promise,
    f.Callback: _callback,
    f.FlowHandle: _handle,
    f.Atom: _atom,
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


class Damaged(FlowmetalError):
    """A document that is not one, or of another format."""

    type = "value"


class Decoder:
    """Decodes one document. `load` compiles a root (or finds it compiled)."""

    def __init__(self, nodes: list[Any], load: CodeLoader) -> None:
        self.nodes = nodes
        self.load = load
        self.built: dict[int, Any] = {}
        self.later: list[tuple[Any, list[Any]]] = []

    def ref(self, r: Any) -> Any:
        """The value of a reference whose node was built."""
        if type(r) is not list:
            return r
        x = self.built[r[0]]
        if len(r) == 2:
            for _ in range(r[1]):
                x = x._rest
        return x

    def build(self, root: Any) -> Any:
        """Builds every node that `root` reaches, those it needs first; cycles go through shells."""
        if type(root) is not list:
            return root
        stack = [root[0]]
        while stack:
            index = stack[-1]
            if index in self.built:
                stack.pop()
                continue
            node = self.nodes[index]
            shell = _SHELLS.get(node[0])
            if shell is not None:
                self.built[index] = x = shell()
                if node[0] in ("p", "cb"):
                    x.id, x.flow = node[1], node[2]  # a set of promises hashes them before they are filled
                elif node[0] == "h":
                    x.id, x.flow = "result", node[1]
                elif node[0] == "fiber":
                    x.id = node[1]
                self.later.append((x, node))
                stack.pop()
                stack += [r for r in _references(node) if r not in self.built]
                continue
            missing = [r for r in _references(node) if r not in self.built]
            if missing:
                stack += missing
            else:
                self.built[index] = self.make(node)
                stack.pop()
        for x, node in self.later:
            _FILL[node[0]](self, x, *node[1:])
        return self.ref(root)

    def make(self, node: list[Any]) -> Any:
        if node[0] == "^":
            return self.make(node[2]).with_meta(self.ref(node[1]))
        rule = _BUILD.get(node[0])
        if rule is None:
            raise Damaged(f"unknown tag {node[0]!r} in stored data")
        return rule(self, *node[1:])


def _references(node: Any) -> list[int]:
    """Indices of the nodes that a node needs."""
    if node[0] == "^":
        return _references(["", node[1]]) + _references(node[2])
    out: list[int] = []
    rest = node[1:]
    if node[0] == "state":
        rest = [*node[1][:10], *node[4], *node[5], *(node[1][10] or [])]
    elif node[0] == "fiber":
        rest = [*node[1:4], *(node[4] or []), *node[5:]]
    elif node[0] == "frame":
        rest = [node[1], *node[9:]]
    for r in rest:
        if type(r) is list and r and type(r[0]) is int:
            out.append(r[0])
    return out


def decode(text: str, load: CodeLoader) -> Any:
    """The value or state of a document; raises `Damaged` when it is not readable."""
    try:
        version, root, nodes = json.loads(text)
        if version != FORMAT:
            raise Damaged(f"stored data has format {version}; this program reads {FORMAT}")
        return Decoder(nodes, load).build(root)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as e:
        raise Damaged(f"stored data cannot be read: {e}") from e


def _build_chain(d: Decoder, kind: type[Chain], tail: Any, items: tuple[Any, ...]) -> Any:
    node = d.ref(tail)
    for r in reversed(items):
        node = kind(d.ref(r), node)
    return node


def _array(d: Decoder, items: tuple[Any, ...]) -> Any:
    fixed = tuple([d.ref(r) for r in items])
    return fixed if len(fixed) <= 32 else pvector(fixed)


def _build_error(d: Decoder, type_: Any, message: Any, data: Any, cause: Any, places: str) -> ErrorValue:
    def span(p: Any) -> Any:
        if not p:
            return None
        name, line, column, end, text = p if len(p) == 5 else (*p, p[2], "")
        return Span(Source(name, "\n" * (line - 1) + text), line, column, line, end)

    place, trace = json.loads(places)
    return ErrorValue(d.ref(type_), d.ref(message), d.ref(data), d.ref(cause), span(place), tuple((n, span(s)) for n, s in trace))


def _build_root(d: Decoder, ns: str, pin: int, file: str, line: int, column: int, text: Any, prelude: str | None) -> f.Root:
    return d.load(f.Root(ns, pin, file, line, column, d.ref(text), prelude))


_BUILD: dict[str, Callable[..., Any]] = {
    "t": lambda d, x: x,
    "f": lambda d, x: float(x),
    "d": lambda d, x: Decimal(x),
    "b": lambda d, x: base64.b64decode(x),
    "u": lambda d, x: uuid.UUID(x),
    ":": lambda d, ns, name: Keyword.of(f"{ns}/{name}") if ns is not None else Keyword.of(name) if "/" not in name else _odd_keyword(name),
    "y": lambda d, ns, name: Symbol(ns, name),
    "in": lambda d, x: Instant(x),
    "du": lambda d, x: Duration(x),
    "r": lambda d, x: Regex(x),
    "var": lambda d, ns, name: Var(ns, name),
    "v": lambda d, *items: Vector(_array(d, items)),
    "e": lambda d: EMPTY_LIST,
    "l": lambda d, tail, *items: _build_chain(d, Cons, tail, items),
    "k": lambda d, tail, *items: _build_chain(d, Link, tail, items),
    "q": lambda d, *items: Seq(tuple([d.ref(r) for r in items])),
    "Q": lambda d, array, start, count: Seq(d.ref(array), start, count),
    "arr": lambda d, *items: _array(d, items),
    "m": lambda d, *items: Map.of([(d.ref(k), d.ref(v)) for k, v in zip(items[::2], items[1::2], strict=True)]) if items else EMPTY_MAP,
    "s": lambda d, *items: Set.of([d.ref(r) for r in items]),
    "sm": lambda d, by, version, *items: SortedMap.in_order(
        [(d.ref(k), d.ref(v)) for k, v in zip(items[::2], items[1::2], strict=True)], comparator(d.ref(by), version)
    ),
    "ss": lambda d, by, version, *items: SortedSet(SortedMap.in_order([(y := d.ref(r), y) for r in items], comparator(d.ref(by), version))),
    "err": _build_error,
    "root": _build_root,
    "flow": lambda d, ns, name, body: f.FlowProgram(ns, name, d.ref(body)),
    "stub": lambda d, name, params, options: f.ForeignStub(name, d.ref(params), d.ref(options)),
    "multi": lambda d, name, *parts: f.MultiFn(name, *[d.ref(r) for r in parts]),
    "red": lambda d, x: Reduced(d.ref(x)),
    "again": lambda d: AGAIN,
    "secret": lambda d, *parts: Secret(tuple(part if isinstance(part, str) else (part.name,) for part in map(d.ref, parts))),
    "prim": lambda d, ns, name: TABLE[ns, name],
    "op": lambda d, ns, name: OPS[ns, name],
}


def _odd_keyword(name: str) -> Keyword:
    from flowmetal.lang.values import keyword

    return keyword(None, name)


# Shells: what may stand in a cycle is made empty and filled when everything else is there


def _fill_closure(d: Decoder, x: f.Closure, root: Any, index: int, version: int | None, meta: Any, *captures: Any) -> None:
    x.code = d.ref(root).codes[index]
    x.version = Pinned(version) if version is not None else None
    x.meta = d.ref(meta)
    x.captures = [d.ref(r) for r in captures]


def _fill_promise(d: Decoder, x: f.Promise, id_: Any, flow: Any, op: str, status: int, value: Any, *waiters: int) -> None:
    x.id, x.flow, x.op, x.status, x.value, x.waiters = id_, flow, op, status, d.ref(value), list(waiters)


def _fill_callback(d: Decoder, x: f.Callback, id_: Any, flow: Any, url: Any, token: Any, status: int, value: Any, *waiters: int) -> None:
    _fill_promise(d, x, id_, flow, "callback", status, value, *waiters)
    x.url, x.token = d.ref(url), d.ref(token)


def _fill_handle(d: Decoder, x: f.FlowHandle, flow: Any, program: Any, status: int, value: Any, *waiters: int) -> None:
    _fill_promise(d, x, "result", flow, "", status, value, *waiters)
    x.program = d.ref(program)


def _fill_delay(d: Decoder, x: f.Delay, function: Any, value: Any) -> None:
    x.function = d.ref(function)
    x.value = d.ref(value)


def _fill_atom(d: Decoder, x: f.Atom, value: Any) -> None:
    x.value = d.ref(value)


def _fill_reducible(d: Decoder, x: Reducible, kind: str, ended: bool, count: int, after: Any, *rest: Any) -> None:
    x.kind = kind
    x.after = d.ref(after)
    x.args = tuple(d.ref(r) for r in rest[:count])
    x.seen = tuple(d.ref(r) for r in rest[count:]) + ((END,) if ended else ())


def _fill_frame(
    d: Decoder, x: Frame, root: Any, index: int, params: int | None, pc: int, handlers: Any, version: int, pinned: bool, depth: int, *rest: Any
) -> None:
    code: f.Code = d.ref(root).codes[index]
    arity = code.variadic if params is None else code.arities[params]
    assert arity is not None
    x.arity, x.pc = arity, pc
    x.handlers = [(h[0], h[1], h[2], h[3]) for h in handlers]
    x.stack = [d.ref(r) for r in rest[:depth]]
    x.locals = [Pinned(version) if pinned else version, *[d.ref(r) for r in rest[depth:]]]


def _fill_fiber(
    d: Decoder, x: Fiber, id_: int, promise: Any, wait: Any, value: Any, error: Any, cancel: int, reason: Any, shield: int, saga: Any, *frames: Any
) -> None:
    x.id, x.promise, x.wait = id_, d.ref(promise), d.ref(wait)
    x.value = f.PENDING if value is None else d.ref(value[0])
    x.error, x.cancel, x.reason, x.shield, x.saga = d.ref(error), cancel, d.ref(reason), shield, d.ref(saga)
    x.frames = [d.ref(r) for r in frames]


def _fill_wait(d: Decoder, x: Wait, mode: str, owned: bool, left: int, count: int, *rest: Any) -> None:
    x.mode, x.owned, x.left = mode, owned, left
    x.promises = [d.ref(r) for r in rest[:count]]
    x.keys = [d.ref(r) for r in rest[count:]]


def _fill_program(d: Decoder, x: Program, name: Any, body: Any, source: Any, ns: str, file: str, index: int, total: int, *args: Any) -> None:
    x.name, x.body, x.source, x.ns, x.file, x.index, x.total = d.ref(name), d.ref(body), d.ref(source), ns, file, index, total
    x.args = [d.ref(r) for r in args]


def _fill_state(d: Decoder, x: State, head: list[Any], ready: list[int], keys: list[Any], promises: list[Any], fibers: list[Any]) -> None:
    x.flow_id, x.run, x.kind, x.pin, program, x.parent, x.steps, x.next_fiber, x.next_define, main, ending, x.cancelled = head
    x.program, x.main = d.ref(program), d.ref(main)
    x.ending = None if ending is None else (d.ref(ending[0]), d.ref(ending[1]))
    x.ready = deque(ready)
    x.open = {tuple(k) if isinstance(k, list) else k: d.ref(p) for k, p in zip(keys, promises, strict=True)}
    x.fibers = {y.id: y for y in map(d.ref, fibers)}


def _shell(kind: Any) -> Callable[[], Any]:
    return lambda: kind.__new__(kind)


_SHELLS: dict[str, Callable[[], Any]] = {
    "fn": _shell(f.Closure), "p": _shell(f.Promise), "cb": _shell(f.Callback), "h": _shell(f.FlowHandle), "a": _shell(f.Atom),
    "tr": _shell(Transient), "delay": _shell(f.Delay), "rdb": _shell(Reducible),
    "frame": _shell(Frame), "fiber": _shell(Fiber), "wait": _shell(Wait), "run": _shell(Program), "state": _shell(State),
}  # fmt: skip
_FILL: dict[str, Callable[..., None]] = {
    "fn": _fill_closure, "p": _fill_promise, "cb": _fill_callback, "h": _fill_handle, "a": _fill_atom,
    "tr": _fill_atom, "delay": _fill_delay, "rdb": _fill_reducible, "frame": _fill_frame,
    "fiber": _fill_fiber, "wait": _fill_wait, "run": _fill_program, "state": _fill_state,
}  # fmt: skip
