"""The one interface to an engine; `local` and `remote` implement it, and nothing above floor 4 can tell which it
has.

In and out: plain JSON data, as outsiders see it. The one rule: every writing call carries a request id (or a
key) that the log deduplicates, so that a call repeated after its host died is carried out once.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypedDict, TypeVar

from flowmetal.client.relation import Relation
from flowmetal.client.store_url import StoreUrl
from flowmetal.store import kinds

Row = dict[str, Any]
T = TypeVar("T")

SILENCE = 5.0
"""Seconds without an answer after which a host counts as hung."""

STATUSES = list(dict.fromkeys(kinds.STATUS.values()))
"""What may become of a flow."""

ENDED = kinds.ENDED
"""The statuses of a flow that is over."""

ENDING_KINDS = kinds.ENDING
"""The kinds of event that end a flow."""


class StartOptions(TypedDict, total=False):
    """How a flow is begun, besides its arguments."""

    queue: str
    """The queue in which it waits for its turn."""
    priority: int
    """What comes first there: the greater number."""
    at: datetime | timedelta | float | str
    """When it begins: a time, or so long from now, in seconds or as `1h30m`."""
    tags: dict[str, Any]
    timeout: timedelta | float | str
    """How long it may take, from its beginning."""
    on_failure: Literal["pause"]
    """It stops where it failed, until it is retried or resumed."""


class Client(Protocol):
    """What a program, the kernel and the command line may ask of an engine, wherever it runs."""

    store: StoreUrl

    async def start_flow(
        self, name: str, args: Sequence[Any], *, flow_id: str | None = None, request_id: str | None = None, options: Row | None = None
    ) -> tuple[str, bool]:
        """Begins a flow: its id, and whether this call made it (the same id and call twice is the same flow). `options` are
        `queue`, `priority`, `at`, `tags`, `timeout` and `on_failure` of `POST /v1/flows`."""

    async def eval(self, source: str, *, ns: str = "user", file: str = "cell", request_id: str | None = None) -> str:
        """Runs source text as a flow of kind `cell`; its id. `result` gives its value."""

    async def load(self, source: str, *, file: str, request_id: str | None = None) -> Row:
        """Adds a file's definitions to the store: `{"version", "names"}`."""

    async def result(self, flow_id: str, timeout: float | None = None) -> Row | None:
        """Waits: `{"status", "result", "printed", "handle", "ns"}` or `{"status", "error"}`; None when time ran out."""

    async def flow(self, flow_id: str) -> Row:
        """The row of one flow, by its id or an unambiguous prefix of it."""

    async def flows(self, status: str | None = None, name: str | None = None, limit: int = 100, after: str | None = None) -> Row:
        """A page of flows, newest first: `{"items", "next"}`."""

    async def events(self, flow_id: str, after: int = 0) -> list[Row]:
        """The rows of a flow's history whose `seq` is greater than `after`."""

    def follow(self, flow_id: str, after: int = 0) -> AsyncIterator[Row]:
        """The rows of a flow's history, going on live until the flow ends."""

    async def state(self, flow_id: str, step: int | None = None, transition: int | None = None) -> Row:
        """The flow as it waits now (or failed), as it waited for `step`, or so many transitions of its machine later."""

    async def diff(self, flow_id: str, old: int, new: int | None = None) -> Row:
        """What changed in the flow from one step to another, or to now."""

    async def stuck(self, after: float = 60.0) -> list[Row]:
        """Flows that wait for what cannot arrive, or for a call that nobody has asked for in `after` seconds: `flow_id name what step since
        detail do`."""

    async def send(self, flow_id: str, message: Any, *, key: str | None = None) -> str:
        """Puts a message into the flow's mailbox; the message's id."""

    async def publish(self, topic: str, data: Any, *, key: str | None = None) -> str:
        """Publishes an event to a topic; its message id. The same `key` twice is one event."""

    async def lease_tasks(
        self, functions: Sequence[str], *, queues: Sequence[str] | None = None, most: int = 1, wait: float = 0.0, lease: float = 60.0
    ) -> list[Row]:
        """Up to `most` open calls of foreign functions, each leased for `lease` seconds; waits up to `wait` seconds."""

    async def complete_task(self, task_id: str, result: Any) -> None:
        """Answers a leased call. Raises LeaseLost."""

    async def fail_task(self, task_id: str, error: Row, *, retry: bool | None = None) -> None:
        """Says that an attempt failed: `{"type", "message", "data"}`. Raises LeaseLost."""

    async def heartbeat_task(self, task_id: str) -> None:
        """Extends a lease by its length. Raises LeaseLost."""

    async def control(self, flow_id: str, action: str, *, reason: str | None = None) -> Row:
        """`pause`, `resume`, `step`, `retry`, `cancel` or `terminate`; the flow's row afterwards."""

    async def delete(self, flow_id: str) -> list[str]:
        """Deletes a flow that is over and what belongs to it: their ids. Raises FlowConflict where it is open, or needed."""

    async def backup(self, directory: str) -> str:
        """Copies the store into a folder of the host's machine (an absolute path); the path of the copy."""

    async def archive(self, *, older_than: str | None = None, where: str | None = None, keep: str | None = None) -> Row:
        """Archives flows that are over, of an age (`30d`) and under an SQL condition; `keep` is the store's setting: `{"archived", "keep"}`."""

    async def export(self, flows: Sequence[str]) -> bytes:
        """The file of these flows, their children and what they need. It changes nothing; see `mark_moved`."""

    async def mark_moved(self, flows: dict[str, int]) -> None:
        """Flows that were exported open go on elsewhere; each with its last `seq` in the file. Raises FlowConflict where one has gone on."""

    async def import_flows(self, data: bytes) -> Row:
        """Takes the flows of a file: `{"flows": [ids], "new": bool}`. Raises LispError, FlowConflict."""

    async def fork(
        self,
        flow_id: str,
        at: int,
        *,
        outcome: Sequence[Any] = (),
        upgrade: bool = False,
        adopt_rollbacks: bool = False,
        dry_run: bool = False,
        reason: str | None = None,
    ) -> Row:
        """Makes a new flow that shares the flow's history before a step, whose outcome is the one value in `outcome`, if any: its row. With `dry_run`
        what it would share, and may do again."""

    async def upgrade(self, flow_id: str, *, dry_run: bool = False, reason: str | None = None) -> Row:
        """Moves a flow to the current definitions: `{"flow_id", "from", "to", "steps", "upgraded"}`. Raises LispError, `replay/mismatch`."""

    async def schedules(self) -> list[Row]:
        """The rows of the view `schedules`, by name."""

    async def control_schedule(self, name: str, action: str) -> Row:
        """`pause`, `resume` or `trigger` (then `flow_id` is the flow that began)."""

    async def schedule_times(self, name: str, since: str, until: str) -> list[str]:
        """The times of a schedule between two instants, both included."""

    async def begin_scheduled(self, name: str, at: str) -> str:
        """Begins the flow that a schedule begins for a time, if there is none yet; its id."""

    async def allowed_notebooks(self) -> list[str]:
        """The notebooks that may run processes with `sh`."""

    async def allow_notebook(self, notebook: str, allowed: bool = True) -> list[str]:
        """Lets a notebook run processes with `sh`, or no more; those that may."""

    async def sql(self, sql: str, params: Sequence[Any] | None = None) -> Relation:
        """One SELECT over the store's views, read only."""

    async def complete(self, prefix: str, ns: str = "user") -> list[str]:
        """The names that begin with `prefix`."""

    async def inspect(self, name: str, ns: str = "user") -> Row | None:
        """`{"name", "arglists", "doc", "source", "kind"}` of a name, or None."""

    async def advance(self, by: float | str) -> str:
        """Moves a virtual clock by so many seconds (or `1h30m`), through all that falls due; the time then. Raises LispError in real time."""

    async def near(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Awaits a coroutine as near to the engine as may be: on its loop, where that is in this process."""

    async def host(self) -> Row:
        """Who hosts the engine: `{"pid", "store", "version", "background", "flows"}`."""

    async def stop(self) -> None:
        """Ends the host; its flows stay in the store."""

    async def aclose(self) -> None:
        """Lets go of the engine. What this client hosts ends; what it attached to goes on."""


def new_request_id() -> str:
    """A fresh id for one writing call."""
    return uuid.uuid4().hex
