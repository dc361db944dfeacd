"""Sequences without an end, and the early end of a reduction.

What goes in: a start and a rule. What comes out: a value that `take`, `first`, `reduce` and the like
consume as far as they need. The one rule: nothing is computed before it is asked for.

A `Reducible` is of one of these kinds; `args` says the rest:
`range` (start, step) · `repeat` (x) · `cycle` (vector, index) · `cons` (x, reducible), which Python can
walk by itself (`PLAIN`); `iterate` (f, x) · `repeatedly` (f) · `eduction` (xform, coll) · `zip` (colls) ·
`drop` (n, reducible), which call functions of the program: for these, a primitive that needs the
first *n* elements raises `Unrealized`, the machine computes them with `core/realize*`, which puts
them into `seen`, and runs the same instruction again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

from flowmetal.errors import LispError
from flowmetal.lang.lists import List
from flowmetal.lang.persistent import EMPTY_LIST, seq_of
from flowmetal.lang.primitives.checks import wrong
from flowmetal.lang.primitives.numbers import add2
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.values import kw
from flowmetal.lang.vectors import Vector


class Reduced:
    """What `reduced` wraps: a reduction that meets one ends with the value in it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def deref(self) -> Any:
        """The value; `@` calls it."""
        return self.value

    def flowmetal_repr(self) -> str:
        """`#reduced[value]`."""
        from flowmetal.lang.printer import pr_str

        return f"#reduced[{pr_str(self.value)}]"


PLAIN: Final = frozenset({"range", "repeat", "cycle"})


class Reducible:
    """A sequence that may have no end; see the module."""

    __slots__ = ("after", "args", "kind", "seen")

    def __init__(self, kind: str, *args: Any) -> None:
        self.kind = kind
        self.args = args
        self.after: Reducible | None = None
        """Of an `iterate` that was walked: the one that begins an element later, so that a walk computes each once."""
        self.seen: tuple[Any, ...] = ()
        """The first elements, as far as they were computed; a memo, no part of the value."""

    def flowmetal_repr(self) -> str:
        """`#reducible[kind]`: its elements have no end."""
        return f"#reducible[{self.kind}]"

    def walk(self) -> Iterator[Any]:
        """The elements of a `PLAIN` one."""
        if self.kind == "range":
            x, step = self.args
            while True:
                yield x
                x = add2(x, step)
        elif self.kind == "repeat":
            yield from itertools.repeat(self.args[0])
        items, start = self.args
        yield from itertools.islice(itertools.cycle(items), start, None)

    def prefix(self, n: int) -> tuple[Any, ...]:
        """The first `n` elements, or all when there are fewer; raises Unrealized where the program must compute them."""
        if self.kind in PLAIN:
            return tuple(itertools.islice(self.walk(), n))
        if self.kind == "iterate" and n == 1:
            return (self.args[1],)
        if self.kind == "cons":
            return (self.args[0], *prefix_of(self.args[1], n - 1)) if n else ()
        if self.kind == "drop":
            skip, source = self.args
            return prefix_of(source, skip + n)[skip:]
        if len(self.seen) >= n or (self.seen and self.seen[-1] is END):
            return tuple(x for x in self.seen[:n] if x is not END)
        raise Unrealized(self, n)

    def drop(self, n: int) -> Reducible:
        """All but the first `n` elements."""
        if self.kind == "range":
            return Reducible("range", add2(self.args[0], self.args[1] * n), self.args[1])
        if self.kind == "repeat":
            return self
        if self.kind == "cycle":
            return Reducible("cycle", self.args[0], (self.args[1] + n) % len(self.args[0]))
        if self.kind == "iterate":
            return self._iterated(n)
        if self.kind == "cons" and n == 1 and isinstance(self.args[1], Reducible):
            return self.args[1]
        if self.kind == "drop":
            return Reducible("drop", self.args[0] + n, self.args[1])
        return Reducible("drop", n, self)

    def _iterated(self, n: int) -> Reducible:
        node = self
        while n:
            if node.after is None:
                if not 1 < len(node.seen) <= _WALKED:
                    return Reducible("drop", n, node)
                node.after = Reducible("iterate", node.args[0], node.seen[1])
                node.after.seen = node.seen[1:]
            node = node.after
            n -= 1
        return node


_WALKED: Final = 64
"""Up to so many elements that are known, a walk makes a node of each; more are looked up where they are."""

END: Final = type("End", (), {"__repr__": lambda self: "END"})()
"""Stands in `seen` behind the last element of a sequence that has an end after all."""


AGAIN: Final = type("Again", (), {"__repr__": lambda self: "AGAIN"})()
"""What `core/realize*` gives the machine: nobody's value; the instruction that needed elements runs again."""


class Unrealized(Exception):
    """A primitive needs the first `count` elements of `source`, which only the program can compute."""

    def __init__(self, source: Reducible, count: int) -> None:
        super().__init__(f"{source.kind}: {count}")
        self.source = source
        self.count = count


def prefix_of(coll: Any, n: int) -> tuple[Any, ...]:
    """The first `n` elements of any sequence."""
    return coll.prefix(n) if isinstance(coll, Reducible) else tuple(itertools.islice(seq_of(coll), n))


def endless(who: str, x: Reducible) -> LispError:
    """The error of a function that needs all elements of a sequence without an end."""
    return LispError(f"{who} needs an end, but {x.kind} has none: take what you need first", type="value", hint="(take n coll)")


