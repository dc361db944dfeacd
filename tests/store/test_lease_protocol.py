"""The lease by which an interpreter has a store: every order of events over small sizes, and the real database beside a simple model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_server import Server

from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.protocol import Commit, CommitResult, StoreError
from flowmetal.store.testing import row

# Every order


@dataclass(frozen=True, slots=True)
class Lease:
    """The row of an interpreter in the store, which is known by a fresh id."""

    who: int
    id: int
    fence: int = 1
    commits: int = 0
    lapsed: bool = False
    connected: bool = True


@dataclass(frozen=True, slots=True)
class Side:
    """What an interpreter itself knows."""

    id: int
    fence: int = 1
    commits: int = 0
    sent: int | None = None
    """The fence with which a commit was sent that has no answer yet."""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """A store, its interpreters, and what is on the way to it."""

    sides: tuple[Side | None, ...]
    lease: Lease | None = None
    log: tuple[int, ...] = ()
    """Who wrote each row."""
    locked: tuple[int, int] | None = None
    """A commit that has found its row in order, and locks it: the row's id and fence."""
    ghost: tuple[int, int] | None = None
    """A commit sent over a connection that is lost, which may still arrive."""
    ids: int = 0
    """How many have taken the store: the last of them has it."""
    wrong: str = ""

    def side(self, who: int, side: Side | None) -> State:
        """The state with another view of one interpreter."""
        return replace(self, sides=(*self.sides[:who], side, *self.sides[who + 1 :]))


def following(state: State, *, fences: bool, locks: bool) -> Iterator[State]:
    """The states that may come next. `fences` and `locks` say whether new connections raise the fence, and takeovers wait for commits."""
    lease, locked = state.lease, state.locked
    if lease is not None and not lease.lapsed:
        yield replace(state, lease=replace(lease, lapsed=True))
    for who, side in enumerate(state.sides):
        if side is None:
            if locked is None or not locks:
                yield entered(state, who)
            continue
        yield from of_one(state, who, side, fences)
    if state.ghost is not None:
        if locked is None and lease is not None and (lease.id, lease.fence) == state.ghost:
            yield replace(state, locked=state.ghost, ghost=None)
        yield replace(state, ghost=None)
    if locked is not None:
        yield written(state, *locked)


def entered(state: State, who: int) -> State:
    lease, new = state.lease, state.ids + 1
    if lease is not None and not lease.lapsed and lease.connected:
        return state
    return replace(state.side(who, Side(new)), lease=Lease(who, new), ids=new)


def of_one(state: State, who: int, side: Side, fences: bool) -> Iterator[State]:
    lease = state.lease
    mine = lease if lease is not None and lease.id == side.id else None
    if side.cut:
        if mine is None:
            yield state.side(who, None)  # it hears that it was taken over
        elif state.locked is None:
            fence = mine.fence + fences
            back = replace(state, lease=replace(mine, fence=fence, lapsed=False, connected=True))
            yield back.side(who, Side(side.id, fence, mine.commits))
        return
    if side.sent is None:
        if state.locked is None:
            if mine is not None and mine.fence == side.fence:
                yield replace(state.side(who, replace(side, sent=side.fence)), locked=(side.id, side.fence))
                yield replace(state, lease=replace(mine, lapsed=False))  # it renews
            else:
                yield state.side(who, None)  # refused: it ends
            yield replace(state.side(who, None), lease=None if mine is not None else lease)  # it leaves
        yield cut(state, who, side, (side.id, side.fence))  # a commit was sent, and is not there yet
    yield cut(state, who, side, state.ghost)


def cut(state: State, who: int, side: Side, ghost: tuple[int, int] | None) -> State:
    """The connection is gone; what was sent over it may arrive, and what was begun may end."""
    lease = state.lease
    if lease is not None and lease.id == side.id:
        lease = replace(lease, connected=False)
    return replace(state.side(who, replace(side, cut=True)), lease=lease, ghost=ghost)


