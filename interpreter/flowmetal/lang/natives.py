"""The forms that the analyzer knows by name: special forms, and macros over binding patterns.

`SPECIAL` maps a name to (analyzer, form, scope, span) → node; `REWRITES` to (analyzer, form) → form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowmetal.lang import leaves, syntax_quote
from flowmetal.lang import nodes as n
from flowmetal.lang.definition_forms import DEFINITIONS
from flowmetal.lang.destructure import destructure
from flowmetal.lang.functions import Arity, Code, MachineOp
from flowmetal.lang.namespace_forms import ns_form, require_form
from flowmetal.lang.persistent import List, Map, Vector, list_of
from flowmetal.lang.printer import pr_str
from flowmetal.lang.spans import Span
from flowmetal.lang.values import Keyword, Symbol, Var

if TYPE_CHECKING:
    from flowmetal.lang.analyzer import Analyzer, FnScope

AMPERSAND = Symbol(None, "&")
PRE, POST = Keyword.of("pre"), Keyword.of("post")


def _sym(name: str) -> Symbol:
    return Symbol(None, name)


# Rewrites: patterns become plain names


def let(an: Analyzer, form: List) -> Any:
    """`(let [pattern value …] body…)` → `let*` over plain names."""
    bindings, body = _bindings(an, form, "let")
    out: list[Any] = []
    for pattern, value in bindings:
        for name, init in destructure(pattern, value, an.gensym):
            out += [name, init]
    return list_of([_sym("let*"), Vector.of(out), *body])


def loop(an: Analyzer, form: List) -> Any:
    """`loop` over patterns: plain names to recur to, taken apart anew at each turn."""
    bindings, body = _bindings(an, form, "loop")
    if all(isinstance(p, Symbol) for p, _ in bindings):
        return list_of([_sym("loop*"), form.rest().first(), *body])
    plain: list[Any] = []
    inits: list[Any] = []
    inner: list[Any] = []
    for pattern, value in bindings:
        name = pattern if isinstance(pattern, Symbol) else an.gensym("loop")
        inits += [name, value] if isinstance(pattern, Symbol) else [name, value, pattern, name]
        plain += [name, name]
        inner += [] if isinstance(pattern, Symbol) else [pattern, name]
    looped = list_of([_sym("loop*"), Vector.of(plain), list_of([_sym("let"), Vector.of(inner), *body])])
    return list_of([_sym("let"), Vector.of(inits), looped])


def fn(an: Analyzer, form: List) -> Any:
    """`(fn name? [patterns] body…)` or `(fn name? ([…] …) …)` → `fn*` over plain names."""
    items = list(form.rest())
    name = items.pop(0) if items and isinstance(items[0], Symbol) else None
    if items and isinstance(items[0], Vector):
        items = [list_of(items)]
    if not items:
        raise an.error("fn needs a vector of parameters", form)
    arities = []
    for item in items:
        if not (isinstance(item, List) and len(item) and isinstance(item.first(), Vector)):
            raise an.error(f"expected a vector of parameters, but found {pr_str(item)}", item)
        plain = _arity(an, item)
        plain.span = item.span
        arities.append(plain)
    made = list_of([_sym("fn*"), *([name] if name else []), *arities])
    if form.meta is None:
        return made
    made.span = form.span
    return list_of([Symbol("core", "with-meta"), made, form.meta])


def _arity(an: Analyzer, item: List) -> List:
    params, body = item.first(), _conditions(an, list(item.rest()))
    plain: list[Any] = []
    inner: list[Any] = []
    for p in params:
        if isinstance(p, Symbol):
            plain.append(p)
        else:
            name = an.gensym("arg")
            plain.append(name)
            inner += [p, name]
    if inner:
        body = [list_of([_sym("let"), Vector.of(inner), *body])]
    return list_of([Vector.of(plain), *body])


def _conditions(an: Analyzer, body: list[Any]) -> list[Any]:
    """A body that begins with `{:pre [test…] :post [test…]}`, as assertions; in :post, % is the result."""
    if len(body) < 2 or not isinstance(body[0], Map):
        return body
    conditions, *rest = body
    if PRE not in conditions and POST not in conditions:
        return body
    for key in (PRE, POST):
        if not isinstance(conditions.get(key, Vector.of([])), Vector):
            raise an.error(f"{pr_str(key)} takes a vector of tests, but found {pr_str(conditions.get(key))}", conditions)
    pre, post = ([list_of([Symbol("core", "assert"), test]) for test in conditions.get(key, ())] for key in (PRE, POST))
    if not post:
        return [*pre, *rest]
    result = _sym("%")
    return [*pre, list_of([_sym("let*"), Vector.of([result, list_of([_sym("do"), *rest])]), *post, result])]


def _bindings(an: Analyzer, form: List, what: str) -> tuple[list[tuple[Any, Any]], list[Any]]:
    items = list(form.rest())
    if not items or not isinstance(items[0], Vector):
        raise an.error(f"{what} needs a vector of bindings", form)
    vector = list(items[0])
    if len(vector) % 2:
        raise an.error(f"{what} needs a value for each name, but {pr_str(vector[-1])} has none", items[0])
    return list(zip(vector[::2], vector[1::2], strict=True)), items[1:]


# Special forms


def do_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(do expr…)`."""
    return an.body(form.rest(), scope, span)


