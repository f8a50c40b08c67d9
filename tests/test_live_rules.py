"""Rules steer a live shop as long as they are in force, whoever else reads or writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import ids
from starlette.testclient import TestClient

from gram.index.filters import DEEPEST
from gram.serve.app import make_app
from gram.shop import Shop


def test_rules_steer(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    first, second, third = ids(shop, "black sofa")[:3]
    shop.put_rule("pin", {"action": "pin", "query": "black sofas", "products": [third]})
    shop.put_rule("hide", {"action": "hide", "query": "black sofa", "products": [first]})
    result = shop.search("black sofa")
    assert [h.product_id for h in result.hits[:2]] == [third, second]
    assert sorted(result.rules) == ["hide", "pin"]
    shop.put_rule("bury", {"action": "bury", "query": "black sofa", "products": [second]})
    result = shop.search("black sofa", limit=1000)
    assert result.hits[result.found - 1].product_id == second, "last of what fits"
    shop.close()
    again = Shop.open(index_folder)
    assert ids(again, "black sofa")[0] == third
    assert again.remove_rule("pin")
    assert sorted(again.search("black sofa").rules) == ["bury", "hide"]
    again.close()


def test_a_hiding_filter_as_deep_as_a_filter_may_be_hides(index_folder: Path) -> None:
    """It is not written into another one, which could then not be read: every search that met it would fail."""
    shop = Shop.open(index_folder)
    first = ids(shop, "black sofa")[0]
    shop.put_rule("hide", {"action": "hide", "query": "black sofa", "filter": "NOT " * (DEEPEST - 1) + "stock > 3"})
    assert ids(shop, "black sofa") == [], "an odd number of NOTs: no product has a stock"
    shop.put_rule("hide", {"action": "hide", "query": "black sofa", "filter": "NOT " * (DEEPEST - 2) + "stock > 3"})
    assert ids(shop, "black sofa")[0] == first
    shop.close()


def test_rules_that_were_put_are_not_taken_in_again(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    for rule_id in ("b", "c", "a", "b"):
        shop.put_rule(rule_id, {"action": "hide", "query": "sofa", "products": ["x"]})
        answer = shop.search("black sofa")
        assert not shop.refresh()
        assert shop.search("black sofa").hits[0] is answer.hits[0]
    shop.close()


def test_a_rule_that_comes_while_others_are_taken_in_stays(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop.open(index_folder)
    hide = {"action": "hide", "query": "sofa", "products": ["a"]}

    def meanwhile() -> bool:
        shop.put_rule("h", hide)
        return False

    monkeypatch.setattr(shop.live, "refresh", meanwhile)
    shop.refresh()
    assert [rule.rule_id for rule in shop.rules()] == ["h"]
    shop.close()


def test_a_kept_rule_that_cannot_be_read_is_passed_over_and_told_once(
    index_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop.open(index_folder)
    shop.put_rule("good", {"action": "hide", "query": "sofa", "filter": "EXISTS brand"})
    odd = {"action": "hide", "query": "sofa", "filter": "EXISTS code"}
    for rule_id, data in (("odd", odd), ("later", {"action": "praise"}), ("damaged", [])):
        shop.store.put("rule", rule_id, data)  # type: ignore[arg-type]
    shop.close()
    again = Shop.open(index_folder)
    assert [rule.rule_id for rule in again.rules()] == ["good"]
    again.refresh()
    assert len(caplog.messages) == 1, "in one line"
    assert "'damaged'" in caplog.text
    assert "(3 rules are passed over;" in caplog.text
    with TestClient(make_app(again), "http://127.0.0.1") as client:
        kept = client.get("/rules").json()["rules"]
        monkeypatch.setattr(again.store, "all", lambda kind: pytest.fail(f"every {kind} is read for one"))
        for rule_id, rule in kept.items():
            assert client.get(f"/rules/{rule_id}").json() == rule
        assert client.get("/rules/none").status_code == 404
    assert "error" not in kept["good"]
    assert kept["odd"].pop("error").endswith("or remove the rule")
    assert (kept["odd"], kept["later"]["error"][:42]) == (odd, "rule 'later': action is 'praise'. Fix: cho")
    assert list(kept["damaged"]) == ["error"]
    assert again.remove_rule("odd"), "it is there to be removed"
    again.close()
