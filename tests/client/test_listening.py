"""Ports: which one is tried, and what the store remembers."""

from __future__ import annotations

import asyncio
import socket

import pytest

from flowmetal.client.listening import DEFAULT_PORT, Activity, Listen, bind, choose_port, public_url
from flowmetal.errors import FlowmetalError


@pytest.mark.parametrize(
    ("asked", "recorded", "tried"),
    [
        (0, None, [(0, True)]),
        (0, 5000, [(5000, True), (0, False)]),
        (None, None, [(DEFAULT_PORT, True), (0, True)]),
        (None, 5000, [(5000, True), (0, False)]),
        (6000, 5000, [(6000, True)]),
    ],
)
def test_ports_to_try(asked: int | None, recorded: int | None, tried: list[tuple[int, bool]]) -> None:
    assert choose_port(Listen(port=asked), recorded) == tried


def test_taken_port_gives_way_to_any_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        listener, record = bind(Listen(port=0), [(taken, True), (0, False)])
        with listener:
            assert listener.getsockname()[1] != taken
            assert not record


def test_taken_explicit_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(FlowmetalError, match=f"cannot listen on 127.0.0.1:{taken}") as caught:
            bind(Listen(port=taken), [(taken, True)])
        assert "--port 0" in (caught.value.hint or "")


def test_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Listen("0.0.0.0").url_of(1) == "http://127.0.0.1:1"
    assert Listen("::1").url_of(1) == "http://[::1]:1"
    monkeypatch.delenv("FLOWMETAL_PUBLIC_URL", raising=False)
    assert public_url(None) is None
    monkeypatch.setenv("FLOWMETAL_PUBLIC_URL", "https://a.example/")
    assert public_url(None) == "https://a.example"
    assert public_url("https://b.example") == "https://b.example"


def test_activity_counts_what_is_under_way() -> None:
    async def scene() -> None:
        activity = Activity()
        release = asyncio.Event()
        entered = asyncio.Event()

        async def app(scope: object, receive: object, send: object) -> None:
            entered.set()
            await release.wait()

        request = asyncio.ensure_future(activity.around(app)({}, None, None))
        await entered.wait()
        assert activity.quiet_for() == 0.0
        release.set()
        await request
        assert activity.quiet_for() > 0.0

    asyncio.run(scene())
