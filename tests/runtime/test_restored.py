"""A store in PostgreSQL that was set back to an older state with `pg_dump`: what flows do again, and under which keys."""

from __future__ import annotations

from lives import HandClock, life, play, settle
from postgres_server import Server

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
