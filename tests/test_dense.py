"""The dense rival on a tiny model: what it learns, what it keeps, and that both searches agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_bert import tiny_bert

from gram.arrays import top_k
from gram.baselines.base import Engine, How, TrainingData
from gram.baselines.dense import Dense, DenseHNSW, encode, load_model
from gram.baselines.training import Plan
from gram.errors import IndexMismatch, ModelError, SettingError
from gram.evaluation.measures import evaluate
from gram.records import Interaction, Product
from gram.text.fields import joined_text

pytest.importorskip("sentence_transformers")
pytest.importorskip("hnswlib")

COLOURS, THINGS = ("red", "blue", "green", "white"), ("shoe", "hat", "coat", "lamp", "desk")
SHOP = [Product(f"{c}-{t}", f"{c} {t}", brand="Velanto") for c in COLOURS for t in THINGS]
LOG = [Interaction(f"{t} in {c}", f"{c}-{t}") for c in COLOURS for t in THINGS if (c, t) != ("red", "shoe")]
DATA = TrainingData(SHOP, LOG, {"q": "shoe in red"}, {"q": {"red-shoe": 1.0}})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("tiny"), [*COLOURS, *THINGS, "in", "velanto"])


@pytest.fixture(scope="module")
def trained(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "dense"
    Dense.train(folder, DATA, How(tiny, quick=True))
    return folder


def test_search_and_search_many_agree(trained: Path) -> None:
    engine = Dense.load(trained, SHOP)
    assert isinstance(engine, Engine)
    run = engine.search_many({"a": "hat", "b": "red desk"}, k=7)
    hits = engine.search("red desk", 7)
    assert list(run["b"]) == [hit.product_id for hit in hits]
    assert list(run["b"].values()) == pytest.approx([hit.score for hit in hits], abs=1e-5)
    assert len(run["a"]) == 7
    assert hits[0].title in {product.title for product in SHOP}


def test_scores_are_cosines_of_any_product(trained: Path) -> None:
    engine = Dense.load(trained, SHOP)
    whole = engine.search_many({"a": "hat"}, k=len(SHOP))["a"]
    asked = ["red-shoe", "white-lamp"]
    assert engine.score_many({"a": "hat"}, {"a": asked})["a"] == pytest.approx({p: whole[p] for p in asked}, abs=1e-5)
    assert engine.score_many({"a": "hat"}, {"a": []}) == {"a": {}}
    assert max(map(abs, whole.values())) <= 1 + 1e-3


def test_the_graph_finds_what_exact_search_finds(trained: Path) -> None:
    exact, graph = Dense.load(trained, SHOP), DenseHNSW.load(trained, SHOP)
    queries = {interaction.query: interaction.query for interaction in LOG}
    near = graph.search_many(queries, 5)
    for query, found in exact.search_many(queries, 5).items():
        assert near[query] == pytest.approx(found, abs=2e-3)
    ids = {query: ["red-shoe"] for query in queries}
    assert graph.score_many(queries, ids)["hat in red"] == pytest.approx(
        exact.score_many(queries, ids)["hat in red"], abs=1e-5
    )
    assert graph.settings["ef"] == 100  # the least that is tried
    assert len(graph.search("hat", 500)) == len(SHOP)


def test_index_bytes_are_those_of_the_file_searched(trained: Path) -> None:
    exact, graph = Dense.load(trained, SHOP), DenseHNSW.load(trained, SHOP)
    assert len(SHOP) * 32 * 2 <= exact.index_bytes <= len(SHOP) * 32 * 2 + 256  # float16, and NumPy's header
    assert graph.index_bytes > len(SHOP) * 32 * 4


def test_the_same_seed_gives_the_same_folder(tiny: str, trained: Path, tmp_path: Path) -> None:
    Dense.train(tmp_path / "again", DATA, How(tiny, quick=True))
    for name in ("vectors.npy", "meta.json", "graph.hnsw"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes()


def test_in_bfloat16_vectors_are_nearly_the_same_and_of_length_1(tiny: str, tmp_path: Path) -> None:
    Dense.train(tmp_path / "bf16", DATA, How(tiny, quick=True, bf16=True))
    vectors = np.load(tmp_path / "bf16" / "vectors.npy").astype(np.float32)
    fields = Dense.load(tmp_path / "bf16", SHOP).settings["fields"]
    assert isinstance(fields, list)
    texts = [joined_text(product, fields) for product in sorted(SHOP, key=lambda p: p.product_id)]
    exact = encode(load_model(str(tmp_path / "bf16" / "model")), texts, "document")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
    assert (vectors * exact).sum(axis=1).min() > 0.99


def test_without_a_log_nothing_is_trained(tiny: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    Dense.train(tmp_path / "zero", TrainingData(SHOP, [], {}, {}), How(tiny, quick=True))
    engine = Dense.load(tmp_path / "zero", SHOP)
    assert engine.settings["best_step"] == 0
    a, b = SentenceTransformer(tiny).encode(["red hat", "red shoe"], normalize_embeddings=True)
    assert engine.score_many({"q": "red hat"}, {"q": ["red-shoe"]})["q"]["red-shoe"] == pytest.approx(
        float(a @ b), abs=1e-3
    )


def test_a_plan_of_no_steps_leaves_the_weights_and_dev_chooses_the_text(tiny: str, tmp_path: Path) -> None:
    Dense.train(tmp_path / "published", DATA, How(tiny), Plan(steps=0))
    settings = Dense.load(tmp_path / "published", SHOP).settings
    assert settings["best_step"] == 0
    assert "dev_by_rate" not in settings
    assert isinstance(settings["dev_by_fields"], dict)
    fields = settings["fields"]
    assert isinstance(fields, list)
    assert settings["dev_by_fields"]["+".join(fields)] == max(settings["dev_by_fields"].values()) > 0


def test_the_best_weights_on_dev_are_kept(trained: Path) -> None:
    engine = Dense.load(trained, SHOP)
    fields, trials = engine.settings["dev_by_fields"], engine.settings["dev_by_rate"]
    assert isinstance(fields, dict)
    assert isinstance(trials, dict)
    mean = evaluate(DATA.dev_qrels, engine.search_many(DATA.dev_queries, 100), ("nDCG@10", "R@100")).mean
    assert sum(mean.values()) / 2 == pytest.approx(engine.settings["dev"], abs=1e-6)
    assert engine.settings["dev"] >= max(engine.settings["dev_untrained"], *trials.values())
    assert engine.settings["dev_untrained"] == max(fields.values())
    assert list(trials) == ["0.4", "1", "2.5"]


def test_equal_scores_stand_by_position_also_at_the_cut() -> None:
    positions, scores = top_k(np.array([0.5, 1.0, 0.5, 0.5]), 3)
    assert positions.tolist() == [1, 0, 2]
    assert scores.tolist() == [1.0, 0.5, 0.5]


def test_what_cannot_be_used_is_told(tiny: str, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexMismatch, match="other products"):
        Dense.load(trained, SHOP[1:])
    with pytest.raises(SettingError, match="at least 1"):
        Dense.load(trained, SHOP).search("hat", 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded"):
        Dense.train(tmp_path / "new", DATA, How(str(tmp_path / "empty")))
    assert not (tmp_path / "new").exists()
