"""An engine with its shim on loopback, for tests of doors: real HTTP, real commits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
from fastapi import FastAPI
from loopback import serving

from flowmetal.connect.deferred import connectors
from flowmetal.connect.secrets import secrets_of
from flowmetal.connect.shim.app import create_app
from flowmetal.connect.shim.context import Limits
from flowmetal.runtime.engine import Engine
from flowmetal.store.protocol import Store

TOKEN = "t0ken"


@contextlib.asynccontextmanager
async def _app(store: Store, made: list[Engine]) -> AsyncIterator[FastAPI]:
    secret_of = secrets_of(None)
    engine = Engine(store, connectors=connectors(secret_of))
    made.append(engine)
    await engine.open()
    app = create_app(engine, token=TOKEN, limits=Limits(keep_alive=0.3), secret_of=secret_of)
    try:
        yield app
    finally:
        app.state.context.closing.set()
        await engine.close()


class Door(httpx.Client):
    """A client of one engine: what tests of doors say often, in one word."""

    engine: Engine

    def start(self, name: str, *args: Any, **more: Any) -> str:
        """Starts a flow; its id."""
        answer = self.post("/v1/flows", json={"name": name, "args": list(args), **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["flow_id"])

    def ended(self, flow_id: str) -> dict[str, Any]:
        """How a flow ended."""
        answer = self.get(f"/v1/flows/{flow_id}/result?wait=15")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def result(self, flow_id: str) -> Any:
        """The value of a flow that completes."""
        found = self.ended(flow_id)
        assert found["status"] == "completed", found
        return found["result"]

    def lease(self, *functions: str, **more: Any) -> list[dict[str, Any]]:
        """Leases calls; waits up to ten seconds for one."""
        answer = self.post("/v1/tasks/lease", json={"functions": list(functions), "wait": 10, **more})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["tasks"]
        return found

    def answer(self, task: dict[str, Any], action: str, **body: Any) -> int:
        """Completes, fails or extends a task; the status of the answer."""
        return self.post(f"/v1/tasks/{task['id']}/{action}", json=body).status_code

    def rows(self, sql: str, *params: Any) -> list[list[Any]]:
        """Rows of a SELECT."""
        answer = self.post("/v1/sql", json={"sql": sql, "params": list(params)})
        assert answer.status_code == 200, answer.text
        found: list[list[Any]] = answer.json()["rows"]
        return found

    def waits_for(self, flow_id: str, op: str) -> None:
        """Returns when the flow waits for a step of that kind."""
        deadline = time.monotonic() + 15
        while not any(w["op"] == op for w in self.get(f"/v1/flows/{flow_id}/state").json().get("waiting_for", [])):
            assert time.monotonic() < deadline, self.get(f"/v1/flows/{flow_id}").text
            time.sleep(0.01)


@contextlib.contextmanager
def door(store: Store, program: str) -> Iterator[Door]:
    """A running engine over `store` with `program` loaded."""
    made: list[Engine] = []
    with serving(_app(store, made)) as url, Door(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
        client.engine = made[0]
        if program:
            answer = client.put("/v1/definitions?file=test.flow", content=program)
            assert answer.status_code == 200, answer.text
        yield client
