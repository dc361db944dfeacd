"""`ns` and `require`: which namespace a text is in, and what it uses of others.

In: the forms as they were read. Out: a definition of the namespace's table of aliases and referred names. The one rule: a namespace
that is asked for must be known; its file is loaded before by whoever gives the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from flowmetal.lang import nodes as n
from flowmetal.lang.definitions import REFERRED
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Set, Vector
from flowmetal.lang.printer import pr_str
from flowmetal.lang.spans import Span
from flowmetal.lang.unsupported import namespace_replacement
from flowmetal.lang.values import Keyword, Symbol

if TYPE_CHECKING:
    from flowmetal.lang.analyzer import Analyzer, FnScope

ALL = Keyword.of("all")


def _is_name(x: Any) -> bool:
    return isinstance(x, Symbol)


def _are_names(x: Any) -> bool:
    return isinstance(x, (Vector, List, Set)) and all(isinstance(name, Symbol) and name.ns is None for name in x)


def _are_pairs(x: Any) -> bool:
    return isinstance(x, Map) and _are_names(Vector.of(list(x.keys()))) and _are_names(Vector.of(list(x.values())))


_ALIAS: tuple[str, Callable[[Any], bool]] = ("a name", _is_name)
_WANTED: tuple[str, Callable[[Any], bool]] = ("a vector of names, or :all", lambda x: x is ALL or _are_names(x))
_OPTIONS = {
    "as": _ALIAS, "as-alias": _ALIAS, "refer": _WANTED, "only": _WANTED,
    "exclude": ("a vector of names", _are_names), "rename": ("a map from names to names", _are_pairs),
}  # fmt: skip
"""What each option takes: in words, and whether something is that."""
_FLAGS = ("reload", "reload-all", "verbose", "include-macros")


class Uses:
    """What a namespace uses of others: aliases, and names that need no prefix (`name` → `ns`, or `ns/its name there`)."""

    def __init__(self, an: Analyzer, table: Map | None = None) -> None:
        self.an = an
        self.aliases: dict[str, str] = dict(table.get("aliases").items()) if table else {}
        self.refers: dict[str, str] = dict(table.get("refers").items()) if table else {}

    def table(self) -> Map:
        """The table as it is kept with the namespace."""
        return Map.of([("aliases", Map.of(list(self.aliases.items()))), ("refers", Map.of(list(self.refers.items())))])

    def add(self, given: Any, *, every: bool = False) -> None:
        """Reads what a clause says of other namespaces; with `every`, all their public names are referred to."""
        for spec in each_spec(given):
            if not isinstance(spec, Vector):
                raise self.an.error(f"expected a namespace or [namespace :as alias], but found {pr_str(spec)}", spec)
            self._add(spec, every)

    def _add(self, spec: Vector, every: bool) -> None:
        target, options = self._target(spec), self._options(spec)
        for alias in ("as", "as-alias"):
            if alias in options:
                self.aliases[str(options[alias])] = target
        renamed = {str(old): str(new) for old, new in options.get("rename", EMPTY_MAP).items()}
        wanted = options.get("refer", options.get("only", ALL if every else ()))
        if wanted is not ALL:
            for name in wanted:
                self._refer(target, name, renamed)
            return
        left_out = {str(name) for name in options.get("exclude", ())}
        for name in self.an.definitions.public(target, self.an.version):
            if name not in left_out:
                self._refer(target, Symbol(None, name), renamed)

    def _options(self, spec: Vector) -> dict[str, Any]:
        rest = list(spec)[1:]
        options: dict[str, Any] = {}
        for key, value in zip_longest(rest[::2], rest[1::2]):
            name = key.name if isinstance(key, Keyword) else None
            if name not in (*_OPTIONS, *_FLAGS):
                raise self.an.error(f"a namespace is required with {' '.join(f':{o}' for o in _OPTIONS)}, not {pr_str(key)}", spec)
            if name in _OPTIONS and not _OPTIONS[name][1](value):
                raise self.an.error(f":{name} takes {_OPTIONS[name][0]}, but found {pr_str(value)}", spec)
            options[name] = value
        return options

    def _target(self, spec: Vector) -> str:
        if not (len(spec) and isinstance(spec.nth(0), Symbol)):
            raise self.an.error(f"expected a namespace or [namespace :as alias], but found {pr_str(spec)}", spec)
        target = self.an.definitions.resolve_ns(str(spec.nth(0)), self.an.ns, self.an.version)
        if target in self.an.definitions.spaces:
            return target
        instead = namespace_replacement(target)
        if instead:
            raise self.an.error(f"the namespace {target} is not part of Flowmetal", spec, "compile/unresolved", instead)
        hint = f"its file would be {target.replace('.', '/')}.flow, beside the file that requires it or in a folder of FLOWMETAL_PATH"
        raise self.an.error(f"there is no namespace {target}", spec, "compile/unresolved", hint)

    def _refer(self, target: str, name: Symbol, renamed: dict[str, str]) -> None:
        from flowmetal.lang.natives import is_form

        if target in REFERRED and is_form(name.name):
            return  # a special form needs no prefix anywhere
        if self.an.definitions.lookup(target, name.name, self.an.version) is None:
            raise self.an.error(f"there is no {name.name} in {target}", name, "compile/unresolved")
        new = renamed.get(name.name, name.name)
        self.refers[new] = target if new == name.name else f"{target}/{name.name}"


def each_spec(given: Any) -> Iterator[Any]:
    """`other`, `[other :as o]` and `(prefix other [another :as a])` as vectors that begin with a namespace's name; else itself."""
    if isinstance(given, Symbol):
        yield Vector.of([given])
    elif isinstance(given, List) and len(given) > 1 and isinstance(given.first(), Symbol):
        for item in given.rest():
            for spec in each_spec(item):
                full = Symbol(None, f"{given.first()}.{spec.nth(0)}", None, given.first().span) if isinstance(spec, Vector) and len(spec) else None
                yield spec if full is None else Vector.of([full, *list(spec)[1:]])
    else:
        yield given


