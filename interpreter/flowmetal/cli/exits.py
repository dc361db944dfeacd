"""Exit codes: the table of the contract, and which error gives which.

In: an error or a flow's outcome. Out: a number. The one rule: scripts rely on these; they do not change.
"""

from __future__ import annotations

from typing import Any, Final

from flowmetal.errors import FlowCancelled, FlowFailed, FlowmetalError, FlowNotFound, FlowTimeout, StoreError

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
TIMED_OUT: Final = 4
INTERRUPTED: Final = 130

_CODES: Final[tuple[tuple[type[FlowmetalError], int], ...]] = (
    (FlowFailed, FAILED),
    (FlowCancelled, FAILED),
    (FlowTimeout, TIMED_OUT),
    (FlowNotFound, NOT_FOUND),
    (StoreError, NOT_FOUND),
)


def exit_code(error: FlowmetalError) -> int:
    """The exit code for an error that ended a command."""
    if error.type == "sql/refused":
        return USAGE
    return next((code for kind, code in _CODES if isinstance(error, kind)), USAGE)


def outcome_code(outcome: dict[str, Any]) -> int:
    """The exit code for a flow that has ended."""
    if outcome.get("status") == "completed":
        return DONE
    type_ = str((outcome.get("error") or {}).get("type", ""))
    return USAGE if type_.startswith(("reader/", "compile/")) else FAILED
