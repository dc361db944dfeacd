"""Python values as the plain JSON that flows are given.

In: what a Python program passes, or a foreign function returns. Out: JSON-able data. The one rule: what
has no plain form is an error that says so, never a guess.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from flowmetal.errors import FlowmetalError


def to_json(value: Any, depth: int = 64) -> Any:
    """A Python value as the plain JSON that a flow is given; `datetime`, `UUID`, `Decimal`, sets and tuples as well."""
    if depth < 0:
        raise FlowmetalError("the value is nested more than 64 levels deep", type="limit")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): to_json(each, depth - 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(each, depth - 1) for each in value]
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.astimezone()
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date | UUID):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if getattr(value, "is_flow", False):
        return value.id
    raise FlowmetalError(f"a {type(value).__name__} cannot be passed to a flow", type="type", hint="pass JSON-like data")
