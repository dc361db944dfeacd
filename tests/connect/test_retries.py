"""The retry policy: what a program may write, and the waits that follow from it."""

from __future__ import annotations

from typing import Any

import pytest

from flowmetal.errors import LispError
from flowmetal.lang.persistent import Map, Set
from flowmetal.lang.plain import from_plain
from flowmetal.lang.values import Duration, kw
from flowmetal.runtime.retries import NO_RETRY, RetryPolicy, parse_retry

DEFAULT = RetryPolicy(max_attempts=5)


def waits(policy: RetryPolicy, count: int) -> list[float]:
    return [policy.delay(n) for n in range(1, count + 1)]


def test_waits_grow_up_to_the_limit() -> None:
    policy = RetryPolicy(max_attempts=9, initial=0.5, backoff=2.0, max=3.0, jitter=0)
    assert waits(policy, 5) == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert waits(RetryPolicy(initial=1.5, backoff=1.0, jitter=0), 3) == [1.5, 1.5, 1.5]
    assert waits(RetryPolicy(initial=0.0, jitter=0), 2) == [0.0, 0.0]
    assert RetryPolicy(initial=1.0, max=60.0, jitter=0).delay(100_000) == 60.0


@pytest.mark.parametrize(("jitter", "most"), [(0.5, 1.5), (Duration(2_000_000), 3.0)])
def test_jitter_only_adds(jitter: Any, most: float) -> None:
    policy = RetryPolicy(initial=1.0, jitter=jitter)
    found = [policy.delay(1) for _ in range(200)]
    assert min(found) >= 1.0 and max(found) <= most and len(set(found)) > 100


@pytest.mark.parametrize(
    ("value", "attempts"),
    [(None, 5), (False, 1), (True, 5), (3, 3), ({}, 5), ({"max-attempts": 2}, 2)],
)
def test_attempts(value: Any, attempts: int) -> None:
    assert parse_retry(from_plain(value), DEFAULT).max_attempts == attempts


def test_a_map_turns_retries_on_where_the_default_is_none() -> None:
    assert parse_retry(None, NO_RETRY).max_attempts == 1
    assert parse_retry(from_plain({"initial": 1}), NO_RETRY).max_attempts == 5


def test_every_option() -> None:
    value = Map.of(
        [
            (kw("max-attempts"), 7),
            (kw("initial"), Duration(100_000)),
            (kw("backoff"), 3),
            (kw("max"), 2),
            (kw("jitter"), 0.25),
            (kw("on"), Set.of([kw("http/timeout"), 503])),
        ]
    )
    expected = RetryPolicy(7, 0.1, 3.0, 2.0, 0.25, frozenset({"http/timeout", 503}))
    assert parse_retry(value, DEFAULT) == expected


@pytest.mark.parametrize(
    "value",
    [0, -1, "x", {"max-attempts": True}, {"backoff": 0.5}, {"initial": -1}, {"jitter": "x"}, {"on": "x"}, {"x": 1}],
)
def test_mistakes_are_named(value: Any) -> None:
    with pytest.raises(LispError) as error:
        parse_retry(from_plain(value), DEFAULT)
    assert error.value.type == "value" and ":" in error.value.message
