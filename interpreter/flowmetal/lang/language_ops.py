"""What a program asks of the language itself: expansions, names, namespaces, metadata of vars; and comparators.

In: forms and names as data. Out: forms, vars, maps. Names are resolved in the namespace of the code that asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowmetal.errors import LispError, SourceError
from flowmetal.lang import evaluate, natives
from flowmetal.lang.analyzer import Analyzer
from flowmetal.lang.definitions import REFERRED, Binding, referred_to
from flowmetal.lang.frames import Fiber
from flowmetal.lang.functions import Closure, Root
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.multimethods import EMPTY_HIERARCHY
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Set, Vector, seq_of
from flowmetal.lang.primitives.leaf_calls import is_leaf
from flowmetal.lang.primitives.registry import Primitive, primitive
from flowmetal.lang.primitives.sorted_collections import sorted_map_by, sorted_set_by
from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import read_all
from flowmetal.lang.spans import Source
from flowmetal.lang.values import Symbol, Var, kw


def namespace_of(m: Machine, fiber: Fiber) -> str:
    """The namespace that the innermost code of the user stands in."""
    for frame in reversed(fiber.frames):
        if frame.arity.code.root.prelude is None:
            return str(frame.arity.code.root.ns)
    return m.state.program.ns


def version_of(m: Machine, fiber: Fiber) -> int:
    """The definitions version that the running code sees."""
    return int(fiber.frames[-1].locals[0]) if fiber.frames else m.state.pin


# Comparators


@op(
    "core",
    "sorted-map-by",
    1,
    None,
    "([comparator & keyvals])",
    "A map whose keys are in the order of a comparator.",
    "(sorted-map-by > 1 :a 2 :b) ;=> {2 :b, 1 :a}",
)
def _sorted_map_by(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return sorted_map_by(_comparing(args[0]), version_of(m, fiber), args[1:])


@op("core", "sorted-set-by", 1, None, "([comparator & xs])", "A set whose members are in the order of a comparator.", "(sorted-set-by > 1 2) ;=> #{2 1}")
def _sorted_set_by(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return sorted_set_by(_comparing(args[0]), version_of(m, fiber), args[1:])


def _comparing(f: Any) -> Any:
    if type(f) in (Closure, Primitive) or is_leaf(f):
        return f
    raise LispError(f"the comparator of a sorted collection is a function that waits for nothing, but found {pr_str(f)}", type="type")


# The hierarchy that all share


@op("core", "shared-hierarchy*", 0, 0, "([])", "The hierarchy that derive and isa? use when they are given none.")
def _shared_hierarchy(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    binding = m.definitions.lookup("core", "shared-hierarchy", version_of(m, fiber))
    return binding.value if binding is not None else EMPTY_HIERARCHY


# Expansion


def _expand_once(m: Machine, fiber: Fiber, form: Any) -> Any:
    if not isinstance(form, List) or not len(form) or not isinstance(form.first(), Symbol):
        return form
    head = form.first()
    if head.ns is None and head.name in natives.SPECIAL:
        return form
    root = Root(namespace_of(m, fiber), version_of(m, fiber), "macroexpand", 1, 1, "")
    return Analyzer(m.definitions, root, evaluate.macro_runner(m.definitions)).expand_once(head, form)


@op(
    "core",
    "macroexpand-1",
    1,
    1,
    "([form])",
    "The form after one expansion, where it is the call of a macro.",
    "(macroexpand-1 '(when a b)) ;=> (if a (do b) nil)",
)
def _macroexpand_1(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return _expand_once(m, fiber, args[0])


@op(
    "core",
    "macroexpand",
    1,
    1,
    "([form])",
    "The form after as many expansions as it takes until it is no call of a macro.",
    "(macroexpand '(if-not a b)) ;=> (if a nil b)",
)
def _macroexpand(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    form = args[0]
    for _ in range(1000):
        expanded = _expand_once(m, fiber, form)
        if expanded is form:
            return form
        form = expanded
    raise LispError("this macro expands to itself for ever", type="limit")


@op("core", "eval", 1, 1, "([form])", "The value of a form, as if it stood at the top level here.", "(eval '(+ 1 2)) ;=> 3")
def _eval(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    if not isinstance(args[0], (List, Vector, Map, Set, Symbol)):
        return args[0]
    text = pr_str(args[0])
    root = Root(namespace_of(m, fiber), version_of(m, fiber), "eval", 1, 1, text)
    try:
        form = read_all(Source("eval", text), ns=root.ns)  # the code must come again from the text alone
    except SourceError as e:
        if e.type == "limit":
            raise LispError(f"eval: {e.message}", type="limit") from None
        raise LispError(f"eval: a part of the form is no data: {e.message}", type="type", hint="a function stands in a form as its name, a symbol") from None
    return m.invoke(fiber, evaluate.compile_form(m.definitions, root, form[0]), [])


_SPECIAL = frozenset({"&", "def", "new", ".", "throw", "set!", "case*", "letfn*", "deftype*", "reify*", "import*", "monitor-enter", "monitor-exit"})
"""What Clojure counts among the special forms besides those here."""


@primitive("core", "special-symbol?", "([x])", "Whether x is the name of a special form.", "(special-symbol? 'if) ;=> true")
def special_symbol(x: Any) -> bool:
    """`special-symbol?`."""
    return isinstance(x, Symbol) and x.ns is None and (x.name in natives.SPECIAL or x.name in _SPECIAL)


# Names


def _symbol(who: str, x: Any) -> Symbol:
    if isinstance(x, Symbol):
        return x
    raise LispError(f"{who} needs a symbol, but found {pr_str(x)}", type="type")


def _resolved(m: Machine, fiber: Fiber, name: Symbol, ns: str) -> Var | None:
    cell = m.definitions.resolve(name.ns, name.name, ns, version_of(m, fiber))
    return None if cell is None else Var(cell.ns, cell.name)


@op("core", "resolve", 1, 2, "([symbol] [env symbol])", "The var that a symbol means here, or nil.", "(resolve 'inc) ;=> #'core/inc")
def _resolve(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return _resolved(m, fiber, _symbol("resolve", args[-1]), namespace_of(m, fiber))


@op(
    "core", "ns-resolve", 2, 3, "([ns symbol] [ns env symbol])", "The var that a symbol means in a namespace, or nil.", "(ns-resolve 'core 'inc) ;=> #'core/inc"
)
def _ns_resolve(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return _resolved(m, fiber, _symbol("ns-resolve", args[-1]), _existing(m, fiber, args[0]))


@op("core", "requiring-resolve", 1, 1, "([symbol])", "The var of a symbol with a namespace, or nil.", "(requiring-resolve 'str/join) ;=> #'str/join")
def _requiring_resolve(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return _resolved(m, fiber, _symbol("requiring-resolve", args[0]), namespace_of(m, fiber))


@op("core", "find-var", 1, 1, "([symbol])", "The var of a symbol with a namespace, or nil.", "(find-var 'core/inc) ;=> #'core/inc")
def _find_var(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    name = _symbol("find-var", args[0])
    if name.ns is None:
        raise LispError(f"find-var needs a symbol with a namespace, but found {name}", type="value")
    return _resolved(m, fiber, name, namespace_of(m, fiber))


def _binding(m: Machine, fiber: Fiber, var: Any) -> Binding | None:
    if not isinstance(var, Var):
        raise LispError(f"expected a var, but found {pr_str(var)}", type="type")
    return m.definitions.lookup(var.ns, var.name, version_of(m, fiber))


@op("core", "bound?", 0, None, "([& vars])", "Whether all vars have a value.", "(bound? #'inc) ;=> true")
def _bound(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return all((found := _binding(m, fiber, v)) is not None and found.kind != "declare" for v in args)


@op("core", "var-meta*", 1, 1, "([var])", "What is known of a definition, as a map.")
def _var_meta(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    var, binding = args[0], _binding(m, fiber, args[0])
    if binding is None:
        return None
    _ = binding.value
    facts = {k: v for k, v in binding.meta.items() if k not in ("hash", "source") and v not in (None, "", False)}
    if isinstance(facts.get("arglists"), str):
        facts["arglists"] = read_all(Source("arglists", facts["arglists"]))[0]
    if binding.macro:
        facts["macro"] = True
    code = getattr(getattr(binding.value, "body", binding.value), "code", None)
    if code is not None and code.span is not None:
        facts |= {"line": code.span.line, "column": code.span.column, "file": code.span.source.name}
    facts |= {"ns": Symbol(None, var.ns), "name": Symbol(None, var.name)}
    return Map.of((kw(k), v) for k, v in facts.items())


# Namespaces


def _existing(m: Machine, fiber: Fiber, x: Any) -> str:
    ns = m.definitions.resolve_ns(str(_symbol("a function on namespaces", x)), namespace_of(m, fiber), version_of(m, fiber))
    if ns not in m.definitions.spaces:
        raise LispError(f"there is no namespace {ns}", type="compile/unresolved")
    return ns


def _vars(ns: str, names: Iterable[str]) -> Map:
    return Map.of((Symbol(None, name), Var(ns, name)) for name in sorted(names))


@op("core", "ns-publics", 1, 1, "([ns])", "The public names of a namespace: a map from symbols to vars.", "(get (ns-publics 'math) 'sqrt) ;=> #'math/sqrt")
def _ns_publics(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    ns = _existing(m, fiber, args[0])
    return _vars(ns, m.definitions.public(ns, version_of(m, fiber)))


@op("core", "ns-interns", 1, 1, "([ns])", "All names of a namespace: a map from symbols to vars.", "(get (ns-interns 'math) 'sqrt) ;=> #'math/sqrt")
def _ns_interns(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    ns = _existing(m, fiber, args[0])
    return _vars(ns, m.definitions.names(ns, version_of(m, fiber)))


def _table(m: Machine, fiber: Fiber, ns: Any, key: str) -> dict[str, str]:
    table = m.definitions.namespace(_existing(m, fiber, ns), version_of(m, fiber))
    return dict(table.get(key).items()) if table is not None else {}


@op("core", "ns-aliases", 1, 1, "([ns])", "The aliases of a namespace: a map from symbols to symbols.", "(map? (ns-aliases 'core)) ;=> true")
def _ns_aliases(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return Map.of((Symbol(None, k), Symbol(None, v)) for k, v in _table(m, fiber, args[0], "aliases").items())


@op(
    "core",
    "ns-refers",
    1,
    1,
    "([ns])",
    "The names that a namespace refers to without a prefix: a map from symbols to vars.",
    "(map? (ns-refers 'core)) ;=> true",
)
def _ns_refers(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return Map.of(_referred(m, fiber, args[0]))


def _referred(m: Machine, fiber: Fiber, ns: Any) -> list[tuple[Symbol, Var]]:
    return [(Symbol(None, name), Var(*referred_to(name, target))) for name, target in _table(m, fiber, ns, "refers").items()]


@op(
    "core",
    "ns-map",
    1,
    1,
    "([ns])",
    "All that can be written without a prefix in a namespace: a map from symbols to vars.",
    "(get (ns-map 'core) 'inc) ;=> #'core/inc",
)
def _ns_map(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    ns, version = _existing(m, fiber, args[0]), version_of(m, fiber)
    found = EMPTY_MAP
    for space in reversed(REFERRED):
        found = found.assoc_all(_vars(space, m.definitions.public(space, version)).items())
    found = found.assoc_all(_referred(m, fiber, args[0]))
    return found.assoc_all(_vars(ns, m.definitions.names(ns, version)).items())


@op("core", "all-ns", 0, 0, "([])", "The names of all namespaces.", "(some #{'core} (all-ns)) ;=> core")
def _all_ns(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    version = version_of(m, fiber)
    return seq_of([Symbol(None, ns) for ns in sorted(m.definitions.spaces) if next(iter(m.definitions.spaces[ns].values()), None) and _alive(m, ns, version)])


def _alive(m: Machine, ns: str, version: int) -> bool:
    return any(cell.at(version) is not None for cell in m.definitions.spaces[ns].values())


@op("core", "find-ns", 1, 1, "([ns])", "The name of a namespace, or nil when there is none.", "(find-ns 'core) ;=> core")
def _find_ns(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    name = _symbol("find-ns", args[0])
    return name if str(name) in m.definitions.spaces and _alive(m, str(name), version_of(m, fiber)) else None


@op("core", "the-ns", 1, 1, "([ns])", "The name of a namespace; an error when there is none.", "(the-ns 'core) ;=> core")
def _the_ns(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return Symbol(None, _existing(m, fiber, args[0]))


@op("core", "ns-name", 1, 1, "([ns])", "The name of a namespace, as a symbol.", "(ns-name 'core) ;=> core")
def _ns_name(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return Symbol(None, _existing(m, fiber, args[0]))


@op("core", "current-ns", 0, 0, "([])", "The name of the namespace that this code stands in.", "(symbol? (current-ns)) ;=> true")
def _current_ns(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return Symbol(None, namespace_of(m, fiber))


__all__ = ["namespace_of", "version_of"]
