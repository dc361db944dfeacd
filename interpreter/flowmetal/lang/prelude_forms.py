"""The prelude's files, as an index of their definitions: nothing is compiled here.

A form begins where a definition stands at the start of a line; so starting costs a few milliseconds.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

from flowmetal.lang.functions import Root

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
