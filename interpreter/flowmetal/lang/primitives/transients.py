"""Transients: a collection that is being built, changed in place until `persistent!` gives it.

What goes in: a vector, map or set. What comes out: a cell that holds one, and every change of it.
The one rule: after `persistent!` a transient is dead, and using it is an error. It is Clojure's way to
build fast; here it costs what `conj` and `assoc` cost.
"""

from __future__ import annotations

import itertools
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.maps import Map, Set
from flowmetal.lang.primitives.checks import wrong
from flowmetal.lang.primitives.collections import assoc3, conj2, contains, get
from flowmetal.lang.primitives.leaf_calls import called_with
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.vectors import EMPTY_VECTOR, Vector


class Transient:
    """A collection that is being built; None once it is finished."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def held(self) -> Any:
        """The collection so far."""
        if self.value is None:
            raise LispError("this transient was finished by persistent!: it cannot be used any more", type="value")
        return self.value

    def lookup(self, key: Any, default: Any) -> Any:
        """What `get`, `contains?` and a call find."""
        held = self.held()
        return get(held, key, default) if contains(held, key) else default

    def __len__(self) -> int:
        return len(self.held())

    def flowmetal_repr(self) -> str:
        """`#transient[…]`."""
        from flowmetal.lang.printer import pr_str

        return f"#transient[{'' if self.value is None else pr_str(self.value)}]"


@called_with(Transient)
def _call(t: Transient, args: Any) -> Any:
    if not 1 <= len(args) <= 2 or (len(args) == 2 and isinstance(t.held(), Vector)):
        raise LispError(f"a transient as a function takes a key, but was given {len(args)} arguments", type="arity")
    held = t.held()
    return held.nth(args[0]) if isinstance(held, Vector) and type(args[0]) is int else t.lookup(args[0], args[1] if len(args) == 2 else None)


def _need(who: str, t: Any, kinds: tuple[type, ...] = (Vector, Map, Set), what: str = "a transient") -> Any:
    if type(t) is not Transient or not isinstance(t.held(), kinds):
        raise wrong(who, what, t)
    return t.value


@primitive(
    "core",
    "transient",
    "([coll])",
    "A collection that is changed in place, by conj! and the like, until persistent! gives it.",
    "(persistent! (conj! (transient [1]) 2)) ;=> [1 2]",
)
def transient(coll: Any) -> Transient:
    """`transient`."""
    if type(coll) not in (Vector, Map, Set):
        raise wrong("transient", "a vector, map or set", coll)
    return Transient(coll if coll.meta is None else coll.with_meta(None))


@primitive(
    "core", "persistent!", "([transient])", "The collection that a transient was made into; the transient is dead.", "(persistent! (transient [1])) ;=> [1]"
)
def persistent(t: Any) -> Any:
    """`persistent!`."""
    value = _need("persistent!", t)
    t.value = None
    return value


@primitive("core", "transient?", "([x])", "Whether x was made by transient.", "(transient? (transient [])) ;=> true")
def is_transient(x: Any) -> bool:
    """`transient?`."""
    return type(x) is Transient


@primitive("core", "conj!", "([] [transient] [transient x])", "Adds an element to a transient; gives it.", "(persistent! (conj! (transient #{}) 1)) ;=> #{1}")
def conj_(*args: Any) -> Any:
    """`conj!`."""
    if not args:
        return Transient(EMPTY_VECTOR)
    if len(args) == 1:
        return args[0]
    if len(args) > 2:
        raise LispError(f"conj! takes 0 to 2 arguments, but was given {len(args)}: ([] [transient] [transient x])", type="arity")
    t, x = args
    t.value = conj2(_need("conj!", t), x)
    return t


@primitive(
    "core",
    "assoc!",
    "([transient key val & keyvals])",
    "Puts values at keys of a transient; gives it.",
    "(persistent! (assoc! (transient {}) :a 1)) ;=> {:a 1}",
)
def assoc_(t: Any, k: Any, v: Any, *keyvals: Any) -> Any:
    """`assoc!`."""
    held = assoc3(_need("assoc!", t, (Vector, Map), "a transient map or vector"), k, v)
    for key, value in itertools.zip_longest(keyvals[::2], keyvals[1::2]):  # unlike assoc, as in Clojure: the last value may be left out
        held = assoc3(held, key, value)
    t.value = held
    return t


@primitive(
    "core", "dissoc!", "([transient key & keys])", "Removes keys from a transient map; gives it.", "(persistent! (dissoc! (transient {:a 1}) :a)) ;=> {}"
)
def dissoc_(t: Any, *keys: Any) -> Any:
    """`dissoc!`."""
    held = _need("dissoc!", t, (Map,), "a transient map")
    for k in keys:
        held = held.dissoc(k)
    t.value = held
    return t


@primitive(
    "core", "disj!", "([transient] [transient x & xs])", "Removes members from a transient set; gives it.", "(persistent! (disj! (transient #{1}) 1)) ;=> #{}"
)
def disj_(t: Any, *xs: Any) -> Any:
    """`disj!`."""
    if not xs:
        return t
    held = _need("disj!", t, (Set,), "a transient set")
    for x in xs:
        held = held.disj(x)
    t.value = held
    return t


@primitive("core", "pop!", "([transient])", "Removes the last element of a transient vector; gives it.", "(persistent! (pop! (transient [1 2]))) ;=> [1]")
def pop_(t: Any) -> Any:
    """`pop!`."""
    t.value = _need("pop!", t, (Vector,), "a transient vector").pop()
    return t
