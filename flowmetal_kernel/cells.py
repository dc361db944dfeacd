"""What a cell is: its text goes in, a list of parts to run in order comes out.

A cell is Lisp unless its first line says otherwise. Leading lines that begin with ``%`` or ``!`` are line magics, the rest
stays Lisp and keeps its line numbers. The one rule: nothing here runs or reads Lisp; a cell is only cut at its lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lisp", "again", "sql", "python", "magic", "ipython", "quit"]

LINE_MAGICS = frozenset({"flows", "flow", "store", "clock", "shim", "replay", "help"})
"""The line magics that are the notebook's own; every other one is IPython's."""

_BINDING = re.compile(r"^\s*(?P<name>[^\s;()\[\]{}\"]+)\s*<<(?P<rest>.*)$", re.DOTALL)
_QUIT = re.compile(r"^\s*(\((quit|exit)\)|quit|exit)\s*$")


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to run: `text` is source or a magic's argument, `name` the name to bind or the magic's name."""

    kind: Kind
    text: str
    name: str | None = None


def parse_cell(code: str) -> list[Part]:
    """Cuts a cell into its parts; an empty cell has none."""
    lines = code.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return []
    if _QUIT.match(code):
        return [Part("quit", "")]
    if lines[first].startswith("%%"):
        return [_cell_magic(code, lines, first)]
    return _lines_then_lisp(lines, first)


def is_python(code: str) -> bool:
    """True for a cell whose editor help is IPython's: `%%python` and the magics that are not ours."""
    parts = parse_cell(code)
    return bool(parts) and parts[-1].kind in ("python", "ipython")


def _cell_magic(code: str, lines: list[str], first: int) -> Part:
    head = lines[first][2:].split(None, 1)
    name = head[0] if head else ""
    argument = head[1] if len(head) > 1 else ""
    body = "\n".join(lines[first + 1 :])
    if name == "again":
        return Part("again", "\n" * (first + 1) + body)
    if name == "python":
        bound = _BINDING.match(argument)
        return Part("python", "#" + "\n" * (first + 1) + body, bound["name"] if bound else None)
    if name == "sql":
        query = f"{argument}\n{body}" if argument else body
        bound = _BINDING.match(query)
        if bound and "<<" in query.split("\n", 1)[0]:
            return Part("sql", bound["rest"].strip(), bound["name"])
        return Part("sql", query.strip())
    return Part("ipython", code)


def _lines_then_lisp(lines: list[str], first: int) -> list[Part]:
    parts: list[Part] = []
    at = first
    while at < len(lines):
        line = lines[at].strip()
        if line.startswith(("%", "!")):
            parts.append(_line_magic(line))
        elif line:
            break
        at += 1
    rest = "\n".join(lines[at:])
    if rest.strip():
        parts.append(Part("lisp", "\n" * at + rest))
    return parts


def _line_magic(line: str) -> Part:
    name, _, argument = line[1:].partition(" ")
    if line.startswith("%") and name in LINE_MAGICS:
        return Part("magic", argument.strip(), name)
    return Part("ipython", line)