def if_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(if test then else?)`."""
    parts = list(form.rest())
    if len(parts) not in (2, 3):
        raise an.error(f"if takes a test, a then and perhaps an else, but was given {len(parts)} forms", form)
    test, then, *rest = [an.analyze(p, scope) for p in parts]
    other = rest[0] if rest else an.const(None, span)
    leaf = None
    if test.leaf and then.leaf and other.leaf:
        leaf = leaves.choose(test.leaf, then.leaf, other.leaf)
    return n.If(span, leaf, test, then, other)


def quote_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(quote form)`."""
    if len(form) != 2:
        raise an.error("quote takes one form", form)
    return an.const(form.rest().first(), span)


def var_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(var name)`: the name of a definition as a value."""
    target = form.rest().first() if len(form) == 2 else None
    if not isinstance(target, Symbol):
        raise an.error("var takes one name", form)
    cell = an.definitions.resolve(target.ns, target.name, an.ns, an.version)
    if cell is None:
        raise an.unresolved(target)
    return an.const(Var(cell.ns, cell.name), span)


def let_star(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(let* [name value …] body…)`."""
    bindings, body = _bindings(an, form, "let")
    outer = an.scoped(scope)
    pairs = _pairs(an, bindings, scope)
    node = an.body(body, scope, span)
    scope.locals = outer
    inits = [(slot, init.leaf) for slot, _, init in pairs if init.leaf is not None]
    leaf = leaves.bind(inits, node.leaf) if node.leaf is not None and len(inits) == len(pairs) else None
    return n.Let(span, leaf, pairs, node)


def _pairs(an: Analyzer, bindings: list[tuple[Any, Any]], scope: FnScope) -> list[tuple[int, str, n.Node]]:
    pairs = []
    for name, value in bindings:
        if not isinstance(name, Symbol) or name.ns is not None or name == AMPERSAND:
            raise an.error(f"cannot bind to {pr_str(name)}: expected a plain name", name)
        init = an.analyze(value, scope)
        slot = scope.slot()
        scope.locals[name.name] = slot
        pairs.append((slot, name.name, init))
    return pairs


def loop_star(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(loop* [name value …] body…)`."""
    bindings, body = _bindings(an, form, "loop")
    outer, outer_loop, outer_try = an.scoped(scope), scope.loop, scope.in_try
    pairs = _pairs(an, bindings, scope)
    label: list[int] = []
    scope.loop, scope.in_try = ([slot for slot, _, _ in pairs], label), 0
    node = an.body(body, scope, span)
    scope.locals, scope.loop, scope.in_try = outer, outer_loop, outer_try
    return n.Loop(span, None, pairs, node, label)


def recur_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(recur value…)`."""
    if scope.loop is None:
        raise an.error("recur stands outside of any loop or function", form)
    if scope.in_try:
        raise an.error("cannot recur out of a try", form, hint="put the try inside a function that the loop calls")
    slots, label = scope.loop
    args = [an.analyze(a, scope) for a in form.rest()]
    if len(args) != len(slots):
        raise an.error(f"recur needs {len(slots)} {'value' if len(slots) == 1 else 'values'} here, but was given {len(args)}", form, "arity")
    return n.Recur(span, None, slots, args, label)


def fn_star(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(fn* name? ([names] body…) …)`."""
    items = list(form.rest())
    name = items.pop(0).name if items and isinstance(items[0], Symbol) else None
    return _function(an, name, items, scope, span)


def _function(an: Analyzer, name: str | None, items: list[Any], scope: FnScope, span: Span | None) -> n.Fn:
    code = Code(name or "", an.root, span)
    shared: dict[str, int] = {}
    for item in items:
        _compile_arity(an, code, name, item, scope, shared)
    code.captures = len(shared)
    captures = [local for name in shared if (local := an.local(name, scope)) is not None]
    return n.Fn(span, leaves.closure(code, [c.leaf for c in captures if c.leaf is not None]), code, captures)


def _compile_arity(an: Analyzer, code: Code, name: str | None, item: List, scope: FnScope, shared: dict[str, int]) -> None:
    from flowmetal.lang.analyzer import FnScope

    params = list(item.first())
    variadic = AMPERSAND in params
    if variadic:
        at = params.index(AMPERSAND)
        if at + 2 != len(params):
            raise an.error("& must be followed by one parameter, at the end", item)
        params = [*params[:at], params[at + 1]]
    for p in params:
        if not isinstance(p, Symbol) or p.ns is not None:
            raise an.error(f"a parameter must be a plain name or a pattern, not {pr_str(p)}", p)
    fixed = len(params) - variadic
    arity = Arity(code, fixed, variadic)
    if (variadic and code.variadic) or (not variadic and fixed in code.arities):
        raise an.error("two bodies of one function take the same number of arguments", item)
    inner = FnScope(code, arity, scope)
    inner.captures = shared
    slots = [inner.slot() for _ in params]
    if name:
        inner.locals[name] = 1
    inner.locals.update({p.name: s for p, s in zip(params, slots, strict=True)})
    label: list[int] = [0]
    inner.loop = (slots, label)
    if variadic:
        code.variadic = arity
    else:
        code.arities[fixed] = arity
    an.fn_depth += 1
    body = an.body(item.rest(), inner, item.span)
    an.fn_depth -= 1
    arity.names = [(slot, p.name, 0, 1 << 30) for p, slot in zip(params, slots, strict=True)]
    an.compile_arity(arity, body, inner)


def letfn_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(letfn [(name [params] body…) …] body…)`."""
    items = list(form.rest())
    if not items or not isinstance(items[0], Vector):
        raise an.error("letfn needs a vector of functions", form)
    outer = an.scoped(scope)
    names: list[tuple[str, int]] = []
    for f in items[0]:
        if not (isinstance(f, List) and len(f) and isinstance(f.first(), Symbol)):
            raise an.error("each function of letfn is (name [parameters] body…)", f)
        slot = scope.slot()
        scope.locals[f.first().name] = slot
        names.append((f.first().name, slot))
    pairs = []
    for (name, slot), f in zip(names, items[0], strict=True):
        pairs.append((slot, name, an.analyze(list_of([_sym("fn"), *f]), scope)))
    node = an.body(items[1:], scope, span)
    scope.locals = outer
    return n.LetFn(span, None, pairs, node)


def try_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(try expr… (catch :type name expr…)… (finally expr…))`."""
    body: list[Any] = []
    clauses: list[List] = []
    finally_: List | None = None
    for item in form.rest():
        head = syntax_quote.head(item)
        if head == "catch":
            clauses.append(item)
        elif head == "finally":
            if finally_ is not None:
                raise an.error("try has one finally at most", item)
            finally_ = item
        elif clauses or finally_:
            raise an.error("expressions of a try stand before its catch and finally", item)
        else:
            body.append(item)
    scope.in_try += 1
    node = an.body(body, scope, span)
    catches = [_catch(an, c, scope) for c in clauses]
    end = an.body(finally_.rest(), scope, finally_.span) if finally_ is not None else None
    scope.in_try -= 1
    if not catches and end is None:
        return node
    return n.Try(span, None, node, catches, end, scope.slot(), scope.slot())


CATCH_ALL = frozenset({"Exception", "Throwable", "Error", "RuntimeException", "ExceptionInfo", "clojure.lang.ExceptionInfo"})
"""Names of classes, also after a namespace such as js/, that catch every error."""


def _catch(an: Analyzer, clause: List, scope: FnScope) -> n.Catch:
    items = list(clause.rest())
    if len(items) < 2 or not isinstance(items[1], Symbol):
        raise an.error("catch takes a type, a name and expressions: (catch :default e …)", clause)
    kind, name = items[0], items[1]
    if isinstance(kind, Symbol) and (kind.name in CATCH_ALL or str(kind).startswith("java.")):
        kind = Keyword.of("default")
    if not isinstance(kind, Keyword):
        raise an.error(f"catch takes the type of error as a keyword, not {pr_str(kind)}", clause, hint="(catch :default e …) catches every error")
    outer = an.scoped(scope)
    slot = scope.slot()
    scope.locals[name.name] = slot
    body = an.body(items[2:], scope, clause.span)
    scope.locals = outer
    return n.Catch(kind, slot, name.name, body)


def template_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """A syntax-quoted template."""
    return an.analyze(syntax_quote.expand(form.rest().first(), an.resolve_template, an.gensym), scope)


def stray(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`~x` or `catch` outside of its place."""
    name = form.first().name
    where = {"unquote": "~ stands outside of a syntax-quote", "unquote-splicing": "~@ stands outside of a syntax-quote"}
    raise an.error(where.get(name, f"{name} stands outside of a try"), form)


Special = Callable[["Analyzer", List, "FnScope", "Span | None"], n.Node]

SPECIAL: dict[str, Special] = {
    "do": do_form, "if": if_form, "quote": quote_form, "var": var_form, "let*": let_star, "loop*": loop_star, "recur": recur_form,
    "fn*": fn_star, "letfn": letfn_form, "try": try_form, "syntax-quote": template_form, "unquote": stray, "unquote-splicing": stray,
    "catch": stray, "finally": stray, "ns": ns_form, "require": require_form, **DEFINITIONS.special,
}  # fmt: skip
REWRITES: dict[str, Callable[[Any, List], Any]] = {"let": let, "loop": loop, "fn": fn, **DEFINITIONS.rewrites}


def is_form(name: str) -> bool:
    """Whether a name is that of a form that the analyzer knows: it can be called, but is no value."""
    return name in SPECIAL or name in REWRITES


PLAIN = frozenset({"&", "&form", "&env"})
__all__ = ["PLAIN", "REWRITES", "SPECIAL", "MachineOp", "is_form"]
