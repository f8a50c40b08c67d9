"""What tells of the service: its metrics, its document, its page, and what breaks."""

from __future__ import annotations

import errno
import re
import sqlite3
import sys
from functools import partial
from typing import Any

import pytest
from asking import error_of
from starlette.testclient import TestClient

from gram.errors import ModelError
from gram.index.store import Store
from gram.live import LiveIndex
from gram.serve.run import _take_in
from gram.serve.statistics import TIMED, Statistics
from gram.shop import Shop


def test_what_watches_the_service(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json()["status"] == "ready"
    metrics = client.get("/metrics").text
    assert "gram_requests_total" in metrics
    if sys.platform == "linux":
        (memory,) = re.findall("^process_resident_memory_bytes (.*)", metrics, re.M)
        assert 1e7 < float(memory) < 1e11
    client.get("/search?q=sofa")
    stats = client.get("/stats").json()
    assert stats["top"] == [["sofa", 1]]
    assert stats["searches"] == stats["timed"] == 1
    assert client.get("/openapi.json").json()["openapi"] == "3.1.0"
    assert client.post("/reload").json()["reloaded"] is False


def test_statistics_say_of_how_many_searches_the_times_are() -> None:
    statistics = Statistics()
    for number in range(TIMED + 5):
        statistics.note_search("", 1, float(number >= TIMED))
    report = statistics.report()
    assert (report["searches"], report["timed"]) == (TIMED + 5, TIMED)


def test_every_route_is_in_the_openapi_document(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for route in client.app.routes:  # type: ignore[attr-defined]
        path = route.path.replace(":path", "")
        if path not in ("/", "/page/{name}", "/openapi.json"):
            assert {method.lower() for method in route.methods - {"HEAD"}} == paths[path].keys(), path


def test_the_page_and_its_policy(client: TestClient) -> None:
    page = client.get("/")
    assert "text/html" in page.headers["content-type"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    for name in ("app.js", "codes.js", "tools.js", "team.js", "style.css"):
        assert client.get(f"/page/{name}").status_code == 200
        assert "innerHTML" not in client.get(f"/page/{name}").text
    for path in (
        "/page/../app.py",
        "/page/..%2Fapp.py",
        "/page/index",
        "/page/%2e%2e/keys.py",
        "/page/keys.py",
        "/page/index.html",
    ):
        assert client.get(path).status_code == 404, path


def test_what_breaks_is_counted_and_says_no_more_than_it_should(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(Shop, "search", broken)
    response = client.get("/search?q=sofa")
    assert error_of(response, 500)["code"] == "internal"
    assert "secret" not in response.text
    assert "a secret path" in caplog.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert 'gram_requests_total{route="/search",status="500"} 1.0' in client.get("/metrics").text


FULL = [
    OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded"),
    sqlite3.OperationalError("database or disk is full"),
]  # fmt: skip
NOT_FULL = [OSError(errno.EACCES, "Permission denied"), sqlite3.OperationalError("database is locked")]


def check_told(response: Any, error: Exception, kept: str) -> None:
    """That a full disk is told by its name, with what is kept, and any other error is not."""
    if error in FULL:
        told = error_of(response, 507)
        assert told["message"] == f"there is no space left on the service's disk: {kept}"
        assert (told["code"], told["fix"]) == ("disk_full", "free some space and send it again; no restart is needed")
    else:
        told = error_of(response, 500)
        assert (told["code"], told["message"]) == ("internal", "something broke; it is in the service's log")


@pytest.mark.parametrize("error", [*FULL, *NOT_FULL], ids=str)
def test_a_full_disk_is_told_by_its_name(client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Store, "append_clicks", fail)
    click = {"query": "sofa", "product_id": next(iter(client.get("/search?q=sofa").json()["hits"]))["product_id"]}
    check_told(client.post("/clicks", json=click), error, "nothing is kept of this")


@pytest.mark.parametrize("error", [*FULL, *NOT_FULL], ids=str)
def test_many_products_that_a_full_disk_cuts_off_are_told_how_many_are_written(
    client: TestClient, shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    write, parts = Store.write, iter([None, error])

    def fill(*args: Any) -> int:
        if (full := next(parts)) is not None:
            raise full
        return write(*args)

    monkeypatch.setattr(Store, "write", fill)
    sent = [{"product_id": f"full{number}", "title": "Full thing"} for number in range(250)]
    check_told(client.post("/products", json=sent), error, "200 products are written")
    assert str(error) in caplog.text
    assert [shop.product(f"full{number}") is not None for number in (0, 199, 200, 249)] == [True, True, False, False]
    monkeypatch.undo()
    assert client.post("/products", json=sent).json()["accepted"] == 250
    shop.delete(product["product_id"] for product in sent)


@pytest.mark.parametrize("error", [*FULL, *NOT_FULL], ids=str)
def test_an_attribute_stands_where_a_full_disk_cuts_off_what_is_coded_anew(
    client: TestClient, shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*_: Any) -> int:
        raise error

    monkeypatch.setattr(LiveIndex, "code_anew", fail)
    address = f"/attributes/brand/fullbrand{''.join(filter(str.isalpha, str(error))).lower()}"
    kept = "the attribute stands, and sending it again codes the rest of its products"
    check_told(client.put(address), error, kept)
    assert str(error) in caplog.text
    monkeypatch.undo()
    again = client.put(address)
    assert (again.status_code, again.json()["new"]) == (200, False)
    assert again.json()["coded_anew"] > 0


def test_what_cannot_be_taken_in_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """By its message, where that says what to do; with where it came from, where it does not."""

    def fail(error: Exception) -> bool:
        raise error

    told = ""
    for error in (ModelError("no scorer. Fix: train again"), ModelError("no scorer. Fix: train again"), OSError("odd")):
        told = _take_in(partial(fail, error), told)
    assert told == "OSError('odd')"
    said = [(record.getMessage(), bool(record.exc_info)) for record in caplog.records]
    told_of = "what was written anew cannot be taken in: "
    assert said == [(f"{told_of}no scorer. Fix: train again", False), (f"{told_of}odd", True)]


def test_a_store_that_is_taken_away_is_told_as_no_fault_of_the_request(client: TestClient, shop: Shop) -> None:
    store, click = shop.store.path, {"query": "sofa", "product_id": str(shop.live.searcher.index.table.ids[0])}
    store.rename(store.with_name("away"))
    try:
        told = client.post("/clicks", json=click)
        assert error_of(told, 503)["code"] == "index_unusable"
        assert told.headers["retry-after"]
        assert (client.get("/ready").status_code, client.get("/ready").json()["status"]) == (503, "store away")
        assert client.get("/search?q=sofa").status_code == 200
    finally:
        store.with_name("away").rename(store)
    assert client.get("/ready").json()["status"] == "ready"
    assert client.post("/clicks", json=click).status_code == 201