def ns_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(ns name doc? (:require [other :as o :refer [a b]])…)`."""
    items = list(form.rest())
    if not items or not isinstance(items[0], Symbol):
        raise an.error("ns needs a name", form)
    uses = Uses(an)
    for clause in items[1:]:
        if isinstance(clause, (str, Map)):
            continue
        kind = clause.first() if isinstance(clause, List) and len(clause) else None
        if kind == Keyword.of("refer-clojure"):
            continue  # what a namespace defines goes before the library's names in any case
        if kind not in (Keyword.of("require"), Keyword.of("use")):
            java = kind in (Keyword.of("import"), Keyword.of("gen-class"))
            raise an.error(f"ns takes (:require …), not {pr_str(clause)}", clause, hint="there are no imports: there is no Java here" if java else None)
        for spec in clause.rest():
            if not (isinstance(spec, Keyword) and spec.name in _FLAGS):
                uses.add(spec, every=kind == Keyword.of("use"))
    return n.Def(span, None, str(items[0]), "*ns*", "ns", {}, an.const(uses.table(), span))


def require_form(an: Analyzer, form: List, scope: FnScope, span: Span | None) -> n.Node:
    """`(require '[other :as o])`: adds to the namespace's aliases."""
    uses = Uses(an, an.definitions.namespace(an.ns, an.version))
    for item in form.rest():
        if isinstance(item, Keyword) and item.name in _FLAGS:
            continue
        quoted = isinstance(item, List) and len(item) == 2 and item.first() == Symbol(None, "quote")
        uses.add(item.rest().first() if quoted else item)
    return n.Def(span, None, an.ns, "*ns*", "require", {}, an.const(uses.table(), span))
