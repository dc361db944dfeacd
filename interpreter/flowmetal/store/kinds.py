"""The closed table of event kinds.

What goes in: nothing. What comes out: the names, and the sets that the engine, the views and recovery share.
The one rule: users query these names, so a kind is added here and never renamed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

FLOW_STARTED: Final = "flow-started"
FLOW_WAITING: Final = "flow-waiting"
FLOW_RUNNING: Final = "flow-running"
FLOW_PAUSED: Final = "flow-paused"
FLOW_RESUMED: Final = "flow-resumed"
FLOW_COMPLETED: Final = "flow-completed"
FLOW_FAILED: Final = "flow-failed"
FLOW_CANCELLED: Final = "flow-cancelled"
FLOW_MOVED: Final = "flow-moved"
FLOW_CONTINUED: Final = "flow-continued"
"""The run has ended, and the next begins with this row, under the same id."""
FLOW_FORKED: Final = "flow-forked"
"""What stands before it the flow shares with the one that it was forked from."""
FLOW_UPGRADED: Final = "flow-upgraded"
"""From here on the run's state is that of another version of the definitions."""
FLOW_RETRIED: Final = "flow-retried"
"""The flow goes on where a step of it failed: that outcome (`since`), and what the flow did with it, count no more."""
FLOW_STEPPED: Final = "flow-stepped"
"""A paused flow goes on to its next request, and is paused again."""
CANCEL_REQUESTED: Final = "cancel-requested"

EFFECT_REQUESTED: Final = "effect-requested"
EFFECT_COMPLETED: Final = "effect-completed"
EFFECT_FAILED: Final = "effect-failed"
EFFECT_CANCELLED: Final = "effect-cancelled"
EFFECT_CANCELLING: Final = "effect-cancelling"
"""The flow that the step called was asked to end; the step has its outcome when that has cleaned up."""
ATTEMPT_STARTED: Final = "attempt-started"
ATTEMPT_FAILED: Final = "attempt-failed"
LEASE_EXPIRED: Final = "lease-expired"
"""A worker that had a call gave no answer in time: it is offered again, as the same attempt."""
VALUE_RECORDED: Final = "value-recorded"
AWAIT: Final = "await"
AWAIT_SETTLED: Final = "await-settled"
MESSAGE_RECEIVED: Final = "message-received"
PROMISE_SETTLED: Final = "promise-settled"
CELL_RESULT: Final = "cell-result"

OUTPUT: Final = "output"
TRUNCATED: Final = "truncated"
"""The flow prints more than is kept."""
LOG: Final = "log"
CHECKPOINT: Final = "checkpoint"
INFO: Final = "info"
DEFINED: Final = "defined"
REQUEST: Final = "request"
PUBLISHED: Final = "published"
"""An event of a topic, in the topic's own stream."""
TOPIC_DECLARED: Final = "topic-declared"
SCHEDULE_DECLARED: Final = "schedule-declared"
SCHEDULE_REMOVED: Final = "schedule-removed"
SCHEDULE_PAUSED: Final = "schedule-paused"
SCHEDULE_RESUMED: Final = "schedule-resumed"
SCHEDULE_FIRED: Final = "schedule-fired"
"""A flow was begun for a time of a schedule, or because somebody triggered it."""
SCHEDULE_SKIPPED: Final = "schedule-skipped"
"""A time of a schedule began nothing; `reason` says why."""
QUEUE_DECLARED: Final = "queue-declared"
SOURCE_DECLARED: Final = "source-declared"
SOURCE_READ: Final = "source-read"
"""What a source has read up to now: its new cursor."""
ATOM_SET: Final = "atom-set"
"""A new value of a shared atom, in the atom's own stream."""
NOTEBOOK_ALLOWED: Final = "notebook-allowed"
"""A notebook may run processes here, or may no more."""
ENGINE: Final = "engine"
FLOWS_IMPORTED: Final = "flows-imported"
"""Flows came from a file, under the ids and with the histories that they had."""
FLOWS_ARCHIVED: Final = "flows-archived"
"""Flows that were over are in the archive from here on."""
EVENTS_PRUNED: Final = "events-pruned"
"""The older part of a stream was taken out of the log."""
FLOW_DELETED: Final = "flow-deleted"
"""A flow that was over was deleted, with the flows that belonged to it."""

ENDING: Final = frozenset({FLOW_COMPLETED, FLOW_FAILED, FLOW_CANCELLED, FLOW_MOVED})
"""Kinds that end a flow: its row of this kind is its last status, and none of its requests is open any more."""

