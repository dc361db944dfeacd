"""Python source for pure code: one function for a body, and one for each loop that stands last in it.

In: an analyzed body. Out: Python functions, or `Refused`. The one rule: what is written reads locals, names and
constants and calls `pure_calls`; it changes nothing but variables of its own, so it may be abandoned anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.lang import nodes as n
from flowmetal.lang import pure_calls
from flowmetal.lang.equality import equal
from flowmetal.lang.functions import Arity, MachineOp
from flowmetal.lang.leaves import BUILDERS
from flowmetal.lang.persistent import Map
from flowmetal.lang.primitives.collections import assoc, assoc3
from flowmetal.lang.primitives.numbers import BINARY
from flowmetal.lang.primitives.registry import LOOPS, Primitive
from flowmetal.lang.values import Keyword
from flowmetal.lang.vectors import SMALL

RESERVE = pure_calls.TURN // 2
"""What a loop that can be resumed leaves of the turn to the loops and calls within its last round."""
FACTOR = 1 << 30
"""Integers below this are multiplied here; greater ones where their growth is watched."""


Loop = tuple[tuple[int, ...], Callable[..., Any]]
"""A loop's slots, and its function from a frame's locals to the result of the function that it is in."""


class Refused(Exception):
    """This code is not for this tier."""


def may_be_pure(node: n.Node) -> bool:
    """Whether no effect stands in a body in plain sight."""
    return all(not isinstance(x, (n.Try, n.Def, n.LetFn)) and not _effect(x) for x in _walk(node))


def _effect(node: n.Node) -> bool:
    if not isinstance(node, n.Const) or type(node.value) is not MachineOp:
        return False
    f = node.value
    return (f.ns, f.name) not in LOOPS and (f.ns, f.name) not in (("core", "apply"), ("core", "throw"))


def _walk(node: n.Node) -> list[n.Node]:
    found, open_ = [], [node]
    while open_:
        x = open_.pop()
        found.append(x)
        open_ += n.children(x)
    return found


_TYPED = {"+": "({a} + {b} if {ints} else {f}({a}, {b}))", "-": "({a} - {b} if {ints} else {f}({a}, {b}))"}
_COMPARED = {"<": "<", ">": ">", "<=": "<=", ">=": ">=", "=": "=="}
_STEP = {"inc": "+", "dec": "-"}


class Writer:
    """Writes the Python source of one arity."""

    def __init__(self, arity: Arity) -> None:
        self.arity = arity
        self.lines: list[str] = []
        self.depth = 0
        self.names: dict[str, Any] = {name: getattr(pure_calls, name) for name in ("call", "closure", "lookup", "turn", "turn_over", "Abandon")}
        self.count = 0
        self.loops: dict[int, tuple[tuple[int, ...], str]] = {}
        self.assigned: list[int] = []
        self.extra: list[str] = []
        """The functions of loops, to be written behind this one."""

    def write(self, body: n.Node) -> tuple[Callable[..., Any], dict[int, Loop]]:
        """The function, and the functions of its last loops."""
        params = [f"s{i + 2}" for i in range(self.arity.params + self.arity.variadic)]
        self.line(f"def function(V, me, {', '.join(params)}):" if params else "def function(V, me):")
        self.block(lambda: self.function_body(body))
        self.lines += self.extra
        exec(compile("\n".join(self.lines), f"<{self.arity.code.name or 'fn'}>", "exec"), self.names)
        loops = {at: (slots, self.names[name]) for at, (slots, name) in self.loops.items()}
        return self.names["function"], loops

    def function_body(self, body: n.Node) -> None:
        if _recurs(body):
            self.line("while True:")
            self.block(lambda: (self.round(), self.tail(body, "return")))  # type: ignore[func-returns-value]
        else:
            self.tail(body, "return")

    def round(self, slots: list[int] | None = None, resumable: bool = False) -> None:
        """The count of rounds at the start of a loop."""
        self.line("turn.left -= 1")
        if resumable and slots:
            self.line(f"if turn.left < {RESERVE}: turn_over(({', '.join(f's{s}' for s in slots)},))")
        else:
            self.line("if turn.left < 0: raise Abandon")

    # Lines

    def line(self, text: str) -> None:
        if self.depth > 80 or len(self.lines) > 3000:
            raise Refused
        self.lines.append(" " * self.depth + text)

    def block(self, inner: Callable[[], Any]) -> None:
        self.depth += 1
        before = len(self.lines)
        inner()
        if len(self.lines) == before:
            self.line("pass")
        self.depth -= 1

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def constant(self, value: Any) -> str:
        if value is None or value is True or value is False or (type(value) is int and abs(value) < 1 << 40):
            return f"({value})" if type(value) is int and value < 0 else str(value)
        name = self.name("k")
        self.names[name] = value
        return name

    # Statements: a value goes to `return`, to a variable, or to a variable behind which a loop is left

    def finish(self, text: str, dest: str) -> None:
        if dest == "return":
            self.line(f"return {text}")
        elif dest.endswith("!"):
            self.line(f"{dest[:-1]} = {text}")
            self.line("break")
        else:
            self.line(f"{dest} = {text}")

    def tail(self, node: n.Node, dest: str) -> None:
        """The last expression of a body: its value goes to `dest`."""
        if isinstance(node, n.If):
            assert node.test and node.then and node.other
            then, other = node.then, node.other
            self.line(f"if {self.condition(node.test)}:")
            self.block(lambda: self.tail(then, dest))
            self.line("else:")
            self.block(lambda: self.tail(other, dest))
        elif isinstance(node, n.Loop):
            self.loop(node, dest)
        elif isinstance(node, n.Let):
            assert node.body
            self.pairs(node)
            self.tail(node.body, dest)
        elif isinstance(node, n.Do):
            for part in node.parts[:-1]:
                self.line(self.value(part))
            self.tail(node.parts[-1], dest)
        elif isinstance(node, n.Recur):
            self.recur(node)
        else:
            self.finish(self.value(node), dest)

    def pairs(self, node: n.Let) -> None:
        for slot, _, init in node.pairs:
            self.tail(init, f"s{slot}")
            self.assigned.append(slot)

    def loop(self, node: n.Loop, dest: str) -> None:
        assert node.body
        body = node.body
        self.pairs(node)
        slots = [slot for slot, _, _ in node.pairs]
        self.line("while True:")
        inner = dest if dest == "return" or dest.endswith("!") else dest + "!"
        if dest.endswith("!"):
            # A loop inside of a loop's last place: leave this one, then the other.
            inner = dest
        self.block(lambda: (self.round(), self.tail(body, inner)))  # type: ignore[func-returns-value]
        if dest.endswith("!"):
            self.line("break")
        if dest == "return" and node.label:
            self.resumable(node, slots)

    def resumable(self, node: n.Loop, slots: list[int]) -> None:
        """The loop once more, as a function from a frame's locals."""
        assert node.body
        body = node.body
        name = self.name("loop")
        self.loops[node.label[0]] = (tuple(slots), name)
        writer = Writer(self.arity)
        writer.names = self.names
        writer.count = self.count
        writer.line(f"def {name}(V, me, L):")

        def inner() -> None:
            held = sorted({*range(2, 2 + self.arity.params + self.arity.variadic), *self.assigned, *slots})
            writer.line(f"{', '.join(f's{s}' for s in held)}, = {', '.join(f'L[{s}]' for s in held)}," if held else "pass")
            writer.line("while True:")
            writer.block(lambda: (writer.round(slots, True), writer.tail(body, "return")))  # type: ignore[func-returns-value]

        writer.block(inner)
        self.count = writer.count
        self.loops.update(writer.loops)
        self.extra += [*writer.lines, *writer.extra]

    def recur(self, node: n.Recur) -> None:
        values = [self.value(a) for a in node.args]
        if node.slots:
            self.line(f"{', '.join(f's{s}' for s in node.slots)} = {', '.join(values)}")
        self.line("continue")

    # Expressions

    def condition(self, node: n.Node) -> str:
        """A Python truth value of an expression's truth."""
        if isinstance(node, n.Call) and isinstance(node.fn, n.Const) and type(node.fn.value) is Primitive:
            f = node.fn.value
            if f.ns == "core" and f.name == "not" and len(node.args) == 1:
                return f"not ({self.condition(node.args[0])})"
            if (f.ns == "core" and f.name in _COMPARED and len(node.args) == 2) or getattr(f.fn, "__annotations__", {}).get("return") == "bool":
                return self.value(node)
        text = self.simple(node)
        return f"{text} is not None and {text} is not False"

    def simple(self, node: n.Node) -> str:
        """A name or a literal that holds an expression's value."""
        text = self.value(node)
        if text.replace("_", "").isalnum():
            return text
        name = self.name("t")
        self.line(f"{name} = {text}")
        return name

    def value(self, node: n.Node) -> str:
        """A Python expression; statements that it needs are written before."""
        if isinstance(node, n.Const):
            return self.constant(node.value)
        if isinstance(node, n.Local):
            return self.local(node)
        if isinstance(node, n.Global):
            assert node.cell
            return f"{self.constant(node.cell.value_at)}(V)"
        if isinstance(node, n.Call):
            return self.call(node)
        if isinstance(node, n.Collection):
            keys = [p.value if isinstance(p, n.Const) else None for p in node.parts[::2]]
            if node.kind == "map" and len(keys) <= SMALL and all(type(k) is Keyword for k in keys) and len(set(keys)) == len(keys):
                pairs = ", ".join(f"{self.constant(k)}: {self.value(v)}" for k, v in zip(keys, node.parts[1::2], strict=True))
                return f"{self.constant(Map)}({{{pairs}}})"
            return f"{self.constant(BUILDERS[node.kind])}([{', '.join(self.value(p) for p in node.parts)}])"
        if isinstance(node, n.Fn):
            return f"closure({self.constant(node.code)}, [{', '.join(self.local(c) for c in node.captures)}], V)"
        if isinstance(node, n.Let) and not isinstance(node, n.Loop):
            assert node.body
            self.pairs(node)
            return self.value(node.body)
        if isinstance(node, (n.If, n.Loop, n.Do)):
            name = self.name("t")
            self.tail(node, name)
            return name
        raise Refused

    def local(self, node: n.Local) -> str:
        if node.captured is not None:
            return f"me.captures[{node.captured}]"
        return "me" if node.slot == 1 else f"s{node.slot}"

    def call(self, node: n.Call) -> str:
        assert node.fn
        if not isinstance(node.fn, n.Const):
            return f"call(V, {', '.join(self.value(x) for x in [node.fn, *node.args])})"
        f = node.fn.value
        if type(f) is Primitive:
            return self.primitive(f, node.args)
        args = [self.value(a) for a in node.args]
        if type(f) is Keyword and len(args) == 1:
            return f"lookup({args[0]}, {self.constant(f)})"
        return f"call(V, {', '.join([self.constant(f), *args])})"

    def primitive(self, f: Primitive, nodes: list[n.Node]) -> str:
        count = len(nodes)
        if f.ns == "core" and count == 2 and f.name in BINARY:
            return self.binary(f.name, *[self.simple(x) for x in nodes])
        if f.ns == "core" and count == 1 and f.name in _STEP:
            x = self.simple(nodes[0])
            return f"({x} {_STEP[f.name]} 1 if type({x}) is int else {self.constant(f.fn)}({x}))"
        if count < f.low or (f.high is not None and count > f.high):
            raise Refused
        fn = assoc3 if f.fn is assoc and count == 3 else f.fn
        return f"{self.constant(fn)}({', '.join(self.value(x) for x in nodes)})"

    def binary(self, name: str, a: str, b: str) -> str:
        ints = " and ".join(f"type({x}) is int" for x in (a, b) if not x.strip("(-)").isdigit()) or "True"
        f = self.constant(BINARY[name] if name != "=" else equal)
        if name in _COMPARED:
            return f"({a} {_COMPARED[name]} {b} if {ints} else {f}({a}, {b}))"
        if name in _TYPED:
            return _TYPED[name].format(a=a, b=b, ints=ints, f=f)
        if name == "*":
            small = " and ".join(f"-{FACTOR} < {x} < {FACTOR}" for x in (a, b) if not x.strip("(-)").isdigit()) or "True"
            return f"({a} * {b} if {ints} and {small} else {f}({a}, {b}))"
        return f"{f}({a}, {b})"


def _recurs(body: n.Node) -> bool:
    """Whether a function's body goes back to its own start."""
    inside = _walk(body)
    loops = {id(x.label) for x in inside if isinstance(x, n.Loop)}
    return any(isinstance(x, n.Recur) and id(x.label) not in loops for x in inside)
