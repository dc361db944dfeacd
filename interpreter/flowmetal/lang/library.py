"""The core library as definitions at version 0: leaf primitives, machine operations, the prelude.

The prelude is compiled a definition at a time, when it is first used: its files are indexed by the
names at the start of their lines, so that starting costs a few milliseconds.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib import resources
from typing import Any

import flowmetal.lang.primitives  # noqa: F401  fills the table
from flowmetal.lang import evaluate
from flowmetal.lang.definitions import Binding, Definitions
from flowmetal.lang.functions import Root
from flowmetal.lang.machine_ops import OPS
from flowmetal.lang.primitives.registry import PRIMITIVES_VERSION, TABLE

_FORM = re.compile(r"^\((defn-?|defmacro|def|defmulti)\s+(?:\^\S+\s+)*(\S+)", re.MULTILINE)
_NS = re.compile(r"^\(ns\s+([^\s)]+)", re.MULTILINE)


class PreludeForm:
    """One definition of the prelude: where it stands and its text."""

    __slots__ = ("file", "kind", "line", "name", "ns", "text")

    def __init__(self, ns: str, name: str, kind: str, file: str, line: int, text: str) -> None:
        self.ns = ns
        self.name = name
        self.kind = kind
        self.file = file
        self.line = line
        self.text = text

    def root(self) -> Root:
        """The root of its code."""
        return Root(self.ns, 0, self.file, self.line, 1, self.text, f"{self.ns}/{self.name}")


@lru_cache(maxsize=1)
def prelude() -> dict[str, PreludeForm]:
    """Every definition of the prelude, by `ns/name`."""
    forms: dict[str, PreludeForm] = {}
    for entry in sorted(resources.files("flowmetal.lang").joinpath("prelude").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".flow"):
            for form in _index(entry.name, entry.read_text(encoding="utf-8")):
                forms[f"{form.ns}/{form.name}"] = form
    return forms


def _index(file: str, text: str) -> list[PreludeForm]:
    ns = _NS.search(text)
    assert ns is not None, f"{file} has no ns"
    starts = list(_FORM.finditer(text))
    out = []
    for i, match in enumerate(starts):
        end = starts[i + 1].start() if i + 1 < len(starts) else len(text)
        line = text.count("\n", 0, match.start()) + 1
        out.append(PreludeForm(ns.group(1), match.group(2), match.group(1), file, line, text[match.start() : end]))
    return out


def engine_version() -> str:
    """What re-execution depends on besides definitions: the primitives' version and the prelude's hash."""
    digest = hashlib.sha256("".join(f.text for f in prelude().values()).encode()).hexdigest()[:12]
    return f"{PRIMITIVES_VERSION}-{digest}"


def install(definitions: Definitions) -> Definitions:
    """Puts the library into `definitions`, at version 0."""
    for table in (TABLE, OPS):
        for (ns, name), fn in table.items():
            meta = {"doc": fn.doc, "arglists": fn.arglists, "example": fn.example}
            definitions.define(ns, name, Binding(fn, kind="library", meta=meta))
    for form in prelude().values():
        definitions.define(form.ns, form.name, _lazy(definitions, form))
    return definitions


def _lazy(definitions: Definitions, form: PreludeForm) -> Binding:
    binding = Binding(None, kind="prelude", macro=form.kind == "defmacro", meta={"private": form.kind == "defn-", "source": form.text})

    def force() -> Any:
        value, meta = evaluate.definition(definitions, form.root())
        binding.meta = {**meta, **binding.meta}
        return value

    binding._thunk = force
    return binding


def library() -> Definitions:
    """New definitions with the library in them."""
    return install(Definitions())


def load_root(definitions: Definitions, root: Root) -> Root:
    """The compiled root for one that was read from the store."""
    if root.prelude is not None:
        root = prelude()[root.prelude].root()
    return evaluate.compiled(definitions, root)
