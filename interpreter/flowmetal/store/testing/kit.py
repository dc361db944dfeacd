"""What the promises of a store are written with.

What goes in: a function that makes stores. What comes out: the promises, each a function of that, which raises where it is not
kept. The one rule: a promise asks a store what any user of the protocol could ask, and knows nothing of its insides.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from flowmetal.store.protocol import Commit, CommitResult, Faults, Row, Store

T0: Final = 1_700_000_000_000_000
"""When rows are written, if nothing else is said."""
SECOND: Final = 1_000_000


class MakeStore(Protocol):
    """Makes an empty store each time it is called; whoever gave it closes what it made."""

    def __call__(self, faults: Faults | None = None) -> Store:
        """A store that calls `faults` at its failure points."""


Promise = Callable[[MakeStore], None]

PROMISES: Final[dict[str, Promise]] = {}
"""All promises by their names; filled as the modules of this package are loaded."""


def promise(function: Callable[..., None]) -> Callable[..., None]:
    """A function of one store (a parameter `store`), or of what makes stores, is a promise."""

    def kept(make: MakeStore) -> None:
        function(make() if "store" in inspect.signature(function).parameters else make)

    assert function.__name__ not in PROMISES, function.__name__
    kept.__name__ = function.__name__
    kept.__doc__ = function.__doc__
    PROMISES[function.__name__] = kept
    return function


def row(flow_id: str, kind: str, data: Any = None, at: int = T0, **more: Any) -> Row:
    """A row whose data is given as a value."""
    return Row(flow_id, kind, json.dumps({} if data is None else data), at, **more)


def commit(store: Store, *rows: Row, **more: Any) -> list[Row]:
    """One commit that must succeed; its rows."""
    (outcome,) = store.commit_group([Commit(list(rows), **more)])
    assert isinstance(outcome, CommitResult), outcome
    return outcome.rows


def started(flow_id: str, name: str = "f", at: int = T0, **data: Any) -> Row:
    """The first row of a flow."""
    return row(flow_id, "flow-started", {"name": name, "kind": "flow", "args": [], "definitions": 1, **data}, at)


def table(store: Store, sql: str, *params: Any) -> list[dict[str, Any]]:
    """The answer to a query, as plain rows."""
    return store.query(sql, params).plain()


@contextmanager
def raises(kind: type[Exception], says: str = "") -> Iterator[None]:
    """What stands within must raise such an error, with these words."""
    try:
        yield
    except kind as error:
        assert says in str(error), f"{error} does not say: {says}"
        return
    raise AssertionError(f"no {kind.__name__} was raised")
