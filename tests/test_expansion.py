"""Expanded BM25: what is added, that it is found, how settings are chosen, and a tiny predictor that learns."""

from __future__ import annotations

from pathlib import Path

import pytest

# one tiny shop and encoder for all rivals that train an encoder
from test_term_sets import DATA, QUERIES, SHELF, tiny_encoder

from gram.baselines.base import Engine, How, Trained, TrainingData
from gram.baselines.bm25 import BM25
from gram.baselines.expansion import Additions, Choice, ExpandedBM25, choose, predicted_terms
from gram.baselines.training import Plan
from gram.errors import IndexMismatch, SettingError
from gram.records import Product
from gram.text.fields import FIELDS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_encoder(tmp_path_factory.mktemp("models") / "tiny")


def test_additions_are_found() -> None:
    shelf = [Product("a", "red faucet"), Product("b", "red ladder", attributes={"size": ("tall",)})]
    additions = Additions([["tap", "water"], ["steps", "tall"]], [["kitchen tap"], []])

    def found(query: str, **chosen: object) -> list[str]:
        engine = ExpandedBM25(shelf, additions, Choice(**chosen))  # type: ignore[arg-type]
        return [hit.product_id for hit in engine.search(query)]

    assert found("tap") == found("kitchen") == found("steps") == []
    assert found("tap", predictions=1) == ["a"]
    assert found("water", predictions=1) == []
    assert found("kitchen", repeats=1) == ["a"]
    assert found("tall") == ["b"]
    assert found("tall", fields=("title",)) == []
    assert found("tall", fields=("title",), predictions=2) == ["b"]
    assert ExpandedBM25(shelf, additions, Choice()).search("red")[0].title == "red faucet"
    assert ExpandedBM25(shelf, additions, Choice(repeats=1)).index_bytes == 7 * (4 + 4) + 8 * (6 + 1)


def test_settings_are_chosen_one_after_the_other() -> None:
    wanted = Choice(k1=0.3, b=0.75, fields=("title",), predictions=12, repeats=2)

    def dev(choice: Choice) -> float:
        return sum(mine == best for mine, best in zip(choice, wanted, strict=True))

    assert choose(dev, Additions([["x"]], [["y"]])) == (wanted, 5.0)
    plain, _ = choose(dev, Additions([[]], [[]]))
    assert plain == wanted._replace(predictions=0, repeats=0)


def test_it_finds_searchers_words(model: str, tmp_path: Path) -> None:
    ExpandedBM25.train(tmp_path / "x", DATA, How(model), plan=Plan(60, batch=8))
    engine = ExpandedBM25.load(tmp_path / "x", SHELF)
    check: Trained = engine
    assert isinstance(check, Engine)
    assert engine.settings["predictor"] == "terms"
    plain = BM25(SHELF)
    found, before = engine.search("tap blue", 1), plain.search("tap", 1)
    assert found[0].product_id == "faucet-blue"
    assert before == []
    assert engine.settings["dev"] == 1.0
    with pytest.raises(IndexMismatch, match="other products"):
        ExpandedBM25.load(tmp_path / "x", SHELF[1:])


def test_predicted_terms_reach_products_without_a_log(model: str) -> None:
    logged = [
        [i.query for i in DATA.log if i.product_id == p.product_id and not p.product_id.endswith("green")]
        for p in SHELF
    ]
    rows, trained = predicted_terms(SHELF, logged, model, Plan(300, batch=12))
    position = [product.product_id for product in SHELF].index("faucet-green")
    assert "tap" in rows[position][:3]
    assert trained["steps"] == 300
    again, _ = predicted_terms(SHELF, logged, model, Plan(2, batch=4, seed=1))
    assert again == predicted_terms(SHELF, logged, model, Plan(2, batch=4, seed=1))[0]


def test_an_empty_log_leaves_bm25(model: str, tmp_path: Path) -> None:
    data = TrainingData(SHELF, [], QUERIES, DATA.dev_qrels)
    ExpandedBM25.train(tmp_path / "e", data, How("not needed"))
    engine = ExpandedBM25.load(tmp_path / "e", SHELF)
    chosen = engine.settings
    assert (chosen["predictor"], chosen["predictions"], chosen["repeats"]) == ("none", 0, 0)
    plain = BM25(SHELF, float(str(chosen["k1"])), float(str(chosen["b"])), FIELDS)
    assert engine.search_many({"q": "red tap"})["q"] == pytest.approx(plain.search_many({"q": "red tap"})["q"])


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no products"):
        ExpandedBM25.train(tmp_path / "x", DATA._replace(products=[]), How(""))
