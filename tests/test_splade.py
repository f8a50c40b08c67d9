"""SPLADE on a tiny BERT: the fast maximum against the plain one, the search against its formula, the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")
pytest.importorskip("scipy")
pytest.importorskip("bm25s")

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from gram.baselines import splade_encoder
from gram.baselines.base import Engine, How, TrainingData
from gram.baselines.splade import MAX_TERMS, Splade
from gram.baselines.training import Plan
from gram.data.shop.generate import generate
from gram.errors import IndexMismatch, ModelError, SettingError
from gram.records import Product

TINY = Plan(6, batch=4)


@pytest.fixture(scope="module")
def shop() -> TrainingData:
    dataset = generate(60, 120, seed=3, queries=60)
    dev = dataset.parts["dev"]
    return TrainingData(dataset.products, dataset.log, dev.queries, dev.qrels)


@pytest.fixture(scope="module")
def models_of(tmp_path_factory: pytest.TempPathFactory, shop: TrainingData) -> dict[str, str]:
    """Two folders: a BERT without a masked-language head, and a masked-language model."""
    words = sorted({word for product in shop.products for word in product.title.lower().split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    inner = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(tokens)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    torch.manual_seed(0)
    folders = {}
    for kind, build in (("headless", BertModel), ("masked", BertForMaskedLM)):
        folder = tmp_path_factory.mktemp(kind)
        build(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[kind] = str(folder)
    return folders


def test_the_maximum_and_its_gradient_are_those_of_plain_torch() -> None:
    torch.manual_seed(1)
    states, weight, bias = torch.randn(3, 5, 8), torch.randn(11, 8), torch.randn(11)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 0, 0]])
    upstream = torch.randn(3, 11)
    results = []
    for fast in (True, False):
        leaves = [x.clone().requires_grad_() for x in (states, weight, bias)]
        if fast:
            best = splade_encoder.MaxLogit.apply(leaves[0], mask, leaves[1], leaves[2])
        else:
            logits = leaves[0] @ leaves[1].T + leaves[2]
            best = logits.masked_fill(mask[:, :, None] == 0, -torch.inf).amax(1).relu()
        best.backward(upstream)
        results.append([best.detach(), *(leaf.grad for leaf in leaves)])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_terms_are_those_that_the_library_computes(models_of: dict[str, str]) -> None:
    from sentence_transformers.sparse_encoder import SparseEncoder

    ours, new_head = splade_encoder.open_encoder(models_of["masked"], 64)
    assert not new_head
    texts = ["red oak desk", "lamp", "desk"]
    plain = SparseEncoder(models_of["masked"], device=str(ours.device)).encode(texts, convert_to_sparse_tensor=False)
    assert np.allclose(splade_encoder.encode(ours, texts, 10_000, bf16=False).toarray(), plain.cpu().numpy(), atol=1e-5)


def test_a_fitted_head_reads_tokens_as_themselves(models_of: dict[str, str], shop: TrainingData) -> None:
    encoder, new_head = splade_encoder.open_encoder(models_of["headless"], 64)
    assert new_head
    titles = [product.title for product in shop.products]
    splade_encoder.fit_head(encoder, titles, seed=0)
    found = splade_encoder.encode(encoder, titles, 10_000, bf16=False).toarray()
    own = [found[i, encoder.tokenizer(title)["input_ids"]].mean() for i, title in enumerate(titles)]
    assert np.mean(own) > 3 * found.mean()


@pytest.mark.parametrize("kind", ["headless", "masked"])
def test_train_load_search(kind: str, tmp_path: Path, models_of: dict[str, str], shop: TrainingData) -> None:
    Splade.train(tmp_path / "a", shop, How(models_of[kind]), plan=TINY)
    Splade.train(tmp_path / "b", shop, How(models_of[kind]), plan=TINY)
    engine = Splade.load(tmp_path / "a", shop.products)
    assert isinstance(engine, Engine)
    run = engine.search_many(shop.dev_queries, 20)
    assert run == Splade.load(tmp_path / "b", shop.products).search_many(shop.dev_queries, 20)  # a seed says it all
    assert engine.index_bytes == sum(
        (tmp_path / "a" / f"{n}.npy").stat().st_size for n in ("indptr", "indices", "weights")
    )
    assert set(engine.settings) >= {"fields", "best_step", "dev", "query_terms", "product_terms", "rate"}
    query_id, query = next(iter(shop.dev_queries.items()))
    hits = engine.search(query, 20)
    assert [hit.score for hit in hits] == pytest.approx(sorted(run[query_id].values(), reverse=True), rel=1e-4)
    found = splade_encoder.encode(engine._encoder, [query], MAX_TERMS, bf16=False).toarray()[0]
    by_hand = found @ engine._postings.toarray()  # (N,)
    assert hits[0].score == pytest.approx(by_hand.max(), rel=1e-4)
    with pytest.raises(IndexMismatch, match="other products"):
        Splade.load(tmp_path / "a", shop.products[1:])


def test_an_empty_log_is_made_up_for(tmp_path: Path, models_of: dict[str, str], shop: TrainingData) -> None:
    data = TrainingData(shop.products, [], {}, {})
    Splade.train(tmp_path / "a", data, How(models_of["masked"], quick=True, bf16=True))
    engine = Splade.load(tmp_path / "a", shop.products)
    assert engine.settings["best_step"] == 12  # nothing to choose by: the last
    assert engine.search_many({"q": shop.products[0].title, "none": ""}, 5)["q"]


def test_bad_input(tmp_path: Path, models_of: dict[str, str], shop: TrainingData) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        splade_encoder.open_encoder(str(tmp_path), 64)
    with pytest.raises(SettingError, match="no products"):
        Splade.train(tmp_path / "a", TrainingData([], [], {}, {}), How(models_of["masked"]))
    encoder, _ = splade_encoder.open_encoder(models_of["masked"], 64)
    engine = Splade(encoder, [Product("a", "red")], None, {}, 0)
    with pytest.raises(SettingError, match="at least 1"):
        engine.search("red", 0)
