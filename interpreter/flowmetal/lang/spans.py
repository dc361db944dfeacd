"""Where a form stands in its source, and the caret line that shows it.

What goes in: a source text and positions in it, lines and columns counted from 1.
What comes out: `name:line:column` and two lines of text, the source line and its underlining.
The one rule: a span is only ever shown; it never counts in equality of values, in hashes or in code.
"""

from __future__ import annotations

import re
from functools import cached_property

_LINE_END = re.compile(r"\r\n|\n|\r")
_WIDTH = 120


class Source:
    """A text and the name under which errors show it: a path, `cell`, `<stdin>`. `library` says that it is not the user's own."""

    def __init__(self, name: str, text: str, *, library: bool = False) -> None:
        self.name = name
        self.text = text
        self.library = library

    @cached_property
    def line_starts(self) -> list[int]:
        """The offset at which each line begins."""
        return [0, *(m.end() for m in _LINE_END.finditer(self.text))]

    def line(self, number: int) -> str:
        """The text of a line (from 1), without its end; empty when there is no such line."""
        starts = self.line_starts
        if not 1 <= number <= len(starts):
            return ""
        end = starts[number] if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r\n")

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.text)} characters)"


class Span:
    """From (line, column) up to, not including, (end_line, end_column) of a source."""

    __slots__ = ("column", "end_column", "end_line", "line", "source")

    def __init__(self, source: Source, line: int, column: int, end_line: int, end_column: int) -> None:
        self.source = source
        self.line = line
        self.column = column
        self.end_line = end_line
        self.end_column = end_column

    def caret(self) -> str:
        """The source line, and under it carets below what the span covers of it."""
        text = self.source.line(self.line)
        start = min(self.column - 1, len(text))
        end = min(self.end_column - 1, len(text)) if self.end_line == self.line else len(text)
        first = max(0, start - _WIDTH // 2) if len(text) > _WIDTH else 0
        shown = text[first : first + _WIDTH]
        pad = "".join("\t" if c == "\t" else " " for c in text[first:start])
        carets = "^" * max(1, min(end, first + _WIDTH) - start)
        return f"{shown}\n{pad}{carets}"

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def __repr__(self) -> str:
        return f"Span({self.source.name!r}, {self.line}, {self.column}, {self.end_line}, {self.end_column})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Span) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, int, int, int, int]:
        return (self.source.name, self.line, self.column, self.end_line, self.end_column)
