"""Rows of a query as an Arrow IPC stream.

In: columns, DuckDB's names of their types, rows. Out: bytes. The one rule: a type that has no
simple Arrow counterpart travels as the text that the JSON answer shows, never as something else.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable, Sequence
from typing import Any

import nanoarrow as na
from nanoarrow.ipc import StreamWriter

from flowmetal.connect.json_text import dump_json

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def arrow_stream(columns: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """One record batch with a field for each column."""
    fields = [_FIELDS.get(type, (na.string, _text)) for type in types]
    schema = na.struct([na.c_schema(make()).modify(name=name) for name, (make, _) in zip(columns, fields, strict=True)], nullable=False)
    arrays = [na.c_array([None if row[i] is None else convert(row[i]) for row in rows], make()) for i, (make, convert) in enumerate(fields)]
    batch = na.c_array_from_buffers(schema, len(rows), [None], 0, children=arrays)
    out = io.BytesIO()
    with StreamWriter.from_writable(out) as writer:
        writer.write_stream(na.ArrayStream(batch))
    return out.getvalue()


def _same(value: Any) -> Any:
    return value


def _micros(value: Any) -> Any:
    """A datetime as microseconds since the epoch; text, which some stores give, is read first."""
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return (aware - _EPOCH) // _MICROSECOND
    return value


def _text(value: Any) -> str:
    if isinstance(value, (list, dict, tuple)):
        return dump_json(value)
    return value if isinstance(value, str) else str(value)


_FIELDS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "BOOLEAN": (na.bool_, bool),
    "TINYINT": (na.int8, _same),
    "SMALLINT": (na.int16, _same),
    "INTEGER": (na.int32, _same),
    "BIGINT": (na.int64, _same),
    "UTINYINT": (na.uint8, _same),
    "USMALLINT": (na.uint16, _same),
    "UINTEGER": (na.uint32, _same),
    "UBIGINT": (na.uint64, _same),
    "FLOAT": (na.float32, _same),
    "DOUBLE": (na.float64, _same),
    "BLOB": (na.binary, bytes),
    "TIMESTAMP": (lambda: na.timestamp("us"), _micros),
    "TIMESTAMP WITH TIME ZONE": (lambda: na.timestamp("us", timezone="UTC"), _micros),
}
