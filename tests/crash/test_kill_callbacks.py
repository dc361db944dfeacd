"""Callbacks and a host that is killed: what is not acknowledged is refused, what is acknowledged stays."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from outside import Served, strike
from stores import Stores

pytestmark = pytest.mark.slow

PROGRAM = "(defflow hook [] (let [c (callback)] (set-info! {:url (:url c)}) {:got (await c)}))"


@pytest.fixture
def served(tmp_path: Path, stores: Stores) -> Iterator[Served]:
    served = Served(tmp_path, stores.at(tmp_path / "flowmetal.duckdb"))
    served.start()
    assert served.call("PUT", "/v1/definitions?file=hook.flow", PROGRAM.encode())[0] == 200
    yield served
    strike(served.pid)
    served.reap()


def hook(served: Served) -> tuple[str, str]:
    """A flow that waits for its callback, and the callback's URL."""
    flow_id = served.call("POST", "/v1/flows", {"name": "hook"})[1]["flow_id"]
    for event in served.follow(flow_id):
        if event["kind"] == "info":
            return flow_id, event["data"]["data"]["url"]
    raise AssertionError("the flow ended without a callback")


def post(url: str, body: Any) -> int:
    """What a stranger sends: no token but the URL's own. The status."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_nothing_is_acknowledged_while_nobody_is_there_and_the_url_works_afterwards(served: Served) -> None:
    flow_id, url = hook(served)
    served.kill()
    with pytest.raises(urllib.error.URLError) as refused:
        post(url, {"n": 1})
    assert isinstance(refused.value.reason, ConnectionRefusedError)
    served.start()
    assert url.startswith(served.url + "/")
    assert post(url, {"n": 2}) == 202
    assert served.call("GET", f"/v1/flows/{flow_id}/result?wait=30")[1]["result"] == {"got": {"n": 2}}


def test_what_was_acknowledged_is_there_after_a_kill_at_once(served: Served) -> None:
    for n in range(3):
        flow_id, url = hook(served)
        assert acknowledge_and_kill(served, url, {"n": n}) == 202
        served.start()
        assert served.call("GET", f"/v1/flows/{flow_id}/result?wait=30")[1]["result"] == {"got": {"n": n}}
        assert post(url, {"n": n}) == 200
        assert post(url, {"n": "another"}) == 409


def acknowledge_and_kill(served: Served, url: str, body: Any) -> int:
    """Posts, and kills the host at the first bytes of its answer; the status that it gave."""
    text = json.dumps(body).encode()
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port)), timeout=30) as connection:
        head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        connection.sendall(head.encode() + text)
        status = connection.recv(12)
    strike(served.pid)
    served.reap()
    return int(status.split()[1])
