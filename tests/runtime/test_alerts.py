"""The queries that the page for teams has for alerts find what they say, and nothing else that is in the store."""

from __future__ import annotations

from typing import Any

from documents import ROOT, blocks
from lives import HandClock, life, play, settle
from stores import several

from flowmetal.connect.deferred import connectors
from flowmetal.connect.secrets import secrets_of
from flowmetal.runtime.clock import RealClock

PROGRAM = """
(defforeign charge [n])
(defflow breaks [] (throw (ex-info "no luck" {})))
(defflow stops [] (receive))
(defflow calls [] (charge 1))
(defflow sleeps [] (with-timeout #dur "1s" (receive {:timeout #dur "500ms" :else 1})) (sleep #dur "1h"))
(defflow later [] 1)
"""
FOUND = {"failed": 1, "paused": 1, "late": 1, "unanswered": 1, "schedules": 1, "sources": 1}


def queries() -> dict[str, str]:
    """The queries that should answer with nothing, by what they find: those of the section, without the last."""
    page = ROOT / "docs" / "team.md"
    text = page.read_text(encoding="utf-8")
    start = text[: text.index("## Monitoring")].count("\n")
    found = [block.text for block in blocks("sql", page) if block.line > start]
    return dict(zip(FOUND, found[:-1], strict=True))


@several
def test_what_is_amiss_is_found(store: Any) -> None:
    """The clock of the flows stands in the past, so that whatever waits does so for long; but what has failed fails now."""

    async def scene() -> None:
        clock = HandClock()
        async with life(store, clock, connectors(secrets_of(None))) as engine:
            await engine.load(PROGRAM, file="p.flow")
            await engine.start_flow("later", [], flow_id="well")
            assert await engine.result("well", 10)
            for name in ("calls", "sleeps", "stops"):
                await engine.start_flow(name, [], flow_id=name)
            await settle(engine, 2)
            await engine.control("stops", "pause")
            cell = await engine.eval('(schedule :s #dur "1d" later) (defsource :d {:url "sqlite:///nowhere/none.db" :sql "SELECT 1" :every #dur "1s"})')
            assert await engine.result(cell, 10)
            await settle(engine, 5)
            found = {name: (await engine.sql(text)).rows for name, text in queries().items()}
            assert {name: len(rows) for name, rows in found.items()} == {**FOUND, "failed": 0}
            assert [found[name][0][0] for name in list(FOUND)[1:]] == ["stops", "sleeps", "charge", "s", "d"]
        async with life(store, RealClock()) as engine:
            await engine.start_flow("breaks", [], flow_id="breaks")
            assert await engine.result("breaks", 10)
            assert (await engine.sql(queries()["failed"])).rows == [("breaks", 1, "no luck")]

    play(scene)
