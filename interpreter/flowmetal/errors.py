"""Every public error, in one tree.

What goes in: what is wrong, the keyword that names its type, where it stands, what to do about it.
What comes out: an exception that the command line, HTTP and the notebook all render the same way.
The one rule: an error that a user can meet is one of these; anything else that escapes is our bug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowmetal.lang.spans import Span


class FlowmetalError(Exception):
    """The base of all public errors. `type` is the text of the error's keyword, without the colon."""

    type: str = "flow/failed"

    def __init__(
        self,
        message: str,
        *,
        type: str | None = None,
        span: Span | None = None,
        hint: str | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if type is not None:
            self.type = type
        self.span = span
        self.hint = hint
        self.data = data

    def __str__(self) -> str:
        return self.message

    def render(self) -> str:
        """What a person reads: the message, the place, the source line with a caret, and what to do."""
        lines = [self.message]
        if self.span is not None:
            lines.append(f"  {self.span}")
            lines.extend(f"  {line}" for line in self.span.caret().split("\n"))
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)


class SourceError(FlowmetalError):
    """A program that cannot be read or compiled: `reader/…`, `compile/…`, or a `limit` of either."""

    type = "reader/syntax"


class LispError(FlowmetalError):
    """An error thrown while a program runs; a program catches it by its type."""

    type = "value"


class FlowFailed(FlowmetalError):
    """The flow ended with an error; `type`, `message` and `data` are that error's."""

    type = "flow/failed"


class FlowCancelled(FlowmetalError):
    """The flow was cancelled or terminated."""

    type = "flow/cancelled"


class FlowTimeout(FlowmetalError):
    """The flow did not end in the time that the caller allowed; it goes on."""

    type = "flow/timeout"


class FlowNotFound(FlowmetalError):
    """No flow has that id, or several begin with that prefix."""

    type = "flow/not-found"


class FlowConflict(FlowmetalError):
    """That flow id, or that request id, belongs to another call already."""

    type = "flow/conflict"


class FlowEnded(FlowmetalError):
    """The flow has ended: it takes no messages and no control any more."""

    type = "flow/ended"


class LeaseLost(FlowmetalError):
    """The lease of a task is over: its call was answered, withdrawn, or given to another worker."""

    type = "task/lease-lost"


class StoreError(FlowmetalError):
    """The store cannot be reached, opened or read."""

    type = "store"


class OtherClock(StoreError):
    """The store lives by another clock than the one that it was to be opened with."""