STATUS: Final[dict[str, str]] = {
    FLOW_STARTED: "running",
    FLOW_RUNNING: "running",
    FLOW_RESUMED: "running",
    FLOW_RETRIED: "running",
    FLOW_STEPPED: "running",
    FLOW_CONTINUED: "running",
    FLOW_FORKED: "running",
    FLOW_WAITING: "waiting",
    FLOW_PAUSED: "paused",
    FLOW_COMPLETED: "completed",
    FLOW_FAILED: "failed",
    FLOW_CANCELLED: "cancelled",
    FLOW_MOVED: "moved",
}
"""The status that a flow has after a row of each kind; other kinds leave it as it was."""

ENDED: Final = frozenset(STATUS[kind] for kind in ENDING)
"""The statuses of a flow that is over."""

ASKING: Final = frozenset({EFFECT_REQUESTED, VALUE_RECORDED})
"""Kinds by which a step is asked."""

OPENING: Final = frozenset({EFFECT_REQUESTED, AWAIT})
"""Kinds that open a request: recovery finds those without a row of `CLOSING` for them."""

CLOSING: Final[dict[str, str]] = {
    EFFECT_COMPLETED: EFFECT_REQUESTED,
    EFFECT_FAILED: EFFECT_REQUESTED,
    EFFECT_CANCELLED: EFFECT_REQUESTED,
    AWAIT_SETTLED: AWAIT,
}
"""Kinds that close a request, and the kind that they close: an effect by `step`, an await by its `data.flow`."""

CLOSING_STEP: Final = frozenset(kind for kind, opened in CLOSING.items() if opened == EFFECT_REQUESTED)
"""Kinds that settle a step."""

ALL: Final = frozenset(STATUS) | OPENING | frozenset(CLOSING) | {
    CANCEL_REQUESTED, FLOW_UPGRADED, EFFECT_CANCELLING, TRUNCATED, ATTEMPT_STARTED, ATTEMPT_FAILED, LEASE_EXPIRED, VALUE_RECORDED, MESSAGE_RECEIVED,
    OUTPUT, LOG, CHECKPOINT, INFO, DEFINED, REQUEST, PROMISE_SETTLED, CELL_RESULT, ENGINE, PUBLISHED,
    TOPIC_DECLARED, SCHEDULE_DECLARED, SCHEDULE_REMOVED, SCHEDULE_PAUSED, SCHEDULE_RESUMED, SCHEDULE_FIRED, SCHEDULE_SKIPPED, QUEUE_DECLARED,
    SOURCE_DECLARED, SOURCE_READ, NOTEBOOK_ALLOWED, ATOM_SET, FLOW_DELETED, FLOWS_IMPORTED, FLOWS_ARCHIVED,
    EVENTS_PRUNED,
}  # fmt: skip

DEFINITIONS_STREAM: Final = "$definitions"
"""The stream of `defined` rows; a definitions version is a `seq` of it."""
REQUESTS_STREAM: Final = "$requests"
"""The stream of `request` rows, by which a client's retry is recognised."""
TOPICS_STREAM: Final = "$topics"
"""The stream of the declarations of topics."""
SCHEDULES_STREAM: Final = "$schedules"
"""The stream of schedules: their declarations, and what they began."""
QUEUES_STREAM: Final = "$queues"
"""The stream of the declarations of queues."""
SOURCES_STREAM: Final = "$sources"
"""The stream of the declarations of database sources."""
SOURCE_STREAM: Final = "$source/"
"""What the stream of a source's cursors begins with; its name follows."""
ALLOWANCES_STREAM: Final = "$allowances"
"""The stream that says which notebooks may run processes."""
ATOM_STREAM: Final = "$atom/"
"""What the stream of a shared atom's values begins with; its id follows."""
IMPORTS_STREAM: Final = "$imports"
"""The stream that says which files of flows were imported."""
LINE_STREAM: Final = "$definitions/"
"""What the stream of another store's definitions begins with; the number of their line follows."""
REMOVED_STREAM: Final = "$removed"
"""The stream that says what was taken out of the log, by whom and why."""
TOPIC_STREAM: Final = "$topic/"
"""What the stream of a topic's events begins with; its name follows."""


def of_status(status: str | None) -> list[str]:
    """The kinds of rows after which a flow has that status."""
    return [kind for kind, meaning in STATUS.items() if meaning == status]


def listed(names: Iterable[str]) -> str:
    """Kinds as a list in SQL, always in the same order."""
    return ", ".join(f"'{name}'" for name in sorted(names))


def is_stream(flow_id: str) -> bool:
    """Whether the id names a stream of the store rather than a flow."""
    return flow_id.startswith("$")
