"""The colours of source text: a Pygments lexer, for saved notebooks, documents, and the terminal.

In: source text, also such as cannot be read. Out: Pygments' tokens. The one rule: the pieces joined are the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups
from pygments.token import Comment, Keyword, Literal, Name, Number, Operator, Punctuation, String, Text, _TokenType

from flowmetal.lang.definitions import REFERRED
from flowmetal.lang.describe import public_names
from flowmetal.lang.library import library
from flowmetal.lang.special_docs import SPECIAL_DOCS

_STOP = r"\s,;\"@^`~()\[\]{}\\"
_NAME = rf"[^{_STOP}#'0-9:][^{_STOP}]*"
_DEFINING = "def|defn|defn-|defmacro|defflow|defforeign|deftest|defmulti|defmethod|defsource|ns"


class FlowmetalLexer(RegexLexer):
    """Colours Flowmetal: special forms and macros, names of the library, literals."""

    name = "Flowmetal"
    aliases: ClassVar = ["flowmetal"]
    filenames: ClassVar = ["*.flow"]
    mimetypes: ClassVar = ["text/x-flowmetal"]
    flags = re.DOTALL

    tokens: ClassVar = {
        "root": [
            (r";[^\n]*|#![^\n]*", Comment.Single),
            (r"#_", Comment.Special),
            (r"[\s,]+", Text.Whitespace),
            (rf"(\()([\s,]*)({_DEFINING})([\s,]+)((?:\^{_NAME}[\s,]+|\^:{_NAME}[\s,]+)*)({_NAME})",
             bygroups(Punctuation, Text.Whitespace, Keyword.Declaration, Text.Whitespace, Name.Decorator, Name.Function)),
            (r'#"(?:[^"\\]|\\.)*"?', String.Regex),
            (r'"(?:[^"\\]|\\.)*"?', String.Double),
            (r'#(inst|dur|uuid|b64)(?=\s*")', Literal.Date),
            (rf"\\(?:[^{_STOP}]+|.)", String.Char),
            (rf"##[^{_STOP}]*", Number),
            (rf"[-+]?[0-9][^{_STOP}'#%]*", Number),
            (rf"::?[^{_STOP}]+", String.Symbol),
            (r"~@|#'|#\^|['@`~^]", Operator),
            (r"#?[(\[{]|#:[^\s{(\[]*[\s,]*\{|[)\]}]", Punctuation),
            (rf"#{_NAME}", Name.Decorator),
            (r"%[0-9]*&?", Name.Variable.Magic),
            (_NAME, Name),
            (r".", Text),
        ],
    }  # fmt: skip

    def get_tokens_unprocessed(self, text: str, stack: tuple[str, ...] = ("root",)) -> Iterator[tuple[int, _TokenType, str]]:
        """The tokens; names get the colour of what they name."""
        for index, token, value in super().get_tokens_unprocessed(text, stack):
            yield index, _colour(value) if token is Name else token, value


@lru_cache(maxsize=4096)
def _colour(name: str) -> _TokenType:
    if name in ("nil", "true", "false"):
        return Keyword.Constant
    if name in SPECIAL_DOCS:
        return Keyword
    macro = _library().get(name)
    return Name if macro is None else Keyword if macro else Name.Builtin


@lru_cache(maxsize=1)
def _library() -> dict[str, bool]:
    """The library's names as they are written, and whether each is a macro."""
    definitions = library()
    found = {}
    for ns, name in public_names(definitions, 0):
        binding = definitions.lookup(ns, name, 0)
        found[name if ns in REFERRED else f"{ns}/{name}"] = binding is not None and binding.macro
    return found


__all__ = ["FlowmetalLexer"]
