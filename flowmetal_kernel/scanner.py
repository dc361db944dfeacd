"""Is this Lisp text whole? Text goes in, one of complete, incomplete, invalid comes out, and an indent.

A scan of brackets, strings and comments only: what an editor needs to know when Enter is pressed. The one rule: it never
refuses what the reader would read, so that anything doubtful is left to the reader and its better messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_CLOSERS = {")": "(", "]": "[", "}": "{"}
_PREFIX = re.compile(r"(?:^|[\s,()\[\]{}])(?:['`@]|~@?|#'|#_|\^)\s*$")
_SYMBOL_END = re.compile(r"[^\s,()\[\]{}\"';`~@^]+$")
_SYMBOL_START = re.compile(r"[^\s,()\[\]{}\"';`~@^]*")


@dataclass(frozen=True, slots=True)
class Scan:
    """The answer, and what the next line should begin with when more is needed."""

    status: Literal["complete", "incomplete", "invalid"]
    indent: str = ""


def scan(text: str) -> Scan:
    """Decides whether `text` is a number of whole forms."""
    open_brackets: list[tuple[str, int]] = []
    code: list[str] = []  # the text without its comments, strings and characters
    at, line_start = 0, 0
    while at < len(text):
        char = text[at]
        if char == "\n":
            line_start = at + 1
        elif char in _SKIPPED:
            end = _SKIPPED[char](text, at)
            if end is None:
                return Scan("incomplete")
            newline = text.rfind("\n", at, end)
            line_start = newline + 1 if newline >= 0 else line_start
            code.append(" " if char == ";" else '"')
            at = end
            continue
        elif char in "([{":
            open_brackets.append((char, at - line_start))
        elif char in _CLOSERS and (not open_brackets or open_brackets.pop()[0] != _CLOSERS[char]):
            return Scan("invalid")
        code.append(char)
        at += 1
    if open_brackets:
        bracket, column = open_brackets[-1]
        return Scan("incomplete", " " * (column + (2 if bracket == "(" else 1)))
    return Scan("incomplete" if _PREFIX.search("".join(code)) else "complete")


def token_before(text: str, cursor: int) -> str:
    """The part of a symbol or keyword that stands immediately before the cursor."""
    found = _SYMBOL_END.search(text, 0, cursor)
    return found.group().lstrip("#") if found else ""


def symbol_at(text: str, cursor: int) -> str:
    """The whole symbol under the cursor."""
    after = _SYMBOL_START.match(text, cursor)
    return token_before(text, cursor) + (after.group() if after else "")


def head_of_list(text: str, cursor: int) -> str:
    """The symbol at the head of the list around the cursor."""
    depth = 0
    for at in range(cursor - 1, -1, -1):
        if text[at] in _CLOSERS:
            depth += 1
        elif text[at] in "([{":
            if depth == 0:
                found = _SYMBOL_START.match(text, at + 1)
                return found.group() if found and text[at] == "(" else ""
            depth -= 1
    return ""


def _string_end(text: str, at: int) -> int | None:
    """The position after the string that begins at `at`; None where it does not end."""
    at += 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            return at + 1
        at += 1
    return None


def _comment_end(text: str, at: int) -> int:
    """The position of the line's end."""
    end = text.find("\n", at)
    return end if end >= 0 else len(text)


def _character_end(_text: str, at: int) -> int:
    r"""The position after a character: `\(` opens nothing."""
    return at + 2


_SKIPPED: dict[str, Callable[[str, int], int | None]] = {'"': _string_end, ";": _comment_end, "\\": _character_end}
