"""Definitions that came from other stores with flows: each such store's are a line of their own.

In: definitions of a file, with the versions that they had. Out: rows of the line's stream; the versions that they have here; and the
definitions as flows see them. The one rule: a flow that came here sees the definitions that it was started with, and nobody else does.

The stream `$definitions/N` holds line N: rows as those of `$definitions`, whose data also say their `version` here, and `origin`, the
store where they were made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flowmetal.lang.definitions import LINE_BITS, Definitions
from flowmetal.lang.encoding import POSITION
from flowmetal.lang.library import library
from flowmetal.lang.renumber import renumbered
from flowmetal.runtime.flowlog import FlowLog, places
from flowmetal.store import kinds
from flowmetal.store.protocol import Row, Store

if TYPE_CHECKING:
    from flowmetal.runtime.definitions_log import DefinitionsLog


class Lines(dict[int, Definitions]):
    """The lines of an engine's definitions: one of which nothing is known has the library in it."""

    def __missing__(self, number: int) -> Definitions:
        self[number] = made = library()
        return made


def stream(number: int) -> str:
    """The stream of a line; 0 is the store's own."""
    return f"{kinds.LINE_STREAM}{number}" if number else kinds.DEFINITIONS_STREAM


def read(store: Store) -> Iterator[tuple[int, list[Row]]]:
    """The lines of a store besides its own, each with its rows."""
    number = 1
    while rows := store.rows(stream(number)):
        yield number, rows
        number += 1


def bind(log: DefinitionsLog, rows: Iterable[Row]) -> None:
    """Takes rows of lines, so that flows find what they define; what is known already is not taken again."""
    for row in sorted(rows, key=_version):
        version = _version(row)
        line = log.registry.line(version)
        if version > line.version:
            log.bind(row, version, line)


def _version(row: Row) -> int:
    return int(json.loads(row.data)["version"])


class Numbering:
    """The lines that a file's definitions have in this store."""

    def __init__(self, store: Store, log: FlowLog) -> None:
        self.here: dict[int, int] = {}
        """Line in the file → line here."""
        self.new: list[Row] = []
        """Rows of definitions that are not here yet."""
        self.seqs: dict[str, int] = {}
        """The streams that get them, and how far each was seen."""
        known = dict(read(store))
        own = store.get_meta("store_id")
        for line, origin in log.lines.items():
            theirs = {version & POSITION: row for version, row in log.definitions if version >> LINE_BITS == line}
            if origin == own and _agrees(theirs, {row.seq: row for row in store.rows(stream(0)) if row.kind == kinds.DEFINED}, whole=True):
                self.here[line] = 0
                continue
            number = self._line(known, origin, theirs)
            self.here[line] = number
            there = known.setdefault(number, [])
            have = {_version(row) & POSITION for row in there}
            added = [_placed(row, number << LINE_BITS | at, origin, number) for at, row in sorted(theirs.items()) if at not in have]
            self.seqs[stream(number)] = there[-1].seq if there and there[-1].seq else 0
            there.extend(added)
            self.new.extend(added)
        for row in self.new:
            self.renumber(row)

    @staticmethod
    def _line(known: dict[int, list[Row]], origin: str, theirs: dict[int, Row]) -> int:
        for number, rows in known.items():
            if any(json.loads(row.data)["origin"] == origin for row in rows) and _agrees(theirs, {_version(row) & POSITION: row for row in rows}):
                return number
        return max(known, default=0) + 1

    def version(self, number: int) -> int:
        """The version here of one in the file."""
        return self.here.get(number >> LINE_BITS, 0) << LINE_BITS | number & POSITION if number else 0

    def renumber(self, row: Row) -> None:
        """Puts the versions here in the place of those of the file."""
        fields = [name for name in places(row.kind) if not (name == "version" and row.flow_id.startswith(kinds.LINE_STREAM))]
        row.data = _with(row.data, fields, self.version)
        if row.exact is not None:
            row.exact = json.dumps({name: renumbered(text, self.version) for name, text in json.loads(row.exact).items()}, separators=(",", ":"))


def _with(data: str, fields: Iterable[str], number: Callable[[int], int]) -> str:
    facts = json.loads(data)
    found = {name: number(facts[name]) for name in fields if type(facts.get(name)) is int}
    return json.dumps({**facts, **found}, separators=(",", ":")) if found else data


def _placed(row: Row, version: int, origin: str, line: int) -> Row:
    data = {**json.loads(row.data), "version": version, "origin": origin}
    return Row(stream(line), row.kind, json.dumps(data, separators=(",", ":")), row.at, exact=row.exact)


def _agrees(theirs: dict[int, Row], ours: dict[int, Row], *, whole: bool = False) -> bool:
    """Whether what both have is the same; `whole`: and we have all of it."""
    return all(_same(row, ours[at]) if at in ours else not whole for at, row in theirs.items())


def _same(a: Row, b: Row) -> bool:
    return _what(json.loads(a.data)) == _what(json.loads(b.data))


def _what(data: dict[str, Any]) -> list[Any]:
    return [data.get(name) for name in ("ns", "name", "kind", "hash", "source")]
