"""The answer to a query, as data: columns, their SQL types, rows.

In: what the store or the HTTP shim gave, as plain values or as JSON. Out: tuples, a data frame or an Arrow
table, on demand. The one rule: an attached client shows what a hosting one does, so times that crossed HTTP as
text become `datetime` again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from flowmetal.errors import FlowmetalError


class Relation:
    """Rows of a query. Iterating gives tuples."""

    def __init__(self, columns: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.columns = list(columns)
        self.types = list(types)
        self._rows = [tuple(row) for row in rows]

    @classmethod
    def from_store(cls, columns: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[Any]]) -> Relation:
        """A relation as the store gave it; its columns of JSON text become values."""
        kinds = [name.upper() == "JSON" for name in types]
        if any(kinds):
            rows = [[_json(v) if is_json else v for v, is_json in zip(row, kinds, strict=True)] for row in rows]
        return cls(columns, types, rows)

    @classmethod
    def from_json(cls, columns: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[Any]]) -> Relation:
        """A relation whose values crossed HTTP as JSON."""
        readers = [_reader(name) for name in types]
        if len(readers) != len(columns) or not any(readers):
            return cls(columns, types, rows)
        return cls(columns, types, [[_read(r, v) for r, v in zip(readers, row, strict=True)] for row in rows])

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows."""
        return list(self._rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row, or None."""
        return self._rows[0] if self._rows else None

    def dicts(self) -> list[dict[str, Any]]:
        """All rows, each with its columns' names."""
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows]

    def df(self) -> Any:
        """The rows as a pandas DataFrame; needs pandas."""
        try:
            import pandas
        except ImportError as error:
            raise FlowmetalError("a data frame needs pandas", type="value", hint="pip install pandas") from error
        return pandas.DataFrame(self._rows, columns=self.columns)

    def arrow(self) -> Any:
        """The rows as a pyarrow Table; needs pyarrow."""
        try:
            import pyarrow  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise FlowmetalError("an Arrow table needs pyarrow", type="value", hint="pip install pyarrow") from error
        return pyarrow.table([[row[i] for row in self._rows] for i in range(len(self.columns))], names=self.columns)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<{len(self._rows)} rows: {', '.join(self.columns)}>"


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _reader(type_name: str) -> Callable[[Any], Any] | None:
    name = type_name.upper()
    if name.startswith("TIMESTAMP"):
        return _timestamp if ("ZONE" in name or name == "TIMESTAMPTZ") else datetime.fromisoformat
    if name.startswith(("DECIMAL", "NUMERIC")):
        return lambda value: Decimal(str(value))
    readers: dict[str, Callable[[Any], Any]] = {"DATE": date.fromisoformat, "UUID": UUID, "INTERVAL": _interval}
    return readers.get(name)


def _timestamp(value: str) -> datetime:
    at = datetime.fromisoformat(value)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _interval(value: Any) -> Any:
    return timedelta(seconds=value) if isinstance(value, int | float) else value


def _read(reader: Callable[[Any], Any] | None, value: Any) -> Any:
    if reader is None or value is None:
        return value
    try:
        return reader(value)
    except (TypeError, ValueError):
        return value  # not written as its type says: shown as it came
