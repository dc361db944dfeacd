"""Atoms: cells in the state of a flow, and what is asked of shared ones.

In: an atom and values. Out: values; a change of a shared atom is a request. The one rule: whether a value may stand in an
atom, and who hears of it, are functions of the program, so where an atom has such functions the prelude changes it.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.equality import equal
from flowmetal.lang.frames import Fiber
from flowmetal.lang.functions import Atom, SharedAtom
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.persistent import EMPTY_MAP, Map
from flowmetal.lang.primitives.checks import shown, wrong
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.values import kw

META, VALIDATOR = kw("meta"), kw("validator")


@op(
    "core", "atom", 1, None, "([value] [value & {:keys [meta validator]}])",
    "A cell in this flow's own state. With a validator, only values of which it is true may stand in it.", "@(atom 1) ;=> 1",
)  # fmt: skip
def _atom(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    value, *options = args
    made = Atom(value)
    if not options:
        return made
    if len(options) % 2:
        raise LispError(f"atom needs a value for each option, but {shown(options[-1])} has none", type="value")
    facts = Map.of((k, v) for k, v in zip(options[::2], options[1::2], strict=True) if v is not None)
    for key in facts.keys():
        if key not in (META, VALIDATOR):
            raise LispError(f"atom has the options :meta and :validator, but was given {shown(key)}", type="value")
    made.facts = facts if len(facts) else None
    return m.call_library(fiber, "checked-atom*", [made]) if VALIDATOR in facts else made


@primitive("core", "held*", "([who a])", "What an atom holds.")
def _held(who: Any, a: Any) -> Any:
    return need_atom(who, a).value


@primitive("core", "atom-facts*", "([who a])", "The validator, watches and metadata of an atom, as a map.")
def _facts(who: Any, a: Any) -> Any:
    return need_atom(who, a).facts or EMPTY_MAP


@op("core", "set-fact*", 4, 4, "([who a key value])", "Gives an atom another validator or other watches; gives the atom.")
def _set_fact(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    who, a, key, value = args
    facts = need_atom(who, a).facts or EMPTY_MAP
    facts = facts.dissoc(key) if value is None else facts.assoc(key, value)
    a.facts = facts if len(facts) else None
    return a


@op("core", "set-atom*", 2, 2, "([a value])", "Sets an atom, unasked and unheard.")
def _set_atom(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    args[0].value = args[1]
    return args[1]


@primitive("core", "atom?", "([x])", "Whether x is an atom.", "(atom? (atom 1)) ;=> true")
def _is_atom(x: Any) -> bool:
    return isinstance(x, (Atom, SharedAtom))


@primitive("core", "shared-atom?*", "([x])", "Whether x is an atom that was given to a top-level def.")
def _is_shared(x: Any) -> bool:
    return isinstance(x, SharedAtom)


def need_atom(who: Any, a: Any) -> Atom:
    """`a`, which must be an atom of the flow's own."""
    if isinstance(a, SharedAtom):
        raise LispError(f"{who}: an atom that was given to a top-level def is shared by all flows, and has no metadata, validator or watches", type="type")
    if not isinstance(a, Atom):
        raise wrong(who, "an atom", a)
    return a


def ask_shared(m: Machine, fiber: Fiber, name: str, a: SharedAtom, args: list[Any]) -> Any:
    """One step on a shared atom."""
    return m.ask(fiber, name, a.id, [a.begins, *args])


@op("core", "change-shared*", 3, 3, "([name atom args])", "One step that changes a shared atom; swap! and its like are made of it.")
def _change_shared(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return ask_shared(m, fiber, args[0], args[1], list(args[2]))


@op("core", "reset!", 2, 2, "([atom value])", "Sets an atom; gives the value.", "(reset! (atom 1) 2) ;=> 2")
def _reset(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if isinstance(args[0], SharedAtom):
        return ask_shared(m, fiber, "reset!", args[0], args[1:])
    a = need_atom("reset!", args[0])
    if a.facts is not None:
        return m.call_library(fiber, "reset-checked*", args)
    a.value = args[1]
    return args[1]


@op("core", "compare-and-set!", 3, 3, "([atom old new])", "Sets an atom if it holds old; whether it did.")
def _compare_and_set(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if isinstance(args[0], SharedAtom):
        return ask_shared(m, fiber, "compare-and-set!", args[0], args[1:])
    a = need_atom("compare-and-set!", args[0])
    if a.value is not args[1] and not equal(a.value, args[1]):
        return False
    if a.facts is not None:
        return m.call_library(fiber, "set-if-checked*", args)
    a.value = args[2]
    return True
