"""Sessions in memory, and the forms of cells: source text, form by form.

`Session` evaluates what does not wait; `Cell` gives a machine the next form of a cell's text,
compiled against the definitions that the flow is pinned to at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowmetal.lang import evaluate
from flowmetal.lang.definitions import Definitions
from flowmetal.lang.frames import State
from flowmetal.lang.functions import Closure, Root
from flowmetal.lang.library import library
from flowmetal.lang.reader import Reader
from flowmetal.lang.requests import Define, Mark
from flowmetal.lang.spans import Source
from flowmetal.lang.syntax_quote import head


def aliases_of(definitions: Definitions, ns: str, version: int) -> dict[str, str]:
    """The aliases that `::alias/keyword` may use in a namespace."""
    table = definitions.namespace(ns, version)
    return dict(table.get("aliases").items()) if table else {}


def read_forms(definitions: Definitions, text: str, file: str, ns: str, version: int) -> list[tuple[Any, str, Any]]:
    """(form, text, span) of each top-level form; `::kw` belongs to the namespace that an `ns` form before it names."""
    reader = Reader(Source(file, text), ns=ns, aliases=aliases_of(definitions, ns, version))
    out = []
    for form in reader:
        out.append((form, reader.last_text, reader.last_span))
        if head(form) == "ns" and len(form) > 1:
            reader.ns = str(form.rest().first())
    return out


class Cell:
    """The forms of one cell, for the machine that runs it."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self.forms: list[tuple[Any, str, Any]] | None = None

    def __call__(self, state: State) -> Closure | None:
        """The next form, compiled; None after the last. Raises SourceError."""
        program = state.program
        if self.forms is None:
            assert program.source is not None
            self.forms = read_forms(self.definitions, program.source, program.file, program.ns, state.pin)
            program.total = len(self.forms)
        if program.index >= len(self.forms):
            return None
        form, text, span = self.forms[program.index]
        program.index += 1
        root = Root(program.ns, state.pin, span.source.name, span.line, span.column, text)
        return evaluate.compile_form(self.definitions, root, form)


class Session:
    """Definitions in memory and a current namespace."""

    def __init__(self, definitions: Definitions | None = None, ns: str = "user", keep: Callable[[Define], bool] | None = None) -> None:
        self.keep = keep
        """Says of a definition whether it is new; one that is not gets no version."""
        self.definitions = definitions if definitions is not None else library()
        self.ns = ns
        self.defined: list[Define] = []
        self.marks: list[Mark] = []

    def eval(self, text: str, file: str = "input") -> Any:
        """Evaluates every form of `text`; the last one's value. Raises SourceError or LispError."""
        value = None
        for form, source, span in read_forms(self.definitions, text, file, self.ns, self.definitions.version):
            value = self.eval_form(form, source, span)
        return value

    def eval_form(self, form: Any, text: str, span: Any) -> Any:
        """Evaluates one top-level form."""
        root = Root(self.ns, self.definitions.version, span.source.name, span.line, span.column, text)
        closure = evaluate.compile_form(self.definitions, root, form)
        return evaluate.run(self.definitions, closure, [], root.pin, kind="load", on_define=self._define, marks=self.marks)

    def _define(self, d: Define) -> int:
        self.defined.append(d)
        if d.kind == "ns":
            self.ns = d.ns
        if self.keep is not None and not self.keep(d):
            return self.definitions.version
        version = self.definitions.version + 1
        evaluate.bind(self.definitions, d, version)
        self.definitions.version = version
        return version
