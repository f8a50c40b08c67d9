"""The cross-encoder on a tiny model: what it is trained on, what it reorders, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_bert import tiny_bert

from gram.baselines.base import Engine, How, TrainingData
from gram.baselines.bm25 import BM25
from gram.baselines.cross_encoder import CrossEncoderReranker, First
from gram.errors import ModelError, SettingError
from gram.records import Interaction, Product

pytest.importorskip("sentence_transformers")

COLOURS, THINGS = ("red", "blue", "green", "white"), ("shoe", "hat", "coat", "lamp", "desk")
SHOP = [Product(f"{c}-{t}", f"{c} {t}") for c in COLOURS for t in THINGS]
LOG = [Interaction(f"{t} in {c}", f"{c}-{t}") for c in COLOURS for t in THINGS if (c, t) != ("red", "shoe")]
DATA = TrainingData(SHOP, LOG, {"q": "shoe in red"}, {"q": {"red-shoe": 1.0}})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("tiny"), [*COLOURS, *THINGS, "in"])


@pytest.fixture(scope="module")
def trained(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "reranker"
    CrossEncoderReranker.train(folder, DATA, First(BM25(SHOP), depth=6), How(tiny, quick=True))
    return folder


def test_only_the_first_are_reordered(trained: Path) -> None:
    first = BM25(SHOP)
    engine = CrossEncoderReranker.load(trained, SHOP, first)
    assert isinstance(engine, Engine)
    before = list(first.search_many({"q": "red hat"})["q"])
    after = list(engine.search_many({"q": "red hat"})["q"])
    assert sorted(after[:6]) == sorted(before[:6])
    assert after[6:] == before[6:]
    assert engine.settings["depth"] == 6


def test_search_and_search_many_agree(trained: Path) -> None:
    engine = CrossEncoderReranker.load(trained, SHOP, BM25(SHOP))
    run = engine.search_many({"a": "red hat", "b": "sandals"}, k=3)
    hits = engine.search("red hat", 3)
    assert list(run["a"]) == [hit.product_id for hit in hits]
    assert list(run["a"].values()) == pytest.approx([hit.score for hit in hits], abs=1e-4)
    assert run["b"] == {}
    assert hits[0].title == hits[0].product_id.replace("-", " ")


def test_scores_mix_by_hand() -> None:
    engine = CrossEncoderReranker(BM25(SHOP), {}, None, {})
    mixed = engine._mix({"a": 9.0, "b": 5.0, "c": 1.0, "d": 0.5}, {"a": -2.0, "b": 0.0, "c": 2.0}, 0.5)
    assert mixed == pytest.approx({"a": 0 + 0.5, "b": 0.5 + 0.25, "c": 1 + 0, "d": -3})


def test_the_same_seed_gives_the_same_weights(tiny: str, trained: Path, tmp_path: Path) -> None:
    CrossEncoderReranker.train(tmp_path / "again", DATA, First(BM25(SHOP), depth=6), How(tiny, quick=True))
    for name in ("meta.json", "model/model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes()


def test_bfloat16_is_for_training_only(tiny: str, tmp_path: Path) -> None:
    CrossEncoderReranker.train(tmp_path / "bf16", DATA, First(BM25(SHOP), depth=6), How(tiny, quick=True, bf16=True))
    engine = CrossEncoderReranker.load(tmp_path / "bf16", SHOP, BM25(SHOP))
    assert {str(weight.dtype) for weight in engine._model.parameters()} == {"torch.float32"}
    assert len(engine.search("red hat", 3)) == 3


def test_without_a_log_the_order_stays(tiny: str, tmp_path: Path) -> None:
    first = BM25(SHOP)
    CrossEncoderReranker.train(tmp_path / "zero", DATA._replace(log=[]), First(first), How(tiny, quick=True))
    engine = CrossEncoderReranker.load(tmp_path / "zero", SHOP, first)
    assert engine.search_many({"q": "red hat"}) == first.search_many({"q": "red hat"})
    assert not (tmp_path / "zero" / "model").exists()


def test_what_cannot_be_used_is_told(tiny: str, trained: Path, tmp_path: Path) -> None:
    engine = CrossEncoderReranker.load(trained, SHOP, BM25(SHOP))
    with pytest.raises(SettingError, match="at least 1"):
        engine.search("hat", 0)
    assert engine.index_bytes == BM25(SHOP).index_bytes + sum(len(product.title) for product in SHOP)
    with pytest.raises(SettingError, match="at least 1"):
        CrossEncoderReranker.train(tmp_path / "new", DATA, First(BM25(SHOP), depth=0), How(tiny))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded"):
        CrossEncoderReranker.train(tmp_path / "new", DATA, First(BM25(SHOP)), How(str(tmp_path / "empty")))
    assert not (tmp_path / "new").exists()
