"""The outside of a soak: an HTTP server that counts by `Idempotency-Key`, and does not always behave.

In: effects of flows, at `/KIND/FLOW/N`. Out: how often each key came, and the one result that each key has: a server
that keeps to idempotency keys gives it again. Seeded by the path, the first answer to a key is an error, late, or a
closed connection, before or after the effect has happened. What names a callback has it delivered until it is taken.
"""

from __future__ import annotations

import json
import random
import urllib.error
from collections import Counter, defaultdict
from typing import Any

from posts import CLOSED, Posts

LATE = 0.4
"""Seconds at most by which a late answer is late."""
FAIL = "fail"
"""What is asked for under this path fails, as a matter of business."""


class Outside(Posts):
    """A server on loopback, with a few threads that deliver callbacks."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.keys: dict[str, set[str]] = defaultdict(set)
        """The keys under which each path was asked for."""
        self.times: Counter[str] = Counter()
        """How often the effect of each key has happened."""
        self.arrived: Counter[str] = Counter()
        """How often a request of each key has come."""
        self.results: dict[str, str] = {}
        """The result of each key."""
        self.acknowledged: dict[str, dict[str, Any]] = {}
        """Callbacks whose delivery was answered 2xx, by token: what was delivered."""
        self.refused: list[str] = []
        """Deliveries that were refused for good: must stay empty."""
        super().__init__(deliverers=2, pause=0.05)

    def answer(self, key: str, path: str, body: bytes) -> tuple[int, bytes]:
        """See `take`."""
        return self.take(key, path, json.loads(body))

    def take(self, key: str, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Takes a request: status and body of the answer, or that there is none."""
        with self._lock:
            self.keys[path].add(key)
            self.arrived[key] += 1
            first = self.arrived[key] == 1
        trouble = random.Random(f"{self.seed}{path}").random() if first else 1.0
        if trouble < 0.04:
            return 500, b"{}"
        if trouble < 0.08:
            return CLOSED
        with self._lock:
            result = self.results.setdefault(key, f"r{len(self.results)}")
            self.times[key] += 1
            notify = body.get("notify") if self.times[key] == 1 else None
        if notify:
            self._deliveries.put((notify, {"paid": result}))
        if trouble < 0.12:
            return CLOSED
        if trouble < 0.22:
            self._ended.wait(LATE * trouble / 0.22)
        if path.startswith(f"/{FAIL}/"):
            return 422, b"{}"
        return 200, json.dumps({"id": result}).encode()

    def deliver(self, url: str, body: dict[str, Any]) -> bool:
        """Delivers, unless nobody is there or the host is busy."""
        try:
            self.post(url, json.dumps(body).encode())
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return False
            self.refused.append(f"{url}: {error.code} {error.read().decode()}")
        except OSError:
            return False
        else:
            self.acknowledged[url.rsplit("/", 1)[1]] = body
        return True

    def key(self, path: str) -> str:
        """The one key under which a path was asked for."""
        found = self.keys[path]
        assert len(found) == 1, f"{path} was asked for under {len(found)} keys: {sorted(found)}"
        return next(iter(found))

    def result(self, path: str) -> str:
        """What the one key of a path came to."""
        return self.results[self.key(path)]
