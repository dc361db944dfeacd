"""Leaf expressions: pure expressions over locals, run as one transition of the machine.

An expression that only reads locals, names and constants and calls leaf primitives cannot suspend.
It becomes one Python callable that takes the frame's locals. `shape` says what it does, for the
code's hash. Locals are laid out as [definitions version, closure, parameters…, lets…].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.definitions import Cell
from flowmetal.lang.functions import Closure, Code
from flowmetal.lang.persistent import Map, Set, Vector
from flowmetal.lang.primitives.leaf_calls import leaf_callable
from flowmetal.lang.primitives.numbers import BINARY
from flowmetal.lang.primitives.registry import Primitive
from flowmetal.lang.spans import Span

Locals = list[Any]
Leaf = Callable[[Locals], Any]


class Pinned(int):
    """A definitions version that a frame keeps whatever its flow is pinned to."""


def shaped(leaf: Leaf, shape: str) -> Leaf:
    """Gives a leaf its shape."""
    leaf.shape = shape  # type: ignore[attr-defined]
    return leaf


def shape_of(leaf: Leaf) -> str:
    """The shape of a leaf made here."""
    return str(leaf.shape)  # type: ignore[attr-defined]


def constant(value: Any) -> Leaf:
    """A leaf that gives `value`."""
    from flowmetal.lang.printer import pr_str

    canonical = getattr(value, "canonical", None)
    return shaped(lambda L: value, canonical() if canonical else f"{type(value).__name__}:{pr_str(value)}")


def local(slot: int) -> Leaf:
    """A leaf that reads a local."""
    return shaped(lambda L: L[slot], f"L{slot}")


def captured(index: int) -> Leaf:
    """A leaf that reads what the running closure captured."""
    return shaped(lambda L: L[1].captures[index], f"C{index}")


def unbound(cell: Cell) -> LispError:
    """The error of a name that is declared, or used before its definition."""
    return LispError(f"{cell.ns}/{cell.name} has no value at this version of the definitions", type="compile/unresolved")


def global_name(cell: Cell, span: Span | None) -> Leaf:
    """A leaf that reads a definition as the frame's version sees it."""

    def read(L: Locals) -> Any:
        binding = cell.at(L[0])
        if binding is None:
            error = unbound(cell)
            error.span = span
            raise error
        return binding.value

    return shaped(read, f"G{cell.ns}/{cell.name}")


def call(f: Any, args: Sequence[Leaf], span: Span | None) -> Leaf:
    """A leaf that calls the leaf function `f`; an error that has no place yet gets this span."""
    shape = f"({_name(f)} {' '.join(shape_of(a) for a in args)})"
    fn = f.fn if type(f) is Primitive and f.low <= len(args) and (f.high is None or len(args) <= f.high) else leaf_callable(f)
    if len(args) == 2 and type(f) is Primitive and f.ns == "core":
        fn = BINARY.get(f.name, fn)
    maker = _CALLS.get(len(args))
    leaf = maker(fn, args, span) if maker else _call_many(fn, args, span)
    return shaped(leaf, shape)


def _name(f: Any) -> str:
    from flowmetal.lang.printer import pr_str

    return f"{f.ns}/{f.name}" if type(f) is Primitive else pr_str(f)


def _call0(fn: Leaf, args: Sequence[Leaf], span: Span | None) -> Leaf:
    def run(L: Locals) -> Any:
        try:
            return fn()  # type: ignore[call-arg]
        except LispError as e:
            raise _placed(e, span) from None

    return run


def _call1(fn: Leaf, args: Sequence[Leaf], span: Span | None) -> Leaf:
    (a,) = args

    def run(L: Locals) -> Any:
        try:
            return fn(a(L))
        except LispError as e:
            raise _placed(e, span) from None

    return run


def _call2(fn: Any, args: Sequence[Leaf], span: Span | None) -> Leaf:
    a, b = args

    def run(L: Locals) -> Any:
        try:
            return fn(a(L), b(L))
        except LispError as e:
            raise _placed(e, span) from None

    return run


def _call3(fn: Any, args: Sequence[Leaf], span: Span | None) -> Leaf:
    a, b, c = args

    def run(L: Locals) -> Any:
        try:
            return fn(a(L), b(L), c(L))
        except LispError as e:
            raise _placed(e, span) from None

    return run


def _call_many(fn: Any, args: Sequence[Leaf], span: Span | None) -> Leaf:
    args = list(args)

    def run(L: Locals) -> Any:
        try:
            return fn(*[a(L) for a in args])
        except LispError as e:
            raise _placed(e, span) from None

    return run


def _placed(e: LispError, span: Span | None) -> LispError:
    if e.span is None:
        e.span = span
    return e


_CALLS: dict[int, Callable[..., Leaf]] = {0: _call0, 1: _call1, 2: _call2, 3: _call3}


def choose(test: Leaf, then: Leaf, other: Leaf) -> Leaf:
    """A leaf `if`."""

    def run(L: Locals) -> Any:
        t = test(L)
        return then(L) if t is not None and t is not False else other(L)

    return shaped(run, f"(if {shape_of(test)} {shape_of(then)} {shape_of(other)})")


def bind(pairs: Sequence[tuple[int, Leaf]], body: Leaf) -> Leaf:
    """A leaf `let`: sets slots in order, then gives the body."""
    shape = f"(let {' '.join(f'{s}={shape_of(f)}' for s, f in pairs)} {shape_of(body)})"
    if len(pairs) == 1:
        ((slot, init),) = pairs

        def run_one(L: Locals) -> Any:
            L[slot] = init(L)
            return body(L)

        return shaped(run_one, shape)
    pairs = list(pairs)

    def run(L: Locals) -> Any:
        for s, f in pairs:
            L[s] = f(L)
        return body(L)

    return shaped(run, shape)


def sequence(parts: Sequence[Leaf]) -> Leaf:
    """A leaf `do`."""
    *before, last = parts

    def run(L: Locals) -> Any:
        for f in before:
            f(L)
        return last(L)

    return shaped(run, f"(do {' '.join(shape_of(f) for f in parts)})")


def collection(kind: str, parts: Sequence[Leaf], span: Span | None) -> Leaf:
    """A leaf vector, map (keys and values in turn) or set literal."""
    make = BUILDERS[kind]
    parts = list(parts)

    def run(L: Locals) -> Any:
        return make([f(L) for f in parts])

    return shaped(run, f"[{kind} {' '.join(shape_of(f) for f in parts)}]")


def make_map(items: Sequence[Any]) -> Map:
    """A map from keys and values in turn; a key given twice is an error, as in the reader."""
    result = Map.of(zip(items[::2], items[1::2], strict=True))
    if len(result) * 2 != len(items):
        raise LispError("a map literal has the same key twice", type="value")
    return result


def make_set(items: Sequence[Any]) -> Set:
    """A set of items; one given twice is an error, as in the reader."""
    result = Set.of(items)
    if len(result) != len(items):
        raise LispError("a set literal has the same value twice", type="value")
    return result


BUILDERS: dict[str, Callable[[Sequence[Any]], Any]] = {"vector": Vector.of, "map": make_map, "set": make_set}


def closure(code: Code, sources: Sequence[Leaf]) -> Leaf:
    """A leaf that makes a closure over what `sources` give."""
    sources = list(sources)

    def run(L: Locals) -> Any:
        version = L[0]
        return Closure(code, [f(L) for f in sources], version if type(version) is Pinned else None)

    return shaped(run, f"(fn {code.hash} {' '.join(shape_of(f) for f in sources)})")
