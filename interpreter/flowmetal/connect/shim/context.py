"""What every route shares: the engine, the token, the limits, and the caller's name.

In: the application's state. Out: a `Context`, by `Depends`. The one rule: routes reach the engine
through it alone, so an application may serve any number of engines in a test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from flowmetal.connect.json_text import MAX_DEPTH
from flowmetal.connect.secrets import SecretOf, secrets_of
from flowmetal.errors import FlowmetalError

FLOW_ID = r"^[A-Za-z0-9._:-]{1,200}$"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what comes in, and on how long a request may wait."""

    max_body: int = 1024 * 1024
    max_file: int = 1024 * 1024 * 1024
    """The greatest file of flows that is taken."""
    max_depth: int = MAX_DEPTH
    max_wait: float = 300.0
    keep_alive: float = 15.0

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Limits:
        """The limits of a host: `FLOWMETAL_MAX_BODY` is the greatest body, in bytes. Raises FlowmetalError when it is no number."""
        text = environ.get("FLOWMETAL_MAX_BODY", "").strip()
        if not text:
            return cls()
        if not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise FlowmetalError(f"FLOWMETAL_MAX_BODY must be a number of bytes, not {text[:40]!r}", type="value")
        return cls(max_body=int(text))


@dataclass(slots=True)
class Context:
    """The engine and what the host said about itself. `closing` ends live streams when set."""

    engine: Any
    token: str
    limits: Limits = field(default_factory=Limits)
    on_stop: Callable[[], None] | None = None
    info: Callable[[], Mapping[str, Any] | Awaitable[Mapping[str, Any]]] = dict
    secret_of: SecretOf = field(default_factory=lambda: secrets_of(None))
    """Where the secrets of signature schemes come from."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def unless_closing(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What the work gives, or None when the server is about to stop."""
        task = asyncio.ensure_future(work)
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            closing.cancel()


async def get_context(request: Request) -> Context:
    """The context of the application that serves this request."""
    context: Context = request.app.state.context
    return context


async def caller(request: Request) -> str:
    """Who asks, for the record: holders of the store's token have no other name than where they are."""
    return f"http {request.client.host}" if request.client else "http"


Ctx = Annotated[Context, Depends(get_context)]
By = Annotated[str, Depends(caller)]
