"""Destructuring: patterns in binding places become plain bindings (Clojure's rules).

In: a pattern and the form that gives the value. Out: a flat list of (symbol, form) pairs, in the
order in which they are to be bound. The forms call core functions by their full names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from flowmetal.errors import SourceError
from flowmetal.lang.persistent import List, Map, Vector, list_of
from flowmetal.lang.values import Keyword, Symbol

Pair = tuple[Symbol, Any]
Gensym = Callable[[str], Symbol]


def gensyms() -> Gensym:
    """A source of fresh names: the same sequence for the same form, so that code hashes agree."""
    counter = itertools.count(1)
    return lambda prefix: Symbol(None, f"{prefix}__{next(counter)}__auto")


def call(name: str, *args: Any) -> List:
    """The form `(core/name args…)`."""
    return list_of([Symbol("core", name), *args])


def destructure(pattern: Any, value: Any, gensym: Gensym) -> list[Pair]:
    """Bindings for `pattern` against `value`; raises SourceError for what is no pattern."""
    if isinstance(pattern, Symbol):
        if pattern.ns is not None:
            raise SourceError(f"a name to bind cannot have a namespace: {pattern}", type="compile/syntax", span=pattern.span)
        return [(pattern, value)]
    if isinstance(pattern, Vector):
        return _sequential(pattern, value, gensym)
    if isinstance(pattern, Map):
        return _associative(pattern, value, gensym)
    from flowmetal.lang.printer import pr_str

    raise SourceError(f"cannot bind to {pr_str(pattern)}: expected a symbol, a vector or a map", type="compile/syntax", span=getattr(pattern, "span", None))


def _sequential(pattern: Vector, value: Any, gensym: Gensym) -> list[Pair]:
    items = list(pattern)
    out: list[Pair] = []
    whole = gensym("vec")
    names = [x.name if isinstance(x, Symbol) else x.name if isinstance(x, Keyword) else None for x in items]
    if "as" in names and isinstance(items[names.index("as")], Keyword):
        i = names.index("as")
        if i + 2 != len(items) or not isinstance(items[i + 1], Symbol):
            raise SourceError(":as must be followed by one name, at the end", type="compile/syntax", span=pattern.span)
        out += [(whole, value), (items[i + 1], whole)]
        items, names = items[:i], names[:i]
    else:
        out.append((whole, value))
    rest: Any = None
    if "&" in names:
        i = names.index("&")
        if i + 2 != len(items):
            raise SourceError("& must be followed by one name or pattern, at the end", type="compile/syntax", span=pattern.span)
        rest, items = items[i + 1], items[:i]
    if rest is None:
        for i, item in enumerate(items):
            out += destructure(item, call("nth", whole, i, None), gensym)
        return out
    seq = gensym("seq")
    out.append((seq, call("seq", whole)))
    for item in items:
        out += destructure(item, call("first", seq), gensym)
        following = gensym("seq")
        out.append((following, call("next", seq)))
        seq = following
    return out + destructure(rest, seq, gensym)


def _associative(pattern: Map, value: Any, gensym: Gensym) -> list[Pair]:
    whole = gensym("map")
    entries = list(pattern.items())
    options = {k.name: v for k, v in entries if isinstance(k, Keyword) and k.ns is None}
    if not isinstance(options.get("as", whole), Symbol):
        raise SourceError(":as must be followed by a name", type="compile/syntax", span=pattern.span)
    defaults = options.get("or")
    if defaults is not None and not isinstance(defaults, Map):
        raise SourceError(":or needs a map of names to defaults", type="compile/syntax", span=pattern.span)
    out: list[Pair] = [(whole, call("destructured-map", value))]
    if "as" in options:
        out.append((options["as"], whole))
    for key, target in entries:
        if isinstance(key, Keyword) and key.name in ("keys", "strs", "syms"):
            if not isinstance(target, Vector):
                raise SourceError(f":{key.name} needs a vector of names", type="compile/syntax", span=pattern.span)
            for name in target:
                local, wanted = _named_key(key, name, pattern)
                out.append((local, _get(whole, wanted, local, defaults)))
        elif isinstance(key, Keyword) and key.ns is None and key.name in ("as", "or"):
            continue
        elif isinstance(key, Keyword):
            raise SourceError(f"unknown destructuring option {key}", type="compile/syntax", span=pattern.span)
        else:
            default = key if isinstance(key, Symbol) else None
            out += destructure(key, _get(whole, target, default, defaults), gensym)
    return out


def _named_key(kind: Keyword, name: Any, pattern: Map) -> tuple[Symbol, Any]:
    if not isinstance(name, (Symbol, Keyword)):
        raise SourceError(f":{kind.name} needs names", type="compile/syntax", span=pattern.span)
    ns = name.ns if name.ns is not None else kind.ns
    local = Symbol(None, name.name, None, getattr(name, "span", None))
    if kind.name == "keys":
        return local, Keyword.of(f"{ns}/{name.name}" if ns else name.name)
    if kind.name == "strs":
        return local, name.name
    return local, list_of([Symbol(None, "quote"), Symbol(ns, name.name)])


def _get(whole: Symbol, key: Any, local: Symbol | None, defaults: Map | None) -> Any:
    if local is not None and defaults is not None and local in defaults:
        return call("get", whole, key, defaults.get(local))
    return call("get", whole, key)
