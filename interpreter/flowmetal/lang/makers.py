"""Makers: the primitives that definition forms, templates and patterns expand to, and what asks of functions.

In: what the form was given. Out: programs, stubs, lists and maps. None of them needs the machine.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.functions import Closure, FlowProgram, ForeignStub, Promise, is_function
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Set, Vector, list_of
from flowmetal.lang.primitives.leaf_calls import is_leaf
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.primitives.sequences import items_of
from flowmetal.lang.printer import pr_str
from flowmetal.lang.values import Keyword, Var


@primitive("core", "flow-program", "([ns name f])", "What defflow makes.")
def _flow_program(ns: Any, name: Any, f: Any) -> Any:
    return FlowProgram(ns, name, f)


@primitive("core", "foreign-stub", "([name params options])", "What defforeign makes.")
def _foreign_stub(name: Any, params: Any, options: Any) -> Any:
    return ForeignStub(name, params, options)


@primitive("core", "template-list", "([coll])", "The list that a syntax-quoted list becomes.")
def _template_list(coll: Any) -> Any:
    return list_of(items_of("~@", coll))


@primitive("core", "placed*", "([form origin])", "A form that stands, in errors, where another one stands.")
def _placed(form: Any, origin: Any) -> Any:
    if isinstance(form, List) and len(form):
        form = form.with_meta(getattr(origin, "meta", None))
        form.span = getattr(origin, "span", None)
    return form


@primitive("core", "destructured-map", "([x])", "What a map pattern takes apart: key-value arguments become a map.")
def _destructured_map(x: Any) -> Any:
    if isinstance(x, List):
        items = list(x)
        if len(items) == 1 and isinstance(items[0], Map):
            return items[0]
        tail = EMPTY_MAP
        if len(items) % 2 and isinstance(items[-1], Map):
            tail = items.pop()
        if len(items) % 2:
            raise LispError(f"no value given for the key {pr_str(items[-1])}", type="value")
        result = Map.of(zip(items[::2], items[1::2], strict=True))
        for k, v in tail.items():
            result = result.assoc(k, v)
        return result
    return x


@primitive(
    "core", "leaf?", "([f n])", "Whether f with n arguments cannot suspend: a library function, keyword, map, set, vector, or a function of such calls only."
)
def _leaf(f: Any, n: Any) -> Any:
    if type(n) is not int:
        raise LispError(f"leaf? needs a number of arguments, but found {pr_str(n)}", type="type")
    if type(f) is Closure:
        arity = f.code.arity(n)
        return arity is not None and arity.leaf is not None
    return is_leaf(f)


@primitive("core", "fn?", "([x])", "Whether x is a function.", "(fn? inc) ;=> true")
def _fn(x: Any) -> Any:
    return is_function(x)


@primitive("core", "ifn?", "([x])", "Whether x can be called.", "(ifn? :a) ;=> true")
def _ifn(x: Any) -> Any:
    return is_function(x) or isinstance(x, (Keyword, Map, Set, Vector, Var)) or is_leaf(x)


@primitive("flow", "promise?", "([x])", "Whether x is a promise.")
def _is_promise(x: Any) -> Any:
    return isinstance(x, Promise)
