"""Forms that define names: `def defn defn- defmacro defflow defforeign defmulti defmethod declare ns`.

Each becomes one `Def` node, which the machine turns into rows of the definitions log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowmetal.lang import nodes as n
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Vector, list_of
from flowmetal.lang.printer import pr_str
from flowmetal.lang.spans import Span
from flowmetal.lang.values import Keyword, Symbol

if TYPE_CHECKING:
    from flowmetal.lang.analyzer import Analyzer, FnScope


@dataclass
class _Forms:
    special: dict[str, Any] = field(default_factory=dict)
    rewrites: dict[str, Any] = field(default_factory=dict)


DEFINITIONS = _Forms()


def _sym(name: str, ns: str | None = None) -> Symbol:
    return Symbol(ns, name)


def _kw(name: str) -> Keyword:
    return Keyword.of(name)


def _define(kind: str, name: Symbol, meta: dict[str, Any], init: Any) -> List:
    facts = Map.of([(_kw(k), v) for k, v in meta.items() if v is not None])
    return list_of([_sym("def*"), _kw(kind), name, list_of([_sym("quote"), facts]), init])


def _name(an: Analyzer, form: List) -> Symbol:
    name = form.rest().first() if len(form) > 1 else None
    if not isinstance(name, Symbol):
        raise an.error(f"{form.first()} needs a name, but found {pr_str(name)}", form)
    if name.ns is not None and name.ns != an.ns:
        raise an.error(f"cannot define {name} from namespace {an.ns}: a definition belongs to its own namespace", form)
    return name


def _facts(meta: Map | None) -> dict[str, Any]:
    return {k.name: v for k, v in meta.items() if isinstance(k, Keyword) and k.ns is None} if meta is not None else {}


def _take_facts(name: Symbol, items: list[Any]) -> dict[str, Any]:
    """What is said of a name before its definition: its metadata, a docstring, a map; the latter two are taken off `items`."""
    facts = _facts(name.meta)
    if items and isinstance(items[0], str):
        facts["doc"] = items.pop(0)
    if len(items) > 1 and isinstance(items[0], Map):
        facts |= _facts(items.pop(0))
    return facts


def def_form(an: Analyzer, form: List) -> Any:
    """`(def name doc? value?)`."""
    name = _name(an, form)
    items = list(form.rest().rest())
    facts = _facts(name.meta)
    if len(items) == 2 and isinstance(items[0], str):
        facts["doc"] = items.pop(0)
    if len(items) > 1:
        raise an.error("def takes a name, perhaps a docstring, and one value", form)
    if not items:
        return _define("declare", name, facts, None)
    return _define("def", name, facts, items[0])


def _function(an: Analyzer, form: List, kind: str, **more: Any) -> tuple[Symbol, dict[str, Any], List]:
    name = _name(an, form)
    items = list(form.rest().rest())
    facts = _take_facts(name, items) | more
    if items and not isinstance(items[0], Vector) and not (isinstance(items[0], List) and len(items[0])):
        raise an.error(f"{form.first()} needs a vector of parameters, but found {pr_str(items[0])}", items[0])
    if items and isinstance(items[-1], Map) and isinstance(items[0], List):
        facts |= _facts(items.pop())
    if not items:
        raise an.error(f"{form.first()} needs a vector of parameters", form)
    bodies = [items[0]] if isinstance(items[0], Vector) else [b.first() for b in items if isinstance(b, List) and len(b)]
    facts["arglists"] = list_of(bodies)
    inner = _sym(name.name) if kind != "defmacro" else None
    function = list_of([_sym("fn"), *([inner] if inner else []), *items])
    function.span = form.span
    return name, facts, function


def defn_form(an: Analyzer, form: List) -> Any:
    """`(defn name doc? attrs? [params] body…)`."""
    name, facts, function = _function(an, form, "defn")
    return _define("defn", name, facts, function)


def defn_private(an: Analyzer, form: List) -> Any:
    """`(defn- …)`."""
    name, facts, function = _function(an, form, "defn", private=True)
    return _define("defn", name, facts, function)


def defmacro_form(an: Analyzer, form: List) -> Any:
    """`(defmacro name doc? attrs? [params] body…)`."""
    name, facts, function = _function(an, form, "defmacro")
    return _define("defmacro", name, facts, function)


def defflow_form(an: Analyzer, form: List) -> Any:
    """`(defflow name doc? [params] body…)`."""
    name, facts, function = _function(an, form, "defflow")
    return _define("defflow", name, facts, list_of([_sym("flow-program", "core"), an.ns, name.name, function]))


def deftest_form(an: Analyzer, form: List) -> Any:
    """`(deftest name body…)`: a program without parameters, which `flowmetal test` runs."""
    name = _name(an, form)
    function = list_of([_sym("fn"), _sym(name.name), Vector.of([]), *form.rest().rest()])
    function.span = form.span
    facts = {**_facts(name.meta), "arglists": list_of([Vector.of([])])}
    return _define("deftest", name, facts, list_of([_sym("flow-program", "core"), an.ns, name.name, function]))


def defforeign_form(an: Analyzer, form: List) -> Any:
    """`(defforeign name doc? [params] options?)`."""
    name = _name(an, form)
    items = list(form.rest().rest())
    facts = _take_facts(name, items)
    if not items or not isinstance(items[0], Vector):
        raise an.error("defforeign needs a vector of parameters", form)
    params = items.pop(0)
    options = items.pop(0) if items else EMPTY_MAP
    if items or not isinstance(options, Map):
        raise an.error("defforeign takes a name, a docstring, parameters and a map of options", form)
    facts["arglists"] = list_of([params])
    stub = list_of([_sym("foreign-stub", "core"), name.name, list_of([_sym("quote"), params]), options])
    return _define("defforeign", name, facts, stub)


def defmulti_form(an: Analyzer, form: List) -> Any:
    """`(defmulti name doc? dispatch & options)`."""
    name = _name(an, form)
    items = list(form.rest().rest())
    facts = _take_facts(name, items)
    if not items:
        raise an.error("defmulti needs a dispatch function", form)
    if len(items) % 2 == 0 or any(k not in (_kw("default"), _kw("hierarchy")) for k in items[1::2]):
        raise an.error("defmulti takes a dispatch function, and after it :default value or :hierarchy hierarchy", form)
    options = dict(zip(items[1::2], items[2::2], strict=True))
    default = options.get(_kw("default"), _kw("default"))
    parts = [items[0], default, *([options[_kw("hierarchy")]] if _kw("hierarchy") in options else [])]
    return _define("defmulti", name, facts, list_of([_sym("multi-fn", "core"), name.name, *parts]))


def defmethod_form(an: Analyzer, form: List) -> Any:
    """`(defmethod name value [params] body…)`: the multimethod with one method more."""
    items = list(form.rest())
    if len(items) < 3 or not isinstance(items[0], Symbol):
        raise an.error("defmethod takes the multimethod's name, a dispatch value, parameters and a body", form)
    name = items[0]
    cell = an.definitions.resolve(name.ns, name.name, an.ns, an.version)
    if cell is None:
        raise an.unresolved(name)
    function = list_of([_sym("fn"), *items[2:]])
    function.span = form.span
    target = Symbol(cell.ns, cell.name, None, name.span)
    return _define("defmethod", target, {}, list_of([_sym("add-method", "core"), target, items[1], function]))


def _changed(name: str, maker: str, count: int, what: str) -> Any:
    """A form that defines a multimethod anew, changed by `maker`."""

    def rewrite(an: Analyzer, form: List) -> Any:
        items = list(form.rest())
        if len(items) != count or not isinstance(items[0], Symbol):
            raise an.error(f"{name} takes {what}", form)
        cell = an.definitions.resolve(items[0].ns, items[0].name, an.ns, an.version)
        if cell is None:
            raise an.unresolved(items[0])
        target = Symbol(cell.ns, cell.name, None, items[0].span)
        return _define("defmethod", target, {}, list_of([_sym(maker, "core"), target, *items[1:]]))

    return rewrite


def _shared_hierarchy(name: str, maker: str) -> Any:
    """`(derive tag parent)`: defines the shared hierarchy anew; with a hierarchy of its own it is a function."""

    def rewrite(an: Analyzer, form: List) -> Any:
        items = list(form.rest())
        if len(items) == 3:
            return list_of([_sym(maker, "core"), *items, *([False] if name == "derive" else [])])
        if len(items) != 2:
            raise an.error(f"{name} takes a tag and its parent, or a hierarchy, a tag and its parent", form, "arity")
        target = _sym("shared-hierarchy", "core")
        made = list_of([_sym(maker, "core"), list_of([_sym("shared-hierarchy*", "core")]), *items, *([True] if name == "derive" else [])])
        return list_of([_sym("do"), _define("derive", target, {}, made), None])

    return rewrite


def defonce_form(an: Analyzer, form: List) -> Any:
    """`(defonce name value)`: nothing where the name has a value already."""
    name = _name(an, form)
    known = an.definitions.lookup(an.ns, name.name, an.version)
    return None if known is not None and known.kind != "declare" else def_form(an, form)


def declare_form(an: Analyzer, form: List) -> Any:
    """`(declare name…)`."""
    for name in form.rest():
        if not isinstance(name, Symbol):
            raise an.error(f"declare takes names, but found {pr_str(name)}", form)
    return list_of([_sym("do"), *[_define("declare", s, {}, None) for s in form.rest()]])


def def_star(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(def* kind name 'facts init)`: what every form above becomes."""
    kind, name, facts, init = list(form.rest())
    ns = name.ns or an.ns
    if an.fn_depth and an.root.prelude is None and kind is _kw("derive"):
        hint = "give derive a hierarchy of your own: (derive h tag parent) works anywhere, and isa? and :hierarchy take it"
        raise an.error("derive changes the hierarchy that all share: like a definition, it stands at the top level, never inside a function", form, hint=hint)
    if an.fn_depth and an.root.prelude is None:
        raise an.error(f"{name.name} cannot be defined here: definitions stand at the top level, never inside a function or flow", form)
    an.declared.add(name.name)
    meta = {k.name: v for k, v in facts.rest().first().items()}
    node = an.analyze(init, scope)
    return n.Def(span, None, ns, name.name, kind.name, meta, node)


DEFINITIONS.special["def*"] = def_star
DEFINITIONS.rewrites.update({
    "def": def_form, "defn": defn_form, "defn-": defn_private, "defmacro": defmacro_form, "defflow": defflow_form, "deftest": deftest_form,
    "defforeign": defforeign_form, "defmulti": defmulti_form, "defmethod": defmethod_form, "declare": declare_form, "defonce": defonce_form,
    "remove-method": _changed("remove-method", "without-method*", 2, "a multimethod's name and a dispatch value"),
    "remove-all-methods": _changed("remove-all-methods", "without-methods*", 1, "a multimethod's name"),
    "prefer-method": _changed("prefer-method", "prefer-in*", 3, "a multimethod's name and two dispatch values"),
    "derive": _shared_hierarchy("derive", "derive-in*"), "underive": _shared_hierarchy("underive", "underive-in*"),
})  # fmt: skip
