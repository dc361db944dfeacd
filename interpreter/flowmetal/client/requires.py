"""Files that a text requires: which they are, where they lie, in which order they are loaded.

In: a text and the path it came from. Out: (path, text) of every `.flow` file that it needs, those first that the
others need. The one rule: a namespace `orders.core` is the file `orders/core.flow`, beside the file (or the
notebook) that asks or in a folder of `FLOWMETAL_PATH`; what is in no file is for the store to know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowmetal.client.client import Client, Row
from flowmetal.errors import SourceError
from flowmetal.lang.definitions import ALIASES
from flowmetal.lang.layout import AnyAlias
from flowmetal.lang.library import library_namespaces
from flowmetal.lang.namespace_forms import each_spec
from flowmetal.lang.persistent import List, Vector
from flowmetal.lang.reader import Reader
from flowmetal.lang.spans import Source
from flowmetal.lang.syntax_quote import head
from flowmetal.lang.values import Keyword, Symbol

_CLAUSES = ("require", "use")


async def load_with_requires(client: Client, source: str, file: str) -> Row:
    """Loads what a file needs, and then the file: the answer for the file itself."""
    await load_requires(client, source, file)
    return await client.load(source, file=file)


async def load_requires(client: Client, source: str, file: str) -> None:
    """Loads the files that a text needs; nothing new happens for those that the store has already. Raises SourceError."""
    if "require" not in source and ":use" not in source:
        return
    for path, text in required_files(source, file):
        await client.load(text, file=str(path))


def required_files(source: str, file: str) -> list[tuple[Path, str]]:
    """The files that a text needs, in the order in which they are to be loaded. Raises SourceError for a circle."""
    found: dict[str, tuple[Path, str]] = {}
    _collect(source, file, _roots(source, file), [], found)
    return list(found.values())


def _collect(source: str, file: str, roots: list[Path], open_: list[str], found: dict[str, tuple[Path, str]]) -> None:
    own, needed = _namespaces(source, file)
    path_here = [*open_, *([own] if own else [])]
    for ns, span in needed:
        if ns in path_here:
            circle = " → ".join([*path_here[path_here.index(ns) :], ns])
            raise SourceError(f"namespaces require each other in a circle: {circle}", type="compile/syntax", span=span)
        if ns in found or ns in library_namespaces() or ns in ALIASES:
            continue
        path = _path_of(ns, roots)
        if path is not None:
            text = path.read_text(encoding="utf-8")
            _collect(text, str(path), roots, path_here, found)
            found[ns] = (path, text)


def _roots(source: str, file: str) -> list[Path]:
    """Where files are looked for: beside the asking file, where its own namespace begins, and in FLOWMETAL_PATH."""
    here = Path(file).resolve().parent if Path(file).exists() else Path.cwd()
    roots = [here]
    own, _ = _namespaces(source, file)
    for _ in (own or "").split(".")[1:]:
        here = here.parent
    if here not in roots:
        roots.append(here)
    return roots + [Path(p) for p in os.environ.get("FLOWMETAL_PATH", "").split(os.pathsep) if p]


def _path_of(ns: str, roots: list[Path]) -> Path | None:
    for root in roots:
        for name in (ns, ns.replace("-", "_")):
            *folders, last = name.split(".")
            path = root.joinpath(*folders, f"{last}.flow")
            if path.is_file():
                return path
    return None


def _namespaces(source: str, file: str) -> tuple[str | None, list[tuple[str, Any]]]:
    """The namespace that a text is in, and those that it requires, with the places where it says so."""
    own: str | None = None
    needed: list[tuple[str, Any]] = []
    try:
        for form in Reader(Source(file, source), aliases=AnyAlias()):
            name = head(form)
            if name == "ns" and len(form) > 1 and isinstance(form.rest().first(), Symbol):
                own = str(form.rest().first())
                for clause in form.rest().rest():
                    if isinstance(clause, List) and len(clause) and isinstance(clause.first(), Keyword) and clause.first().name in _CLAUSES:
                        needed += _specs(clause.rest())
            elif name == "require":
                needed += _specs(form.rest())
    except SourceError:
        pass  # whoever evaluates the text says what is wrong with it
    return own, needed


def _specs(specs: Any) -> Iterator[tuple[str, Any]]:
    for spec in specs:
        if isinstance(spec, List) and len(spec) == 2 and head(spec) == "quote":
            spec = spec.rest().first()
        for each in each_spec(spec):
            target = each.nth(0) if isinstance(each, Vector) and len(each) else each
            if isinstance(target, Symbol):
                yield str(target), getattr(target, "span", None)
