"""A database source outlives whatever its connector does."""

from __future__ import annotations

from typing import Any

from bench import Bench, scene

from flowmetal.runtime.connector import Call
from flowmetal.store import kinds

SOURCE = '(defsource rows {:url "db" :sql "SELECT * FROM t WHERE n > :cursor" :every #dur "1m"})'


class Trouble:
    """A database that at first does something else than to answer."""

    def __init__(self, b: Bench, first: Any) -> None:
        self.first = first
        b.world.answer = self.answer

    def answer(self, call: Call) -> Any:
        """One row, once all is well."""
        first, self.first = self.first, None
        if isinstance(first, Exception):
            raise first
        return first or [{"n": n} for n in (1,) if n > call.args[2]]


def read(b: Bench) -> list[Any]:
    """What was published."""
    return [row["message"] for row in b.rows("$topic/rows", kinds.PUBLISHED)]


@scene
async def test_a_connector_that_fails_is_the_sources_complaint_and_is_asked_again(b: Bench) -> None:
    Trouble(b, RuntimeError("no route"))
    await b.result(await b.cell(SOURCE))
    await b.advance("1s")
    (said,) = b.rows("$source/rows")
    assert said["error"]["message"] == "source/read failed: RuntimeError: no route"
    assert read(b) == []
    await b.advance("5m")
    assert read(b) == [{"n": 1}]


@scene
async def test_rows_that_are_none_do_not_end_a_source(b: Bench) -> None:
    Trouble(b, [1, 2])
    await b.result(await b.cell(SOURCE))
    await b.advance("1s")
    assert len(b.reports) == 1, "it is a bug of the connector, and is reported"
    b.reports.clear()
    await b.advance("5m")
    assert read(b) == [{"n": 1}]
