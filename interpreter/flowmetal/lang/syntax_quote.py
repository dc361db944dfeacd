"""Syntax-quote: a template becomes the form that builds it (Clojure's rules).

Symbols are resolved to their namespaces, `x#` becomes a fresh name that is the same throughout one
template, `~` inserts a value and `~@` splices a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.errors import SourceError
from flowmetal.lang.destructure import Gensym, call
from flowmetal.lang.persistent import List, Map, Set, Vector, list_of
from flowmetal.lang.values import Symbol

Resolve = Callable[[Symbol], Symbol]


def expand(form: Any, resolve: Resolve, gensym: Gensym) -> Any:
    """The form that, evaluated, gives the template `form` filled in."""
    return _Template(resolve, gensym).quote(form)


class _Template:
    def __init__(self, resolve: Resolve, gensym: Gensym) -> None:
        self.resolve = resolve
        self.gensym = gensym
        self.fresh: dict[str, Symbol] = {}

    def quote(self, form: Any) -> Any:
        if isinstance(form, Symbol):
            return self._quoted(self._symbol(form))
        if isinstance(form, List):
            return self._list(form)
        if isinstance(form, Vector):
            return call("vec", self._concat(form))
        if isinstance(form, Map):
            return call("apply", Symbol("core", "hash-map"), self._concat([x for pair in form.items() for x in pair]))
        if isinstance(form, Set):
            return call("set", self._concat(form))
        return form

    def _list(self, form: List) -> Any:
        if len(form) == 0:
            return call("list")
        inner = head(form)
        if inner == "unquote":
            return form.rest().first()
        if inner == "unquote-splicing":
            raise SourceError("~@ must stand inside a list, vector, set or map of the template", type="compile/syntax", span=form.span)
        if inner == "syntax-quote":
            # A nested template: its unquotes belong to it, so build the form that builds it.
            return self.quote(expand(form.rest().first(), self.resolve, self.gensym))
        return call("template-list", self._concat(form))

    def _concat(self, items: Any) -> Any:
        parts: list[Any] = []
        single: list[Any] = []
        for item in items:
            if isinstance(item, List) and head(item) == "unquote-splicing":
                if single:
                    parts.append(call("list", *single))
                    single = []
                parts.append(item.rest().first())
            else:
                single.append(self.quote(item))
        if single or not parts:
            parts.append(call("list", *single))
        return parts[0] if len(parts) == 1 else call("concat", *parts)

    def _symbol(self, s: Symbol) -> Symbol:
        if s.ns is None and s.name.endswith("#") and len(s.name) > 1:
            if s.name not in self.fresh:
                self.fresh[s.name] = self.gensym(s.name[:-1])
            return self.fresh[s.name]
        if s.ns is None and s.name.startswith("%"):
            return s  # an argument of #()
        return self.resolve(s)

    @staticmethod
    def _quoted(s: Symbol) -> Any:
        return list_of([Symbol(None, "quote"), s])


def head(form: Any) -> str | None:
    """The name of the unqualified symbol at the head of a list, else None."""
    if isinstance(form, List) and len(form):
        first = form.first()
        if isinstance(first, Symbol) and first.ns is None:
            return first.name
    return None
