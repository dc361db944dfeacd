"""The file in which flows travel: JSON lines, with a hash at the end. The format is described in docs/keeping.md.

In: rows of flows and of what they need. Out: bytes; and from bytes again the rows. The one rule: what is not wholly as it should be is
refused, with the line and the reason, before anything is done with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from flowmetal.errors import LispError
from flowmetal.lang.decoding import Damaged
from flowmetal.lang.definitions import LINE_BITS
from flowmetal.lang.renumber import versions_in
from flowmetal.lang.requests import FLOW_ID
from flowmetal.runtime.history import status_of
from flowmetal.runtime.retried import live
from flowmetal.store import kinds
from flowmetal.store.protocol import Row

FORMAT: Final = 1
KINDS: Final = (frozenset(kinds.STATUS) | kinds.OPENING | frozenset(kinds.CLOSING) | {
    kinds.CANCEL_REQUESTED, kinds.FLOW_UPGRADED, kinds.EFFECT_CANCELLING, kinds.TRUNCATED, kinds.ATTEMPT_STARTED, kinds.ATTEMPT_FAILED,
    kinds.LEASE_EXPIRED, kinds.VALUE_RECORDED, kinds.MESSAGE_RECEIVED, kinds.OUTPUT, kinds.LOG, kinds.CHECKPOINT, kinds.INFO, kinds.DEFINED,
    kinds.PROMISE_SETTLED, kinds.CELL_RESULT,
}) - {kinds.FLOW_MOVED}  # fmt: skip
"""Kinds of rows that a flow in a file may have."""
_MAX_INT: Final = 1 << 62
_dump = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(slots=True)
class FlowLog:
    """What a file holds. Versions of definitions are those of the store that it comes from."""

    store: str
    """The id of that store."""
    lines: dict[int, str]
    """The lines of definitions, and the store where each was made."""
    flows: dict[str, list[Row]] = field(default_factory=dict)
    definitions: list[tuple[int, Row]] = field(default_factory=list)
    """Each with its version."""
    atoms: dict[str, Row] = field(default_factory=dict)
    """The last value of each shared atom that the definitions name."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the first line says besides."""
    digest: str = ""

    @property
    def open(self) -> dict[str, int]:
        """The flows that are not over, each with its last row's `seq`."""
        return {flow_id: rows[-1].seq for flow_id, rows in self.flows.items() if status_of(rows) not in kinds.ENDED}


# Writing


def written(log: FlowLog) -> bytes:
    """The file."""
    body = "".join(_dump(line) + "\n" for line in _lines(log)).encode()
    end = {"end": body.count(b"\n") + 1, "sha256": hashlib.sha256(body).hexdigest()}
    return body + (_dump(end) + "\n").encode()


def _lines(log: FlowLog) -> Iterator[dict[str, Any]]:
    flows = [{"flow_id": flow_id, "status": status_of(rows), "rows": len(rows)} for flow_id, rows in log.flows.items()]
    lines = {str(number): store for number, store in log.lines.items()}
    yield {"flowlog": FORMAT, "store": log.store, "lines": lines, "open": log.open, "flows": flows, **log.facts}
    for version, row in log.definitions:
        yield {"definition": version, **_plain(row)}
    for atom, row in log.atoms.items():
        yield {"atom": atom, **_plain(row)}
    for flow_id, rows in log.flows.items():
        for row in rows:
            yield {"flow": flow_id, "seq": row.seq, **_plain(row)}


