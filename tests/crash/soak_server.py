"""The outside of a soak: an HTTP server that counts by `Idempotency-Key`, and does not always behave.

In: effects of flows, at `/KIND/FLOW/N`. Out: how often each key came, and the one result that each key has: a server
that keeps to idempotency keys gives it again. Seeded by the path, the first answer to a key is an error, late, or a
closed connection, before or after the effect has happened. What names a callback has it delivered until it is taken.
"""

from __future__ import annotations

import json
import queue
import random
import threading
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LATE = 0.4
"""Seconds at most by which a late answer is late."""
FAIL = "fail"
"""What is asked for under this path fails, as a matter of business."""


class Outside:
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
        self._lock = threading.Lock()
        self._deliveries: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._threads = [threading.Thread(target=self._server.serve_forever, args=(0.05,)), *(threading.Thread(target=self._deliver) for _ in range(2))]
        for thread in self._threads:
            thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outside = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    raise ConnectionError("the sender was killed while it sent")
                status, answer = outside.take(self.headers["Idempotency-Key"], self.path, json.loads(body))
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    return  # the flow's process was killed: nobody is left to answer

            def log_message(self, format: str, *args: Any) -> None:
                return

        return Handler

    def take(self, key: str, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Takes a request: status (0: the connection is closed) and body of the answer."""
        with self._lock:
            self.keys[path].add(key)
            self.arrived[key] += 1
            first = self.arrived[key] == 1
        trouble = random.Random(f"{self.seed}{path}").random() if first else 1.0
        if trouble < 0.04:
            return 500, b"{}"
        if trouble < 0.08:
            return 0, b""
        with self._lock:
            result = self.results.setdefault(key, f"r{len(self.results)}")
            self.times[key] += 1
            notify = body.get("notify") if self.times[key] == 1 else None
        if notify:
            self._deliveries.put((notify, {"paid": result}))
        if trouble < 0.12:
            return 0, b""
        if trouble < 0.22:
            self._ended.wait(LATE * trouble / 0.22)
        if path.startswith(f"/{FAIL}/"):
            return 422, b"{}"
        return 200, json.dumps({"id": result}).encode()

    def _deliver(self) -> None:
        while (delivery := self._deliveries.get()) is not None:
            url, body = delivery
            request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=20):
                    self.acknowledged[url.rsplit("/", 1)[1]] = body
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    self.refused.append(f"{url}: {error.code} {error.read().decode()}")
                    continue
                self._later(delivery)
            except OSError:
                self._later(delivery)

    def _later(self, delivery: tuple[str, dict[str, Any]]) -> None:
        self._ended.wait(0.05)
        self._deliveries.put(delivery)

    def key(self, path: str) -> str:
        """The one key under which a path was asked for."""
        found = self.keys[path]
        assert len(found) == 1, f"{path} was asked for under {len(found)} keys: {sorted(found)}"
        return next(iter(found))

    def result(self, path: str) -> str:
        """What the one key of a path came to."""
        return self.results[self.key(path)]

    def close(self) -> None:
        """Ends the server."""
        self._ended.set()
        for _ in self._threads[1:]:
            self._deliveries.put(None)
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()
