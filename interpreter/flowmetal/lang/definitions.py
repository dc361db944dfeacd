"""Definitions by version: what a name means to a flow that is pinned to a version.

The definitions log is append-only; a version is a position in it. Each (namespace, name) has one
`Cell` with its bindings in order of their versions. The library's names stand at version 0.
"""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from flowmetal.lang.persistent import Map

if TYPE_CHECKING:
    from flowmetal.lang.functions import Root

ALIASES = {
    "clojure.core": "core", "clojure.string": "str", "clojure.set": "set", "clojure.walk": "walk", "clojure.math": "math",
    "clojure.edn": "edn", "clojure.test": "test", "string": "str",
}  # fmt: skip
"""Names under which Clojure programmers know the library's namespaces."""

REFERRED = ("core", "flow", "test")
"""Namespaces whose names need no prefix."""

HELPERS = frozenset({"add-method", "call-multi", "destructured-map", "flow-program", "foreign-stub", "leaf?", "multi-fn", "template-list"})
"""Functions of the library that forms of the language expand to."""

LINE_BITS = 32
"""A version is a position in a log of definitions. That of another store, from which flows were imported, is a line of its own: the
number of the line, and in so many bits below it the position."""


def referred_to(name: str, target: str) -> tuple[str, str]:
    """The namespace of a referred name, and its name there: the target is `ns`, or `ns/name` when it was renamed."""
    ns, _, original = target.partition("/")
    return ns, original or name


class Binding:
    """What one definition gave: its value, and what is known of it.

    `value` may be given as `thunk`, which is called once, when it is first asked for.
    """

    __slots__ = ("_thunk", "_value", "kind", "macro", "meta", "version")

    def __init__(
        self, value: Any, *, version: int = 0, kind: str = "def", macro: bool = False, meta: dict[str, Any] | None = None,
        thunk: Callable[[], Any] | None = None,
    ) -> None:  # fmt: skip
        self._value = value
        self._thunk = thunk
        self.version = version
        self.kind = kind
        self.macro = macro
        self.meta = meta or {}

    @property
    def value(self) -> Any:
        """The value; made now if it was not needed before."""
        thunk = self._thunk
        if thunk is not None:  # two threads may both come here: they make the same
            self._value = thunk()
            self._thunk = None
        return self._value


class Cell:
    """All bindings of one name."""

    __slots__ = ("bindings", "name", "ns", "versions")

    def __init__(self, ns: str, name: str) -> None:
        self.ns = ns
        self.name = name
        self.versions: list[int] = []
        self.bindings: list[Binding] = []

    def at(self, version: int) -> Binding | None:
        """The binding that a flow pinned to `version` sees."""
        versions = self.versions
        if versions and versions[-1] <= version:
            return self.bindings[-1]
        i = bisect.bisect_right(versions, version)
        return self.bindings[i - 1] if i else None

    def value_at(self, version: int) -> Any:
        """The value that a flow pinned to `version` sees; raises KeyError where there is none."""
        versions = self.versions
        binding = self.bindings[-1] if versions and versions[-1] <= version else self.at(version)
        if binding is None:
            raise KeyError(self.name)
        return binding._value if binding._thunk is None else binding.value

    def copy(self) -> Cell:
        """A cell with the same bindings, to which others may be added."""
        cell = Cell(self.ns, self.name)
        cell.versions, cell.bindings = list(self.versions), list(self.bindings)
        return cell

    def add(self, binding: Binding) -> None:
        """Appends a binding; versions only grow."""
        self.versions.append(binding.version)
        self.bindings.append(binding)

    def canonical(self) -> str:
        """What stands for a reference to this name in a code's hash."""
        return f"{self.ns}/{self.name}"


