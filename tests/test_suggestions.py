"""What is suggested while someone types."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from asking import PATIENCE
from starlette.testclient import TestClient

from gram.serve import suggestions
from gram.serve.app import make_app
from gram.shop import Shop


def test_suggestions_complete_and_forgive_typos(client: TestClient) -> None:
    texts = [s["text"] for s in client.get("/suggest", params={"q": "sof"}).json()["suggestions"]]
    assert "sofa" in texts
    assert client.get("/suggest", params={"q": ""}).json() == {"suggestions": []}
    typed = [s["text"] for s in client.get("/suggest", params={"q": "blakc"}).json()["suggestions"]]
    assert "black" in typed


def test_suggestions_that_cannot_be_read_are_tried_ever_more_rarely(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, waits, asked = 1000.0, [], 0
    monkeypatch.setattr(suggestions, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(suggestions, "threading", SimpleNamespace(Lock=threading.Lock, Thread=_AtOnce))
    known = suggestions.Suggestions(shop)
    read = known._read

    def fail() -> None:
        nonlocal asked
        asked += 1
        raise OSError("the disk is gone")

    monkeypatch.setattr(known, "_read", fail)
    for tries in range(1, 10):
        assert known.complete("sof") == []
        assert asked == tries
        known.complete("sofa")  # the next key
        assert asked == tries
        waits.append(known._read_from - now)
        now = known._read_from
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    monkeypatch.setattr(known, "_read", read)
    known.complete("sof")
    assert "sofa" in dict(known.complete("sof"))
    monkeypatch.setattr(known, "_read", fail)
    monkeypatch.setattr(known, "_version", lambda: (10_000, 0))
    now = known._read_from
    assert "sofa" in dict(known.complete("sof")), "what was read before"
    assert known._read_from - now == 10


def test_what_is_typed_without_marks_is_suggested_with_them() -> None:
    known = suggestions._Known.of((0, 0), {"łódź lamp": 2.0, "crème brûlée dish": 1.0, "lodge": 1.0}, {"Straße sign"})
    assert [text for text, _ in known.complete("lod")] == ["łódź lamp", "lodge"]
    assert [text for text, _ in known.complete("łód")] == ["łódź lamp", "lodge"]
    assert [text for text, _ in known.complete("brul")] == ["crème brûlée dish"]
    assert [text for text, _ in known.complete("cremr brul")] == ["crème brûlée dish"]


def test_a_typo_behind_a_negation_leads_to_no_opposite() -> None:
    short = {"boots with laces": 9.0, "boots without laces": 1.0}
    known = suggestions._Known.of((0, 0), short, set(), frozenset(["without", "not"]))
    for typed in ("boots without l", "boot without lace", "boots without lcaes", "boots without lac3"):
        assert [text for text, _ in known.complete(typed)] == ["boots without laces"]
    assert known.complete("boots not laces") == []
    assert next(text for text, _ in known.complete("bots with laces")) == "boots with laces"


def test_behind_a_negation_what_has_it_is_suggested(shop: Shop, client: TestClient) -> None:
    """As docs/http.md has it: what searchers clicked for, and the opposite however often."""
    product_id = client.get("/search", params={"q": "sofa"}).json()["hits"][0]["product_id"]
    clicks = {"boots without laces": 1, "boots with laces": 9}
    for query, weight in clicks.items():
        sent = {"query": query, "product_id": product_id, "weight": weight}
        assert client.post("/clicks", json=sent).json()["accepted"] == 1
    known = suggestions.Suggestions(shop)
    for typed in ("boots without lcaes", "boots without l"):
        assert [text for text, _ in known.complete(typed)] == ["boots without laces"]


def test_suggestions_know_the_shops_negations(shop: Shop) -> None:
    known = suggestions.Suggestions(shop)
    assert known._read().negations == {"without", "not"}


class _AtOnce:
    """A thread that has run when it was started."""

    def __init__(self, target: Callable[[], None], daemon: bool) -> None:
        self.start = target


def test_suggestions_follow_the_products_and_the_clicks(
    client: TestClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A product takes another's place, so that there are as many as before."""

    def suggested(text: str) -> list[str]:
        return [s["text"] for s in client.get("/suggest", params={"q": text}).json()["suggestions"]]

    monkeypatch.setattr(suggestions, "EVERY", 0.0)
    monkeypatch.setattr(suggestions, "PAUSES", 0)
    client.put("/products/sg", json={"title": "Quandary Old lamp", "brand": "Quandabrand"})
    service = TestClient(make_app(shop), "http://127.0.0.1")
    assert service.get("/suggest?q=quand").json()["suggestions"][0]["text"] == "quandabrand", "brands before titles"
    client = service
    assert suggested("quandary o") == ["quandary old lamp"]
    client.put("/products/sg", json={"title": "Quandary new lamp"})
    client.post("/clicks", json={"query": "Velvet quandaries", "product_id": "sg"})
    suggested("quand")  # from here on it is read anew
    end = time.monotonic() + PATIENCE
    while suggested("quand") != ["velvet quandaries", "quandary new lamp"] and time.monotonic() < end:
        time.sleep(0.02)
    assert suggested("quand") == ["velvet quandaries", "quandary new lamp"]
    assert client.delete("/products/sg").status_code == 200
