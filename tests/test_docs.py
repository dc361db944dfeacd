"""The documents say what is so: their programs run and give what is written beside them, their tables are the code's,
their links lead somewhere."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tomllib
from collections.abc import Iterator

import pytest
from documents import PAGES, ROOT, Block, blocks, forms, name_of

from flowmetal.lang.printer import pr_str
from flowmetal.lang.reader import read_all
from flowmetal.lang.spans import Source
from flowmetal.runtime.clock import Chance, VirtualClock
from flowmetal.runtime.engine import Engine
from flowmetal.store.memory import MemoryStore

LISP_PAGES = [page for page in PAGES if blocks("clojure", page)]


@pytest.mark.parametrize("page", LISP_PAGES, ids=name_of)
def test_lisp_in_a_page_gives_what_it_says(page: object) -> None:
    """All blocks of a page are one session, in memory and on a virtual clock."""
    problems = asyncio.run(_session(blocks("clojure", page)))
    assert not problems, "\n".join(problems)


async def _session(found: list[Block]) -> list[str]:
    engine = Engine(MemoryStore(), clock=VirtualClock(), chance=Chance(1))
    await engine.open()
    problems = []
    try:
        for block in found:
            for form in forms(block.text):
                flow = await engine.eval(form.source)
                answer = await engine.result(flow, 20)
                place = f"{block.page}:{block.line + form.line - 1}: {form.source.splitlines()[0]}"
                said = _difference(form.value, form.error, answer)
                if said:
                    problems.append(f"{place}\n    {said}")
    finally:
        await engine.close()
    return problems


def _difference(value: str | None, error: str | None, answer: dict[str, object] | None) -> str | None:
    if answer is None:
        return "it does not end"
    failed = answer.get("error")
    if isinstance(failed, dict):
        said = f":{failed['type']} {failed['message']}"
        return None if error is not None and said.startswith(error) else f"fails: {said}, where the page says {error or value or 'nothing'}"
    if error is not None:
        return f"gives {answer['printed']}, where the page says {error}"
    if value is not None and _normal(str(answer["printed"])) != _normal(value):
        return f"gives {answer['printed']}, where the page says {value}"
    return None


def _normal(printed: str) -> str:
    """The text of a value, whatever its white space; what cannot be read back stands as it is."""
    try:
        return " ".join(pr_str(x) for x in read_all(Source("expected", printed)))
    except Exception:
        return " ".join(printed.split())
