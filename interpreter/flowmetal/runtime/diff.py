"""What is different between two states of a flow.

In: two states as `past` describes them. Out: by fiber the frames that were left and entered, what moved, and which
locals changed; the promises that were opened and settled. The one rule: pure, and plain data as the states are.
"""

from __future__ import annotations

from typing import Any

State = dict[str, Any]


def diff(old: State, new: State) -> dict[str, Any]:
    """The changes from one state to another."""
    before, after = ({f["fiber"]: f["stack"] for f in state["fibers"]} for state in (old, new))
    fibers = [change for n in sorted(before.keys() | after.keys()) if (change := _fiber(n, before.get(n), after.get(n))) is not None]
    opened, settled = _gone(new, old), _gone(old, new)
    return {"from": _place(old), "to": _place(new), "fibers": fibers, "opened": opened, "settled": settled}


def _place(state: State) -> dict[str, Any]:
    return {name: state[name] for name in ("step", "transition", "status") if name in state}


def _gone(state: State, other: State) -> list[Any]:
    """The promises that are open in one state and not in the other."""
    there = {(p["promise"], p["flow"]) for p in other["promises"]}
    return [p for p in state["promises"] if (p["promise"], p["flow"]) not in there]


def _fiber(number: int, old: list[State] | None, new: list[State] | None) -> dict[str, Any] | None:
    """What became of a fiber: of its frames, the outermost first; None where nothing did."""
    outer = [list(reversed(stack or [])) for stack in (old, new)]
    common = 0
    while common < min(len(outer[0]), len(outer[1])) and _same(outer[0][common], outer[1][common]):
        common += 1
    changed = [change for a, b in zip(outer[0][:common], outer[1][:common], strict=True) if (change := _frame(a, b)) is not None]
    left, entered = outer[0][common:], outer[1][common:]
    what = "began" if old is None else "ended" if new is None else "went on"
    if what == "went on" and not (left or entered or changed):
        return None
    return {"fiber": number, "what": what, "left": left, "entered": entered, "changed": changed}


def _same(a: State, b: State) -> bool:
    return bool(a["function"] == b["function"] and a["file"] == b["file"])


def _frame(a: State, b: State) -> dict[str, Any] | None:
    """How a frame changed that is in both: where it stands, and its locals."""
    names = list(dict.fromkeys([*a["locals"], *b["locals"]]))
    locals_ = [_local(name, a["locals"], b["locals"]) for name in names if _absent(name, a, b) or not _equal(a["locals"][name], b["locals"][name])]
    moved = (a["line"], a["column"]) != (b["line"], b["column"])
    if not (moved or locals_):
        return None
    places = [{"line": x["line"], "column": x["column"], "source": x["source"]} for x in (a, b)]
    return {"function": b["function"], "old": places[0], "new": places[1], "locals": locals_}


def _absent(name: str, a: State, b: State) -> bool:
    return name not in a["locals"] or name not in b["locals"]


def _local(name: str, old: State, new: State) -> dict[str, Any]:
    """A local that changed; where it was not there, or is not any more, `old` or `new` is missing."""
    return {"name": name, **({"old": old[name]} if name in old else {}), **({"new": new[name]} if name in new else {})}


def _equal(a: Any, b: Any) -> bool:
    """Whether two plain values are the same: true is not 1, and 1 is not 1.0."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b) and bool(a == b)
