"""The definitions log: rows of the stream `$definitions`, and the registry made from them.

A version is a `seq` of the stream. What a load or a cell defines is visible to others only when its
rows are on disk.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang import codec
from flowmetal.lang.definitions import Binding, Definitions
from flowmetal.lang.describe import describe
from flowmetal.lang.functions import Closure, FlowProgram
from flowmetal.lang.library import engine_version, library
from flowmetal.lang.printer import pr_str
from flowmetal.lang.requests import Define
from flowmetal.lang.session import Session
from flowmetal.runtime.lines import Lines
from flowmetal.runtime.process import loader
from flowmetal.runtime.shared_atoms import shared
from flowmetal.store import kinds
from flowmetal.store.protocol import Row


class DefinitionsLog:
    """The registry of an engine, and how it grows."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.registry: Definitions = library()
        self.registry.lines = Lines()
        self.version = 0
        """The newest version that is on disk."""
        self.stale = False
        """Whether the store may hold definitions that are not known here."""
        self.now = now

    def replay(self, rows: list[Row]) -> None:
        """Takes the rows of the stream, in order."""
        for row in rows:
            if row.kind == kinds.DEFINED:
                self._bind(row)
            self.version = row.seq
        self.registry.version = max(self.registry.version, self.version)

    def _bind(self, row: Row) -> None:
        self.bind(row, row.seq, self.registry)

    def bind(self, row: Row, version: int, definitions: Definitions) -> None:
        """Adds what a row defines to definitions, at a version."""
        data = json.loads(row.data)
        text = json.loads(row.exact)["value"] if row.exact else "[1,null,[]]"
        registry = self.registry
        binding = Binding(
            None, version=version, kind=data["kind"], macro=data["kind"] == "defmacro", meta=data, thunk=lambda: codec.decode(text, loader(registry))
        )
        definitions.define(data["ns"], data["name"], binding)

    def engine_row(self, rows: list[Row]) -> Row | None:
        """The row that records which primitives and prelude this engine has; None when the newest says so already."""
        version = engine_version()
        recorded = [json.loads(r.data)["engine"] for r in rows if r.kind == kinds.ENGINE]
        if recorded and recorded[-1] == version:
            return None
        return Row(kinds.DEFINITIONS_STREAM, kinds.ENGINE, json.dumps({"engine": version}), self.now())

    def row(self, d: Define, flow_id: str | None) -> Row:
        """The row of one definition; raises LispError where its value cannot be kept."""
        value = shared(d)
        exact = _encode(value, flow_id)
        root = d.root
        data = {
            "ns": d.ns, "name": d.name, "kind": d.kind, "source": root.text, "hash": definition_hash(d, exact), "doc": _text(d.meta.get("doc")),
            "arglists": _text(d.meta.get("arglists")), "file": root.file, "line": root.line, "column": root.column, "pin": root.pin,
            "private": bool(d.meta.get("private")), "macro": d.kind == "defmacro",
        }  # fmt: skip
        return Row(kinds.DEFINITIONS_STREAM, kinds.DEFINED, json.dumps(data, separators=(",", ":")), self.now(), exact=json.dumps({"value": exact}))

    def known(self, row: Row) -> int | None:
        """The version under which exactly this definition is current, or None."""
        data = json.loads(row.data)
        now = self.registry.version
        binding = self.registry.lookup(data["ns"], data["name"], now)
        if binding is None or (data["kind"] != "declare" and (binding.meta.get("hash") != data["hash"] or binding.kind != data["kind"])):
            return None
        return now

    def committed(self, row: Row) -> None:
        """A definition is on disk: it is visible from now on."""
        self._bind(row)
        self.version = row.seq
        self.registry.version = max(self.registry.version, row.seq)

    def load(self, source: str, file: str, ns: str = "user") -> tuple[list[Row], list[str]]:
        """Evaluates a file's definitions, which begin in a namespace: rows for those that are new or changed, and all names.

        Nothing is visible to anybody until the rows are `committed`. Raises SourceError or LispError.
        """
        base = self.version
        rows: list[Row] = []

        def keep(d: Define) -> bool:
            row = self.row(d, None)
            if self.known(row) is not None:
                return False
            d.meta = {**d.meta, "hash": json.loads(row.data)["hash"]}
            rows.append(row)
            return True

        session = Session(self.registry, ns, keep=keep)
        try:
            session.eval(source, file)
        except RecursionError as e:
            raise LispError("the program nests too deep", type="limit") from e
        finally:
            self.registry.rollback(base)
        return rows, [f"{d.ns}/{d.name}" for d in session.defined if d.name != "*ns*"]

    def no_flow(self, name: str) -> LispError:
        """The error of a flow that is not defined: the nearest names, or what there is."""
        known = [
            f"{ns}/{n}" if ns != "user" else n
            for ns, space in self.registry.spaces.items() for n, cell in space.items()
            if cell.bindings and cell.bindings[-1].kind == "defflow"
        ]  # fmt: skip
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        else:
            hint = f"defined are: {', '.join(sorted(known)[:10])}" if known else "nothing is defined: load a file first"
        return LispError(f"there is no flow named {name}; {hint}", type="value")

    def inspect(self, name: str, ns: str) -> dict[str, Any] | None:
        """What is known of a name, for people."""
        found = describe(self.registry, name, ns, self.version)
        if found is None:
            return None
        return {
            "name": found.full_name, "kind": found.kind, "arglists": list(found.arglists), "doc": found.doc, "example": found.example,
            "source": found.source, "file": found.file, "line": found.line,
        }  # fmt: skip


def _text(x: Any) -> str | None:
    return x if x is None or isinstance(x, str) else pr_str(x)


def _encode(value: Any, flow_id: str | None) -> str:
    return codec.Encoder(flow_id or "", None).finish(value)


def definition_hash(d: Define, exact: str) -> str:
    """The hash by which a definition that did not change is recognised."""
    value = d.value.body if isinstance(d.value, FlowProgram) else d.value
    what = value.code.hash + pr_str(d.meta.get("doc")) if isinstance(value, Closure) and not value.captures else exact
    return hashlib.sha256(f"{d.kind} {what}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
