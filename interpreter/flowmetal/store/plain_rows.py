"""Answers of the database as plain JSON.

What goes in: a `Result`. What comes out: JSON-able dicts. The one rule: the forms are those of the contract: timestamps
ISO 8601 in UTC, durations seconds, bytes base64, JSON columns parsed.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from flowmetal.lang.values import Instant
from flowmetal.store.protocol import Result


def plain_rows(result: Result) -> list[dict[str, Any]]:
    """Each row as a dict of plain values."""
    parse = [sql_type == "JSON" for sql_type in result.types]
    columns = result.columns
    return [
        {
            name: json.loads(value) if is_json and isinstance(value, str) else plain_value(value)
            for name, value, is_json in zip(columns, row, parse, strict=True)
        }
        for row in result.rows
    ]


def plain_value(value: Any) -> Any:
    """One value of a column as plain JSON."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, dict):
        return {str(k): plain_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain_value(v) for v in value]
    return str(value)


def iso(moment: datetime) -> str:
    """A point of time as the language prints it: `2026-01-31T09:30:00Z`."""
    return Instant.from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC)).format()
