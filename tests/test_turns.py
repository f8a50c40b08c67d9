"""Changes that come at once: the order in which they are made, and which go together."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable

import httpx
import pytest
from asking import PATIENCE

from gram.errors import SettingError
from gram.records import Product
from gram.serve.app import make_app
from gram.shop import Shop

Sent = tuple[str, str, dict[str, str] | None]
"""Method, product id and body."""


def send_together(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, requests: list[Sent], fail: Callable[[list[Product]], None]
) -> tuple[list[httpx.Response], list[list[str]]]:
    """The answers to changes that are all sent, in this order, before the first is written; and which products were
    written together. `fail` raises where the shop is to."""
    update, written, turn = shop.update, list[list[str]](), threading.Event()

    def slow(products: Iterable[Product]) -> int:
        rows = list(products)
        written.append([row.product_id for row in rows])
        turn.wait(PATIENCE)
        fail(rows)
        return update(rows)

    async def send_all() -> list[httpx.Response]:
        app = make_app(shop)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            asked = []
            for method, key, body in requests:
                asked.append(asyncio.ensure_future(client.request(method, f"/products/{key}", json=body)))
                while app.state.service.there["writes"] < len(asked):  # until it waits for its turn
                    await asyncio.sleep(0.001)
            while not written:
                await asyncio.sleep(0.01)
            turn.set()
            return await asyncio.gather(*asked)

    monkeypatch.setattr(shop, "update", slow)
    return asyncio.run(send_all()), written


def refuse(title: str, error: Exception) -> Callable[[list[Product]], None]:
    def fail(rows: list[Product]) -> None:
        if any(row.title == title for row in rows):
            raise error

    return fail


def test_products_that_wait_are_written_together(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"wait{i}" for i in range(20)]
    sent: list[Sent] = [("PUT", key, {"title": f"Waiting Kayak {key}"}) for key in keys]
    answers, written = send_together(shop, monkeypatch, sent, lambda rows: None)
    assert [answer.status_code for answer in answers] == [201] * 20
    assert [key for part in written for key in part] == keys
    assert len(written) == 2
    assert set(keys) <= {hit.product_id for hit in shop.search("waiting kayak", limit=30).hits}
    shop.delete(keys)


@pytest.mark.parametrize(("error", "status"), [(SettingError("refused"), 400), (sqlite3.OperationalError("full"), 500)])
def test_what_fails_for_one_product_fails_for_no_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    titles = {"first": "Kayak", "good1": "Kayak", "bad": "Refused", "good2": "Kayak"}
    sent: list[Sent] = [("PUT", key, {"title": title}) for key, title in titles.items()]
    answers, _ = send_together(shop, monkeypatch, sent, refuse("Refused", error))
    assert [answer.status_code for answer in answers] == [201, 201, status, 201]
    assert [shop.product(key) is not None for key in titles] == [True, True, False, True]
    shop.delete(titles)


def test_changes_are_made_in_the_order_in_which_they_come(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Sent] = [
        ("PUT", "order", {"title": "Kayak"}),
        ("PUT", "order", {"title": "Canoe"}),
        ("DELETE", "order", None),
        ("PUT", "order", {"title": "Raft"}),
        ("PATCH", "order", {"price": "9"}),
    ]
    answers, _ = send_together(shop, monkeypatch, sent, lambda rows: None)
    assert [answer.status_code for answer in answers][1:] == [201, 200, 201, 200]
    product = shop.product("order")
    assert product is not None
    assert (product.title, product.price) == ("Raft", 9.0)
    shop.delete(["order"])
