"""Analysis: forms become nodes. Names are resolved, macros expanded, locals given slots.

In: a form, and the definitions at a version. Out: a `Node`. The one rule: nothing is run here but
macros, and those are pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from flowmetal.errors import FlowmetalError, LispError, SourceError
from flowmetal.lang import leaves, natives
from flowmetal.lang import nodes as n
from flowmetal.lang.definitions import Binding, Definitions
from flowmetal.lang.destructure import gensyms
from flowmetal.lang.functions import Arity, Closure, Code, MachineOp, MultiFn, Root
from flowmetal.lang.persistent import List, Map, Set, Vector, list_of
from flowmetal.lang.primitives.leaf_calls import is_leaf
from flowmetal.lang.primitives.registry import Primitive
from flowmetal.lang.printer import pr_str
from flowmetal.lang.spans import Span
from flowmetal.lang.unsupported import replacement
from flowmetal.lang.values import Keyword, Symbol, Var, kw

MAX_CODE_DEPTH = 400
"""How deep code (not data) may nest."""

_A_CALL = "a list is a call of its first element: (f x), not f(x); data in a row is written [1 2 3]"

RunMacro = Callable[[Closure, list[Any], int], Any]
FIRST_SLOT = 2
"""Slots 0 and 1 hold the definitions version and the running closure."""


class FnScope:
    """The locals of one arity of one function, and what the function captures from outside."""

    def __init__(self, code: Code | None, arity: Arity | None, parent: FnScope | None, names: dict[str, int] | None = None) -> None:
        self.code = code
        self.arity = arity
        self.parent = parent
        self.locals: dict[str, int] = names or {}
        self.size = FIRST_SLOT
        self.captures: dict[str, int] = parent.captures if parent and parent.code is code and code is not None else {}
        self.loop: tuple[list[int], list[int]] | None = None
        self.in_try = 0

    def slot(self) -> int:
        """A new slot."""
        self.size += 1
        return self.size - 1


class Analyzer:
    """Analyzes one top-level form."""

    def __init__(self, definitions: Definitions, root: Root, run_macro: RunMacro) -> None:
        self.definitions = definitions
        self.root = root
        self.ns = root.ns
        self.version = root.pin
        self.run_macro = run_macro
        self.gensym = gensyms()
        self.depth = 0
        self.fn_depth = 0
        self.span: Span | None = None
        self.compile_arity: Callable[[Arity, n.Node, FnScope], None] = lambda a, b, s: None
        self.declared: set[str] = set()

    # Entry points

    def error(self, message: str, form: Any = None, type: str = "compile/syntax", hint: str | None = None) -> SourceError:
        """A compile error at a form, or at the innermost form that has a place."""
        return SourceError(message, type=type, span=getattr(form, "span", None) or self.span, hint=hint)

    def analyze(self, form: Any, scope: FnScope) -> n.Node:
        """The node of one form."""
        outer = self.span
        span = getattr(form, "span", None) or outer
        self.span = span
        self.depth += 1
        try:
            if self.depth > MAX_CODE_DEPTH:
                raise self.error(f"code nests deeper than {MAX_CODE_DEPTH} levels", form, "limit", "quote it if it is data, or split it into functions")
            return self._analyze(form, scope, span)
        except (TypeError, AttributeError, ValueError, LookupError) as e:  # a form that its rule did not expect
            raise self.error(f"this form cannot be compiled: {e}", form) from e
        finally:
            self.depth -= 1
            self.span = outer

    def _analyze(self, form: Any, scope: FnScope, span: Span | None) -> n.Node:
        if isinstance(form, Symbol):
            return self.symbol(form, scope, span)
        if isinstance(form, List):
            return self.form(form, scope, span) if len(form) else self.const(form, span)
        if isinstance(form, Vector):
            return self.collection("vector", list(form), form, scope, span)
        if isinstance(form, Map):
            return self.collection("map", [x for pair in form.items() for x in pair], form, scope, span)
        if isinstance(form, Set):
            return self.collection("set", list(form), form, scope, span)
        return self.const(form, span)

    def const(self, value: Any, span: Span | None) -> n.Const:
        """A constant."""
        return n.Const(span, leaves.constant(value), value)

    def collection(self, kind: str, items: list[Any], form: Any, scope: FnScope, span: Span | None) -> n.Node:
        """A literal: a constant where all of its parts are."""
        parts = [self.analyze(x, scope) for x in items]
        meta = _hinted(form.meta)
        if all(isinstance(p, n.Const) for p in parts) and not meta:
            value = leaves.BUILDERS[kind]([p.value for p in parts if isinstance(p, n.Const)])
            return self.const(value, span)
        fns = [p.leaf for p in parts if p.leaf is not None]
        leaf = leaves.collection(kind, fns, span) if len(fns) == len(parts) else None
        node: n.Node = n.Collection(span, leaf, kind, parts)
        return self.core_call("with-meta", [node, self.analyze(meta, scope)], span) if meta else node

    # Names

    def local(self, name: str, scope: FnScope, span: Span | None = None) -> n.Local | None:
        """A local by name, captured when it belongs to an outer function."""
        slot = scope.locals.get(name)
        if slot is not None:
            return n.Local(span, leaves.local(slot), slot)
        if scope.parent is None:
            return None
        if name not in scope.captures:
            if self.local(name, scope.parent) is None:
                return None
            scope.captures[name] = len(scope.captures)
        return n.Local(span, leaves.captured(scope.captures[name]), 0, scope.captures[name])

    def symbol(self, form: Symbol, scope: FnScope, span: Span | None) -> n.Node:
        """A reference to a local or to a definition."""
        found = self.local(form.name, scope, span) if form.ns is None else None
        if found is not None:
            return found
        try:
            return self.global_(form, span)
        except SourceError as e:
            near = difflib.get_close_matches(form.name, _names_in(scope), n=1, cutoff=0.7) if form.ns is None and e.type == "compile/unresolved" else []
            if near and not replacement(form):
                e.hint = f"the nearest name is {near[0]}, which is bound here"
            raise

    def global_(self, form: Symbol, span: Span | None) -> n.Node:
        """A reference to a definition; a function of the library is a constant."""
        cell = self.definitions.resolve(form.ns, form.name, self.ns, self.version) if form.name != "*ns*" else None
        if cell is None and form.ns in (None, self.ns) and form.name in self.declared:
            cell = self.definitions.cell(self.ns, form.name)
        if cell is None:
            raise self.unresolved(form)
        binding = cell.at(self.version)
        if binding is not None:
            if binding.macro:
                raise self.error(f"{form.name} is a macro: it can be called, but is not a value", form)
            if binding.meta.get("private") and cell.ns != self.ns and self.root.prelude is None:
                raise self.error(f"{cell.ns}/{cell.name} is private to its namespace", form, "compile/unresolved")
            if binding.kind == "library" and isinstance(binding.value, (Primitive, MachineOp)):
                return self.const(binding.value, span)
        return n.Global(span, leaves.global_name(cell, span), cell)

    def unresolved(self, form: Symbol) -> SourceError:
        """The error of an unknown name: what to use instead, or the nearest names."""
        instead = replacement(form)
        if form.ns is None and natives.is_form(form.name):
            return self.error(f"{form} is a special form: it can be called, but is not a value", form, hint=instead)
        if instead:
            return self.error(f"{form} is not part of Flowmetal", form, "compile/unresolved", instead)
        if form.ns is not None and self.definitions.resolve_ns(form.ns, self.ns, self.version) not in self.definitions.spaces:
            missing = f"unknown name {form}: there is no namespace {form.ns} here"
            return self.error(missing, form, "compile/unresolved", f"(require '[the.namespace :as {form.ns}]) gives one that name")
        near = self.definitions.suggestions(str(form), self.ns, self.version)
        hint = f"the nearest names are {', '.join(near)}" if len(near) > 1 else f"the nearest name is {near[0]}" if near else None
        if hint is None and form.ns is None and self.fn_depth:
            hint = f"a name must be defined before it is used: (declare {form}) above promises a definition that follows below"
        return self.error(f"unknown name {form}", form, "compile/unresolved", hint)

    # Lists

    def form(self, form: List, scope: FnScope, span: Span | None) -> n.Node:
        """A special form, a macro call or a function call."""
        head = form.first()
        if isinstance(head, Symbol) and head.ns is None and head.name in natives.SPECIAL:
            return natives.SPECIAL[head.name](self, form, scope, span)
        if isinstance(head, Symbol) and not (head.ns is None and self.local(head.name, scope) is not None):
            expanded = self.expand_once(head, form)
            if expanded is not form:
                return self.analyze(_at(expanded, form), scope)
        fn = self.analyze(head, scope)
        return self.call(fn, [self.analyze(a, scope) for a in form.rest()], span)

    def expand_once(self, head: Symbol, form: List) -> Any:
        """One expansion of a form whose head is neither a special form nor a local; the form itself where there is none."""
        if head.name in natives.REWRITES and (head.ns is None or self.definitions.resolve_ns(head.ns, self.ns, self.version) in ("core", "test")):
            return self.rewrite(head.name, form)
        cell = self.definitions.resolve(head.ns, head.name, self.ns, self.version)
        binding = cell.at(self.version) if cell else None
        return self.expand(binding, head, form) if binding is not None and binding.macro else form

    def rewrite(self, name: str, form: List) -> Any:
        """One of the forms that the analyzer itself rewrites."""
        try:
            return natives.REWRITES[name](self, form)
        except SourceError as e:
            e.span = e.span or form.span or self.span
            raise

    def expand(self, binding: Binding, head: Symbol, form: List) -> Any:
        """One expansion of a macro call. An error inside the macro is shown at the user's call."""
        args = list(form.rest())
        if isinstance(binding.value, Closure) and binding.value.code.arity(len(args)) is None:
            raise self.error(binding.value.code.arity_message(head.name, len(args)), form, "arity")
        try:
            return self.run_macro(binding.value, args, self.version)
        except SourceError:
            raise
        except FlowmetalError as e:
            where = "" if e.type == "arity" or e.message.startswith(head.name) else f"in the macro {head.name}: "
            raise SourceError(where + e.message, type=e.type, span=form.span or self.span, hint=e.hint) from e

    def call(self, fn: n.Node, args: list[n.Node], span: Span | None) -> n.Node:
        """A call; a leaf where the function and all arguments are."""
        leaf = None
        if isinstance(fn, n.Const):
            f = fn.value
            if is_leaf(f):
                self.check_arity(f, len(args), span)
                fns = [a.leaf for a in args if a.leaf is not None]
                if len(fns) == len(args):
                    leaf = leaves.call(f, fns, span)
            elif not isinstance(f, (MachineOp, Closure, MultiFn, Var)):
                raise SourceError(f"{pr_str(f)} is not a function", type="type", span=span, hint=_A_CALL)
        return n.Call(span, leaf, fn, args)

    def check_arity(self, f: Any, count: int, span: Span | None) -> None:
        """A call of a library function with a wrong number of arguments is found before it runs."""
        if isinstance(f, Primitive) and (count < f.low or (f.high is not None and count > f.high)):
            error = f.arity_error(count)
            raise SourceError(error.message, type="arity", span=span)

    def core_call(self, name: str, args: list[n.Node], span: Span | None) -> n.Node:
        """A call of a core function by name."""
        return self.call(self.global_(Symbol("core", name), span), args, span)

    # Bodies

    def body(self, forms: Any, scope: FnScope, span: Span | None) -> n.Node:
        """Forms in order; nil where there are none."""
        parts = [self.analyze(f, scope) for f in forms]
        if not parts:
            return self.const(None, span)
        if len(parts) == 1:
            return parts[0]
        fns = [p.leaf for p in parts if p.leaf is not None]
        return n.Do(span, leaves.sequence(fns) if len(fns) == len(parts) else None, parts)

    def scoped(self, scope: FnScope) -> dict[str, int]:
        """The names in scope, to be restored after a body that binds more."""
        return dict(scope.locals)

    def resolve_template(self, s: Symbol) -> Symbol:
        """The full name of a symbol in a syntax-quoted template."""
        if s.ns is None and (s.name in natives.SPECIAL or s.name in natives.PLAIN or s.name.startswith("%")):
            return s
        if s.ns is None and s.name in natives.REWRITES:
            return Symbol("core", s.name, None, s.span)
        if s.ns is None and s.name.startswith(".") and len(s.name) > 1:
            return s
        cell = self.definitions.resolve(s.ns, s.name, self.ns, self.version)
        if cell is not None:
            return Symbol(cell.ns, cell.name, None, s.span)
        if s.ns is not None:
            return Symbol(self.definitions.resolve_ns(s.ns, self.ns, self.version), s.name, None, s.span)
        return Symbol(self.ns, s.name, None, s.span)


def _names_in(scope: FnScope | None) -> list[str]:
    """The names of locals that a user gave, innermost first."""
    names: list[str] = []
    while scope is not None:
        names += [name for name in scope.locals if not name.endswith("__auto")]
        scope = scope.parent
    return names


def _hinted(meta: Map | None) -> Map | None:
    """Metadata in which the symbol of a type hint, `^String`, stands for itself."""
    tag = meta.get(kw("tag")) if meta is not None else None
    return meta.assoc(kw("tag"), list_of([Symbol(None, "quote"), tag])) if meta is not None and isinstance(tag, Symbol) else meta


def _at(form: Any, origin: Any) -> Any:
    """An expansion stands where the call stands that made it, unless it has a place of its own."""
    if getattr(form, "span", None) is None and isinstance(form, (List, Vector, Map, Set)) and len(form):
        form.span = origin.span
    return form


__all__ = ["FIRST_SLOT", "Analyzer", "FnScope", "Keyword", "LispError", "RunMacro"]
