"""The table of leaf primitives: functions written in Python that never call back into a program.

A leaf takes values and gives a value; it cannot suspend, so the machine runs it within one
transition. Its Python signature is its arity. `PRIMITIVES_VERSION` is recorded with the
definitions: a primitive whose behaviour changes must raise it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.definitions import REFERRED

PRIMITIVES_VERSION = 1

Leaf = Callable[..., Any]


class Primitive:
    """A leaf function of the core library: its Python function, its names and its arities."""

    __slots__ = ("arglists", "doc", "example", "fn", "high", "low", "name", "ns")

    def __init__(self, ns: str, name: str, fn: Leaf, arglists: str, doc: str, example: str) -> None:
        self.ns = ns
        self.name = name
        self.fn = fn
        self.arglists = arglists
        self.doc = doc
        self.example = example
        self.low, self.high = _arities(fn)

    def flowmetal_repr(self) -> str:
        """A function prints as its name: there is nothing in it to read back."""
        return f"#fn[{self.ns}/{self.name}]"

    def arity_error(self, count: int) -> LispError:
        """The error of a call with `count` arguments, listing what is accepted."""
        wants = f"{self.low} or more" if self.high is None else f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"
        name = self.name if self.ns in REFERRED else f"{self.ns}/{self.name}"
        return LispError(f"{name} takes {plural(wants)}, but was given {count}: {self.arglists}", type="arity")


def plural(count: str) -> str:
    """`1 argument`, `2 arguments`, `1 or 2 arguments`."""
    return f"{count} argument{'' if count == '1' else 's'}"


TABLE: dict[tuple[str, str], Primitive] = {}


def primitive(ns: str, name: str, arglists: str, doc: str, example: str = "") -> Callable[[Leaf], Leaf]:
    """Registers the decorated function as the leaf `ns/name`; gives the function back unchanged."""

    def register(fn: Leaf) -> Leaf:
        if (ns, name) in TABLE:
            raise ValueError(f"{ns}/{name} is registered twice")
        TABLE[ns, name] = Primitive(ns, name, fn, arglists, doc, example)
        return fn

    return register


LOOPS: dict[tuple[str, str], tuple[Primitive, int]] = {}
"""Loops over a function that is a leaf, and which argument that is: the machine gives it as a Python function."""


def leaf_loop(name: str, arglists: str, doc: str, *, ns: str = "core", at: int = 0) -> Callable[[Leaf], Leaf]:
    """Registers a loop over the leaf at argument `at`; gives the function back unchanged."""

    def register(fn: Leaf) -> Leaf:
        LOOPS[ns, name] = (Primitive(ns, name, fn, arglists, doc, ""), at)
        return fn

    return register


def _arities(fn: Leaf) -> tuple[int, int | None]:
    low, high = 0, 0
    for p in inspect.signature(fn).parameters.values():
        if p.kind is inspect.Parameter.VAR_POSITIONAL:
            return low, None
        if p.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            high += 1
            if p.default is inspect.Parameter.empty:
                low += 1
    return low, high
