"""Term sets: the sets by hand, the network's maximum against a loop, and a tiny engine that learns a synonym."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gram.baselines.base import Engine, How, Trained, TrainingData
from gram.baselines.encoder import PretrainedEncoder, two_lengths
from gram.baselines.term_sets import TermNetwork, TermSets, postings_of, telling_terms
from gram.baselines.training import Plan
from gram.errors import IndexMismatch, ModelError, SettingError
from gram.evaluation.measures import evaluate
from gram.records import Interaction, Product

COLOURS = ("red", "blue", "green", "black")
KINDS = {"hammer": "pounder", "ladder": "steps", "faucet": "tap", "shovel": "digger"}
SHELF = [Product(f"{kind}-{colour}", f"{colour} {kind}") for kind in KINDS for colour in COLOURS]
LOG = [
    Interaction(f"{colour} {said}" if colour != "black" else said, f"{kind}-{colour}")
    for kind, said in KINDS.items()
    for colour in COLOURS
]
"""Searchers never type a product's kind as its seller does."""
QUERIES = {f"{kind}-{colour}": f"{said} {colour}" for kind, said in KINDS.items() for colour in ("red", "blue")}
DATA = TrainingData(SHELF, LOG, QUERIES, {query_id: {query_id: 3.0} for query_id in QUERIES})


def tiny_encoder(folder: Path) -> str:
    """A BERT of random weights that knows this file's words, saved as Hugging Face saves one; its folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *COLOURS, *KINDS, *KINDS.values(), *letters]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"##{letter}" for letter in letters)]), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words) + 26, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_encoder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def trained(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "terms"
    TermSets.train(folder, DATA, How(model), plan=Plan(200, batch=16, rates=(1.0,)))
    return folder


def test_terms_by_hand() -> None:
    shelf = [
        Product("a", "Red hammers"),
        Product("b", "red hammer", brand="Velanto"),
        Product("c", "red ladder"),
        Product("d", "tall ladder"),
    ]
    # red is in 3, hammer and ladder in 2, the others in 1 and so no terms; rarer tells more
    terms = telling_terms(shelf, [])
    assert terms.words == ["red", "hammer", "ladder"]
    assert terms.of == [[1, 0], [1, 0], [2, 0], [2]]
    # once searchers name red and never hammer, red tells more of a hammer
    named = telling_terms(shelf, [Interaction("red thing", "a")] * 40)
    assert named.of[0] == [0, 1]
    postings = postings_of(terms, 1)
    assert [postings.of(term)[0].tolist() for term in range(3)] == [[], [0, 1], [2, 3]]


def test_gains_are_the_best_token_s(model: str) -> None:
    encoder = PretrainedEncoder.load(model)
    network = TermNetwork(encoder, 3).eval()
    torch.nn.init.normal_(network.terms, generator=torch.Generator().manual_seed(1))
    token_ids = encoder.token_ids(["red hammer", "steps", "blue green black tap"], 24)
    with torch.no_grad():
        together = network(token_ids)  # padded to the longest
        for row, text in zip(together, token_ids, strict=True):
            states, _ = encoder([text])
            cosines = torch.nn.functional.normalize(states[0], dim=-1) @ network.terms.T
            assert torch.allclose(row, 10 * cosines.max(0).values - 4, atol=1e-4)


def test_it_learns_searchers_words(trained: Path) -> None:
    engine = TermSets.load(trained, SHELF)
    check: Trained = engine
    assert isinstance(check, Engine)
    run = engine.search_many(QUERIES, 3)
    first = [max(found, key=found.__getitem__) == query_id for query_id, found in run.items()]
    assert np.mean(first) >= 0.75  # of 16 products
    mean = evaluate(DATA.dev_qrels, engine.search_many(QUERIES, 100), ("nDCG@10", "R@100")).mean
    assert engine.settings["dev"] == pytest.approx(sum(mean.values()) / 2)
    assert engine.index_bytes == 8 * (len({t for p in SHELF for t in p.title.split()}) + 1) + 8 * 2 * len(SHELF)
    hits = engine.search("tap red", 2)
    assert [h.product_id for h in hits] == list(engine.search_many({"q": "tap red"}, 2)["q"])
    assert hits[0].title == "red faucet"


def test_the_same_seed_gives_the_same_engine(trained: Path, model: str, tmp_path: Path) -> None:
    for name in "ab":
        TermSets.train(tmp_path / name, DATA, How(model), plan=Plan(3, batch=4, seed=7))
    runs = [TermSets.load(tmp_path / name, SHELF).search_many(QUERIES) for name in "ab"]
    assert runs[0] == runs[1]


def test_an_empty_log(model: str, tmp_path: Path) -> None:
    TermSets.train(tmp_path / "e", TrainingData(SHELF, [], {}, {}), How(model, quick=True))
    assert TermSets.load(tmp_path / "e", SHELF).search("red hammer")


def test_folders_and_settings_are_checked(trained: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(IndexMismatch, match="other products"):
        TermSets.load(trained, SHELF[1:])
    with pytest.raises(ModelError, match="cannot be loaded"):
        TermSets.train(tmp_path / "x", DATA, How(str(tmp_path / "nothing")))
    with pytest.raises(SettingError, match="no terms"):
        TermSets.train(tmp_path / "x", DATA._replace(products=SHELF[:1], log=[]), How(model))
    with pytest.raises(SettingError, match="at least 1"):
        TermSets.load(trained, SHELF).search("red", 0)


def test_long_texts_do_not_pad_short_ones() -> None:
    assert two_lengths([[0] * n for n in (3, 40, 4, 3)]) == [[0, 3, 2], [1]]
    assert two_lengths([[0], [0]]) == [[0, 1]]
