"""Shared atoms: cells given to a top-level `def`, which all flows of a store see.

In: steps that read or change one. Out: rows of the atom's own stream; its value is the last of them. The one rule: a change
is compared and set by the version that was read, in one commit with what the step gives, so it happens once, whatever is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowmetal.errors import LispError
from flowmetal.lang import evaluate
from flowmetal.lang.equality import equal
from flowmetal.lang.functions import Atom, SharedAtom
from flowmetal.lang.persistent import Vector
from flowmetal.lang.printer import pr_str
from flowmetal.lang.requests import Define
from flowmetal.runtime.process import loader
from flowmetal.runtime.rows import Draft, request_hash, to_draft, to_row
from flowmetal.store import kinds
from flowmetal.store.protocol import Commit, Duplicate, Row, StoreConflict

if TYPE_CHECKING:
    from flowmetal.runtime.engine import Engine

OPS = frozenset({"deref", "swap!", "swap-vals!", "reset!", "reset-vals!", "compare-and-set!"})


FUEL = 200_000
"""Transitions that the function of a `swap!` may take: nothing else runs meanwhile."""


def shared(d: Define) -> Any:
    """The value that a definition is to have: an atom becomes one that is shared, known by its name and by what it began with."""
    if not isinstance(d.value, Atom):
        return d.value
    begins = d.value.value
    return SharedAtom(f"{d.ns}/{d.name}-{request_hash('atom', '', Vector.of([begins]), '')[:8]}", begins)


async def perform(engine: Engine, op: str, atom: str, args: list[Any], key: str, by: str) -> Any:
    """What one such step gives. `args` are the value that the atom began with, and what it is to become."""
    load = loader(engine.definitions.registry)
    stream = kinds.ATOM_STREAM + atom
    done: Row | None = await engine.writer.call(engine.store.find, kinds.ATOM_SET, key)
    while done is None:
        version = await engine.writer.call(engine.store.last_seq, stream)
        rows = await engine.writer.call(engine.store.rows, stream, version - 1) if version else []
        old = to_draft(rows[-1], load).values["value"] if rows else args[0]
        if op == "deref":
            return old
        changes, new, result = _changed(engine, op, old, args[1:])
        if not changes:
            return result
        draft = Draft(kinds.ATOM_SET, None, None, {"by": by}, {"value": new, "result": result}, key=key, at=engine.clock.now())
        try:
            await engine.commit(Commit([to_row(stream, engine.definitions.version, draft)], {stream: version}, [], (kinds.ATOM_SET, key)))
        except StoreConflict:  # another flow was first
            continue
        except Duplicate as e:
            done = e.row
            break
        return result
    return to_draft(done, load).values.get("result")


def _changed(engine: Engine, op: str, old: Any, args: list[Any]) -> tuple[bool, Any, Any]:
    """Whether the atom changes, its new value, and what the step gives."""
    if op == "compare-and-set!":
        return equal(old, args[0]), args[1], equal(old, args[0])
    if op in ("reset!", "reset-vals!"):
        return True, args[0], args[0] if op == "reset!" else Vector.of([old, args[0]])
    f, *more = args
    try:
        new = evaluate.run(engine.definitions.registry, f, [old, *more], engine.definitions.version, kind="swap", fuel=FUEL)
    except LispError as e:
        if e.type == "limit":
            message = f"the function that changes a shared atom took more than {FUEL:,} steps: compute first, and let swap! only put the result in"
            raise LispError(message, type="limit") from None
        if e.type != "compile/syntax":
            raise
        raise LispError(f"the function that changes a shared atom may not wait, nor read time or chance: {pr_str(f)}", type="value") from None
    return True, new, new if op == "swap!" else Vector.of([old, new])
