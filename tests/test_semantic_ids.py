"""Semantic ids: k-means, and a beam search held against the network's likelihood of every id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

# one tiny shop and encoder for all rivals that train an encoder
from test_term_sets import DATA, QUERIES, SHELF, tiny_encoder

from gram.baselines.base import Engine, How, Trained, TrainingData
from gram.baselines.encoder import PretrainedEncoder
from gram.baselines.semantic_ids import IdNetwork, SemanticIds, kmeans, semantic_ids
from gram.baselines.training import Plan
from gram.codes.trie import CodeTrie
from gram.errors import IndexMismatch, SettingError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def trained(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "ids"
    SemanticIds.train(folder, DATA, How(model), plan=Plan(300, batch=16, rates=(1.0,)))
    return folder


def test_kmeans_finds_clusters() -> None:
    points = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 10.0], [0.0, 0.5]])
    centroids, nearest = kmeans(points, 2, seed=0)
    assert nearest[0] == nearest[1] == nearest[4] != nearest[2] == nearest[3]
    assert torch.allclose(centroids[nearest[2]], torch.tensor([9.0, 9.5]))
    same, nearest = kmeans(torch.ones(3, 2), 2, seed=0)  # no more clusters than different points
    assert same.tolist() == [[1.0, 1.0]]
    assert nearest.tolist() == [0, 0, 0]


def test_ids_differ_also_for_equal_vectors() -> None:
    random = torch.Generator().manual_seed(0)
    points = torch.randn(40, 4, generator=random).repeat(2, 1)
    ids, books = semantic_ids(points, seed=0)
    assert len({tuple(row) for row in ids.tolist()}) == 80
    assert (ids[:40, :3] == ids[40:, :3]).all()
    assert len(books) == 3
    rounded = sum(book[ids[:, level]] for level, book in enumerate(books))
    assert (points - rounded).norm() < 0.2 * points.norm()  # each level rounds what the last one left


@pytest.mark.parametrize("beam", [16, 3])
def test_beam_search_agrees_with_the_likelihood_of_every_id(model: str, beam: int) -> None:
    encoder = PretrainedEncoder.load(model)
    rows = np.array([[a, b, c, 0] for a in range(3) for b in range(3) for c in range(2) if (a + b + c) % 3])
    network = IdNetwork(encoder, [3, 3, 2, 1]).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for name, parameter in network.named_parameters():
            if not name.startswith(("encoder.", "log_scale")):
                parameter.normal_(std=0.2)
        network.log_scale.fill_(0.0)
    trie = CodeTrie.build(rows)
    token_ids = encoder.token_ids(["red hammer", "steps"], 24)
    nodes, scores = network.beam_search(token_ids, trie, beam)
    with torch.no_grad():
        every = torch.stack([-network([text] * len(rows), torch.from_numpy(rows)) for text in token_ids])
    found = torch.from_numpy(trie.code_id[nodes.numpy()]).long().clamp(min=0)
    kept = scores > -torch.inf
    assert torch.allclose(every.gather(1, found)[kept], scores[kept], atol=1e-4)
    if beam >= len(rows):
        assert torch.allclose(every.sort(1, descending=True).values, scores[:, : len(rows)], atol=1e-4)


def test_untrained_it_rounds_the_vector(model: str) -> None:
    encoder = PretrainedEncoder.load(model).eval()
    from gram.baselines.encoder import vectors

    titles = [product.title for product in SHELF]
    ids, books = semantic_ids(vectors(encoder, titles, 24, False, "products"), seed=0)
    network = IdNetwork(encoder, (ids.max(0) + 1).tolist()).eval()
    network.start_at([book[:size] for book, size in zip(books, network.sizes, strict=False)])
    trie = CodeTrie.build(ids)
    nodes, _ = network.beam_search(encoder.token_ids(titles, 24), trie, 1)
    first = ids[trie.code_id[nodes[:, 0].numpy()]]
    assert (first[:, 0] == ids[:, 0]).all()


def test_it_learns_searchers_words(trained: Path) -> None:
    engine = SemanticIds.load(trained, SHELF)
    check: Trained = engine
    assert isinstance(check, Engine)
    run = engine.search_many(QUERIES)
    assert all(len(found) == len(SHELF) for found in run.values())
    third = [query_id in list(found)[:3] for query_id, found in run.items()]
    assert np.mean(third) >= 0.75  # of 16 products
    assert list(run["faucet-red"].values()) == sorted(run["faucet-red"].values(), reverse=True)
    hits = engine.search("tap red", 2)
    assert [hit.product_id for hit in hits] == list(run["faucet-red"])[:2]
    assert engine.index_bytes > 0


def test_the_same_seed_gives_the_same_engine(model: str, tmp_path: Path) -> None:
    for name in "ab":
        SemanticIds.train(tmp_path / name, DATA, How(model, seed=7), plan=Plan(2, batch=4))
    runs = [SemanticIds.load(tmp_path / name, SHELF).search_many(QUERIES) for name in "ab"]
    assert runs[0] == runs[1]


def test_an_empty_log_and_a_narrow_beam(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gram.baselines.semantic_ids.BEAM", 4)
    SemanticIds.train(tmp_path / "e", TrainingData(SHELF, [], {}, {}), How(model, quick=True))
    assert len(SemanticIds.load(tmp_path / "e", SHELF).search("red hammer")) == 4


def test_folders_and_settings_are_checked(trained: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(IndexMismatch, match="other products"):
        SemanticIds.load(trained, SHELF[1:])
    with pytest.raises(SettingError, match="no products"):
        SemanticIds.train(tmp_path / "x", DATA._replace(products=[]), How(model))
    with pytest.raises(SettingError, match="at least 1"):
        SemanticIds.load(trained, SHELF).search("red", 0)
