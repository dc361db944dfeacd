"""Rubbish at every door: whatever is sent to whichever route, the answer is one for the sender's mistake, and the store answers on."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from loopback import serving
from stores import Stores
from test_shim_engine import TOKEN, engine_app

PROGRAM = "(defflow add [a b] (+ a b)) (defflow waits [] (receive))"
SCALARS = [None, True, 0, -1, 1e308, 2**70, "", "x", "\x00", "\ud800", [], {}, [[]], "a" * 3000, 1.5, "2026-01-01T00:00:00Z"]
KEYS = ["name", "args", "id", "sql", "params", "source", "ns", "file", "reason", "functions", "max", "wait", "lease", "result", "error", ""]
IDS = ["waits", "wai", "nope", "a%20b", "%00", "%ff", "..", "%2e%2e%2f", "x" * 300, "é"]
QUERY = {"wait": ["0", "", "nan", "-1"], "limit": ["0", "1", "x", "9" * 20], "after": ["", "\x00", "-1", "é"], "status": ["x", "failed"], "step": ["0", "x"]}
TYPES = ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x", "x",
         "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain; charset=utf-77"]  # fmt: skip


def value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random() if depth < 3 else 1
    if kind < 0.3:
        return {chance.choice(KEYS): value(chance, depth + 1) for _ in range(chance.randint(0, 4))}
    return [value(chance, depth + 1) for _ in range(chance.randint(0, 3))] if kind < 0.5 else chance.choice(SCALARS)


def body(chance: random.Random) -> bytes:
    kinds = [
        lambda: b"",
        lambda: chance.randbytes(50),
        lambda: json.dumps(value(chance)).encode("utf-8", "surrogatepass"),
        lambda: json.dumps({"name": "add", "args": value(chance)}).encode(),
        lambda: json.dumps({"sql": chance.choice(["SELECT 1", "SELECT", "SELECT $1"]), "params": value(chance)}).encode(),
        lambda: b"(def x " + chance.choice([b"1)", b"", b"'(((", b"\xff)"]),
    ]
    return chance.choice(kinds)()


@pytest.fixture(scope="module")
def client(module_stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    store = module_stores.open(tmp_path_factory.mktemp("rubbish") / "flowmetal.duckdb")
    with serving(engine_app(store, [])) as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
        assert client.put("/v1/definitions", content=PROGRAM).status_code == 200
        assert client.post("/v1/flows", json={"name": "waits", "id": "waits"}).status_code == 201
        yield client


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 20))])
def test_rubbish(client: httpx.Client, seed: int) -> None:
    chance = random.Random(seed)
    paths = client.get("/openapi.json").json()["paths"]
    for _ in range(120):
        path = chance.choice(sorted(paths))
        method = chance.choice(sorted(paths[path]))
        address = re.sub(r"\{\w+\}", lambda _: chance.choice(IDS), path)
        query = {name: chance.choice(QUERY[name]) for name in chance.sample(sorted(QUERY), chance.randint(0, 2))}
        headers = {"Content-Type": chance.choice(TYPES), "Idempotency-Key": chance.choice(["", "k", "k" * 600])}
        sent = body(chance)
        answer = client.request(method, address, params=query, content=sent, headers=headers)
        assert answer.status_code < 500, (method, address, query, headers, sent, answer.text)
        if answer.status_code >= 400:
            assert answer.json()["detail"], (method, address, query, sent)
    assert client.get("/readyz").json() == {"status": "ready"}
