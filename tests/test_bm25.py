"""BM25 against a hand-worked example and against its formula, written out slowly."""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path

import pytest
import Stemmer

from gram.baselines.base import Engine, TrainingData
from gram.baselines.bm25 import BM25, TunedBM25
from gram.baselines.spelled import SpelledBM25
from gram.data.shop.generate import generate
from gram.errors import MissingExtra, SettingError
from gram.records import Interaction, Product
from gram.text.fields import FIELDS, joined_text

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


@pytest.mark.parametrize(("named", "told"), [("", "cpu"), ("tpu", "tpu")])
def test_jax_is_told_of_a_platform_while_bm25s_is_imported_alone(
    named: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bm25s.py").write_text("import os\nTOLD = os.environ['JAX_PLATFORMS']\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if named:
        monkeypatch.setenv("JAX_PLATFORMS", named)
    monkeypatch.setitem(sys.modules, "bm25s", None)  # so that it is put back
    del sys.modules["bm25s"]
    BM25([])
    assert told == sys.modules["bm25s"].TOLD
    assert os.environ.get("JAX_PLATFORMS", "") == named


def test_agrees_with_the_formula() -> None:
    dataset = generate(200, 300, seed=5, queries=60)
    stemmer = Stemmer.Stemmer("porter")

    def tokens(text: str) -> list[str]:
        return [str(stemmer.stemWord(word)) for word in re.findall(r"\w+", text.lower())]

    documents = {p.product_id: tokens(joined_text(p)) for p in dataset.products}
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
        (("attribute",), "2xl", ["d3"]),
        (("attribute",), "size", []),  # a column's name is not a word of the product
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


GARDEN = [
    *(Product(f"f{i}", f"kitchen faucet {c}") for i, c in enumerate(("red", "blue", "green"))),
    *(Product(f"l{i}", f"garden lamp {c}") for i, c in enumerate(("red", "blue"))),
]
SEARCHED = [Interaction("couch cover", "l0"), Interaction("couch red", "f0"), Interaction("lampp", "l1")]


def test_bm25_is_tuned_on_dev(tmp_path: Path) -> None:
    data = TrainingData(GARDEN, [], {"q": "blue faucet"}, {"q": {"f1": 1.0}})
    TunedBM25.train(tmp_path / "a", data, quick=True)
    engine = TunedBM25.load(tmp_path / "a", GARDEN)
    assert engine.settings == {"k1": 0.3, "b": 0.6, "fields": ["title"], "stemmer": "porter"}  # the first of equals
    assert engine.search("blue faucet", 1)[0].product_id == "f1"
    TunedBM25.train(tmp_path / "b", data._replace(dev_queries={}))
    assert TunedBM25.load(tmp_path / "b", GARDEN).settings["k1"] == 1.2


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("kitchen fuacet", "kitchen faucet"),
        ("Kitchen  faucet", "Kitchen  faucet"),  # nothing to mend: the query itself
        ("couhc cover", "couch cover"),  # two of the log's queries say couch
        ("lampp", "lamp"),  # one query alone says it, so it is misspelt
        ("zzzzzz", "zzzzzz"),
        ("", ""),
    ],
)
def test_queries_are_read_through_the_speller(tmp_path: Path, query: str, read: str) -> None:
    SpelledBM25.train(tmp_path / "s", TrainingData(GARDEN, SEARCHED, {}, {}))
    engine = SpelledBM25.load(tmp_path / "s", GARDEN)
    assert isinstance(engine, Engine)
    assert engine.correct(query) == read
    plain = BM25(GARDEN, 1.2, 0.75, FIELDS)
    assert engine.search_many({"q": query}) == plain.search_many({"q": read})


def test_known_words_and_the_rest_of_the_query_decide(tmp_path: Path) -> None:
    shelf = [*(Product(f"a{i}", "oak table") for i in range(2)), *(Product(f"b{i}", "wall cable") for i in range(3))]
    SpelledBM25.train(tmp_path / "s", TrainingData(shelf, [], {}, {}))
    engine = SpelledBM25.load(tmp_path / "s", shelf)
    assert engine.correct("zable") == "cable"  # more products hold it than table
    assert engine.correct("oak zable") == "oak table"
    assert SpelledBM25.load(tmp_path / "s", shelf, {"zable"}.__contains__).correct("oak zable") == "oak zable"
    assert engine.index_bytes > 0
