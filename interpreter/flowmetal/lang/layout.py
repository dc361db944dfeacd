"""The layout of source text: brackets, line breaks and comments stay, indentation and spaces are made regular.

In: source text. Out: the same tokens in the same lines, laid out. The rules are those that Clojure programmers know: the body of
`let`, `defn` … stands two columns in, arguments below the first argument, elements below the first element. What is
written on one line stays there, and spaces between forms of one line are kept, since people align with them.
"""

from __future__ import annotations

import re
from typing import Any

from flowmetal.lang import tokens
from flowmetal.lang.reader import Reader
from flowmetal.lang.spans import Source
from flowmetal.lang.tokens import TOKEN

BLANK_LINES = 1
"""How many empty lines may follow each other."""

BLOCKS = {
    **dict.fromkeys(("do", "cond", "try", "finally", "comment", "async", "nursery", "saga", "race"), 0),
    **dict.fromkeys((
        "let*", "loop*", "if", "if-not", "if-let", "if-some", "when", "when-not", "when-let", "when-some", "when-first", "let", "loop", "for", "doseq",
        "dotimes", "while", "case", "cond->", "cond->>", "letfn", "doto", "ns", "testing", "poll",
    ), 1),
    **dict.fromkeys(("condp", "as->", "catch", "are"), 2),
}  # fmt: skip
"""How many arguments stand before the body. A body that begins on a line of its own stands two columns in."""
_WHOLLY = re.compile(r"(def|with-|fn$)(?!ault)")
"""Forms all of whose arguments stand two columns in."""
_TRIVIA = re.compile(r";[^\n]*|\#![^\n]*|\n|,|[^\S\n]+|\ufeff")


class AnyAlias(dict[str, str]):
    """Every alias is known: which ones are does not matter to a text's layout."""

    def __missing__(self, key: str) -> str:
        return key

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: str, default: Any = None) -> Any:
        """The alias itself."""
        return key


def layout(text: str, name: str = "input") -> str:
    """The text laid out. Raises SourceError where it cannot be read."""
    for _ in Reader(Source(name, text), aliases=AnyAlias()):
        pass
    return _Layout(text).run()


class _Level:
    """An open bracket, or (`forms` > 0) a prefix that waits for so many forms."""

    __slots__ = ("broken", "counted", "first_arg", "forms", "head", "index", "inner", "is_list", "line")

    def __init__(self, forms: int, inner: int, line: int, *, is_list: bool = False, counted: bool = True) -> None:
        self.forms = forms
        self.inner = inner
        """The column after the bracket."""
        self.line = line
        self.is_list = is_list
        self.counted = counted
        """Whether what stands here counts as an element: what `#_` drops does not."""
        self.index = 0
        self.head: str | None = None
        self.first_arg: int | None = None
        self.broken = False


class _Layout:
    """One pass over the tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.out: list[str] = []
        self.line = 0
        self.column = 0
        self.levels: list[_Level] = []
        self.tight = True
        """Whether nothing separates what follows from what went before: at the beginning, after a bracket or a prefix."""

    def run(self) -> str:
        """The whole text."""
        position = 0
        while True:
            m = TOKEN.match(self.text, position)
            assert m is not None
            kind = m.lastindex or 0
            start, position = m.span(kind)
            self._trivia(self.text[m.start() : start], kind, self.text[start : start + 1])
            if kind == tokens.END:
                break
            self._token(kind, m[kind])
        result = "".join(self.out)
        return result + "\n" if result else ""

    def indent_at_end(self) -> int:
        """The column of what would come next on a line of its own."""
        self.run()
        return self._indent()

    def _write(self, text: str) -> None:
        self.out.append(text)
        newlines = text.count("\n")
        self.line += newlines
        self.column = len(text) - text.rfind("\n") - 1 if newlines else self.column + len(text)

    # Between tokens

    def _trivia(self, trivia: str, kind: int, first: str) -> None:
        """Space, line breaks and comments before a token."""
        newlines, gap, commented = 0, "", False
        for piece in _TRIVIA.findall(trivia):
            if piece == "\n":
                newlines += 1
            elif piece[0] in ";#":
                self._before_comment(newlines, gap, commented)
                self._write(piece.rstrip())
                newlines, gap, commented = 0, "", True
            elif newlines == 0 and not commented:
                gap += "," if piece == "," else "" if piece == "\ufeff" else " " * len(piece)
        if kind == tokens.END:
            return
        if kind == tokens.CLOSE:
            if commented:
                self._break(1)
        elif commented:
            self._break(newlines)
        elif self.tight:
            if self.out and self.out[-1] == "~" and first == "@":
                self._write(" ")
        elif newlines:
            if "," in gap:
                self._write(",")
            self._break(newlines)
        else:
            self._write(gap or " ")

    def _before_comment(self, newlines: int, gap: str, commented: bool) -> None:
        if not self.out:
            return
        if newlines or commented:
            self._break(newlines)
        else:
            self._write(gap or " ")

    def _break(self, newlines: int) -> None:
        self._write("\n" * max(1, min(newlines, BLANK_LINES + 1)) + " " * self._indent())

    def _indent(self) -> int:
        """The column of an element that begins a line here."""
        level = next((x for x in reversed(self.levels) if not x.forms), None)
        if level is None:
            return 0
        if not level.is_list or level.index == 0 or level.head is None:
            return level.inner
        argument = level.index - 1
        if _WHOLLY.match(level.head):
            return level.inner + 1
        block = BLOCKS.get(level.head)
        if block is not None and (argument <= block or level.broken):
            return level.inner + 1
        return level.first_arg if level.first_arg is not None else level.inner

    # Tokens

    def _token(self, kind: int, text: str) -> None:
        if kind == tokens.CLOSE:
            if self.levels:
                self.levels.pop()
            self._write(text)
            self._finished()
            return
        self._begin_element(kind, text)
        if kind == tokens.OPEN:
            opened = re.sub(r"[\s,]+", "", text)
            self._write(opened)
            self.levels.append(_Level(0, self.column, self.line, is_list=opened in ("(", "#(")))
            self.tight = True
        elif kind in (tokens.PREFIX, tokens.TAG):
            self._write(text)
            self.levels.append(_Level(2 if text in ("^", "#^") else 1, self.column, self.line, counted=text != "#_"))
            self.tight = kind == tokens.PREFIX
        else:
            self._write(text)
            self._finished()

    def _begin_element(self, kind: int, text: str) -> None:
        """Notes where an element of the innermost bracket begins."""
        level = self.levels[-1] if self.levels else None
        if level is None or level.forms or text == "#_":
            return
        if level.index == 0:
            level.head = text.rpartition("/")[2] or text if kind == tokens.NAME else None
        else:
            argument = level.index - 1
            if argument == 0 and self.line == level.line:
                level.first_arg = self.column
            if level.head is not None and argument == BLOCKS.get(level.head) and self.line != level.line:
                level.broken = True
        level.index += 1

    def _finished(self) -> None:
        """A form is complete, and with it the prefixes that waited for it."""
        self.tight = False
        while self.levels and self.levels[-1].forms:
            prefix = self.levels[-1]
            prefix.forms -= 1
            if prefix.forms:
                return
            self.levels.pop()


def indent_after(text: str) -> int:
    """The column at which the next line of an unfinished text begins."""
    return _Layout(text).indent_at_end()
