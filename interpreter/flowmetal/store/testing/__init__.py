"""A conformance kit: whether a store keeps the promises of `flowmetal.store.protocol`.

In: a function that makes empty stores of your backend. Out: nothing, or an error that says which promise is not kept. The one
rule: Flowmetal's own backends pass the same kit.

    from flowmetal.store.testing import PROMISES

    @pytest.mark.parametrize("promise", PROMISES.values(), ids=PROMISES.keys())
    def test_promise(promise, make_store):      # make_store(faults=None) → a new, empty store
        promise(make_store)

It needs no pytest: `check(make_store)` asks everything, and raises one error with all that failed. docs/stores.md says more.
"""

from __future__ import annotations

from flowmetal.store.testing import commits, many, queries, removal, texts, views
from flowmetal.store.testing.kit import PROMISES, SECOND, T0, MakeStore, Promise, commit, raises, row, started, table

__all__ = ["PROMISES", "SECOND", "T0", "MakeStore", "Promise", "check", "commit", "raises", "row", "started", "table"]

_ASKED = (commits, many, queries, removal, texts, views)
"""The modules whose promises are in `PROMISES`."""


def check(make_store: MakeStore) -> None:
    """Asks a backend for every promise. Raises an ExceptionGroup of all that are not kept; RuntimeError under `python -O`."""
    if not __debug__:
        raise RuntimeError("the kit is made of assertions: run it without -O")
    failures: list[Exception] = []
    for name, promise in PROMISES.items():
        try:
            promise(make_store)
        except Exception as error:  # noqa: BLE001 - each is told
            error.add_note(f"the promise: {name}")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(PROMISES)} promises are not kept", failures)
