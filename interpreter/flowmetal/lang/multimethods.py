"""Multimethods and hierarchies: which method a dispatch value has, and what is a kind of what.

In: multimethods, dispatch values, a hierarchy (a map of :parents, :ancestors and :descendants, as Clojure's).
Out: methods; new multimethods and hierarchies. All are values: `defmethod`, `derive` and the like at the top
level define a name anew.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.equality import equal
from flowmetal.lang.functions import MultiFn
from flowmetal.lang.persistent import EMPTY_MAP, EMPTY_SET, Map, Set, Vector
from flowmetal.lang.primitives.checks import shown, wrong
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.printer import pr_str
from flowmetal.lang.values import Keyword, Symbol, kw

_PARENTS, _ANCESTORS, _DESCENDANTS = kw("parents"), kw("ancestors"), kw("descendants")
EMPTY_HIERARCHY = Map.of([(_PARENTS, EMPTY_MAP), (_DESCENDANTS, EMPTY_MAP), (_ANCESTORS, EMPTY_MAP)])


# Hierarchies


def _hierarchy(who: str, h: Any) -> Map:
    if isinstance(h, Map) and all(isinstance(h.get(k), Map) for k in (_PARENTS, _ANCESTORS, _DESCENDANTS)):
        return h
    raise wrong(who, "a hierarchy made by make-hierarchy", h)


@primitive("core", "make-hierarchy", "([])", "An empty hierarchy, for derive.", "(isa? (derive (make-hierarchy) :cat :animal) :cat :animal) ;=> true")
def make_hierarchy() -> Map:
    """`make-hierarchy`."""
    return EMPTY_HIERARCHY


def is_a(h: Map, child: Any, parent: Any) -> bool:
    """Whether `child` is equal to `parent` or derived from it; vectors by their elements."""
    todo = [(child, parent)]
    while todo:
        a, b = todo.pop()
        if equal(a, b) or b in h.get(_ANCESTORS).get(a, EMPTY_SET):
            continue
        if not (isinstance(a, Vector) and isinstance(b, Vector) and len(a) == len(b)):
            return False
        todo += zip(a, b, strict=True)
    return True


@primitive("core", "isa-in*", "([h child parent])", "isa? in a hierarchy.")
def isa_in(h: Any, child: Any, parent: Any) -> bool:
    """`isa-in*`."""
    return is_a(_hierarchy("isa?", h), child, parent)


def _related(name: str, key: Keyword) -> None:
    @primitive("core", f"{name}-in*", "([h tag])", f"{name} in a hierarchy.")
    def related(h: Any, tag: Any) -> Any:
        tags = h.get(key) if isinstance(h, Map) else None
        return tags.get(tag) if isinstance(tags, Map) else None


_related("parents", _PARENTS)
_related("ancestors", _ANCESTORS)
_related("descendants", _DESCENDANTS)


def _made(parents: Map) -> Map:
    """The hierarchy of direct parents: who is above and below whom follows from them."""
    above: dict[Any, dict[Any, None]] = {}
    for tag, direct in parents.items():
        found: dict[Any, None] = {}
        todo = list(direct)
        while todo:
            parent = todo.pop(0)
            if parent not in found:
                found[parent] = None
                todo += parents.get(parent, ())
        above[tag] = found
    below: dict[Any, list[Any]] = {}
    for tag, found in above.items():
        for parent in found:
            below.setdefault(parent, []).append(tag)
    return Map.of([
        (_PARENTS, parents),
        (_DESCENDANTS, Map.of((k, Set.of(v)) for k, v in below.items())),
        (_ANCESTORS, Map.of((k, Set.of(v)) for k, v in above.items())),
    ])  # fmt: skip


def _tag(who: str, x: Any, *, qualified: bool) -> Any:
    if not isinstance(x, (Keyword, Symbol)):
        raise wrong(who, "keywords or symbols", x)
    if qualified and x.ns is None:
        raise LispError(f"{who} in the shared hierarchy needs names with a namespace, such as ::{x.name}, but was given {shown(x)}", type="value")
    return x


@primitive("core", "derive-in*", "([h tag parent shared])", "The hierarchy in which tag is derived from parent as well.")
def derive(h: Any, tag: Any, parent: Any, shared: Any) -> Map:
    """`derive-in*`."""
    h = _hierarchy("derive", h)
    _tag("derive", tag, qualified=bool(shared))
    _tag("derive", parent, qualified=bool(shared))
    if equal(tag, parent):
        raise LispError(f"derive: {shown(tag)} cannot be its own parent", type="value")
    parents = h.get(_PARENTS)
    if parent in parents.get(tag, EMPTY_SET):
        return h  # type: ignore[no-any-return]
    if is_a(h, tag, parent):
        raise LispError(f"derive: {shown(tag)} has {shown(parent)} as an ancestor already", type="value")
    if is_a(h, parent, tag):
        raise LispError(f"derive: {shown(parent)} has {shown(tag)} as an ancestor: that would be a circle", type="value")
    return _made(parents.assoc(tag, parents.get(tag, EMPTY_SET).conj(parent)))


@primitive("core", "underive-in*", "([h tag parent])", "The hierarchy in which tag is not derived from parent.")
def underive(h: Any, tag: Any, parent: Any) -> Map:
    """`underive-in*`."""
    parents = _hierarchy("underive", h).get(_PARENTS)
    if parent not in parents.get(tag, EMPTY_SET):
        return h  # type: ignore[no-any-return]
    left = parents.get(tag).disj(parent)
    return _made(parents.assoc(tag, left) if len(left) else parents.dissoc(tag))


# Multimethods


@primitive("core", "multi-fn", "([name dispatch default] [name dispatch default hierarchy])", "What defmulti makes.")
def multi_fn(name: Any, dispatch: Any, default: Any, hierarchy: Any = None) -> MultiFn:
    """`multi-fn`."""
    return MultiFn(name, dispatch, default, EMPTY_MAP, EMPTY_MAP, hierarchy)


def _need_multi(x: Any) -> MultiFn:
    if not isinstance(x, MultiFn):
        raise LispError(f"expected a multimethod, but found {pr_str(x)}", type="type")
    return x


@primitive("core", "add-method", "([multi value f])", "The multimethod with one method more; defmethod defines it.")
def add_method(multi: Any, value: Any, f: Any) -> MultiFn:
    """`add-method`."""
    multi = _need_multi(multi)
    return multi.with_methods(multi.methods.assoc(value, f))  # type: ignore[no-any-return]


@primitive("core", "without-method*", "([multi value])", "The multimethod without the method of a dispatch value.")
def without_method(multi: Any, value: Any) -> MultiFn:
    """`without-method*`."""
    multi = _need_multi(multi)
    return multi.with_methods(multi.methods.dissoc(value))  # type: ignore[no-any-return]


@primitive("core", "without-methods*", "([multi])", "The multimethod without methods.")
def without_methods(multi: Any) -> MultiFn:
    """`without-methods*`."""
    return MultiFn(multi.name, multi.dispatch, multi.default, EMPTY_MAP, EMPTY_MAP, _need_multi(multi).hierarchy)


@primitive("core", "preferring*", "([multi h value other])", "The multimethod that chooses value where both match.")
def preferring(multi: Any, h: Any, value: Any, other: Any) -> MultiFn:
    """`preferring*`."""
    multi = _need_multi(multi)
    if _prefers(multi, h, other, value):
        raise LispError(f"prefer-method: {multi.name} prefers {shown(other)} to {shown(value)} already", type="value")
    preferred = multi.preferences.get(value, EMPTY_SET).conj(other)
    return MultiFn(multi.name, multi.dispatch, multi.default, multi.methods, multi.preferences.assoc(value, preferred), multi.hierarchy)


def _prefers(multi: MultiFn, h: Map, x: Any, y: Any) -> bool:
    """Whether `x` was preferred to `y`, or one of their ancestors was."""
    todo, seen = [(x, y)], set()
    parents = h.get(_PARENTS)
    while todo:
        pair = todo.pop()
        if pair in seen:
            continue
        seen.add(pair)
        a, b = pair
        if b in multi.preferences.get(a, EMPTY_SET):
            return True
        todo += [(a, p) for p in parents.get(b, ())] + [(p, b) for p in parents.get(a, ())]
    return False


def _dominates(multi: MultiFn, h: Map, x: Any, y: Any) -> bool:
    return _prefers(multi, h, x, y) or is_a(h, x, y)


def find_method(multi: MultiFn, h: Map, value: Any) -> Any:
    """The method of a dispatch value: its own, the nearest of what it is derived from, the default's, or None."""
    if value in multi.methods:
        return multi.methods.get(value)
    best: list[Any] = []
    for candidate, _ in multi.methods.items():
        if is_a(h, value, candidate):
            if not best or _dominates(multi, h, candidate, best[0]):
                best = [candidate]
            if not _dominates(multi, h, best[0], candidate):
                raise LispError(
                    f"the dispatch value {pr_str(value)} of {multi.name} matches both {pr_str(best[0])} and {pr_str(candidate)}, and neither is preferred",
                    type="value", hint="(prefer-method multi this that) chooses",
                )  # fmt: skip
    return multi.methods.get(best[0]) if best else multi.methods.get(multi.default)


