"""What an id of a flow may be, and which flow it names."""

from __future__ import annotations

import pytest
from lives import HandClock, life, play
from stores import Stores

from flowmetal.errors import FlowNotFound, LispError

PROGRAM = '(defflow shop [] (sleep #dur "1h"))'


def test_an_exact_id_wins_over_a_prefix_and_a_prefix_of_several_names_none(stores: Stores) -> None:
    async def scene() -> None:
        async with life(stores.quick(), HandClock()) as engine:
            await engine.load(PROGRAM, file="p.flow")
            for flow_id in ("order", "order-1", "order-12"):
                await engine.start_flow("shop", [], flow_id=flow_id)
            assert [await engine.resolve(given) for given in ("order", "order-1", "order-12")] == ["order", "order-1", "order-12"]
            with pytest.raises(FlowNotFound, match="several flows begin with orde"):
                await engine.resolve("orde")

    play(scene)


@pytest.mark.parametrize("given", ["a b", "", "ä", "x" * 201, "a/b", "$topic"])
def test_an_id_that_is_none_is_refused(stores: Stores, given: str) -> None:
    async def scene() -> None:
        async with life(stores.quick(), HandClock()) as engine:
            await engine.load(PROGRAM, file="p.flow")
            with pytest.raises(LispError):
                await engine.start_flow("shop", [], flow_id=given or " ")

    play(scene)