def _plain(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": row.kind, "at": row.at, "step": row.step, "fiber": row.fiber, "key": row.key, "data": json.loads(row.data)}
    if row.exact is not None:
        facts["exact"] = json.loads(row.exact)
    return {name: fact for name, fact in facts.items() if fact is not None}


# Reading


def read(data: bytes) -> FlowLog:
    """What a file holds; raises LispError where it is damaged, cut off, or none."""
    lines = data.splitlines(keepends=True)
    head = _object(lines[0], 1) if lines and lines[0].startswith(b'{"flowlog"') else {}
    if not head:
        _refuse("this is not a file of flows: its first line does not say so", hint="flowmetal export makes one")
    if head["flowlog"] != FORMAT:
        _refuse(f"the file has format {head['flowlog']}; this program reads {FORMAT}", hint="update this program: pip install --upgrade flowmetal")
    _check_end(lines)
    log = FlowLog(_text(head, "store", 1), _line_numbers(head), digest=hashlib.sha256(data).hexdigest())
    log.facts = {name: head[name] for name in ("file", "exported_at", "program", "engine") if isinstance(head.get(name), str)}
    for number, line in enumerate(lines[1:-1], 2):
        _take(log, _object(line, number), number)
    _check_whole(log)
    return log


def _check_end(lines: list[bytes]) -> None:
    end = _object(lines[-1], len(lines)) if lines[-1].endswith(b"\n") else {}
    if "end" not in end:
        _refuse("the file is cut off: it has no end", hint="copy or export it again")
    if end["end"] != len(lines) or end.get("sha256") != hashlib.sha256(b"".join(lines[:-1])).hexdigest():
        _refuse("the file is damaged: it is not what was written", hint="copy or export it again")


def _line_numbers(head: dict[str, Any]) -> dict[int, str]:
    lines = head.get("lines")
    if not isinstance(lines, dict) or not all(key.isdecimal() and isinstance(store, str) for key, store in lines.items()):
        _refuse("line 1 does not say which definitions are meant")
    return {int(key): store for key, store in lines.items()}


def _take(log: FlowLog, line: dict[str, Any], number: int) -> None:
    if "flow" in line:
        flow_id = _text(line, "flow", number)
        rows = log.flows.setdefault(flow_id, [])
        row = _row(flow_id, line, number)
        row.seq = _number(line, "seq", number)
        if not FLOW_ID.fullmatch(flow_id) or row.kind not in KINDS or row.seq != len(rows) + 1:
            _refuse(f"line {number} is no row of a flow that could come next")
        rows.append(row)
    elif "definition" in line:
        version = _number(line, "definition", number)
        row = _row(kinds.DEFINITIONS_STREAM, line, number)
        data = json.loads(row.data)
        if row.kind != kinds.DEFINED or not all(isinstance(data.get(name), str) for name in ("ns", "name", "kind", "source", "hash")):
            _refuse(f"line {number} is no definition")
        if version >> LINE_BITS not in log.lines:
            _refuse(f"line {number} is a definition of a store that the file does not name")
        log.definitions.append((version, row))
    elif "atom" in line:
        atom = _text(line, "atom", number)
        log.atoms[atom] = _row(kinds.ATOM_STREAM + atom, line, number)
        if log.atoms[atom].kind != kinds.ATOM_SET:
            _refuse(f"line {number} is no value of an atom")
    else:
        _refuse(f"line {number} is of a kind that this program does not know")


def _row(flow_id: str, line: dict[str, Any], number: int) -> Row:
    data, exact = line.get("data"), line.get("exact")
    if not isinstance(data, dict) or not (exact is None or (isinstance(exact, dict) and all(isinstance(text, str) for text in exact.values()))):
        _refuse(f"line {number} has no data")
    try:
        for text in (exact or {}).values():
            versions_in(text)
    except Damaged as error:
        _refuse(f"line {number} holds a value that is none: {error}")
    step, fiber = (_number(line, name, number) if line.get(name) is not None else None for name in ("step", "fiber"))
    key = _text(line, "key", number) if line.get("key") is not None else None
    return Row(
        flow_id, _text(line, "kind", number), _dump(data), _number(line, "at", number), step, fiber, None if exact is None else _dump(exact), key
    )  # fmt: skip


def _check_whole(log: FlowLog) -> None:
    if not log.flows:
        _refuse("there is no flow in the file")
    for flow_id, rows in log.flows.items():
        first = json.loads(rows[0].data)
        wanted = {"name": str, "run": str, "kind": str, "definitions": int}
        if rows[0].kind != kinds.FLOW_STARTED or not all(type(first.get(name)) is kind for name, kind in wanted.items()):
            _refuse(f"flow {flow_id} has no beginning in the file")
        if any(row.kind in kinds.ENDING for row in _live(flow_id, rows)[:-1]):
            _refuse(f"flow {flow_id} goes on after its end in the file")
        parent = first.get("parent")
        if flow_id in log.open and parent is not None and parent not in log.flows:
            _refuse(f"flow {flow_id} belongs to flow {parent}, which is not in the file")


def _live(flow_id: str, rows: list[Row]) -> list[Row]:
    """The rows that count: a flow that was retried has gone on after an end that was taken back."""
    try:
        return live(rows)
    except (KeyError, TypeError, ValueError):
        _refuse(f"flow {flow_id} was retried in the file, which does not say what was taken back")


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        value = error
    if not isinstance(value, dict):
        _refuse(f"line {number} is no JSON object")
    return value


def _text(line: dict[str, Any], name: str, number: int) -> str:
    value = line.get(name)
    if not isinstance(value, str) or not value:
        _refuse(f"line {number} has no {name}")
    return value


def _number(line: dict[str, Any], name: str, number: int) -> int:
    value = line.get(name)
    if type(value) is not int or not -_MAX_INT < value < _MAX_INT or (value < 0 and name != "at"):
        _refuse(f"line {number} has no {name} that is a number")
    return int(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(what: str, hint: str | None = None) -> NoReturn:
    raise LispError(what, type="value", hint=hint)


# Versions of definitions


def versions_of(rows: Iterable[Row]) -> set[int]:
    """The versions of definitions that rows name."""
    found: set[int] = set()
    for row in rows:
        data = json.loads(row.data)
        found.update(data[name] for name in places(row.kind) if type(data.get(name)) is int)
        if row.exact is not None:
            for text in json.loads(row.exact).values():
                found |= versions_in(text)
    return found


def places(kind: str) -> tuple[str, ...]:
    """The fields of a row's data that hold a version."""
    return ("definitions", "version", "pin") if kind in (kinds.DEFINED, kinds.FLOW_UPGRADED) else ("definitions",)