@primitive("core", "method-in*", "([multi h value])", "The method for a dispatch value, or nil.")
def method_in(multi: Any, h: Any, value: Any) -> Any:
    """`method-in*`."""
    return find_method(_need_multi(multi), h, value)


@primitive("core", "find-method*", "([multi h value])", "The method for a dispatch value; an error where there is none.")
def need_method(multi: Any, h: Any, value: Any) -> Any:
    """`find-method*`."""
    found = find_method(_need_multi(multi), h, value)
    if found is None:
        known = " ".join(map(pr_str, list(multi.methods.keys())[:10]))
        raise LispError(
            f"no method of {multi.name} for the dispatch value {pr_str(value)}", type="value", hint=f"it has methods for {known}" if known else None
        )
    return found


@primitive("core", "methods", "([multi])", "The methods of a multimethod, by dispatch value.")
def methods(multi: Any) -> Any:
    """`methods`."""
    return _need_multi(multi).methods


@primitive("core", "prefers", "([multi])", "What prefer-method said of a multimethod: a map from dispatch values to sets of others.")
def prefers(multi: Any) -> Any:
    """`prefers`."""
    return _need_multi(multi).preferences


@primitive("core", "dispatch-of*", "([multi])", "The dispatch function of a multimethod.")
def dispatch_of(multi: Any) -> Any:
    """`dispatch-of*`."""
    return _need_multi(multi).dispatch


@primitive("core", "hierarchy-of*", "([multi])", "The hierarchy of a multimethod, or a var or atom that holds it; nil for the shared one.")
def hierarchy_of(multi: Any) -> Any:
    """`hierarchy-of*`."""
    return _need_multi(multi).hierarchy
