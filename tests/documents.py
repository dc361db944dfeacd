"""The documents of the repository as tests read them: fenced blocks, links, tables; and Lisp that is run as it stands.

In a block of Lisp, `;=> value` after a form says what it prints as, and `;!! :type text` which error it ends with.
A block preceded by `<!-- not run: why -->` is only shown; one of shell preceded by `<!-- run -->` is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flowmetal.lang.reader import Reader
from flowmetal.lang.spans import Source

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"(?:<!-- (?P<note>[^>]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPECTED = re.compile(r";(?P<sign>=>|!!)[ ]*(?P<text>.*(?:\n\s*;[ ]{3}.*)*)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    note: str
    text: str

    @property
    def is_run(self) -> bool:
        """Whether the page promises that this runs."""
        return self.note == "run" if self.language == "sh" else not self.note.startswith("not run")

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(language: str, page: Path | None = None) -> list[Block]:
    """The blocks in a language that are to be run, of one page or of all."""
    found = []
    for path in PAGES if page is None else [page]:
        text = path.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("text")) + 1
            block = Block(name_of(path), line, match["language"], match["note"] or "", match["text"])
            if block.language == language and block.is_run:
                found.append(block)
    return found


@dataclass(frozen=True, slots=True)
class Form:
    """A top-level form and what is said to come of it: the printed value, or the type and text of an error."""

    source: str
    line: int
    value: str | None = None
    error: str | None = None


def forms(text: str) -> Iterator[Form]:
    """The forms of a block, each with what stands after it."""
    reader = Reader(Source("block", text))
    starts: list[tuple[int, int, str]] = []
    for _ in reader:
        span = reader.last_span
        assert span is not None
        at = sum(len(line) + 1 for line in text.split("\n")[: span.line - 1]) + span.column - 1
        starts.append((at, span.line, reader.last_text))
    for i, (at, line, source) in enumerate(starts):
        after = text[at + len(source) : starts[i + 1][0] if i + 1 < len(starts) else len(text)]
        said = _EXPECTED.search(after)
        expected = re.sub(r"\n\s*;\s*", " ", said["text"]).strip() if said else None
        if said is None:
            yield Form(source, line)
        elif said["sign"] == "=>":
            yield Form(source, line, value=expected)
        else:
            yield Form(source, line, error=expected)


def tables(page: str) -> list[list[list[str]]]:
    """The tables of a page: rows of cells, without the heading and the line below it."""
    found: list[list[list[str]]] = []
    rows: list[list[str]] = []
    for line in [*(ROOT / page).read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
        elif rows:
            found.append(rows[2:])
            rows = []
    return found


def codes(cell: str) -> list[str]:
    """What stands between backquotes in a cell of a table."""
    return re.findall(r"`([^`]+)`", cell)
