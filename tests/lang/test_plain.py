"""Values as outsiders see them: plain JSON, and back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from value_strategies import DEEP, values

from flowmetal.errors import LispError
from flowmetal.lang import plain
from flowmetal.lang.equality import equal
from flowmetal.lang.persistent import Map, Set, Vector, list_of
from flowmetal.lang.plain import from_plain, to_plain
from flowmetal.lang.values import Duration, ErrorValue, Instant, Symbol, keyword, kw

CASES: list[tuple[Any, Any, bool]] = [
    (None, None, True),
    (True, True, True),
    (1, 1, True),
    (1.0, 1.0, True),
    ("a", "a", True),
    (Vector.of([1, Vector.of([])]), [1, []], True),
    (Map.of([(kw("a"), 1), (kw("n/b"), Map.of([]))]), {"a": 1, "n/b": {}}, True),
    (kw("a/b"), "a/b", False),
    (Symbol(None, "a"), "a", False),
    (list_of([1]), [1], False),
    (Set.of([1]), [1], False),
    (Map.of([("a", 1), (2, 3), (Vector.of([kw("x")]), 4)]), {"a": 1, "2": 3, "[:x]": 4}, False),
    (Map.of([(kw("a"), 1), ("a", 2)]), {"a": 1, '"a"': 2}, False),
    (Map.of([(keyword("a/b", "c"), 1)]), {"a/b/c": 1}, False),
    (Vector.of([1]).with_meta(Map.of([(kw("m"), 1)])), [1], False),
    (float("nan"), "NaN", False),
    (float("inf"), "Infinity", False),
    (float("-inf"), "-Infinity", False),
    (Instant(0), "1970-01-01T00:00:00Z", False),
    (Duration(90_000_000), 90, False),
    (Duration(1_500_000), 1.5, False),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001", False),
    (Decimal("1.10"), 1.1, False),
    (Decimal("2"), 2, False),
    (b"hi", "aGk=", False),
    ("a\0b\ud800", "a\ufffdb\ufffd", False),
    (ErrorValue(kw("user"), "m", Map.of([(kw("a"), 1)])), {"type": "user", "message": "m", "data": {"a": 1}}, False),
]


@pytest.mark.parametrize(("value", "plain", "faithful"), CASES)
def test_plain(value: Any, plain: Any, faithful: bool) -> None:
    assert to_plain(value) == (plain, faithful)


@given(values)
def test_plain_is_json_and_faithful_when_it_says_so(value: Any) -> None:
    plain, faithful = to_plain(value)
    back = from_plain(json.loads(json.dumps(plain, allow_nan=False)))
    if faithful:
        assert equal(back, value)
        assert type(back) is type(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_comes_back_as_it_came(data: Any) -> None:
    plain, faithful = to_plain(from_plain(data))
    if faithful:
        assert plain == data


def test_objects_may_say_what_they_are() -> None:
    class Handle:
        def to_plain(self) -> Any:
            return {"flow_id": "f"}

    assert to_plain(Vector.of([Handle()])) == ([{"flow_id": "f"}], False)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MAX_NODES", 4 * DEEP)
    deep: Any = 1
    for _ in range(DEEP):
        deep = Vector.of([deep])
    wide = Vector.of([1, 1])
    for _ in range(40):
        wide = Vector.of([wide, wide])
    for value in (deep, wide):
        with pytest.raises(LispError, match="cannot be given") as caught:
            to_plain(value)
        assert caught.value.type == "limit"
    assert "…" in json.dumps(to_plain(deep, truncate=True)[0], ensure_ascii=False)
    with pytest.raises(LispError, match="levels"):
        from_plain(json.loads("[" * 500 + "]" * 500))