@primitive(
    "core",
    "reduced",
    "([x])",
    "Wraps x: a reduction whose function gives it ends with x.",
    "(reduce (fn [a x] (if (> x 2) (reduced a) (+ a x))) 0 (range)) ;=> 3",
)
def reduced(x: Any) -> Reduced:
    """`reduced`."""
    return Reduced(x)


@primitive("core", "reduced?", "([x])", "Whether x was made by reduced.", "(reduced? (reduced 1)) ;=> true")
def is_reduced(x: Any) -> bool:
    """`reduced?`."""
    return type(x) is Reduced


@primitive("core", "unreduced", "([x])", "What reduced wrapped; anything else is itself.", "(unreduced (reduced 1)) ;=> 1")
def unreduced(x: Any) -> Any:
    """`unreduced`."""
    return x.value if type(x) is Reduced else x


@primitive("core", "ensure-reduced", "([x])", "x, wrapped by reduced unless it is already.", "@(ensure-reduced (reduced 1)) ;=> 1")
def ensure_reduced(x: Any) -> Reduced:
    """`ensure-reduced`."""
    return x if type(x) is Reduced else Reduced(x)


@primitive("core", "reducible?", "([x])", "Whether x is a sequence that may have no end, such as (range).", "(reducible? (range)) ;=> true")
def is_reducible(x: Any) -> bool:
    """`reducible?`."""
    return type(x) is Reducible


@primitive("core", "reducible*", "([kind & args])", "A sequence without an end, of a kind.")
def make_reducible(kind: Any, *args: Any) -> Reducible:
    """`reducible*`."""
    return Reducible(kind.name, *args)


@primitive("core", "knowing*", "([r elements])", "A reducible of which the first elements are known.")
def knowing(r: Any, elements: Any) -> Reducible:
    """`knowing*`."""
    known = Reducible(r.kind, *r.args)
    known.seen = tuple(elements)
    return known


@primitive("core", "reducible-kind*", "([r])", "The kind of a reducible, as a keyword.")
def reducible_kind(r: Any) -> Any:
    """`reducible-kind*`."""
    return kw(r.kind)


@primitive("core", "reducible-arg*", "([r i])", "What a reducible was made of.")
def reducible_arg(r: Any, i: Any) -> Any:
    """`reducible-arg*`."""
    return r.args[i]


@primitive("core", "seen*", "([r])", "The elements of a reducible that were computed before, as a vector.")
def seen(r: Any) -> Vector:
    """`seen*`."""
    return Vector.of(x for x in r.seen if x is not END)


@primitive("core", "remember*", "([r n elements])", "Remembers the first n elements of a reducible; fewer mean that it has an end.")
def remember(r: Any, n: Any, elements: Any) -> Any:
    """`remember*`."""
    found = tuple(elements)
    r.seen = found if len(found) >= n else (*found, END)
    return AGAIN


@primitive("core", "repeat", "([x] [n x])", "x n times; without n, a sequence without an end.", "(repeat 3 :a) ;=> (:a :a :a)")
def repeat(*args: Any) -> Any:
    """`repeat`."""
    from flowmetal.lang.primitives.checks import LIMIT, integer_of, too_large

    if len(args) == 1:
        return Reducible("repeat", args[0])
    if len(args) != 2:
        raise LispError(f"repeat takes 1 or 2 arguments, but was given {len(args)}: ([x] [n x])", type="arity")
    n = integer_of("repeat", args[0])
    if n > LIMIT:
        raise too_large("repeat")
    return seq_of((args[1],) * n) if n > 0 else EMPTY_LIST


@primitive("core", "cycle", "([coll])", "The elements of coll again and again, without an end.", "(take 5 (cycle [1 2])) ;=> (1 2 1 2 1)")
def cycle(coll: Any) -> Any:
    """`cycle`."""
    from flowmetal.lang.primitives.sequences import items_of

    if isinstance(coll, Reducible):
        return coll
    items = items_of("cycle", coll)
    return Reducible("cycle", Vector.of(items), 0) if items else EMPTY_LIST


@primitive(
    "core",
    "range",
    "([] [end] [start end] [start end step])",
    "Numbers from start (0) up to, not including, end; without end, no end.",
    "(range 1 7 2) ;=> (1 3 5)",
)
def number_range(*args: Any) -> Any:
    """`range`."""
    if not args:
        return Reducible("range", 0, 1)
    if len(args) > 3:
        raise LispError(f"range takes 0 to 3 arguments, but was given {len(args)}", type="arity")
    start, end, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
    return _range(start, end, step)


def _range(start: Any, end: Any, step: Any) -> List | Reducible:
    from flowmetal.lang.primitives.checks import LIMIT, NUMBERS, too_large

    for x in (start, end, step):
        if type(x) not in NUMBERS:
            raise wrong("range", "numbers", x)
    if step == 0:
        return EMPTY_LIST if start == end else Reducible("repeat", start)
    if (step > 0 and end == float("inf")) or (step < 0 and end == float("-inf")):
        return Reducible("range", start, step)
    if type(start) is int and type(end) is int and type(step) is int:
        numbers = range(start, end, step)
        if abs(end - start) // abs(step) > LIMIT:
            raise too_large("range")
        return seq_of(tuple(numbers))
    out = []
    x = start
    while x < end if step > 0 else x > end:
        out.append(x)
        x = add2(x, step)
        if len(out) > LIMIT:
            raise too_large("range")
    return seq_of(tuple(out))
