"""The lease by which an interpreter has a share of a store: every order of events over small sizes, and the real database beside a simple model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_server import Server

from flowmetal.store.postgres_store import PostgresStore
from flowmetal.store.protocol import Commit, CommitResult, StoreError
from flowmetal.store.sharing import SHARES
from flowmetal.store.testing import row

pytestmark = pytest.mark.slow

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
    mine: bool = False
    """Whether it takes the share for its own."""


@dataclass(frozen=True, slots=True)
class State:
    """A store, its interpreters, and what is on the way to it."""

    sides: tuple[Side | None, ...]
    leases: frozenset[Lease] = frozenset()
    owner: int | None = None
    """Whose the one share is."""
    log: tuple[int, ...] = ()
    """Who wrote each row."""
    locked: tuple[int, int] | None = None
    """A commit that has found its row in order, and locks it: the row's id and fence."""
    ghost: tuple[int, int] | None = None
    """A commit sent over a connection that is lost, which may still arrive."""
    ids: int = 0
    wrong: str = ""

    def side(self, who: int, side: Side | None) -> State:
        """The state with another view of one interpreter."""
        return replace(self, sides=(*self.sides[:who], side, *self.sides[who + 1 :]))

    def lease(self, id_: int) -> Lease | None:
        """The row of an interpreter."""
        return next((lease for lease in self.leases if lease.id == id_), None)

    def having(self, old: Lease, new: Lease | None) -> State:
        """The state with another row in the place of one."""
        return replace(self, leases=self.leases - {old} | ({new} if new is not None else set()))


def following(state: State, *, fences: bool, locks: bool) -> Iterator[State]:
    """The states that may come next. `fences` and `locks` say whether new connections raise the fence, and burials mind commits under way."""
    for lease in state.leases:
        if not lease.lapsed:
            yield state.having(lease, replace(lease, lapsed=True))
    for who, side in enumerate(state.sides):
        if side is None:
            new = state.ids + 1
            yield replace(state.side(who, Side(new)), leases=state.leases | {Lease(who, new)}, ids=new)
        else:
            yield from of_one(state, who, side, fences, locks)
    if state.ghost is not None:
        sender = state.lease(state.ghost[0])
        if state.locked is None and sender is not None and sender.fence == state.ghost[1]:
            yield replace(state, locked=state.ghost, ghost=None)
        yield replace(state, ghost=None)
    if state.locked is not None:
        yield written(state, *state.locked)


def of_one(state: State, who: int, side: Side, fences: bool, locks: bool) -> Iterator[State]:
    mine = state.lease(side.id)
    held = state.locked is not None and state.locked[0] == side.id
    if side.cut:
        if mine is None:
            yield state.side(who, None)  # it hears that others took it for dead
        elif not held:
            fence = mine.fence + fences
            back = state.having(mine, replace(mine, fence=fence, lapsed=False, connected=True))
            yield back.side(who, replace(side, fence=fence, commits=mine.commits, sent=None, cut=False))
        return
    if side.sent is None:
        if mine is None or mine.fence != side.fence:
            yield state.side(who, None)  # refused: it ends
        elif not held:
            yield balanced(state, who, side, mine, locks)
            gone = replace(state.side(who, None), owner=None if state.owner == side.id else state.owner)
            yield gone.having(mine, None)  # it leaves
            if side.mine:
                yield replace(state.side(who, replace(side, mine=False)), owner=None)  # it gives the share up
                if state.locked is None:
                    yield replace(state.side(who, replace(side, sent=side.fence)), locked=(side.id, side.fence))
        if side.mine:
            yield cut(state, who, side, (side.id, side.fence))  # a commit was sent, and is not there yet
    yield cut(state, who, side, state.ghost)


def balanced(state: State, who: int, side: Side, mine: Lease, locks: bool) -> State:
    """It renews its lease, buries those whose lease is over, and takes the share if that is free."""
    for lease in state.leases - {mine}:
        under_way = locks and state.locked is not None and state.locked[0] == lease.id
        if (lease.lapsed or not lease.connected) and not under_way:
            state = replace(state.having(lease, None), owner=None if state.owner == lease.id else state.owner)
    state = state.having(mine, replace(mine, lapsed=False))
    return replace(state.side(who, replace(side, mine=True)), owner=side.id) if state.owner is None else state


def cut(state: State, who: int, side: Side, ghost: tuple[int, int] | None) -> State:
    """The connection is gone; what was sent over it may arrive, and what was begun may end."""
    lease = state.lease(side.id)
    if lease is not None:
        state = state.having(lease, replace(lease, connected=False))
    return replace(state.side(who, replace(side, cut=True)), ghost=ghost)


def written(state: State, id_: int, fence: int) -> State:
    """The commit that holds the lock ends: its row is in the log."""
    lease, wrong = state.lease(id_), state.wrong
    if state.owner != id_:
        wrong = wrong or f"{id_} writes, and {state.owner} has the share"
    if lease is not None:
        state = state.having(lease, replace(lease, commits=lease.commits + 1, lapsed=False))
    for who, side in enumerate(state.sides):
        if side is not None and side.id == id_ and not side.cut:
            if side.sent != fence:
                wrong = wrong or "a commit arrives that its sender believes is not in the store"
            state = state.side(who, replace(side, sent=None, commits=side.commits + 1))
    return replace(state, log=(*state.log, id_), locked=None, wrong=wrong)


