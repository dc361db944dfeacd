"""Answers to queries."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from flowmetal.client.relation import Relation


def test_rows() -> None:
    relation = Relation(["a", "b"], ["INTEGER", "VARCHAR"], [[1, "x"], [2, None]])
    assert relation.fetchall() == [(1, "x"), (2, None)]
    assert relation.fetchone() == (1, "x")
    assert list(relation) == [(1, "x"), (2, None)]
    assert relation.dicts() == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    assert len(relation) == 2
    assert Relation(["a"], [], []).fetchone() is None


def test_types_that_crossed_as_text() -> None:
    types = ["TIMESTAMP WITH TIME ZONE", "DATE", "DECIMAL(10,2)", "VARCHAR", "DATE"]
    relation = Relation.from_json(["a", "b", "c", "d", "e"], types, [["2026-01-02T03:04:05Z", "2026-01-02", 1.5, "2026", "no date"]])
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert relation.fetchall() == [(at, date(2026, 1, 2), Decimal("1.5"), "2026", "no date")]
