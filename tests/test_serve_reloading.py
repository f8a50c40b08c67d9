"""What the service does where an index that it is to take in is away or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import error_of
from starlette.testclient import TestClient

from gram.serve.app import make_app
from gram.serve.run import _take_in
from gram.shop import Shop


def test_an_index_that_is_away_is_told(client: TestClient, shop: Shop) -> None:
    folder = shop.live.folder
    folder.rename(folder.with_name("away"))
    error = error_of(client.post("/reload"), 503)
    folder.with_name("away").rename(folder)
    assert str(folder) in error["message"]
    assert client.post("/reload").json()["reloaded"] is False


def test_what_cannot_be_taken_in_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> bool:
        raise OSError("the folder is away")

    told = _take_in(fail)
    assert _take_in(fail, told) == told
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("name", "code"), [("index/dense.npy", "no_index"), ("model/lexicon.jsonl", "no_model")])
def test_a_damaged_file_is_told_at_a_reload_and_the_shop_goes_on(index_folder: Path, name: str, code: str) -> None:
    shop = Shop.open(index_folder, index_folder.with_name("model"))
    damaged = index_folder.parent / name
    whole = damaged.read_bytes()
    try:
        with TestClient(make_app(shop), "http://127.0.0.1") as client:
            damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            error = error_of(client.post("/reload"), 503)
            assert error["code"] == code
            assert str(damaged) in error["message"]
            assert client.get("/search?q=sofa").json()["hits"]
            damaged.write_bytes(whole)
            assert client.post("/reload").json() == {"reloaded": False, "products": len(shop)}
    finally:
        shop.close()
