"""Completion and inspection in a cell know what it binds, what is defined, and what is written about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from stores import Stores

from flowmetal.client.host import Host, HostOptions
from flowmetal.client.local import LocalClient
from flowmetal_kernel.completion import complete
from flowmetal_kernel.inspection import inspect

SHOP = '(ns shop) (defn price-of "What {:keys [sku]} costs." [{:keys [sku]}] {:net-price 42})'


@pytest.fixture(scope="module")
def client(module_stores: Stores) -> Iterator[LocalClient]:
    host = Host(module_stores.quick_at(), None, HostOptions()).start()
    client = LocalClient(host, by="test")
    asyncio.run(client.load(SHOP, file="shop.flow"))
    yield client
    host.stop()


def completed(client: LocalClient, code: str, ns: str = "user") -> list[str]:
    reply = asyncio.run(complete(client, code, len(code), ns))
    assert code[: reply["cursor_start"]] + code[reply["cursor_start"] :] == code
    return list(reply["matches"])


def test_completion_offers_locals_before_names(client: LocalClient) -> None:
    assert completed(client, "(defn f [price & prices] (let [priority 1] (map pri")[:3] == ["price", "prices", "priority"]


def test_completion_knows_namespaces_special_forms_and_keywords_in_use(client: LocalClient) -> None:
    assert completed(client, "(shop/pri") == ["shop/price-of"]
    assert completed(client, "(price-", "shop") == ["price-of"]
    assert "defflow" in completed(client, "(deff")
    assert completed(client, "{:net-") == [":net-price"]
    assert completed(client, "{:net-total 1 :net-") == [":net-total", ":net-price"]


def shown(client: LocalClient, code: str) -> dict[str, Any]:
    reply = asyncio.run(inspect(client, code, len(code), "user"))
    assert reply["found"], code
    return dict(reply["data"])


def test_inspection_shows_calls_text_and_example(client: LocalClient) -> None:
    text = shown(client, "str/join")["text/plain"]
    assert "(str/join separator coll)" in text and "with a separator between" in text and '(str/join ", " [1 2]) ;=> "1, 2"' in text
    assert "(shop/price-of {:keys [sku]})" in shown(client, "shop/price-of")["text/plain"]


def test_inspection_knows_special_forms(client: LocalClient) -> None:
    assert "Binds names" in shown(client, "let")["text/markdown"]
