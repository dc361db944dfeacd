"""How often a failed request is tried again, and after how long.

In: the value of `:retry` as a program wrote it, and the defaults of the operation. Out: a
`RetryPolicy`. The one rule: a policy only computes; whoever performs the request waits. The
arithmetic of the back-off is tenacity's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.persistent import List, Map, Set, Vector
from flowmetal.lang.values import Duration, Keyword, kw

DEFAULT_ATTEMPTS = 5
_KEYS = frozenset({"max-attempts", "initial", "backoff", "max", "jitter", "on"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `max_attempts`; the first wait is `initial` seconds, each next one `backoff` times longer, up to `max`.

    `jitter`, added at random, is up to a fraction of the wait, or up to a `Duration`. `on` names the
    errors that are tried again (texts of keywords, or HTTP status numbers); None leaves it to the operation.
    """

    max_attempts: int = 1
    initial: float = 0.5
    backoff: float = 2.0
    max: float = 60.0
    jitter: float | Duration = 0.1
    on: frozenset[str | int] | None = None

    def delay(self, attempt: int) -> float:
        """Seconds to wait after the failure of attempt number `attempt` (from 1)."""
        import tenacity  # at the first failure only: a host that was killed is there again that much sooner
        from tenacity import wait

        state = tenacity.RetryCallState(retry_object=tenacity.AsyncRetrying(), fn=None, args=(), kwargs={})
        state.attempt_number = attempt
        base = wait.wait_exponential(multiplier=self.initial, exp_base=self.backoff, max=self.max)(state)
        spread = self.jitter.micros / 1e6 if isinstance(self.jitter, Duration) else base * self.jitter
        return base + wait.wait_random(0, spread)(state)


NO_RETRY = RetryPolicy(max_attempts=1)


def parse_retry(value: Any, default: RetryPolicy) -> RetryPolicy:
    """The policy that `:retry value` asks for: nil is the default, false is one attempt, a number that many."""
    if value is None:
        return default
    if value is False:
        return NO_RETRY
    if value is True:
        return RetryPolicy(max_attempts=max(default.max_attempts, DEFAULT_ATTEMPTS))
    if isinstance(value, int):
        return RetryPolicy(max_attempts=_count(value))
    if not isinstance(value, Map):
        raise LispError(":retry must be a map, a number of attempts, true or false", type="value")
    _refuse_unknown_keys(value)
    attempts = value.get(kw("max-attempts"))
    base = RetryPolicy(max_attempts=max(default.max_attempts, DEFAULT_ATTEMPTS))
    return RetryPolicy(
        max_attempts=base.max_attempts if attempts is None else _count(attempts),
        initial=seconds(value.get(kw("initial")), ":initial", base.initial),
        backoff=_factor(value.get(kw("backoff")), base.backoff),
        max=seconds(value.get(kw("max")), ":max", base.max),
        jitter=_jitter(value.get(kw("jitter")), base.jitter),
        on=_errors(value.get(kw("on"))),
    )


def seconds(value: Any, name: str, default: float) -> float:
    """A duration, or a number of seconds, as seconds."""
    if value is None:
        return default
    if isinstance(value, Duration):
        result = value.micros / 1e6
    elif _is_number(value):
        result = float(value)
    else:
        raise LispError(f"{name} must be a duration or a number of seconds", type="value")
    if result < 0:
        raise LispError(f"{name} must not be negative", type="value")
    return result


def _refuse_unknown_keys(value: Map) -> None:
    unknown = [k for k in value.keys() if not (isinstance(k, Keyword) and k.ns is None and k.name in _KEYS)]
    if unknown:
        known = " ".join(f":{name}" for name in sorted(_KEYS))
        raise LispError(f":retry knows no {unknown[0]}; it has {known}", type="value")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise LispError(":max-attempts must be an integer of at least 1", type="value")
    return value


def _factor(value: Any, default: float) -> float:
    if value is None:
        return default
    if not _is_number(value) or value < 1:
        raise LispError(":backoff must be a number of at least 1", type="value")
    return float(value)


def _jitter(value: Any, default: float | Duration) -> float | Duration:
    if value is None or value is True:
        return default
    if value is False:
        return 0.0
    if isinstance(value, Duration) and value.micros >= 0:
        return value
    if not _is_number(value) or value < 0:
        raise LispError(":jitter must be a fraction of the wait, or a duration", type="value")
    return float(value)


def _errors(value: Any) -> frozenset[str | int] | None:
    if value is None:
        return None
    items = list(value) if isinstance(value, (Set, Vector, List)) else [value]
    names: set[str | int] = set()
    for item in items:
        if isinstance(item, Keyword):
            names.add(f"{item.ns}/{item.name}" if item.ns else item.name)
        elif isinstance(item, int) and not isinstance(item, bool):
            names.add(item)
        else:
            raise LispError(":on must name errors, such as #{:http/connect :http/timeout 503}", type="value")
    return frozenset(names)
