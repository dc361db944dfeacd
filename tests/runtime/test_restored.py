"""A store in PostgreSQL that was set back to an older state: what flows do again, and under which keys."""

from __future__ import annotations

import asyncio
import shutil

import psycopg
from lives import HandClock, life, play, settle
from postgres_server import Server, binaries

from flowmetal.testing import World

PROGRAM = """
(defflow kid [] (http/post "http://x.test/kid" {:json 1}) :done)
(defflow main []
  (http/post "http://x.test/before" {:json 1})
  (receive)
  (http/post "http://x.test/after" {:json 1})
  (http/post "http://x.test/chance" {:json (rand-int 1000000000000)})
  (http/post "http://x.test/own" {:json 1 :idempotency-key "own"})
  (http/post "http://x.test/once" {:json 1 :at-most-once true})
  (kid))
"""


def keys(world: World) -> dict[str, str]:
    """Under which key each address was asked."""
    return {asked[0].rpartition("/")[2]: key for key, asked in world.asked.items()}


def test_what_was_done_since_is_done_again_under_the_same_keys_and_what_was_begun_since_is_begun_anew(postgres: Server) -> None:
    from flowmetal.store.postgres_store import PostgresStore

    url, restored = postgres.store(), postgres.new()
    clock, first, second = HandClock(), World(), World()

    async def to_the_end(address: str, world: World) -> None:
        store = PostgresStore(address)
        async with life(store, clock, (world,)) as engine:
            await engine.send("m", "go")
            assert await engine.result("m", 10) == {"status": "completed", "result": "done"}
        store.close()

    async def scene() -> None:
        store = PostgresStore(url)
        async with life(store, clock, (first,)) as engine:
            await engine.load(PROGRAM, file="p.flow")
            await engine.start_flow("main", [], flow_id="m")
            await settle(engine)
        store.close()
        postgres.copy(url, restored)
        await to_the_end(url, first)
        await to_the_end(restored, second)

    play(scene)
    postgres.give_back(url)
    before, after = keys(first), keys(second)
    assert "before" not in after
    same = {name for name in after if after[name] == before[name]}
    assert same == {"after", "chance", "own", "once"}
    assert first.asked[before["after"]] == second.asked[after["after"]] and first.asked[before["chance"]] != second.asked[after["chance"]]
    assert set(after) == same | {"kid"}


def test_a_server_goes_back_to_a_moment_with_a_base_backup_and_the_archive(postgres: Server) -> None:
    """What was committed before the moment is there, and nothing else; flows go on from it."""
    from flowmetal.store.postgres_store import PostgresStore

    there = binaries()
    assert there is not None
    server, clock = Server(there), HandClock()
    try:
        archive = server.folder / "archive"
        server.configure(wal_level="replica", archive_mode="on", archive_command=f"mkdir -p {archive} && cp %p {archive}/%f")
        url = server.new()

        async def scene() -> None:
            store = PostgresStore(url)
            async with life(store, clock) as engine:
                await engine.load("(defflow main [] [(receive) (rand-int 1000000000) (receive)])", file="p.flow")
                await engine.start_flow("main", [], flow_id="m")
                await settle(engine)
                server.base_backup(server.folder / "base")
                await engine.send("m", 1)
                await settle(engine)
                server.sql("SELECT pg_create_restore_point('moment')")
                await engine.send("m", 2)
                before = (await engine.result("m", 10) or {})["result"]
                await engine.start_flow("main", [], flow_id="later")
            store.close()
            server.stop()
            shutil.rmtree(server.data)
            (server.folder / "base").rename(server.data)
            (server.data / "recovery.signal").touch()
            server.configure(restore_command=f"cp {archive}/%f %p", recovery_target_name="moment", recovery_target_action="promote")
            with psycopg.connect(url, autocommit=True) as connection:
                while connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
                    await asyncio.sleep(0.02)
                assert connection.execute("SELECT flow_id, status FROM flows").fetchall() == [("m", "waiting")]
            store = PostgresStore(url)
            async with life(store, clock) as engine:
                await engine.send("m", 3)
                assert (await engine.result("m", 30) or {})["result"] == [*before[:2], 3]  # once the lease of the one before is over
            store.close()

        play(scene)
    finally:
        server.remove()
