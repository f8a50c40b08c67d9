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


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), sqlite3.OperationalError("database or disk is full")]
)
def test_a_full_disk_is_told_by_its_name(client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Store, "append_clicks", full)
    click = {"query": "sofa", "product_id": next(iter(client.get("/search?q=sofa").json()["hits"]))["product_id"]}
    told = error_of(client.post("/clicks", json=click), 507)
    assert (told["code"], told["fix"]) == ("disk_full", "free some space and send it again; no restart is needed")


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
