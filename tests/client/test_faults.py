"""A fault of ours on a host's loop: a line in the log, and the host goes on."""

from __future__ import annotations

import logging

import pytest
from stores import Stores

from flowmetal.client.host import Host
from flowmetal.client.loop_thread import wait_for


async def fail(host: Host) -> None:
    async def bug() -> None:
        raise ZeroDivisionError("a bug of ours")

    task = host.engine.spawn(bug())
    with pytest.raises(ZeroDivisionError):
        await task


def test_a_fault_is_one_line_and_a_traceback_for_those_who_ask(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    host = Host(stores.quick_at()).start()
    try:
        with caplog.at_level(logging.DEBUG, "flowmetal"):
            wait_for(fail(host), host.loop)
        (line, detail) = [record for record in caplog.records if record.name == "flowmetal.host"]
        assert (line.levelname, detail.levelname) == ("ERROR", "DEBUG")
        assert line.getMessage().endswith("ZeroDivisionError: a bug of ours")
        assert line.exc_info is None
        assert detail.exc_info is not None
        assert wait_for(host.engine.flows(), host.loop) == {"items": [], "next": None}
    finally:
        host.stop()
