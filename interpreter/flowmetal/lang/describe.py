"""What is known of a name: for `doc`, `source` and `apropos`, the notebook's inspector, completion and the reference page.

In: definitions at a version, a namespace, a name. Out: a `Description`. Special forms have theirs in a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowmetal.errors import FlowmetalError
from flowmetal.lang.definitions import REFERRED, Binding, Definitions
from flowmetal.lang.effect_examples import EFFECT_EXAMPLES
from flowmetal.lang.functions import FlowProgram, ForeignStub, MultiFn, is_function
from flowmetal.lang.layout import AnyAlias
from flowmetal.lang.prelude_forms import prelude
from flowmetal.lang.primitives.registry import Primitive
from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import Reader, read_all
from flowmetal.lang.spans import Source
from flowmetal.lang.special_docs import SPECIAL_DOCS
from flowmetal.lang.unsupported import replacement
from flowmetal.lang.values import Symbol, split_name


@dataclass(frozen=True, slots=True)
class Description:
    """A name, and what people ask of it."""

    ns: str
    name: str
    kind: str
    """special form, macro, function, flow, foreign function, test, multimethod, value"""
    arglists: tuple[str, ...] = ()
    doc: str | None = None
    example: str | None = None
    source: str | None = None
    file: str | None = None
    line: int | None = None

    @property
    def full_name(self) -> str:
        """As it can be written anywhere."""
        return self.name if self.kind == "special form" else f"{self.ns}/{self.name}"

    @property
    def shown_name(self) -> str:
        """As it is written: the library's referred namespaces need no prefix."""
        return self.name if self.ns in REFERRED else self.full_name

    def calls(self) -> list[str]:
        """A line for each way to call it."""
        return [f"({self.shown_name}{' ' if args != '[]' else ''}{args[1:-1]})" for args in self.arglists]

    def text(self) -> str:
        """What `doc` prints."""
        lines = [f"{self.full_name}  ({self.kind})", *(f"  {call}" for call in self.calls())]
        if self.doc:
            lines += [f"  {line.strip()}" for line in self.doc.split("\n")]
        if self.example:
            lines.append(f"  {self.example}")
        return "\n".join(lines) + "\n"


def describe(definitions: Definitions, name: str, ns: str, version: int) -> Description | None:
    """The description of a name as it is written in `ns`; None when it means nothing there."""
    space, bare = split_name(name)
    cell = definitions.resolve(space, bare, ns, version)
    binding = cell.at(version) if cell is not None else None
    if cell is not None and binding is not None:
        return _described(cell.ns, cell.name, binding)
    if space in (None, "core") and bare in SPECIAL_DOCS:
        return special(bare)
    return None


def special(name: str) -> Description:
    """The description of a special form."""
    known = SPECIAL_DOCS[name]
    return Description("core", name, "special form", _arglists(known.arglists), known.doc, known.example or None)


def _described(ns: str, name: str, binding: Binding) -> Description:
    try:
        value = binding.value
    except FlowmetalError:
        value = None
    meta = binding.meta
    example = _text(meta.get("example")) or EFFECT_EXAMPLES.get(f"{ns}/{name}")
    return Description(
        ns, name, _kind(binding, value), _arglists(meta.get("arglists")), _text(meta.get("doc")), example,
        _source(ns, name, meta, value), meta.get("file"), meta.get("line"),
    )  # fmt: skip


def _kind(binding: Binding, value: Any) -> str:
    if binding.macro:
        return "macro"
    if isinstance(value, FlowProgram):
        return "test" if binding.kind == "deftest" else "flow"
    if isinstance(value, ForeignStub):
        return "foreign function"
    if isinstance(value, MultiFn):
        return "multimethod"
    return "function" if is_function(value) else "value"


def _arglists(x: Any) -> tuple[str, ...]:
    """Each list of parameters as text; they are kept as text by some and as data by others."""
    if x is None:
        return ()
    forms = read_all(Source("arglists", x))[0] if isinstance(x, str) else x
    return tuple(pr_str(form) for form in forms)


def _source(ns: str, name: str, meta: dict[str, Any], value: Any) -> str | None:
    form = prelude().get(f"{ns}/{name}")
    if form is not None:
        reader = Reader(Source(form.file, form.text), aliases=AnyAlias())
        next(reader)
        return reader.last_text
    if isinstance(value, Primitive):
        module = value.fn.__module__.rpartition(".")[2]
        return f";; {ns}/{name} is a primitive, written in Python: flowmetal/lang/primitives/{module}.py"
    return _text(meta.get("source"))


def _text(x: Any) -> str | None:
    return x if x is None or isinstance(x, str) else pr_str(x)


def public_names(definitions: Definitions, version: int) -> Iterator[tuple[str, str]]:
    """(namespace, name) of everything public that is defined at a version."""
    for ns in sorted(definitions.spaces):
        for name in sorted(definitions.public(ns, version)):
            yield ns, name


def matching(definitions: Definitions, pattern: Any, ns: str, version: int) -> list[str]:
    """Names, as they can be written in `ns`, in which a compiled regex is found."""
    found = {name if space in (ns, *REFERRED) else f"{space}/{name}" for space, name in public_names(definitions, version) if pattern.search(name)}
    return sorted(found | {name for name in SPECIAL_DOCS if pattern.search(name)})


def apropos(definitions: Definitions, text: str, ns: str, version: int) -> list[str]:
    """Names, as they can be written in `ns`, that contain a text or whose documentation does; those by name first."""
    wanted = text.lower()
    by_name, by_doc = set(), set()
    for space, name in public_names(definitions, version):
        written = name if space in (ns, *REFERRED) else f"{space}/{name}"
        cell = definitions.cell(space, name)
        binding = cell.at(version)
        if wanted in written.lower():
            by_name.add(written)
        elif binding is not None and wanted in (_text(_doc_of(space, name, binding)) or "").lower():
            by_doc.add(written)
    for name, known in SPECIAL_DOCS.items():
        if wanted in name:
            by_name.add(name)
        elif wanted in known.doc.lower():
            by_doc.add(name)
    return sorted(by_name) + sorted(by_doc - by_name)


def _doc_of(ns: str, name: str, binding: Binding) -> Any:
    """The docstring, without compiling a definition of the prelude for it."""
    form = prelude().get(f"{ns}/{name}")
    return binding.meta.get("doc") or (form.text if form is not None else None)


def unknown(name: str) -> str:
    """What to say of a name that means nothing: what takes its place, when Clojure knows it."""
    space, bare = split_name(name)
    instead = replacement(Symbol(space, bare))
    return f"{name} is not part of Flowmetal: {instead}\n" if instead else f'nothing is known of {name}: (apropos "{bare}") looks for names\n'
