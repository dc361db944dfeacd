"""Recorded histories done again under new code, so that it is known before it is taken into use.

In: files of definitions, and a file that `flowmetal export` wrote. Out: for each flow in it whether the code does what is recorded, or
the first difference, with both places. The one rule: nothing is asked of the outside; what was recorded is given, and each request compared.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowmetal.errors import FlowmetalError, LispError
from flowmetal.lang.equality import equal
from flowmetal.lang.printer import pr_str
from flowmetal.runtime import flowlog, history, lines
from flowmetal.runtime.definitions_log import DefinitionsLog
from flowmetal.runtime.process import find_program, loader
from flowmetal.runtime.reexecution import Reexecution, Run, done_again
from flowmetal.runtime.rows import Draft
from flowmetal.store import kinds
from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Row
from flowmetal.testing.deftests import load_file

SHOWN = 200
"""Characters of a value that are shown."""


@dataclass(frozen=True, slots=True)
class Replay:
    """How one flow came out. `difference` is the first, in words; None when there is none."""

    flow_id: str
    name: str
    status: str
    steps: int
    difference: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the code does what is recorded."""
        return self.difference is None


def replay(files: Sequence[str | Path], recorded: str | Path) -> list[Replay]:
    """Does the flows of a file again under the definitions of `files`; cells are left out.

    Raises SourceError or LispError for definitions that cannot be loaded; LispError for a file that is none.
    """
    definitions = DefinitionsLog(lambda: 0)
    try:
        for path in files:
            load_file(definitions, Path(path))
        data = Path(recorded).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise LispError(f"cannot be read: {error}", type="value") from error
    log = flowlog.read(data)
    numbering = lines.Numbering(MemoryStore(), log)
    lines.bind(definitions, numbering.new)
    out = []
    for flow_id, rows in log.flows.items():
        for row in rows:
            numbering.renumber(row)
        facts = json.loads(rows[0].data)
        if facts["kind"] != "cell":
            out.append(asyncio.run(_again(definitions, flow_id, facts["name"], rows)))
    return out


async def _again(definitions: DefinitionsLog, flow_id: str, name: str, rows: list[Row]) -> Replay:
    registry, version = definitions.registry, definitions.version
    run = Run(flow_id, rows, loader(registry))
    difference = None
    try:
        find_program(registry, run.first.facts["name"], version)
        again = await done_again(registry, run, version, run.arrivals)
        missing = again.missing()
        difference = missing.message if missing is not None else _unlike(run, again)
    except FlowmetalError as error:
        difference = error.message if error.type == "replay/mismatch" or error.message.startswith("there is no flow") else error.render()
    return Replay(flow_id, name, history.status_of(rows), len(run.steps), difference)


def _unlike(run: Run, again: Reexecution) -> str | None:
    """What differs in the end, although every request is the same."""
    was, now = _ending(run.rows), again.end
    if was is None or was.kind not in (kinds.FLOW_COMPLETED, kinds.FLOW_FAILED):
        return None
    if now is None:
        return f"the flow {_how(was)}, and now goes on: it asks for one step more" if again.stopped else f"the flow {_how(was)}, and now waits"
    same = now.kind == was.kind and (equal(was.values.get("result"), now.values.get("result")) if was.error is None else _type(was) == _type(now))
    return None if same else f"the flow {_how(was)}, and now {_how(now)}"


def _ending(rows: Sequence[Draft]) -> Draft | None:
    return next((draft for draft in reversed(rows) if draft.kind in kinds.ENDING), None)


def _type(draft: Draft) -> Any:
    return draft.error.type if draft.error is not None else None


def _how(draft: Draft) -> str:
    text = f"ended with {pr_str(draft.values.get('result'))}" if draft.error is None else f"failed with {pr_str(draft.error.type)}: {draft.error.message}"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
