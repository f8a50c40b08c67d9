"""What the service takes: products, their codes, attributes, rules and clicks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from asking import error_of
from starlette.testclient import TestClient

from gram.records import Product
from gram.serve.app import make_app
from gram.shop import Shop


def test_read_after_write(client: TestClient) -> None:
    for number in range(30):
        product = {"title": f"Zumbrel{number} navy sofa", "price": number, "stock": "3"}
        assert client.put(f"/products/z{number % 7}", json=product).status_code in (200, 201)
        hits = client.get("/search", params={"q": f"zumbrel{number}", "limit": 1}).json()["hits"]
        assert hits[0]["product_id"] == f"z{number % 7}"
        found = client.get("/search", params={"filter": f"price = {number} AND stock = 3"}).json()["hits"]
        assert f"z{number % 7}" in [hit["product_id"] for hit in found]
    assert client.patch("/products/z1", json={"price": 999, "stock": None}).json()["price"] == 999
    assert "stock" not in client.get("/products/z1").json()
    assert client.get("/search", params={"filter": "price = 999"}).json()["found"] == 1
    assert client.delete("/products/z1").json() == {"deleted": "z1"}
    error_of(client.get("/products/z1"), 404)
    error_of(client.delete("/products/z1"), 404)
    error_of(client.patch("/products/z1", json={"price": 1}), 404)


def test_a_patch_reads_names_as_a_body_does(client: TestClient) -> None:
    client.put("/products/p1", json={"title": "Kayak", "colour": "blue", "attributes": {"brand": "inner"}})
    assert client.patch("/products/p1", json={"Price": 5}).json()["price"] == 5
    patched = client.patch("/products/p1", json={"attributes": {"colour": "red", "brand": "other"}}).json()
    assert (patched["colour"], patched["attributes"], patched["price"]) == ("red", {"brand": "other"}, 5)
    patched = client.patch("/products/p1", json={"brand": "Outer", "colour": None}).json()
    assert patched == {
        "product_id": "p1", "title": "Kayak", "brand": "Outer", "price": 5, "attributes": {"brand": "other"},
    }  # fmt: skip
    error_of(client.patch("/products/p1", json={"title": None}), 400)
    for attributes in ("red", False, [], 0):
        error_of(client.patch("/products/p1", json={"attributes": attributes}), 400)
    client.delete("/products/p1")


def test_null_takes_any_field_away_and_attributes_all_of_them(client: TestClient, shop: Shop) -> None:
    filled = {
        "title": "Kayak", "brand": "Outer", "category": "Boats > Kayaks", "description": "For two.", "price": 5,
        "value": 2, "colour": "blue", "stock": 3, "attributes": {"brand": "inner"},
    }  # fmt: skip
    for name in ("brand", "category", "description", "price", "value", "colour", "stock"):
        whole = client.put("/products/p1", json=filled).json()
        left = {field: value for field, value in whole.items() if field != name}
        assert client.patch("/products/p1", json={name: None}).json() == left
        shop.update([Product("p1", "Kayak")])
        assert shop.patch("p1", {name: 7}) != Product("p1", "Kayak")
        assert shop.patch("p1", {name: None}) == Product("p1", "Kayak")
    client.put("/products/p1", json=filled)
    bare = {name: filled[name] for name in ("title", "brand", "category", "description", "price", "value")}
    assert client.patch("/products/p1", json={"attributes": None}).json() == {"product_id": "p1", **bare}
    assert client.patch("/products/p1", json={"attributes": None}).json() == {"product_id": "p1", **bare}
    client.put("/products/p1", json=filled)
    assert shop.patch("p1", {"attributes": None, "size": 5, "colour": None}).attributes == {"size": ("5",)}
    assert shop.patch("p1", {"attributes": {}}).attributes == {"size": ("5",)}, "an empty map names nothing"
    assert client.patch("/products/p1", json={"attributes": {"size": None, "colour": "red"}}).json()["colour"] == "red"
    assert shop.product("p1").attributes == {"colour": ("red",)}  # type: ignore[union-attr]
    for name in ("title", "Title", "product_id"):
        told = error_of(client.patch("/products/p1", json={name: None}), 400)
        assert (name in told["message"], "leave it out" in told["fix"]) == (True, True)
    client.delete("/products/p1")


def test_a_patch_leaves_what_it_does_not_name(shop: Shop) -> None:
    """Also attributes whose names are other names of a field, and values with the mark that parts values in files."""
    attributes = {"manufacturer": ("Acme",), "Brand": ("x",), "keywords": ("a|b", "c"), "name": ("n",), "sku": ("s",)}
    shop.update([Product("p1", "Kayak", attributes=attributes)])
    assert shop.patch("p1", {"price": 5}) == Product("p1", "Kayak", price=5.0, attributes=attributes)
    assert shop.patch("p1", {"manufacturer": "Other"}).attributes == attributes | {"manufacturer": ("Other",)}
    assert shop.patch("p1", {"Price": 6, "attributes": {"sku ": None}}).attributes == {
        name: values for name, values in (attributes | {"manufacturer": ("Other",)}).items() if name != "sku"
    }
    shop.update([Product("p1", "Kayak")])
    assert shop.patch("p1", {"manufacturer": "Acme"}).brand == "Acme", "as of a column of a file"
    shop.delete(["p1"])


def test_a_patch_knows_a_field_by_its_other_names_whatever_the_product_has(client: TestClient, shop: Shop) -> None:
    client.put("/products/p1", json={"name": "Blue lamp", "unit_price": 5, "manufacturer": "Acme"})
    lamp = {"product_id": "p1", "title": "Blue lamp", "brand": "Acme", "price": 4}
    assert client.patch("/products/p1", json={"unit_price": 4}).json() == lamp
    assert client.patch("/products/p1", json={"name": "Red lamp"}).json() == lamp | {"title": "Red lamp"}
    told = error_of(client.patch("/products/p1", json={"name": None}), 400)
    assert "every product needs a title" in told["message"]
    assert client.patch("/products/p1", json={"manufacturer": None}).json().keys() == lamp.keys() - {"brand"}
    both = client.patch("/products/p1", json={"unit_price": 3, "price": 2, "sku": "s"}).json()
    assert (both["price"], both["unit_price"], both["sku"]) == (2, "3", "s"), "as a whole product that says both"
    assert client.patch("/products/p1", json={"unit_price": 9}).json()["unit_price"] == "9", "an attribute by now"
    client.delete("/products/p1")


def test_a_product_without_a_title_is_told_to_have_one(client: TestClient) -> None:
    fixes = [
        client.post("/products", json=[{"product_id": "x"}]).json()["rejected"][0]["error"].partition("Fix: ")[2],
        error_of(client.put("/products/x", json={"brand": "Aldo"}), 400)["fix"],
    ]
    assert fixes == ["name the column that holds it 'title', or add one."] * 2
    assert "Fix: send a JSON object" in client.post("/products", content=b"x").json()["rejected"][0]["error"]


def test_many_products_and_what_is_wrong_with_some(client: TestClient, shop: Shop) -> None:
    lines = [json.dumps({"product_id": f"m{i}", "title": f"Many thing {i}"}) for i in range(450)]
    lines[3], lines[9], lines[20] = "{broken", json.dumps({"product_id": "", "title": "x"}), '["no", "object"]'
    answer = client.post("/products", content="\n".join(lines)).json()
    assert (answer["accepted"], answer["rejected_count"]) == (447, 3)
    assert [row["line"] for row in answer["rejected"]] == [4, 10, 21]
    assert "no product_id" in answer["rejected"][1]["error"]
    assert shop.product("m449") is not None
    again = client.post("/products", json=[{"product_id": "m0", "title": "Other"}, {"title": "no id"}]).json()
    assert (again["accepted"], again["rejected"][0]["line"]) == (1, 2)
    assert shop.product("m0").title == "Other"  # type: ignore[union-attr]


def test_a_line_that_is_too_long_is_rejected_like_others(client: TestClient, shop: Shop) -> None:
    lines = [json.dumps({"product_id": key, "title": "Long thing"}) for key in ("l1", "l2", "l3/codes")]
    lines.insert(1, json.dumps({"product_id": "long", "title": "x" * 2_500_000}))

    def parts() -> Iterator[bytes]:
        text = "\n".join(lines).encode()
        yield from (text[at : at + 100_000] for at in range(0, len(text), 100_000))

    answer = client.post("/products", content=parts()).json()
    assert (answer["accepted"], [row["line"] for row in answer["rejected"]]) == (2, [2, 4])
    assert "more than 1,000,000 bytes" in answer["rejected"][0]["error"]
    assert "address of a product's codes" in answer["rejected"][1]["error"]
    assert shop.product("l2") is not None
    shop.delete(["l1", "l2"])


def test_codes_of_a_product_are_given_and_taken(client: TestClient) -> None:
    assert client.put("/products/code%2F1", json={"title": "Zumbrelia sofa"}).status_code == 201
    assert client.put("/products/code%2F1/codes/colour/black").json() == {"given": "colour: black"}
    assert client.delete("/products/code%2F1/codes/type/sofas").json() == {"taken": "type: sofa"}
    answer = client.get("/products/code%2F1/codes").json()
    assert {"colour: black": "given"}.items() <= {one["code"]: one["source"] for one in answer["codes"]}.items()
    assert answer["taken"] == ["type: sofa"]
    assert client.delete("/products/code%2F1/codes/type/sofa?neutral=true").json() == {"neutral": "type: sofa"}
    assert client.get("/products/code%2F1/codes").json()["taken"] == []
    found = client.get("/search", params={"q": "black", "explain": "1", "limit": 1000}).json()["hits"]
    codes = next(hit for hit in found if hit["product_id"] == "code/1")["codes"]
    assert ("colour: black", "given") in {(code["code"], code["product"]) for code in codes}
    error_of(client.put("/products/unknown/codes/colour/black"), 404)
    error_of(client.get("/products/unknown/codes"), 404)
    assert "no code colour: qqq" in error_of(client.put("/products/code%2F1/codes/colour/qqq"), 400)["message"]
    assert client.delete("/products/code%2F1").json() == {"deleted": "code/1"}


def test_an_attribute_is_added_while_it_serves(client: TestClient) -> None:
    client.put("/products/va", json={"title": "Novabrand Vantor sofa"})
    added = client.put("/attributes/brand/Novabrand%20vantor")
    assert added.status_code == 201
    assert (added.json()["attribute"], added.json()["new"]) == ("brand: novabrand vantor", True)
    assert added.json()["coded_anew"] > 1, "those near it as well"
    found = client.get("/search", params={"filter": 'code = "brand: novabrand vantor"', "limit": 1000}).json()["hits"]
    assert "va" in [hit["product_id"] for hit in found]
    suggested = TestClient(make_app(client.app.state.service.shop), "http://127.0.0.1")  # type: ignore[attr-defined]
    assert "novabrand vantor" in [s["text"] for s in suggested.get("/suggest?q=vant").json()["suggestions"]]
    again = client.put("/attributes/brand/novabrand%20vantor")
    assert (again.status_code, again.json()["new"]) == (200, False)
    assert "type: sofa already" in error_of(client.put("/attributes/colour/sofa"), 400)["message"]
    assert "no slot 'flavour'" in error_of(client.put("/attributes/flavour/mint"), 400)["message"]
    client.delete("/products/va")


def test_a_rule_is_put_back_mended_as_it_was_shown(client: TestClient, shop: Shop) -> None:
    """What was told of it, an error or warnings, is left out."""
    shop.store.put("rule", "back", {"action": "hide", "query": "lamp", "filter": "EXISTS code"})
    shown = client.get("/rules/back").json()
    assert "EXISTS code" in shown["filter"]
    error_of(client.put("/rules/back", json=shown), 400)
    mended = shown | {"filter": 'brand = "Nobody & Co"'}
    assert "error" in mended
    answered = client.put("/rules/back", json=mended).json()
    assert answered["warnings"]
    assert "error" not in answered
    again = client.put("/rules/back", json=answered | {"filter": "EXISTS brand"})
    kept = {"action": "hide", "query": "lamp", "filter": "EXISTS brand"}
    assert (again.json(), client.get("/rules/back").json()) == (kept | {"warnings": []}, kept)
    tried = client.post("/rules/try", json={"q": "lamp", "rules": [{"id": "back", **answered}]})
    assert tried.status_code == 200
    client.delete("/rules/back")


def test_rules_are_kept_tried_and_taken_out(client: TestClient) -> None:
    first = client.get("/search", params={"q": "lamp"}).json()["hits"][0]["product_id"]
    hide = {"action": "hide", "query": "lamps", "products": [first]}
    tried = client.post("/rules/try", json={"q": "lamp", "rules": [{"id": "h", **hide}]}).json()
    assert tried["before"]["hits"][0]["product_id"] == first
    assert tried["after"]["hits"][0]["product_id"] != first
    assert tried["after"]["rules"] == ["h"]
    assert client.get("/search", params={"q": "lamp"}).json()["hits"][0]["product_id"] == first, "not published"
    assert client.put("/rules/h", json=hide).json() == hide | {"warnings": []}
    assert client.get("/rules").json() == {"rules": {"h": hide}}
    assert client.get("/rules/h").json() == hide
    assert client.get("/search", params={"q": "lamp"}).json()["hits"][0]["product_id"] != first
    client.put("/rules/r", json={"action": "redirect", "query": "stores", "target": "/stores"})
    assert client.get("/search", params={"q": "stores"}).json()["redirect"] == "/stores"
    assert client.delete("/rules/h").json() == {"deleted": "h"}
    client.delete("/rules/r")
    error_of(client.get("/rules/h"), 404)


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "pin", "query": "x"}, {"action": "bury", "code": "type: sofa"}, {"action": "filter", "query": "x"},
        {"action": "redirect", "query": "x"}, {"action": "synonym", "query": "x"},
    ],
)  # fmt: skip
def test_a_rule_with_what_the_fix_adds_is_kept(client: TestClient, rule: dict[str, str]) -> None:
    fix = error_of(client.put("/rules/x", json=rule), 400)["fix"]
    for example in fix.removeprefix("add them as in ").split(" or "):
        assert client.put("/rules/x", json=rule | json.loads(f"{{{example}}}")).status_code == 200
    client.delete("/rules/x")


def test_clicks_become_a_log(client: TestClient) -> None:
    for product_id in ("ca", "cb"):
        client.put(f"/products/{product_id}", json={"title": "Clicked lamp"})
    answer = client.post("/clicks", json={"query": "velvet\tsofa", "product_id": "ca"})
    assert answer.json() == {"accepted": 1, "rejected": 0}
    known = {"query": "zumbrelish", "product_id": "cb", "weight": 2, "kind": "purchase"}
    answer = client.post("/clicks", json=[known, {"query": "zumbrelish", "product_id": "never there"}])
    assert answer.json() == {"accepted": 1, "rejected": 1}
    told = client.get("/openapi.json").json()["paths"]["/clicks"]["post"]["responses"]["201"]["content"]
    assert set(told["application/json"]["schema"]["required"]) == answer.json().keys()
    rows = [row.split("\t") for row in client.get("/log").text.splitlines()]
    assert rows[0] == ["query", "product_id", "weight", "user_id", "timestamp"]
    assert ["velvet sofa", "ca", "1", "", ""] in rows
    assert ["zumbrelish", "cb", "2", "", ""] in rows
    assert "never there" not in str(rows)
    error_of(client.post("/clicks", json={"query": "x"}), 400)
    error_of(client.post("/clicks", json={"query": "x", "product_id": "a", "weight": -1}), 400)


def test_a_merge_that_fails_is_told(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    from gram.serve.changes import Changes

    changes = Changes(client.app.state.service)  # type: ignore[attr-defined]
    failed = subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])
    failed.wait()
    changes._merging = failed
    changes._merge_if_due()
    assert "a merge failed (2)" in caplog.text


def test_the_start_of_the_pages_on_http_is_true(client: TestClient) -> None:
    page = (Path(__file__).parent.parent / "docs" / "http.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    options = {"-X": "method", "-d": "body", "--data-urlencode": "filter"}
    answers = []
    for line in block.splitlines():
        _, *words = shlex.split(line)
        given = [(options[o], value) for o, value in pairwise(words) if o in options]
        address = next(word for word in words if word.startswith("localhost:8000/")).removeprefix("localhost:8000")
        if "-G" in words:
            answers.append(client.get(address, params=dict(value.split("=", 1) for _, value in given)))
        else:
            told = dict(given)
            answers.append(client.request(told["method"], address, content=told["body"]))
    assert [answer.status_code for answer in answers] == [201, 200, 200, 201, 200], [a.text for a in answers]
    assert answers[2].json()["warnings"] == []
    assert answers[3].json() == {"accepted": 1, "rejected": 0}
    found = answers[4].json()
    assert (found["hits"][0]["product_id"], found["hits"][0]["price"], found["rules"]) == ("a1", 449, ["velvet"])
    assert (found["facets"]["brand"]["Aldo"], found["warnings"]) == (1, [])
    assert client.delete("/rules/velvet").is_success
    assert client.delete("/products/a1").is_success
