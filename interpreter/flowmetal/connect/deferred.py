"""A connector that is loaded with its first call: what it is built on takes longer to load than a short program to run.

In: the operations, and what makes the connector. Out: its outcomes. The one rule: loading does not hold up the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set

from flowmetal.connect.secrets import SecretOf
from flowmetal.runtime.connector import Call, Connector, Outcome


class Deferred:
    """Stands for the connector that `make` gives; `make` runs on another thread, once."""

    def __init__(self, ops: Set[str], make: Callable[[], Connector]) -> None:
        self.ops = ops
        self._make = make
        self._made: Connector | None = None
        self._making = asyncio.Lock()

    async def perform(self, call: Call) -> Outcome:
        """See `Connector.perform`."""
        if self._made is None:
            async with self._making:
                if self._made is None:
                    self._made = await asyncio.to_thread(self._make)
        return await self._made.perform(call)

    async def close(self) -> None:
        """See `Connector.close`."""
        if self._made is not None:
            await self._made.close()


def connectors(secret_of: SecretOf) -> list[Connector]:
    """Every connector of a host, each loaded when a flow first asks for it."""

    def http() -> Connector:
        from flowmetal.connect.http_request import HttpConnector

        return HttpConnector(secret_of=secret_of)

    def processes() -> Connector:
        from flowmetal.connect.processes import ProcessConnector

        return ProcessConnector(secret_of=secret_of)

    def queries() -> Connector:
        from flowmetal.connect.sql_query import QueryConnector

        return QueryConnector(secret_of=secret_of)

    def sources() -> Connector:
        from flowmetal.connect.sql_source import SourceConnector

        return SourceConnector(secret_of=secret_of)

    makers = {"http/request": http, "sh": processes, "sql/query": queries, "source/read source/done": sources}
    return [Deferred(frozenset(ops.split()), make) for ops, make in makers.items()]
