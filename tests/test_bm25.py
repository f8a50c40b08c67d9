"""BM25 against a hand-worked example and against its formula, written out slowly."""

from __future__ import annotations

import math
import re
import sys

import pytest
import Stemmer

from gram.baselines.base import Engine
from gram.baselines.bm25 import BM25, FIELDS, field_text
from gram.data.shop.generate import generate
from gram.errors import MissingExtra, SettingError
from gram.records import Product

SHELF = [
    Product("d1", "Red Shoes"),
    Product("d2", "red red hat"),
    Product("d3", "long blue coat", "Velanto", ("Clothing", "Coats"), "Warm.", attributes={"size": ("XL", "2XL")}),
]


def test_scores_by_hand() -> None:
    hits = BM25(SHELF).search("red")
    # "red" is in 2 of 3 products: log(1 + 1.5/2.5) = .4700. Mean length 8/3, so the lengths' parts are
    # .3·(.4 + .6·2/(8/3)) = .255 and .3·(.4 + .6·3/(8/3)) = .3225
    assert [hit.product_id for hit in hits] == ["d2", "d1"]
    assert [hit.score for hit in hits] == pytest.approx([math.log(1.6) * 2 / 2.3225, math.log(1.6) / 1.255])
    assert hits[0].title == "red red hat"


def test_agrees_with_the_formula() -> None:
    dataset = generate(200, 300, seed=5, queries=60)
    stemmer = Stemmer.Stemmer("porter")

    def tokens(text: str) -> list[str]:
        return [str(stemmer.stemWord(word)) for word in re.findall(r"\w+", text.lower())]

    documents = {p.product_id: tokens(field_text(p)) for p in dataset.products}
    mean = sum(map(len, documents.values())) / len(documents)
    engine = BM25(dataset.products, k1=1.2, b=0.75, fields=FIELDS)
    for query in list(dataset.parts["test"].queries.values())[:5]:
        expected = {}
        for product_id, words in documents.items():
            score = 0.0
            for word in tokens(query):
                n = sum(word in other for other in documents.values())
                f = words.count(word)
                idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
                score += idf * f / (f + 1.2 * (0.25 + 0.75 * len(words) / mean))
            if score > 0:
                expected[product_id] = score
        assert engine.search_many({"q": query}, 200)["q"] == pytest.approx(expected, rel=1e-4)


def test_search_and_search_many_agree() -> None:
    engine = BM25(SHELF)
    assert isinstance(engine, Engine)
    run = engine.search_many({"a": "red coats", "b": "sandals", "c": ""}, k=2)
    assert run == {"a": {hit.product_id: hit.score for hit in engine.search("red coats", 2)}, "b": {}, "c": {}}
    assert list(run["a"]) == ["d3", "d2"]


def test_equal_scores_stand_by_id_also_at_the_cut() -> None:
    twins = [Product(product_id, "red hat") for product_id in ("c", "a", "d", "b")]
    assert [hit.product_id for hit in BM25([*twins, Product("e", "hat")]).search("red", 3)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "query", "found"),
    [
        (("title",), "velanto", []),
        (("title", "brand"), "velanto", ["d3"]),
        (("category",), "clothing coat", ["d3"]),
        (("description",), "warm", ["d3"]),
        (("attributes",), "2xl", ["d3"]),
        (("attributes",), "size", []),  # a column's name is not a word of the product
    ],
)
def test_fields(fields: tuple[str, ...], query: str, found: list[str]) -> None:
    assert [hit.product_id for hit in BM25(SHELF, fields=fields).search(query)] == found


def test_stemming_can_be_left_out() -> None:
    assert [hit.product_id for hit in BM25(SHELF).search("shoe")] == ["d1"]
    assert BM25(SHELF, stemmer="").search("shoe") == []


def test_an_empty_shop_answers_nothing() -> None:
    assert BM25([]).search("red") == []
    assert BM25([Product("a", "--")]).search_many({"q": "red"}) == {"q": {}}


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="no field of words"):
        BM25(SHELF, fields=("price",))
    with pytest.raises(SettingError, match="k1 ≥ 0"):
        BM25(SHELF, k1=-1)
    with pytest.raises(SettingError, match="porter"):
        BM25(SHELF, stemmer="klingon")
    with pytest.raises(SettingError, match="at least 1"):
        BM25(SHELF).search("red", 0)
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtra, match=r"\[eval\]"):
        BM25(SHELF)