def explore(count: int, rows: int, most_fences: int, ids: int, *, fences: bool = True, locks: bool = True, until: str = "") -> tuple[int, set[str]]:
    """All states that so many interpreters can come to, and what is wrong in them. With `until`, no more once something is wrong that says so."""
    first = State((None,) * count)
    seen, left, wrong = {first}, [first], set()
    while left:
        state = left.pop()
        if state.wrong:
            wrong.add(state.wrong)
            if until and until in state.wrong:
                break
            continue
        for after in following(state, fences=fences, locks=locks):
            small = len(after.log) <= rows and after.ids <= ids and all(lease.fence <= most_fences for lease in after.leases)
            if small and after not in seen:
                seen.add(after)
                left.append(after)
    return len(seen), wrong


SIZES = [(2, 2, 2, 2), *([(2, 1, 2, 3), (2, 2, 3, 2), (3, 1, 1, 3)] if os.environ.get("FLOWMETAL_LONG") == "1" else [])]


@pytest.mark.parametrize(("count", "rows", "fences", "ids"), SIZES)
def test_in_every_order_only_who_has_a_share_writes_and_knows_what_it_wrote(count: int, rows: int, fences: int, ids: int) -> None:
    states, wrong = explore(count, rows, fences, ids)
    assert states > 1_000 and not wrong, (states, wrong)


@pytest.mark.parametrize(("without", "says"), [("fences", "believes is not in the store"), ("locks", "has the share")])
def test_each_part_of_the_protocol_is_needed(without: str, says: str) -> None:
    _, wrong = explore(2, 2, 2, 2, **{without: False}, until=says)
    assert any(says in each for each in wrong), wrong


# The real database


WHO = st.integers(0, 2)
EVENT = st.sampled_from(["enter", "enter", "commit", "commit", "balance", "balance", "give up", "lapse", "cut", "leave"])
EVENTS = st.lists(st.tuples(EVENT, WHO), max_size=18)


class Model:
    """Who is there, and whose each share is."""

    def __init__(self) -> None:
        self.there: list[int] = []
        self.lapsed: set[int] = set()
        self.owner: dict[int, int | None] = dict.fromkeys(range(SHARES))

    def balance(self, who: int, given_up: frozenset[int]) -> None:
        """What becomes of it all when one of them balances."""
        for share in given_up:
            self.owner[share] = None
        self.lapsed.discard(who)
        for dead in self.lapsed & set(self.there):
            self.bury(dead)
        free = [share for share, owner in self.owner.items() if owner is None]
        room = -(-SHARES // len(self.there)) - len(self.of(who))
        self.owner |= dict.fromkeys(free[: max(0, room)], who)

    def bury(self, who: int) -> None:
        """One that is dead, or leaves."""
        self.there.remove(who)
        self.owner |= dict.fromkeys(self.of(who))

    def of(self, who: int) -> frozenset[int]:
        """The shares of one of them."""
        return frozenset(share for share, owner in self.owner.items() if owner == who)


@settings(max_examples=40)
@given(events=EVENTS)
def test_the_database_does_what_the_model_says(postgres: Server, events: list[tuple[str, int]]) -> None:
    url = postgres.store()
    stores: dict[int, PostgresStore] = {}
    model, seq = Model(), 0
    with psycopg.connect(url, autocommit=True) as raw:
        try:
            for event, who in events:
                if event == "enter" and who not in stores:
                    stores[who] = PostgresStore(url)
                    model.there.append(who)
                elif who not in stores:
                    continue
                elif event == "lapse" and who in model.there:
                    sql = "UPDATE fm.interpreters SET until = now() - interval '1 second' WHERE id = %s"
                    raw.execute(sql, (stores[who]._session.id,))
                    model.lapsed.add(who)
                elif event == "cut":
                    raw.execute("SELECT pg_terminate_backend(%s, 5000)", (stores[who]._session.connection.info.backend_pid,))
                elif event == "leave":
                    stores.pop(who).close()
                    model.lapsed.discard(who)
                    if who in model.there:
                        model.bury(who)
                elif event in ("commit", "balance", "give up"):
                    given_up = frozenset(sorted(model.of(who))[:5]) if event == "give up" else frozenset()
                    done = does(stores[who], event, seq, given_up)
                    assert (done is not None) == (who in model.there), (event, who)
                    if done is None:
                        stores.pop(who).close()  # it ends
                    elif event == "commit":
                        model.lapsed.discard(who)
                        seq += 1
                    else:
                        model.balance(who, given_up)
                        assert done == (model.of(who), len(model.there))
            assert raw.execute("SELECT count(*), coalesce(max(seq), 0) FROM fm.log WHERE flow_id = 'a'").fetchone() == (seq, seq)
        finally:
            for store in stores.values():
                store.close()
    postgres.give_back(url)


def does(store: PostgresStore, event: str, seq: int, given_up: frozenset[int]) -> tuple[frozenset[int], int] | None:
    """What an interpreter has then, and with how many others; None where it is told that it was taken for dead."""
    try:
        if event != "commit":
            standing = store.balance(given_up)
            return standing.mine, standing.members
        (outcome,) = store.commit_group([Commit([row("a", "log")], {"a": seq})])
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, CommitResult)
    except StoreError as error:
        assert error.type == "store/locked", error
        return None
    return frozenset(), 0
