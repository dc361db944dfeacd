"""Group commit: what arrives while a commit is under way goes into the next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from flowmetal.store.memory import MemoryStore
from flowmetal.store.protocol import Commit, CommitResult, Duplicate, Outcome, Store, StoreConflict, StoreError
from flowmetal.store.testing import MakeStore, row, started
from flowmetal.store.writer import CommitWriter, InlineWriter, Writer


def run(writer: CommitWriter, body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        writer.start()
        await body()
        await writer.stop()

    asyncio.run(asyncio.wait_for(main(), 30))


class Slow(MemoryStore):
    """Stands still in its first group until told to go on; remembers the sizes of the groups."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[int] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def commit_group(self, commits: Sequence[Commit]) -> list[Outcome]:
        self.groups.append(len(commits))
        self.entered.set()
        assert self.go_on.wait(10)
        return super().commit_group(commits)


@pytest.mark.parametrize("make_writer", [Writer, InlineWriter])
def test_both_writers_keep_the_promises(store: Store, make_writer: Callable[[Store], CommitWriter]) -> None:
    writer = make_writer(store)

    async def body() -> None:
        result = await writer.commit(Commit([started("a")], {"a": 0}, unique=("x", "y")))
        assert result.rows[0].seq == 1 and result.pos == 1
        with pytest.raises(StoreConflict):
            await writer.commit(Commit([row("a", "log")], {"a": 9}))
        await writer.commit(Commit([row("a", "x", key="y")]))
        with pytest.raises(Duplicate):
            await writer.commit(Commit([row("a", "x", key="y")], unique=("x", "y")))
        assert await writer.call(store.last_seq, "a") == 2
        with pytest.raises(ZeroDivisionError):
            await writer.call(lambda: 1 / 0)
        error = ValueError("a value, not a failure")
        assert await writer.call(lambda: error) is error

    run(writer, body)


def test_what_arrives_meanwhile_is_one_group() -> None:
    store = Slow()
    writer = Writer(store)

    async def body() -> None:
        first = asyncio.ensure_future(writer.commit(Commit([started("a")])))
        await asyncio.to_thread(store.entered.wait)
        others = [asyncio.ensure_future(writer.commit(Commit([row("a", "log")]))) for _ in range(50)]
        await asyncio.sleep(0)
        store.go_on.set()
        await first
        assert [(await o).rows[0].seq for o in others] == list(range(2, 52))
        assert store.groups == [1, 50]

    run(writer, body)


def test_a_call_sees_the_commits_before_it(store: Store) -> None:
    writer = Writer(store)

    async def body() -> None:
        for i in range(20):
            done = asyncio.ensure_future(writer.commit(Commit([row("a", "log")])))
            await asyncio.sleep(0)
            assert await writer.call(store.last_seq, "a") >= i + 1
            assert (await done).rows[0].seq == i + 1

    run(writer, body)


def test_many_flows_at_once(store: Store) -> None:
    """Each flow appends in its own order under `expect`; nothing is lost, doubled or out of order."""
    writer = Writer(store)

    async def flow(flow_id: str) -> None:
        for seq in range(20):
            await writer.commit(Commit([row(flow_id, "log", seq)], {flow_id: seq}))

    async def body() -> None:
        await asyncio.gather(*(flow(f"f{i}") for i in range(40)))

    run(writer, body)
    for i in range(40):
        assert [r.data for r in store.rows(f"f{i}")] == [str(n) for n in range(20)]
    assert store.last_pos() == 800


def test_one_of_a_group_fails_alone(make_store: MakeStore) -> None:
    store = make_store()
    writer = Writer(store)

    async def body() -> None:
        commits = [Commit([started(f"f{i}")], {f"f{i}": 1 if i == 7 else 0}) for i in range(20)]
        outcomes = await asyncio.gather(*(writer.commit(c) for c in commits), return_exceptions=True)
        assert [isinstance(o, CommitResult) for o in outcomes] == [i != 7 for i in range(20)]

    run(writer, body)


def test_stop_finishes_what_was_asked_for() -> None:
    others = threading.enumerate()
    store = Slow()
    writer = Writer(store)

    async def body() -> None:
        waiting = [asyncio.ensure_future(writer.commit(Commit([row("a", "log")]))) for _ in range(10)]
        await asyncio.sleep(0)
        store.go_on.set()
        await writer.stop()
        assert len(await asyncio.gather(*waiting)) == 10
        with pytest.raises(StoreError, match="being closed"):
            await writer.commit(Commit([]))
        await writer.stop()

    run(writer, body)
    assert store.last_seq("a") == 10
    assert not [t for t in threading.enumerate() if t.name == "flowmetal-writer" and t not in others]


def test_a_caller_that_gave_up_disturbs_nobody() -> None:
    store = Slow()
    writer = Writer(store)

    async def body() -> None:
        gone = asyncio.ensure_future(writer.commit(Commit([row("a", "log")])))
        stays = asyncio.ensure_future(writer.commit(Commit([row("a", "log")])))
        await asyncio.to_thread(store.entered.wait)
        gone.cancel()
        store.go_on.set()
        await stays
        assert store.last_seq("a") == 2

    run(writer, body)


class Crash(BaseException):
    """As a kill would be: no part of the program may catch it and go on."""


def test_a_crash_in_the_store_reaches_every_waiter_and_nothing_is_written_after_it() -> None:
    def faults(point: str) -> None:
        raise Crash(point)

    store = MemoryStore(faults=faults)
    writer = Writer(store)

    async def body() -> None:
        asked: list[Awaitable[Any]] = [writer.commit(Commit([started(f)])) for f in "abc"]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(o, StoreError) for o in outcomes)
        with pytest.raises(StoreError, match="failed"):
            await writer.commit(Commit([started("d")]))
        assert store.last_pos() == 0

    run(writer, body)


def test_a_writer_must_be_started() -> None:
    async def body() -> None:
        with pytest.raises(StoreError, match="not started"):
            await Writer(MemoryStore()).commit(Commit([]))

    asyncio.run(body())
