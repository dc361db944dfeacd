"""The store in a PostgreSQL database.

What goes in and comes out: see `protocol`. The one rule: what is kept in memory (where flows stand) is a guess that each commit
has checked; so the common commit needs one round trip, and a wrong guess costs another.

A commit whose answer was lost is looked for when the server is back: it is in the log once, whatever happened to the answer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from flowmetal.errors import FlowmetalError
from flowmetal.store import kinds
from flowmetal.store import postgres_queues as queues
from flowmetal.store import postgres_rows as reading
from flowmetal.store import postgres_schema as schema
from flowmetal.store.plain_rows import plain_rows
from flowmetal.store.plan import Plan, by_itself
from flowmetal.store.postgres_commit import Guard, Unsure, begin, find_odd, write, write_within
from flowmetal.store.postgres_members import Listener
from flowmetal.store.postgres_offers import PostgresOffers
from flowmetal.store.postgres_open import driver, first_line, quoted
from flowmetal.store.postgres_pool import Pool
from flowmetal.store.postgres_session import Session
from flowmetal.store.postgres_sql import result_of, run_select
from flowmetal.store.postgres_text import from_text, to_text
from flowmetal.store.protocol import Commit, Faults, Outcome, Result, Row, Snapshot, StoreError
from flowmetal.store.sharing import Limits, News, Place, Standing

T = TypeVar("T")

MAX_KNOWN: Final = 50_000
"""Of how many flows it is remembered where they stand."""
TRY_AGAIN: Final = ("40001", "40P01")
"""What the database says of a transaction that another stood in the way of."""


class PostgresStore:
    """A `Store` in a database that is its own, for any number of interpreters."""

    def __init__(
        self, url: str, *, faults: Faults | None = None, on_taken: Callable[[], object] | None = None, leaving: threading.Event | None = None
    ) -> None:  # fmt: skip
        """`on_taken` is called, on the writer's thread, when others have taken this interpreter for dead: nothing more can be done here.
        Once `leaving` is set, a server that is away is not waited for any more."""
        self.url = url
        self._on_taken = on_taken
        self._faults = faults
        self._known: dict[str, int] = {}
        self._closed = False
        self._pool = Pool(url)
        self._session = Session(url, leaving)
        self._listener: Listener | None = None
        self.offers = PostgresOffers(self._session, self._run)
        self._last_pos = self._followed = self._greatest_pos()
        self._own: deque[tuple[int, int]] = deque()
        """Where rows stand that were written here, and not come to yet in following the log."""

    # Writing

    def commit_group(self, commits: Sequence[Commit]) -> list[Outcome]:
        """See `Store.commit_group`."""
        if self._closed:
            return [StoreError("the store is closed")] * len(commits)
        if by_itself(commits):
            return [outcome for commit in commits for outcome in self.commit_group([commit])]
        try:
            plan, seqs = self._planned(commits)
        except StoreError as error:
            return [error] * len(commits)
        try:
            if plan.accepted:
                self._fault("commit:before")
            plan = self._written(commits, plan, seqs)
        except Exception as error:  # noqa: BLE001 - whatever a commit fails of is its own outcome
            self._known.clear()
            if len(commits) > 1 and not self._session.lost():
                return [outcome for commit in commits for outcome in self.commit_group([commit])]
            return plan.fail(_wrap(error))
        if not plan.accepted:
            return plan.outcomes
        self._last_pos = plan.pos
        self._remember(plan)
        if plan.rows:
            self._own.append((plan.rows[0].pos, plan.rows[-1].pos))
            self._skip_own()
        try:
            self._fault("commit:after")
        except Exception as error:  # noqa: BLE001 - what a failure point raises is the outcome
            return plan.fail(error)
        return plan.outcomes

    def set_meta(self, key: str, value: str) -> None:
        """See `Store.set_meta`."""
        self._fault("meta")
        self._write(schema.INSERT_META, (to_text(key), to_text(value)))

    def put_blob(self, digest: str, body: bytes) -> None:
        """See `Store.put_blob`."""
        self._write(schema.INSERT_BLOB, (digest, body))

    def drop_derived(self) -> None:
        """See `Store.drop_derived`."""
        self._write("DELETE FROM fm.snapshots")
        self._known.clear()

    def balance(self, given_up: Collection[int] = ()) -> Standing:
        """See `SharedStore.balance`; whoever writes nothing for a while calls it more often than a lease runs out."""
        standing = self._again(lambda: self._session.balance(given_up))
        if standing is None:
            raise self._taken()
        return standing

    def news(self, limit: int) -> list[News]:
        """See `SharedStore.news`."""
        news: list[News] = []
        self._skip_own()
        while not news and (found := self._run(schema.NEWS, (str(self._followed), str(limit)))):
            for pos, name, seq, kind in found:
                if pos > self._followed:
                    self._followed = pos - 1
                    self._skip_own()
                if pos > self._followed:
                    self._followed, flow_id = pos, from_text(name)
                    self._know(flow_id, seq)
                    news.append(News(pos, flow_id, seq, kind))
        return news

    def listen(
        self, on_news: Callable[[], object], on_change: Callable[[], object], on_offer: Callable[[], object], on_room: Callable[[], object]
    ) -> None:  # fmt: skip
        """See `SharedStore.listen`."""
        if self._listener is not None:
            self._listener.close()
        self._listener = Listener(self.url, self._session.id, on_news, on_change, on_offer, on_room)

    def enter(self, queue: str, places: Sequence[Place], limits: Limits, now: int) -> tuple[int, int | None]:
        """See `SharedStore.enter`."""
        return self._alive(lambda connection, me: queues.enter(connection, me, queue, places, limits, now))

    def settle(self, queue: str, inside: Collection[Place], outside: Collection[Place]) -> None:
        """See `SharedStore.settle`."""
        self._alive(lambda connection, me: queues.settle(connection, me, queue, inside, outside))

    def reclaim(self, shares: Collection[int], inside: Collection[tuple[str, str]]) -> None:
        """See `SharedStore.reclaim`."""
        self._alive(lambda connection, me: queues.reclaim(connection, me, shares, inside))

    def inside(self, queue: str) -> list[Place]:
        """See `SharedStore.inside`."""
        return [(from_text(flow_id), step) for flow_id, step in self._run(queues.INSIDE, (to_text(queue),))]

    def announce(self, host: str | None) -> None:
        """Says where this interpreter answers; see `postgres_session.hosts`."""
        self._again(lambda: self._session.announce(host))

    # Reading

    def rows(self, flow_id: str, after_seq: int = 0, limit: int | None = None, of: frozenset[str] | None = None) -> list[Row]:
        """See `Store.rows`."""
        rows = self._rows(reading.FLOW, (to_text(flow_id), str(after_seq), _names(of), None if limit is None else str(limit)))
        if rows and limit is None and of is None:
            self._know(flow_id, rows[-1].seq)
        return rows

    def rows_of(self, after: Mapping[str, int], of: frozenset[str] | None = None) -> dict[str, list[Row]]:
        """See `Store.rows_of`."""
        found: dict[str, list[Row]] = {}
        if after:
            for row in self._rows(reading.FLOWS, ([to_text(flow_id) for flow_id in after], list(after.values()), _names(of))):
                found.setdefault(row.flow_id, []).append(row)
        if of is None:
            for flow_id, rows in found.items():
                self._know(flow_id, rows[-1].seq)
        return found

    def last_seq(self, flow_id: str) -> int:
        """See `Store.last_seq`."""
        return self._last_seqs([flow_id])[flow_id]

    def last_pos(self) -> int:
        """See `Store.last_pos`."""
        return self._last_pos

    def find(self, kind: str, key: str) -> Row | None:
        """See `Store.find`."""
        rows = self._rows(reading.FIND, (kind, to_text(key)))
        return rows[0] if rows else None

    def snapshot(self, flow_id: str, before_seq: int | None = None) -> Snapshot | None:
        """See `Store.snapshot`."""
        found = self._run(reading.SNAPSHOT, (to_text(flow_id), None if before_seq is None else str(before_seq)))
        return _snapshot(found[0]) if found else None

    def snapshots_of(self, flow_ids: Sequence[str]) -> dict[str, Snapshot]:
        """See `Store.snapshots_of`."""
        if not flow_ids:
            return {}
        found = map(_snapshot, self._run(reading.SNAPSHOTS, ([to_text(flow_id) for flow_id in flow_ids],)))
        return {snapshot.flow_id: snapshot for snapshot in found}

    def open_flows(self, status: str | None = None) -> list[str]:
        """See `Store.open_flows`."""
        wanted = reading.OPEN_KINDS if status is None else kinds.of_status(status)
        return [from_text(flow_id) for (flow_id,) in self._run(reading.OPEN_FLOWS, (wanted,))]

    def open_requests(self) -> list[Row]:
        """See `Store.open_requests`."""
        return self._rows(reading.OPEN_REQUESTS, ([],))

    def each_open_request(self, idle: frozenset[str] = frozenset()) -> Iterator[Row]:
        """See `Store.each_open_request`."""
        self._usable()
        yield from map(reading.row_of, self._pool.stream(reading.OPEN_REQUESTS, (sorted(idle),)))

    def orphans(self) -> list[tuple[str, str]]:
        """See `Store.orphans`."""
        return [(from_text(flow_id), from_text(parent)) for flow_id, parent in self._run(reading.ORPHANS)]

    def query(
        self,
        sql: str,
        params: Sequence[Any] | dict[str, Any] | None = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Result:
        """See `Store.query`."""
        views = self._session.views
        return self._pool.ask(
            lambda connection, as_reader: run_select(
                connection, views, as_reader=as_reader, sql=sql, params=params, limit=limit, timeout=timeout
            )
        )  # fmt: skip

    def flow_row(self, flow_id: str) -> dict[str, Any] | None:
        """See `Store.flow_row`."""
        return self._flow_table([flow_id]).get(flow_id)

    def flow_rows(self, status: str | None = None, name: str | None = None, limit: int = 100, after: str | None = None) -> list[dict[str, Any]]:
        """See `Store.flow_rows`."""
        wanted = None if status is None else kinds.of_status(status)
        asked = (wanted, None if name is None else to_text(name), None if after is None else to_text(after), str(limit))
        ids = [from_text(flow_id) for (flow_id,) in self._run(reading.PAGE, asked)]
        by_id = self._flow_table(ids)
        return [by_id[flow_id] for flow_id in ids]

    def find_flows(self, prefix: str, limit: int = 2) -> list[str]:
        """See `Store.find_flows`."""
        if self._run(reading.STARTED, (to_text(prefix),)):
            return [prefix]
        return [from_text(flow_id) for (flow_id,) in self._run(reading.BY_PREFIX, (to_text(prefix), str(limit)))]

    def get_meta(self, key: str) -> str | None:
        """See `Store.get_meta`."""
        found = self._run("SELECT value FROM fm.meta WHERE key = $1", (to_text(key),))
        return from_text(found[0][0]) if found else None

    def get_blob(self, digest: str) -> bytes | None:
        """See `Store.get_blob`."""
        found = self._run("SELECT body FROM fm.blobs WHERE digest = $1", (digest,))
        return bytes(found[0][0]) if found else None

    def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        if self._listener is not None:
            self._listener.close()
        self._pool.close()
        self._session.close()

    # A commit

    def _planned(self, commits: Sequence[Commit]) -> tuple[Plan, dict[str, int]]:
        """The plan by what is known and what the commits' authors have seen, both unchecked; and where the flows stand by that."""
        seqs: dict[str, int] = {}
        for commit in commits:
            for flow_id, seq in commit.expect.items():
                seqs.setdefault(flow_id, self._known.get(flow_id, seq))
        others = {flow_id for commit in commits for flow_id in (*commit.remove, *(row.flow_id for row in commit.rows))} - seqs.keys()
        seqs |= {flow_id: self._known[flow_id] for flow_id in others if flow_id in self._known}
        unknown = [flow_id for flow_id in others if flow_id not in seqs]
        if unknown:
            seqs |= self._last_seqs(unknown)
        find = self.find if self._faults is not None else lambda kind, key: None  # a fault may strike only what would be written
        return Plan.of(commits, self._last_pos, seqs.__getitem__, find), seqs

    def _written(self, commits: Sequence[Commit], plan: Plan, seqs: dict[str, int]) -> Plan:
        """Writes the plan, or one made anew from what is so; the plan that is in the store."""
        database = driver()
        sure = len(plan.accepted) == len(commits) and not plan.removed
        odd: frozenset[int] = frozenset()
        while True:
            self._usable()
            number = self._session.commits + 1
            try:
                if sure:
                    absent = [commit.unique for commit in commits if commit.unique is not None]
                    _move(plan, write(self._session, plan, Guard(seqs, absent), odd))
                    return plan
                plan = self._plan_within(commits)
                self._write_within(plan, odd)
                return plan
            except Unsure:
                if not sure:
                    raise self._taken() from None
                sure, odd = False, frozenset()
            except (database.DataError, database.errors.StatementTooComplex):
                found = find_odd(self._session, plan.rows)
                if found <= odd:
                    raise
                odd = found
            except database.OperationalError as error:
                if self._session.lost(error):
                    self._come_back()
                    if self._session.commits >= number:
                        return self._found(plan)
                elif error.sqlstate not in TRY_AGAIN:
                    raise

    def _plan_within(self, commits: Sequence[Commit]) -> Plan:
        """Begins a transaction that has the store to itself, and plans by what is so."""
        connection = self._session.connection
        connection.execute("BEGIN")
        try:
            pos = begin(self._session)
            flows = {f for commit in commits for f in (*commit.expect, *commit.remove, *(row.flow_id for row in commit.rows))}
            seqs = _seqs_of(connection, flows)
            return Plan.of(commits, pos, lambda flow_id: seqs[flow_id], lambda kind, key: _find(connection, kind, key))
        except BaseException:
            if not connection.closed:
                connection.rollback()
            raise

    def _write_within(self, plan: Plan, odd: frozenset[int]) -> None:
        """Writes the plan, and ends the transaction."""
        connection = self._session.connection
        try:
            if not plan.accepted:
                connection.rollback()
                return
            write_within(self._session, plan, odd)
            connection.execute("COMMIT")
            self._session.commits += 1
        except BaseException:
            if not connection.closed:
                connection.rollback()
            raise

    def _found(self, plan: Plan) -> Plan:
        """A plan that is in the store, though nobody said so."""
        if plan.rows:
            last = plan.rows[-1]
            _move(plan, int(self._run(reading.PLACE, (to_text(last.flow_id), str(last.seq)))[0][0]))
        return plan

    # Inside

    def _skip_own(self) -> None:
        """What was written here is no news."""
        while self._own and self._own[0][0] <= self._followed + 1:
            self._followed = max(self._followed, self._own.popleft()[1])

    def _usable(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
        if self._session.lost():
            self._come_back()

    def _come_back(self) -> None:
        self._known.clear()
        try:
            self._session.come_back()
        except StoreError as error:
            if error.type == "store/locked":
                raise self._taken() from None
            raise

    def _taken(self) -> StoreError:
        if self._on_taken is not None:
            self._on_taken()
        return self._session.taken()

    def _again(self, ask: Callable[[], T]) -> T:
        """The answer; asked once more on a new connection when the old one was lost."""
        self._usable()
        try:
            try:
                return ask()
            except driver().OperationalError as error:
                if not self._session.lost(error):
                    raise
            self._come_back()
            return ask()
        except driver().Error as error:
            raise _wrap(error) from error

    def _alive(self, ask: Callable[[Any, str], T]) -> T:
        """Does something in a transaction, unless others have taken this interpreter for dead."""

        def within() -> T:
            with self._session.connection.transaction():
                if not self._session.renew():
                    raise self._taken()
                return ask(self._session.connection, self._session.id)

        return self._again(within)

    def _run(self, sql: str, params: Sequence[object] = ()) -> list[Any]:
        return self._again(lambda: self._session.connection.execute(sql, params).fetchall())

    def _write(self, sql: str, params: Sequence[object] = ()) -> None:
        self._again(lambda: self._session.connection.execute(sql, params))

    def _rows(self, sql: str, params: Sequence[object]) -> list[Row]:
        return [reading.row_of(found) for found in self._run(sql, params)]

    def _last_seqs(self, flow_ids: Sequence[str]) -> dict[str, int]:
        return self._again(lambda: _seqs_of(self._session.connection, flow_ids))

    def _greatest_pos(self) -> int:
        return int(self._run("SELECT pos FROM fm.head")[0][0])

    def _flow_table(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        if not ids:
            return {}
        asked = f"SELECT * FROM {quoted(self._session.views)}.flows WHERE flow_id = ANY($1::text[])"

        def ask() -> Result:
            connection = self._session.connection
            return result_of(connection, connection.execute(asked, ([to_text(flow_id) for flow_id in ids],)))

        return {row["flow_id"]: row for row in plain_rows(self._again(ask))}

    def _know(self, flow_id: str, seq: int) -> None:
        self._known[flow_id] = seq
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def _remember(self, plan: Plan) -> None:
        for flow_id, seq in plan.seqs.items():
            self._know(flow_id, seq)
        for flow_id in plan.removed:
            self._known.pop(flow_id, None)

    def _fault(self, point: str) -> None:
        if self._faults is not None:
            self._faults(point)


def _move(plan: Plan, pos: int) -> None:
    """Others may have written meanwhile: the plan's rows stand where the store has put them."""
    moved = pos - plan.pos
    if moved:
        plan.pos = pos
        for row in plan.rows:
            row.pos += moved


def _seqs_of(connection: Any, flow_ids: Iterable[str]) -> dict[str, int]:
    wanted = [to_text(flow_id) for flow_id in flow_ids]
    return {from_text(flow_id): seq for flow_id, seq in connection.execute(reading.LAST_SEQ, (wanted,)).fetchall()}


def _find(connection: Any, kind: str, key: str) -> Row | None:
    found = connection.execute(reading.FIND, (kind, to_text(key))).fetchone()
    return None if found is None else reading.row_of(found)


def _names(of: frozenset[str] | None) -> list[str] | None:
    return None if of is None else sorted(of)


def _snapshot(found: tuple[Any, ...]) -> Snapshot:
    flow_id, seq, step, format_, body = found
    return Snapshot(from_text(flow_id), seq, step, format_, bytes(body))


def _wrap(error: Exception) -> Exception:
    if isinstance(error, FlowmetalError):
        return error
    if isinstance(error, (driver().Error, OSError, UnicodeError, OverflowError)):
        wrapped = StoreError(f"the store failed: {first_line(error)}", hint="See the server's log, and the free space of its disk.")
        wrapped.__cause__ = error
        return wrapped
    return error
