"""What Python hands over is read as what HTTP sends: both refuse the same, and keep the same of the rest."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import error_of
from starlette.testclient import TestClient

from gram.answer import MOST_NAMES, SearchRequest
from gram.data.catalogue import check_products, read_products, write_products
from gram.errors import BadRow, GramError, SettingError
from gram.indexing import make_index
from gram.records import Product
from gram.rules import RuleError
from gram.search import Searcher
from gram.shop import Shop
from gram.training.pipeline import train

REFUSED: list[tuple[str, Any]] = [
    *(("title", value) for value in (None, "", " \n", "\u200b", ["a"], {"a": 1}, "x" * 10_001)),
    *(("price", value) for value in (-1, "cheap", "nan", True, [1], {}, "1,000", 10**400)),
    *(("value", value) for value in (False, "x", [], "inf")),
    *((name, value) for name in ("brand", "description") for value in (["a"], {})),
    *(("category", value) for value in (["a"] * 51, [["a"]], {"a": 1})),
    *(("attributes", value) for value in ("red", 5, False, ["a"], {"colour": {"a": 1}}, {"colour": [["red"]]})),
]
"""A field, and what no way in takes."""

READ: list[tuple[str, Any]] = [
    ("title", 501), ("title", " two\nlines "), ("title", "half \ud83d"), ("price", "9.50"), ("price", 9),
    ("price", None), ("value", " 3e2"), ("brand", None), ("brand", 4711), ("category", "A > B"),
    ("category", ["A", "B "]),
    ("category", None), ("category", [1, 2]), ("description", None), ("attributes", None),
    *(("attributes", {"size": value}) for value in ("red", "red|blue", ["red|blue"], 5, [5, True], None, [None], [])),
]  # fmt: skip
"""A field, and what is not as it is kept, but read as it."""


def product_with(field: str, value: Any) -> Product:
    return Product(**({"product_id": "z", "title": "Zumbrel sofa"} | {field: value}))


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_what_http_refuses_python_refuses(shop: Shop, client: TestClient, field: str, value: Any) -> None:
    told = error_of(client.put("/products/z", json={"title": "Zumbrel sofa"} | {field: value}), 400)
    column = "colour" if isinstance(value, dict) and "colour" in value else field
    with pytest.raises(BadRow, match=rf"line 2, column '{column}'.* Fix: ") as found:
        shop.update([Product("fine", "Zumbrel lamp"), product_with(field, value)])
    assert (shop.product("fine"), shop.product("z")) == (None, None), "one that is wrong keeps all out"
    if value is not None:  # of what is not there a body lacks the column, a product the value
        assert told["fix"] == found.value.fix
    shop.update([Product("z", "Zumbrel sofa")])
    with pytest.raises(BadRow, match=rf"^patch: line 1, column '{column}'.* Fix: "):
        shop.patch("z", {field: value})
    error_of(client.patch("/products/z", json={field: value}), 400)
    assert shop.product("z") == Product("z", "Zumbrel sofa")
    shop.delete(["z"])


@pytest.mark.parametrize(("field", "value"), READ)
def test_what_both_read_both_keep_alike(shop: Shop, client: TestClient, field: str, value: Any) -> None:
    sent = {"title": "Zumbrel sofa"} | {field: value}
    body = {name: "half \ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace") if "half" in str(v) else v
            for name, v in sent.items()}  # fmt: skip
    assert client.put("/products/z", json=body).status_code in (200, 201)
    kept = shop.product("z")
    shop.delete(["z"])
    shop.update([product_with(field, value)])
    assert shop.product("z") == kept
    shop.update([Product("z", "Zumbrel sofa")])
    assert shop.patch("z", {field: value}) == kept
    shop.delete(["z"])


@pytest.mark.parametrize(
    "product_id", ["", " ", None, "\u200b", "\ud800", "a\nb", "a\0", "a" * 501, 1.5, ["a"], b"a", object()], ids=repr
)
def test_an_id_that_no_file_may_have(shop: Shop, product_id: Any) -> None:
    with pytest.raises(BadRow, match=r"line 1, column 'product_id': .* Fix: "):
        shop.update([Product(product_id, "Zumbrel sofa")])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", object()), ("title", b"x"), ("title", np.array(["a", "b"])), ("price", math.inf), ("price", 1j),
        ("price", Decimal("sNaN")), ("value", Decimal("sNaN")),
        ("price", np.array([1.0, 2.0])), ("price", date(2026, 1, 1)), ("value", -math.inf), ("brand", {"a"}),
        ("category", {"a", "b"}), ("category", (("a",),)), ("attributes", {"colour": {"red"}}),
        ("attributes", {"colour": (letter for letter in "ab")}), ("attributes", {("a",): "b"}),
    ],
)  # fmt: skip
def test_what_only_python_can_hand_over(shop: Shop, field: str, value: Any) -> None:
    with pytest.raises(BadRow, match=r"line 1, column '(\w+)': .* Fix: "):
        shop.update([product_with(field, value)])


def test_numbers_of_other_libraries_are_numbers() -> None:
    prices = [np.float32(1.5), Decimal("9.99"), np.int64(7), math.nan]
    read = check_products(Product(f"p{n}", "x", price=price) for n, price in enumerate(prices))  # type: ignore[arg-type]
    assert [product.price for product in read] == [1.5, 9.99, 7.0, None]
    assert {type(product.price) for product in read} == {float, type(None)}


def test_products_of_a_catalogue_are_as_they_are(tmp_path: Path, small_shop: Path) -> None:
    products = list(Searcher.load(small_shop / "index", small_shop / "model").index.table)
    assert check_products(products) == products
    write_products(tmp_path / "products.jsonl", products)
    assert read_products(tmp_path / "products.jsonl") == products


@pytest.mark.parametrize("products", [None, 5, Product("z", "x")], ids=repr)
def test_products_that_are_no_list(shop: Shop, products: Any) -> None:
    with pytest.raises(SettingError, match=r"products are of type .* Fix: give a list of gram\.Product"):
        shop.update(products)


@pytest.mark.parametrize("product", [{"product_id": "z", "title": "x"}, ("z", "x"), "z", None], ids=repr)
def test_a_product_that_is_none(shop: Shop, small_shop: Path, tmp_path: Path, product: Any) -> None:
    for take in (
        shop.update, lambda some: shop.replace(some[0]), lambda some: train(some, [], tmp_path / "model"),
        lambda some: make_index(small_shop / "model", some, tmp_path / "index"),
    ):  # fmt: skip
        with pytest.raises(BadRow, match=r"line 1: no product, but of type .* Fix: give gram\.Product"):
            take([product])


@pytest.mark.parametrize("fields", [{}, None, [1], {5: "a"}, {"product_id": "y"}, {"Product ID": "y"}], ids=repr)
def test_a_patch_that_is_none(shop: Shop, fields: Any) -> None:
    with pytest.raises(BadRow, match=r"^patch: line 1.* Fix: "):
        shop.patch("nobody", fields)


CALLS: dict[str, tuple[Callable[[Shop], object], str]] = {
    "product": (lambda shop: shop.product(["z"]), "product_id is"),  # type: ignore[arg-type]
    "codes": (lambda shop: shop.codes(5), "product_id is 5"),  # type: ignore[arg-type]
    "patch": (lambda shop: shop.patch(5, {"price": 1}), "product_id is 5"),  # type: ignore[arg-type]
    "delete None": (lambda shop: shop.delete(None), "ids are None"),  # type: ignore[arg-type]
    "delete ints": (lambda shop: shop.delete(["z", 5]), "product_id is 5"),  # type: ignore[list-item]
    "edit an int": (lambda shop: shop.edit_code(5, "colour", "red", True), "product_id is 5"),  # type: ignore[arg-type]
    "edit no value": (lambda shop: shop.edit_code("z", "colour", None, True), "value is None"),  # type: ignore[arg-type]
    "edit perhaps": (lambda shop: shop.edit_code("z", "colour", "red", 1), "given is 1"),
    "teach a number": (lambda shop: shop.add_attribute("colour", 5), "value is 5"),  # type: ignore[arg-type]
    "remove a rule": (lambda shop: shop.remove_rule(5), "rule_id is 5"),  # type: ignore[arg-type]
    "search a number": (lambda shop: shop.search(5), "a search is 5"),  # type: ignore[arg-type]
    "search none": (lambda shop: shop.search(None), "a search is None"),  # type: ignore[arg-type]
    "options beside": (lambda shop: shop.search(SearchRequest("sofa"), limit=3), "limit is given beside a request"),
    "too deep": (lambda shop: shop.search("sofa", limit=9_000, offset=2_000), "give a limit of 8000 at most"),
    "beyond": (lambda shop: shop.search("sofa", offset=20_000), "give an offset below 10000"),
    "facets": (lambda shop: shop.search("sofa", facets=5), "facets are 5"),
    "many facets": (lambda shop: shop.search("sofa", facets=["a"] * (MOST_NAMES + 1)), "there are 51 facets"),
    "explain": (lambda shop: shop.search("sofa", explain="no"), "explain is 'no'"),
    "value": (lambda shop: shop.search("sofa", value=True), "plain number such as 0.5, not True"),
    "rules": (lambda shop: shop.search("sofa", rules=[{}]), "a rule is {}"),  # type: ignore[list-item]
    "many letters": (lambda shop: list(shop.search_many("sofa", SearchRequest())), "texts in a list, not one text"),
    "many numbers": (lambda shop: list(shop.search_many([5], SearchRequest())), "query is 5"),  # type: ignore[list-item]
    "many of none": (lambda shop: list(shop.search_many(["x"], "x")), "a search is 'x'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_with_what_is_no_text_number_or_list(shop: Shop, name: str) -> None:
    call, told = CALLS[name]
    with pytest.raises(GramError) as found:
        call(shop)
    assert told in str(found.value)


def test_a_number_that_is_none_is_no_value() -> None:
    (read,) = check_products([Product("p", "x", attributes={"size": Decimal("sNaN"), "width": Decimal("NaN")})])  # type: ignore[dict-item]
    assert read.attributes == {}


@pytest.mark.parametrize("name", ["query", "code", "filter", "target", "products"])
def test_a_rule_has_no_half_of_a_character(shop: Shop, client: TestClient, name: str) -> None:
    half = "type: a\ud800"
    rule = {"action": "hide", "query": "x", "products": ["z"], name: [half] if name == "products" else half}
    if name == "code":
        del rule["query"]
    with pytest.raises(RuleError, match=r"^rule 'r': .* has half of a character \(U\+D800\), .* Fix: take it"):
        shop.put_rule("r", rule)
    error_of(client.put("/rules/r", content=json.dumps(rule)), 400)
    assert shop.kept_rule("r") is None


def test_what_no_store_can_hold_is_not_there(shop: Shop) -> None:
    assert (shop.kept_rule("\ud800"), shop.remove_rule("\ud800"), shop.delete(["\ud800"])) == (None, False, 0)
    with pytest.raises(KeyError):
        shop.edit_code("\ud800", *shop.list_codes(limit=1).codes[0].code, True)


@pytest.mark.parametrize("rule_id", [5, None, "", " ", "a\n", "a/b", "\x85", "\ud800"], ids=repr)
def test_the_id_of_a_rule_fits_an_address(shop: Shop, rule_id: Any) -> None:
    with pytest.raises(RuleError, match=r"the id of a rule is .* Fix: "):
        shop.put_rule(rule_id, {"action": "redirect", "query": "x", "target": "/"})


def test_queries_of_a_run_have_ids(small_shop: Path) -> None:
    searcher = Searcher.load(small_shop / "index", small_shop / "model")
    with pytest.raises(SettingError, match=r"queries are of type list\. Fix: give a map of ids to texts"):
        searcher.search_many(["sofa"])  # type: ignore[arg-type]
