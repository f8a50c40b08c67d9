"""Who may ask the service for what, from where, and how many at once."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from asking import error_of
from starlette.testclient import TestClient

from gram.errors import SettingError
from gram.index.store import Store
from gram.serve.app import make_app
from gram.serve.keys import make_key
from gram.serve.run import is_loopback
from gram.serve.service import ServeSettings
from gram.shop import Shop


def test_keys_and_roles(small_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    shop = Shop.open(tmp_path / "index", small_shop / "model")
    keys = {role: make_key(shop.store, role, role) for role in ("search", "write", "admin")}
    with pytest.raises(SettingError, match="already"):
        make_key(shop.store, "search", "search")
    with pytest.raises(SettingError, match="no role"):
        make_key(shop.store, "x", "root")
    assert not any(key in json.dumps(shop.store.all("key")) for key in keys.values())
    client = TestClient(make_app(shop, ServeSettings(public=True)))
    asks = {
        "search": [("GET", "/search?q=x", None), ("POST", "/clicks", {"query": "x", "product_id": "a"})],
        "write": [("PUT", "/products/a", {"title": "x"}), ("DELETE", "/products/a", None)],
        "admin": [("GET", "/rules", None), ("GET", "/log", None), ("GET", "/stats", None), ("POST", "/reload", None)],
    }
    order = list(asks)
    for needed, requests in asks.items():
        for method, path, body in requests:
            error_of(client.request(method, path, json=body), 401)
            error_of(client.request(method, path, json=body, headers={"Authorization": "Bearer no"}), 401)
            for role, key in keys.items():
                status = client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"}).status_code
                assert (status < 400) == (order.index(role) >= order.index(needed)) or status == 404, (role, path)
    assert client.get("/health").status_code == 200
    shop.close()


def test_keys_are_read_once_a_second_and_off_the_event_loop(
    small_shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    shop = Shop.open(tmp_path / "index", small_shop / "model")
    key, read = make_key(shop.store, "page", "search"), Store.all
    loops: list[bool] = []

    def note(store: Store, kind: str) -> Any:
        if kind == "key":
            loops.append(asyncio._get_running_loop() is not None)
        return read(store, kind)

    monkeypatch.setattr(Store, "all", note)
    client = TestClient(make_app(shop), "http://127.0.0.1", headers={"Authorization": f"Bearer {key}"})
    assert [client.get("/suggest?q=").status_code for _ in range(9)] == [200] * 9
    assert set(loops) == {False}
    assert len(loops) < 9, "some seconds may have passed"
    shop.store.remove("key", "page")
    shop.store.put("key", "other", {"role": "admin", "hash": ""})
    time.sleep(1)
    assert client.get("/suggest?q=").status_code == 401
    shop.close()


def test_pages_of_other_sites_may_not_write(client: TestClient) -> None:
    click = {"query": "sofa", "product_id": "a"}
    evil = {"Origin": "https://evil.example"}
    assert error_of(client.put("/products/a", json={"title": "x"}, headers=evil), 403)["code"] == "bad_origin"
    assert error_of(client.get("/search?q=x", headers={"Host": "evil.example"}), 403)["code"] == "bad_host"
    assert client.post("/clicks", json=click, headers={"Origin": "http://127.0.0.1"}).status_code == 201
    assert error_of(client.post("/clicks", json=click, headers=evil), 403)["code"] == "bad_origin"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("shop.example", False)],
)
def test_which_addresses_are_this_machines_own(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_read_only_service_takes_no_changes(small_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    shop = Shop.open(tmp_path / "index", small_shop / "model", read_only=True)
    client = TestClient(make_app(shop), "http://127.0.0.1")
    assert error_of(client.put("/products/a", json={"title": "x"}), 403)["code"] == "read_only"
    assert client.get("/search?q=sofa").json()["hits"]
    shop.close()


@pytest.mark.parametrize(("kind", "searches", "changes"), [("reads", 503, 201), ("writes", 200, 503)])
def test_too_many_at_once_are_told_to_come_again(client: TestClient, kind: str, searches: int, changes: int) -> None:
    """A flood of changes turns no search away, nor the other way round."""
    there = client.app.state.service.there  # type: ignore[attr-defined]
    there[kind] = 10_000
    click = {"query": "sofa", "product_id": "a"}
    answers = [client.get("/search?q=x"), client.post("/clicks", json=click)]
    there[kind] = 0
    assert [answer.status_code for answer in answers] == [searches, changes]
    refused = answers[0 if searches == 503 else 1]
    assert error_of(refused, 503)["code"] == "busy"
    assert refused.headers["retry-after"] == "1"