def written(state: State, id_: int, fence: int) -> State:
    """The commit that holds the lock ends: its row is in the log."""
    lease, wrong = state.lease, state.wrong
    if state.ids != id_ or lease is None:
        wrong = wrong or f"{id_} writes, and {state.ids} has the store"
    else:
        lease = replace(lease, commits=lease.commits + 1, lapsed=False)
    for who, side in enumerate(state.sides):
        if side is not None and side.id == id_ and not side.cut:
            if side.sent != fence:
                wrong = wrong or "a commit arrives that its sender believes is not in the store"
            state = state.side(who, replace(side, sent=None, commits=side.commits + 1))
    return replace(state, lease=lease, log=(*state.log, id_), locked=None, wrong=wrong)


def explore(count: int, rows: int, most_fences: int, ids: int, *, fences: bool = True, locks: bool = True) -> tuple[int, set[str]]:
    """All states that so many interpreters can come to, and what is wrong in them."""
    first = State((None,) * count)
    seen, left, wrong = {first}, [first], set()
    while left:
        state = left.pop()
        if state.wrong:
            wrong.add(state.wrong)
            continue
        for after in following(state, fences=fences, locks=locks):
            small = len(after.log) <= rows and after.ids <= ids and (after.lease is None or after.lease.fence <= most_fences)
            if small and after not in seen:
                seen.add(after)
                left.append(after)
    return len(seen), wrong


@pytest.mark.parametrize(("count", "rows", "fences", "ids"), [(2, 2, 3, 3), (3, 1, 2, 3)])
def test_in_every_order_only_who_has_the_store_writes_and_knows_what_it_wrote(count: int, rows: int, fences: int, ids: int) -> None:
    states, wrong = explore(count, rows, fences, ids)
    assert states > 1_000 and not wrong, (states, wrong)


@pytest.mark.parametrize(("without", "says"), [("fences", "believes is not in the store"), ("locks", "has the store")])
def test_each_part_of_the_protocol_is_needed(without: str, says: str) -> None:
    _, wrong = explore(2, 2, 2, 3, **{without: False})
    assert any(says in each for each in wrong), wrong


# The real database


WHO = st.integers(0, 2)
EVENTS = st.lists(st.tuples(st.sampled_from(["enter", "enter", "commit", "commit", "renew", "lapse", "cut", "leave"]), WHO), max_size=14)


@settings(max_examples=40)
@given(events=EVENTS)
def test_the_database_does_what_the_model_says(postgres: Server, events: list[tuple[str, int]]) -> None:
    url = postgres.store()
    stores: dict[int, PostgresStore] = {}
    has, free, seq = None, True, 0
    with psycopg.connect(url, autocommit=True) as raw:
        try:
            for event, who in events:
                if event == "enter" and who not in stores:
                    try:
                        stores[who] = PostgresStore(url)
                    except StoreError as error:
                        assert error.type == "store/locked" and not free
                    else:
                        assert free
                        has, free = who, False
                elif event == "lapse" and has is not None:
                    raw.execute("UPDATE fm.interpreters SET until = now() - interval '1 second'")
                    free = True
                elif who in stores and event == "cut":
                    backend = stores[who]._session.connection.info.backend_pid
                    raw.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))
                    free = free or who == has
                elif who in stores and event == "leave":
                    stores.pop(who).close()
                    has, free = (None, True) if who == has else (has, free)
                elif who in stores and event in ("commit", "renew"):
                    done = does(stores[who], event, seq)
                    assert done == (who == has), (event, who, has)
                    seq += done and event == "commit"
                    free = free and not done
            assert raw.execute("SELECT count(*), coalesce(max(seq), 0) FROM fm.log WHERE flow_id = 'a'").fetchone() == (seq, seq)
        finally:
            for store in stores.values():
                store.close()
    postgres.give_back(url)


def does(store: PostgresStore, event: str, seq: int) -> bool:
    """Whether an interpreter may do it; one that may not is told that it was taken over."""
    try:
        if event == "renew":
            store.renew()
            return True
        (outcome,) = store.commit_group([Commit([row("a", "log")], {"a": seq})])
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, CommitResult)
    except StoreError as error:
        assert error.type == "store/locked", error
        return False
    return True
