"""A room imports only from floors below it: the table of the design, against every import in the source.

Imports in functions count as others do; imports for type checking only do not, since nothing is loaded by them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"flowmetal": ROOT / "interpreter" / "flowmetal", "flowmetal_kernel": ROOT / "flowmetal_kernel"}

FLOORS = {
    "flowmetal_kernel": 5,
    "flowmetal.cli": 5,
    "flowmetal.client": 4,
    "flowmetal.testing": 4,
    "flowmetal.connect": 3,
    "flowmetal.runtime": 2,
    "flowmetal.store": 1,
    "flowmetal.lang": 0,
    "flowmetal.errors": 0,
}
"""Rooms and their floors. `flowmetal` itself stands on top: it names what is public and holds nothing else."""
TOP = {"flowmetal", "flowmetal.__main__"}

NEIGHBOURS = {
    ("flowmetal.cli.kernelspec", "flowmetal_kernel.install"): "`flowmetal kernel install` puts the kernel where Jupyter finds it",
    ("flowmetal.testing", "flowmetal.client"): "a test finds the files that it requires as a program does",
}
"""Imports between rooms of one floor, and why there are any."""

FORBIDDEN = {
    "flowmetal_kernel": {"flowmetal.store", "flowmetal.lang.machine"},
    "flowmetal.cli": {"flowmetal.store", "flowmetal.lang.machine"},
    "flowmetal.connect": {"flowmetal.lang.machine"},
    "flowmetal.store": {"flowmetal.lang.machine", "flowmetal.lang.compiler", "flowmetal.lang.reader"},
    "flowmetal.runtime": {"httpx", "fastapi", "uvicorn", "ipykernel", "IPython", "ipywidgets", "jupyter_client"},
    "flowmetal.lang": {"asyncio", "duckdb", "socket", "subprocess", "httpx"},
}
"""What a room may not know, beyond what its floor says."""


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


MODULES = dict(modules())


def imports(path: Path) -> set[str]:
    """The full names of what a module imports when it runs."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting.extend(ast.iter_child_nodes(node))
    return found


def is_in(name: str, place: str) -> bool:
    """Whether a name is that of a module or room, or of something in it."""
    return name == place or name.startswith(place + ".")


def room(name: str) -> str | None:
    """The room in which a module, or a name of one, stands; None for other people's."""
    while name:
        if name in FLOORS:
            return name
        name = name.rpartition(".")[0]
    return None


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_room_and_from_floors_below(module: str) -> None:
    here = room(module)
    if module in TOP:
        return
    assert here is not None, f"{module} stands in no room"
    for name in imports(MODULES[module]):
        there = room(name)
        if there is not None and there != here:
            low = FLOORS[there] < FLOORS[here] or there == "flowmetal.errors"
            known = any(is_in(module, ours) and is_in(name, theirs) for ours, theirs in NEIGHBOURS)
            assert low or known, f"{module} (floor {FLOORS[here]}) imports {name} (floor {FLOORS[there]})"
        for forbidden in FORBIDDEN.get(here, ()):
            assert not is_in(name, forbidden), f"{module} imports {name}"


def test_every_room_is_there() -> None:
    assert {room(module) for module in MODULES} - {None} == set(FLOORS)
