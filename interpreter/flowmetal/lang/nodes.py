"""The analyzed program: a small tree of nodes, between forms and code.

Each node knows its span and, where the expression is a leaf, the Python callable that runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flowmetal.lang.definitions import Cell
from flowmetal.lang.functions import Code
from flowmetal.lang.leaves import Leaf
from flowmetal.lang.spans import Span


@dataclass(slots=True)
class Node:
    """An expression. `leaf` is set when it cannot suspend."""

    span: Span | None
    leaf: Leaf | None


@dataclass(slots=True)
class Const(Node):
    """A value that is written in the program."""

    value: Any = None


@dataclass(slots=True)
class Local(Node):
    """A local by its slot (1 is the running function itself), or what the running function captured, by its index."""

    slot: int = 0
    captured: int | None = None


@dataclass(slots=True)
class Global(Node):
    """A reference to a definition."""

    cell: Cell | None = None


@dataclass(slots=True)
class Call(Node):
    """A call; `fn` is a constant function of the library where that is known."""

    fn: Node | None = None
    args: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class If(Node):
    """`(if test then else)`."""

    test: Node | None = None
    then: Node | None = None
    other: Node | None = None


@dataclass(slots=True)
class Do(Node):
    """Expressions in order; the last one's value."""

    parts: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Let(Node):
    """Slots set in order, then the body. `names` are what the user called them."""

    pairs: list[tuple[int, str, Node]] = field(default_factory=list)
    body: Node | None = None


@dataclass(slots=True)
class Loop(Let):
    """A `let` that `recur` comes back to."""

    label: list[int] = field(default_factory=list)
    """Holds the position of the body's start once it is emitted."""


@dataclass(slots=True)
class Recur(Node):
    """Sets the slots of the innermost loop or function anew and goes to its start."""

    slots: list[int] = field(default_factory=list)
    args: list[Node] = field(default_factory=list)
    label: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Fn(Node):
    """A function value: always a leaf."""

    code: Code | None = None
    captures: list[Local] = field(default_factory=list)


@dataclass(slots=True)
class LetFn(Node):
    """Functions that see each other: made first, then given what they capture of each other."""

    pairs: list[tuple[int, str, Node]] = field(default_factory=list)
    body: Node | None = None


@dataclass(slots=True)
class Collection(Node):
    """A vector, map or set literal with parts that are not constants."""

    kind: str = "vector"
    parts: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Catch:
    """One clause of a `try`: the type it takes, where the error goes, what it does."""

    type: Any
    slot: int
    name: str
    body: Node


@dataclass(slots=True)
class Try(Node):
    """`(try body (catch …) (finally …))`; three slots hold the error, the value and the way out."""

    body: Node | None = None
    catches: list[Catch] = field(default_factory=list)
    finally_: Node | None = None
    error_slot: int = 0
    value_slot: int = 0


@dataclass(slots=True)
class Def(Node):
    """A top-level definition: what the definitions log will hold."""

    ns: str = ""
    name: str = ""
    kind: str = "def"
    meta: dict[str, Any] = field(default_factory=dict)
    init: Node | None = None


def children(node: Node) -> list[Node]:
    """The expressions inside of an expression; what stands in a function belongs to that function."""
    if isinstance(node, Call):
        return [*([node.fn] if node.fn else []), *node.args]
    if isinstance(node, If):
        return [x for x in (node.test, node.then, node.other) if x]
    if isinstance(node, (Do, Collection)):
        return node.parts
    if isinstance(node, (Let, LetFn)):
        return [*[init for _, _, init in node.pairs], *([node.body] if node.body else [])]
    if isinstance(node, Recur):
        return node.args
    if isinstance(node, Try):
        return [x for x in (node.body, *[c.body for c in node.catches], node.finally_) if x]
    return [node.init] if isinstance(node, Def) and node.init else []
