"""Text to values and machine states: the half of the codec that reads.

In: a document, as `codec` describes it, and what compiles a root. Out: the value or state, sharing kept; or `Damaged`.
What may be part of a circle (a closure that holds itself, a frame) is made empty first, as a shell, and filled at the end.
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

from flowmetal.errors import FlowmetalError
from flowmetal.lang import functions as f
from flowmetal.lang.encoding import FORMAT
from flowmetal.lang.frames import Fiber, Frame, Program, State, Wait
from flowmetal.lang.leaves import Pinned
from flowmetal.lang.machine_ops import OPS
from flowmetal.lang.maps import EMPTY_MAP
from flowmetal.lang.persistent import EMPTY_LIST, Chain, Cons, Link, Map, Seq, Set, Vector
from flowmetal.lang.primitives.reducibles import AGAIN, END, Reduced, Reducible
from flowmetal.lang.primitives.registry import TABLE
from flowmetal.lang.primitives.sorted_collections import comparator
from flowmetal.lang.primitives.transients import Transient
from flowmetal.lang.secrets import Secret
from flowmetal.lang.sorted import SortedMap, SortedSet
from flowmetal.lang.spans import Source, Span
from flowmetal.lang.values import Duration, ErrorValue, Instant, Keyword, Regex, Symbol, Var

CodeLoader = Callable[[f.Root], f.Root]


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
        name, line, column, end, text, *library = p if len(p) > 3 else (*p, p[2], "")
        return Span(Source(name, "\n" * (line - 1) + text, library=bool(library)), line, column, line, end)

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
    "shared": lambda d, id_, begins: f.SharedAtom(id_, d.ref(begins)),
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


def _fill_atom(d: Decoder, x: f.Atom, value: Any, facts: Any = None) -> None:
    x.value = d.ref(value)
    x.facts = None if facts is None else d.ref(facts)


def _fill_transient(d: Decoder, x: Transient, value: Any) -> None:
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
    d: Decoder, x: Fiber, id_: int, promise: Any, wait: Any, value: Any, error: Any, cancel: int, reason: Any, shield: int, saga: Any, undoing: Any,
    nursery: Any, *frames: Any,
) -> None:  # fmt: skip
    x.id, x.promise, x.wait = id_, d.ref(promise), d.ref(wait)
    x.value = f.PENDING if value is None else d.ref(value[0])
    x.error, x.cancel, x.reason, x.shield, x.saga = d.ref(error), cancel, d.ref(reason), shield, d.ref(saga)
    x.undoing, x.nursery = d.ref(undoing), d.ref(nursery)
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
    "tr": _fill_transient, "delay": _fill_delay, "rdb": _fill_reducible, "frame": _fill_frame,
    "fiber": _fill_fiber, "wait": _fill_wait, "run": _fill_program, "state": _fill_state,
}  # fmt: skip
