"""A stand-in for a courier: takes orders over HTTP, and some seconds later calls the webhook that came with each.

    python courier.py [PORT [SECONDS]]

Like a real one it takes the same order (the same Idempotency-Key) once, and calls until somebody answers.
"""

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8500
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 20
orders = set()


class Courier(BaseHTTPRequestHandler):
    """Answers POST /shipments."""

    def do_POST(self) -> None:
        shipment = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        if key not in orders:
            orders.add(key)
            threading.Thread(target=deliver, args=(shipment,), daemon=True).start()
        self.send_response(201)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of single requests."""


def deliver(shipment: dict) -> None:
    """Drives for a while, then tells who ordered."""
    print(f"order {shipment['order']}: on its way", flush=True)
    time.sleep(SECONDS)
    body = json.dumps({"tracking": f"T-{shipment['order']}"}).encode()
    webhook = urllib.request.Request(shipment["notify"], body, {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(webhook) as answer:
                print(f"order {shipment['order']}: delivered, webhook answered {answer.status}", flush=True)
                return
        except urllib.error.URLError as error:
            print(f"order {shipment['order']}: webhook failed ({error.reason}), trying again", flush=True)
            time.sleep(1)


if __name__ == "__main__":
    print(f"a courier at http://127.0.0.1:{PORT}", flush=True)
    try:
        ThreadingHTTPServer(("127.0.0.1", PORT), Courier).serve_forever()
    except KeyboardInterrupt:
        pass
