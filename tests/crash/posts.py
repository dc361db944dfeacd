"""A server on loopback that takes POSTs, and delivers to callbacks what it was asked to, over and over until that is done."""

from __future__ import annotations

import queue
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLOSED = (0, b"")
"""In place of an answer: the connection is closed without one."""


class Posts:
    """The server; what it says is its subclass's to decide: `answer`, and `deliver`."""

    def __init__(self, deliverers: int, pause: float) -> None:
        self._pause = pause
        """Seconds before a delivery that was not done is tried again."""
        self._lock = threading.Lock()
        self._deliveries: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        serving = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._deliverers = [threading.Thread(target=self._run) for _ in range(deliverers)]
        self._threads = [serving, *self._deliverers]
        for thread in self._threads:
            thread.start()

    def answer(self, key: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a request, which came under an idempotency key."""
        raise AssertionError("the subclass says")

    def deliver(self, url: str, body: Any) -> bool:
        """Posts to a callback; whether it is done with."""
        raise AssertionError("the subclass says")

    def post(self, url: str, body: bytes) -> None:
        """One POST of JSON."""
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=20):
            return

    def close(self) -> None:
        """Ends the server."""
        self._ended.set()
        for _ in self._deliverers:
            self._deliveries.put(None)
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (delivery := self._deliveries.get()) is not None:
            if not self.deliver(*delivery):
                self._ended.wait(self._pause)
                self._deliveries.put(delivery)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        posts = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    raise ConnectionError("the sender was killed while it sent")
                status, answer = posts.answer(self.headers["Idempotency-Key"], self.path, body)
                if (status, answer) == CLOSED:
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