class Definitions:
    """The registry: cells by namespace and name, and the newest version."""

    def __init__(self) -> None:
        self.version = 0
        self.spaces: dict[str, dict[str, Cell]] = {}
        self._roots: WeakValueDictionary[tuple[Any, ...], Root] = WeakValueDictionary()
        """Compiled roots by key, as long as something uses their code: it is compiled once, and a process that runs for years does not grow."""

        self.lines: dict[int, Definitions] = {}
        """The definitions of other stores, by the number of their line."""
        self._base: Definitions | None = None
        """What these began with: its cells are shared until something is added to them."""

    def copy(self) -> Definitions:
        """Definitions that begin with what is here, and share what is compiled of it."""
        new = Definitions()
        new.version = self.version
        new.spaces = {ns: dict(space) for ns, space in self.spaces.items()}
        new._base = self
        return new

    def compiled(self, key: tuple[Any, ...]) -> Root | None:
        """The root that was compiled under this key, here or where these began, if something uses its code yet."""
        return self._roots.get(key) or (self._base.compiled(key) if self._base is not None else None)

    def keep_compiled(self, root: Root) -> None:
        """Has a root at hand for whoever needs the same."""
        self._roots[root.key] = root

    def line(self, version: int) -> Definitions:
        """The definitions that a version belongs to."""
        return self if version < 1 << LINE_BITS else self.lines[version >> LINE_BITS]

    def cell(self, ns: str, name: str) -> Cell:
        """The cell of a name, to add to; made when it is new."""
        space = self.spaces.setdefault(ns, {})
        cell = space.get(name)
        if cell is None:
            cell = space[name] = Cell(ns, name)
        elif self._base is not None and self._base.spaces.get(ns, {}).get(name) is cell:
            cell = space[name] = cell.copy()
        return cell

    def lookup(self, ns: str, name: str, version: int) -> Binding | None:
        """The binding of `ns/name` at a version."""
        space = self.spaces.get(ns)
        cell = space.get(name) if space else None
        return cell.at(version) if cell else None

    def define(self, ns: str, name: str, binding: Binding) -> None:
        """Adds a binding and moves the newest version up to it."""
        self.cell(ns, name).add(binding)
        self.version = max(self.version, binding.version)

    def rollback(self, version: int) -> None:
        """Forgets every binding above `version`: of a load that was not committed."""
        for space in self.spaces.values():
            for cell in space.values():
                while cell.versions and cell.versions[-1] > version:
                    cell.versions.pop()
                    cell.bindings.pop()
        self.version = version

    def namespace(self, ns: str, version: int) -> Map | None:
        """The aliases and refers of a namespace: `{alias ns}` and `{name ns/name}` in one map each."""
        binding = self.lookup(ns, "*ns*", version)
        return binding.value if binding else None

    def resolve_ns(self, alias: str, ns: str, version: int) -> str:
        """The namespace that `alias` names inside `ns`."""
        table = self.namespace(ns, version)
        aliases = table.get("aliases") if table else None
        if aliases is not None and alias in aliases:
            return str(aliases.get(alias))
        return ALIASES.get(alias, alias)

    def resolve(self, ns: str | None, name: str, current: str, version: int) -> Cell | None:
        """The cell that a symbol written in namespace `current` refers to, or None."""
        if ns is not None:
            return self._bound(self.resolve_ns(ns, current, version), name, version)
        cell = self._bound(current, name, version)
        if cell is not None:
            return cell
        table = self.namespace(current, version)
        refers = table.get("refers") if table else None
        if refers is not None and name in refers:
            return self._bound(*referred_to(name, refers.get(name)), version)
        for space in REFERRED:
            cell = self._bound(space, name, version)
            if cell is not None and not self._helper(cell, version):
                return cell
        return None

    def _helper(self, cell: Cell, version: int) -> bool:
        """Whether a name is private to the library: who writes it elsewhere means a name of their own."""
        binding = cell.at(version)
        return binding is not None and bool(binding.meta.get("private"))

    def _bound(self, ns: str, name: str, version: int) -> Cell | None:
        space = self.spaces.get(ns)
        cell = space.get(name) if space else None
        return cell if cell is not None and cell.at(version) is not None else None

    def names(self, ns: str, version: int) -> Iterator[str]:
        """Names bound in `ns` at a version."""
        for name, cell in list(self.spaces.get(ns, {}).items()):
            if name != "*ns*" and cell.at(version) is not None:
                yield name

    def public(self, ns: str, version: int) -> Iterator[str]:
        """Names of a namespace that are meant for code outside of it: neither private nor helpers of the library, which mostly end in *."""
        for name, cell in list(self.spaces.get(ns, {}).items()):
            binding = cell.at(version)
            if name == "*ns*" or binding is None or binding.meta.get("private"):
                continue
            if binding.version or not (name in HELPERS or (len(name) > 1 and name.endswith("*"))):
                yield name

    def visible(self, current: str, version: int) -> list[str]:
        """Every name that can be written in `current`: bare where referred, with its namespace elsewhere."""
        names = set(self.names(current, version))
        for ns in self.spaces:
            names.update(name if ns in REFERRED else f"{ns}/{name}" for name in self.public(ns, version))
        return sorted(names)

    def suggestions(self, name: str, current: str, version: int) -> list[str]:
        """The nearest visible names to one that is unknown."""
        return difflib.get_close_matches(name, self.visible(current, version), n=3, cutoff=0.7)
