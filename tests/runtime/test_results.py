"""Results asked for after the end: they are how the flow stands now, whatever it was a moment ago."""

from __future__ import annotations

import pytest
from bench import Bench, scene
from test_retry import Broken

from flowmetal.errors import FlowNotFound
from flowmetal.runtime.watching import ENDING_BYTES, ENDINGS

PROGRAMS = """
(defforeign ship [n])
(defflow order [] (ship 1))
(defflow long [n] (apply str (repeat n "x")))
"""


@pytest.mark.one_store("with several interpreters another may have retried it")
@scene
async def test_the_result_of_a_flow_that_ended_just_now_needs_no_look_into_the_store(b: Bench) -> None:
    await b.load(PROGRAMS)
    flow = await b.start("long", 3)
    await b.settle()
    expected = await b.engine.result(flow)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("rows", "find_flows", "last_seq"):
            patch.setattr(b.store, name, None)
        assert await b.engine.result(flow) == expected
    assert expected is not None and expected["result"] == "xxx"


@scene
async def test_a_flow_that_goes_on_after_its_end_has_no_result_until_it_ends_again(b: Bench) -> None:
    world = Broken(b, "ship")
    await b.load(PROGRAMS)
    flow = await b.start("order")
    failed = await b.ending(flow)
    assert failed["status"] == "failed" and await b.engine.result(flow) == failed
    world.mend()
    await b.engine.control(flow, "retry")
    assert (await b.ending(flow))["result"] == "ship"
    assert (await b.ending(flow[:8]))["result"] == "ship", "by a prefix too"


@scene
async def test_a_flow_that_was_deleted_has_no_result(b: Bench) -> None:
    await b.load(PROGRAMS)
    flow = await b.start("long", 1)
    assert (await b.ending(flow))["result"] == "x"
    await b.engine.keeping.delete(flow)
    with pytest.raises(FlowNotFound):
        await b.engine.result(flow)


@scene
async def test_many_results_and_long_ones_are_there_as_well(b: Bench) -> None:
    await b.load(PROGRAMS)
    long = await b.start("long", ENDING_BYTES + 1)
    others = [await b.start("long", n % 3) for n in range(ENDINGS + 1)]
    await b.settle()
    assert len((await b.ending(long))["result"]) == ENDING_BYTES + 1
    assert [len((await b.ending(flow))["result"]) for flow in others] == [n % 3 for n in range(ENDINGS + 1)]
