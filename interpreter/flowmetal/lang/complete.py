"""Completion: which names may stand at the cursor.

Two sources: definitions (names of the library, of the namespace and its aliases, special forms, keywords in their sources), and the
text around the cursor (locals, and the keywords written there). The text need not be readable: it is being written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from flowmetal.lang import tokens
from flowmetal.lang.definitions import REFERRED, Definitions
from flowmetal.lang.effect_examples import EFFECT_EXAMPLES
from flowmetal.lang.prelude_forms import prelude
from flowmetal.lang.special_docs import SPECIAL_DOCS
from flowmetal.lang.tokens import TOKEN

LIMIT = 200
_KEYWORD = re.compile(r"(?<![\w:/])::?[A-Za-z*!_?<>=.+-][\w*!?<>=.+#'/-]*")
_BINDING = frozenset({
    "let", "loop", "for", "doseq", "dotimes", "if-let", "if-some", "when-let", "when-some", "when-first",
})  # fmt: skip
"""Forms whose vector holds patterns and values in turn."""
_FUNCTION = frozenset({"fn", "defn", "defn-", "defmacro", "defflow", "defforeign", "defmethod"})

Node = Any
"""A token's text, or a list [bracket, node…]; an open one is the last of its parent."""


def names(definitions: Definitions, prefix: str, ns: str, version: int) -> list[str]:
    """Names and keywords that begin with `prefix`, as they can be written in `ns`."""
    if prefix.startswith(":"):
        return [k for k in _keywords(definitions, version) if k.startswith(prefix) and k != prefix][:LIMIT]
    alias, slash, _ = prefix.partition("/")
    if slash and alias:
        space = definitions.resolve_ns(alias, ns, version)
        found = {f"{alias}/{name}" for name in _known(definitions, space, ns, version)}
    else:
        found = {name for space in (ns, *REFERRED) for name in _known(definitions, space, ns, version)} | set(SPECIAL_DOCS)
        found |= {f"{space}/" for space in _spaces(definitions, ns, version) if space not in REFERRED}
    return sorted(name for name in found if name.startswith(prefix))[:LIMIT]


def _known(definitions: Definitions, space: str, ns: str, version: int) -> Iterable[str]:
    """Names of a namespace that code in `ns` may write."""
    return definitions.names(space, version) if space == ns else definitions.public(space, version)


def _spaces(definitions: Definitions, ns: str, version: int) -> set[str]:
    """Namespaces, and the aliases that `ns` has for them."""
    table = definitions.namespace(ns, version)
    aliases = table.get("aliases") if table else None
    return set(definitions.spaces) | {str(alias) for alias in (aliases.keys() if aliases is not None else ())}


def _keywords(definitions: Definitions, version: int) -> list[str]:
    """Keywords in the sources of definitions, and those that the library takes as options."""
    found = set(_library_keywords())
    for space in definitions.spaces.values():
        for cell in space.values():
            binding = cell.at(version)
            if binding is not None and binding.version:
                found.update(_KEYWORD.findall(str(binding.meta.get("source") or "")))
    return sorted(found)


@lru_cache(maxsize=1)
def _library_keywords() -> frozenset[str]:
    texts = [form.text for form in prelude().values() if form.kind != "defn-"]
    texts += EFFECT_EXAMPLES.values()
    texts += [f"{known.doc} {known.example}" for known in SPECIAL_DOCS.values()]
    return frozenset(k for text in texts for k in _KEYWORD.findall(text) if not k.startswith("::"))


# The text around the cursor


def around(code: str, cursor: int, prefix: str) -> list[str]:
    """Locals that are bound at the cursor, or keywords of the text, that begin with `prefix`."""
    if prefix.startswith(":"):
        written = _KEYWORD.findall(code[: cursor - len(prefix)]) + _KEYWORD.findall(code[cursor:])
        return sorted({k for k in written if k.startswith(prefix) and k != prefix})
    return sorted({name for name in locals_at(code, cursor - len(prefix)) if name.startswith(prefix)})


def locals_at(code: str, cursor: int) -> list[str]:
    """The names that are bound by the forms around the cursor, the innermost last."""
    open_forms = _open_forms(code[:cursor])
    found: list[str] = []
    for i, form in enumerate(open_forms):
        if form[0] == "(":
            found += _bound_by(form, open_forms[i - 1] if i else None)
    return list(dict.fromkeys(found))


def _open_forms(text: str) -> list[list[Node]]:
    """The brackets that are open at the end of a text, outermost first, each with what stands in it."""
    stack: list[list[Node]] = [[""]]
    position = 0
    while True:
        m = TOKEN.match(text, position)
        assert m is not None
        kind = m.lastindex or 0
        position = m.end(kind)
        if kind == tokens.END:
            return stack[1:]
        if kind == tokens.OPEN:
            node: list[Node] = ["(" if m[kind].endswith("(") else m[kind][-1]]
            stack[-1].append(node)
            stack.append(node)
        elif kind == tokens.CLOSE:
            if len(stack) > 1:
                stack.pop()
        elif kind not in (tokens.PREFIX, tokens.TAG):
            stack[-1].append(m[kind])


def _bound_by(form: list[Node], parent: list[Node] | None) -> list[str]:
    head = form[1] if len(form) > 1 else None
    if isinstance(head, list):
        inside = parent is not None and len(parent) > 1 and (parent[1] in _FUNCTION or parent[0] == "[")
        return _symbols(head) if inside and head[0] == "[" else []
    vectors = [node for node in form[2:] if isinstance(node, list) and node[0] == "["]
    if head in _BINDING and vectors:
        return _patterns(vectors[0])
    if head in _FUNCTION and vectors:
        return [*_names(form[2:3]), *_symbols(vectors[0])]
    if head == "letfn" and vectors:
        return [name for f in vectors[0][1:] if isinstance(f, list) for name in _names(f[1:2])]
    if head in ("catch", "as->"):
        return _names(form[3:4])
    return []


def _patterns(vector: list[Node]) -> list[str]:
    """The names of a vector of patterns and values in turn."""
    found: list[str] = []
    todo = [vector]
    while todo:
        items = todo.pop()[1:]
        for pattern, value in zip(items[::2], [*items[1::2], None], strict=False):
            if pattern == ":let" and isinstance(value, list):
                todo.append(value)
            elif isinstance(pattern, list):
                found += _symbols(pattern)
            else:
                found += _names([pattern])
    return found


def _symbols(pattern: list[Node]) -> list[str]:
    """The names in a pattern, however deep, in the order in which they are written."""
    found: list[str] = []
    todo = pattern[:0:-1]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node[:0:-1]
        else:
            found += _names([node])
    return found


def _names(nodes: list[Node]) -> list[str]:
    return [n for n in nodes if isinstance(n, str) and n not in ("&", "_") and not n.startswith((":", '"')) and not n[0].isdigit()]
