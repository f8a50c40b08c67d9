"""The encoders that a coder starts from: folders of Hugging Face's, the official MiniLM, and one from scratch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoder import PRODUCTS, TINY, make_backbone
from tokenizers import Tokenizer, models

from gram.coder.base import QUERY_CODING, Side
from gram.coder.encoder import backbone as backbones
from gram.coder.encoder.backbone import Backbone, load_backbone, rebuild, scratch_backbone
from gram.coder.encoder.coder import EncoderCoder
from gram.coder.encoder.tokens import TextTokenizer
from gram.codes.mining import mine
from gram.codes.trie import CodeTrie
from gram.errors import ModelError
from gram.records import Product


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture
def bert_folder(tmp_path: Path, backbone: Backbone) -> Path:
    """A tiny BERT as transformers saves it."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(1)
    n = backbone.tokenizer.get_vocab_size()
    config = BertConfig(vocab_size=n, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(tmp_path / "bert")
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backbone.tokenizer, **marks).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def states_of(backbone: Backbone, ids: list[int]) -> torch.Tensor:
    encoder: Any = backbone.encoder.eval()
    with torch.no_grad():
        embedded = encoder.get_input_embeddings()(torch.tensor([ids]))
        states: torch.Tensor = encoder(inputs_embeds=embedded, attention_mask=torch.ones(1, len(ids))).last_hidden_state
    return states


def test_a_local_folder_is_a_backbone(bert_folder: Path, backbone: Backbone) -> None:
    loaded = load_backbone(str(bert_folder))
    assert loaded.width == 16
    assert loaded.tokens_of("hose") == backbone.tokens_of("hose")
    assert (loaded.start_id, loaded.end_id, loaded.pad_id) == (backbone.start_id, backbone.end_id, backbone.pad_id)
    assert states_of(loaded, [loaded.start_id, loaded.end_id]).shape == (1, 2, 16)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda config, weights: weights.pop("encoder.layer.0.output.dense.weight"), "lack 1 tensors, such as encoder"),
        (lambda config, weights: weights["embeddings.word_embeddings.weight"].fill_(float("nan")), "not finite"),
        (lambda config, weights: config.update(num_attention_heads=0), "cannot be loaded"),
        (lambda config, weights: config.update(position_embedding_type="relative_key"), "relative positions"),
        (
            lambda config, weights: config.update(intermediate_size=64),
            r"3 of its tensors have other shapes: encoder\.layer\.0\.intermediate\.dense\.bias is \(32,\).* \(64,\)",
        ),
        (lambda config, weights: config.update(is_decoder=True), "does not see the words behind it, as in a decoder"),
    ],
)
def test_a_folder_that_is_not_whole_is_no_backbone(
    bert_folder: Path, tmp_path: Path, damage: Callable[[dict[str, Any], dict[str, torch.Tensor]], object], why: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(bert_folder, folder)
    config, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    damage(config, weights)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"cannot be loaded.*{why}|{why}.*Fix: "):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("kind", "positions", "longest"), [("mpnet", 40, 38), ("roberta", 40, 38), ("distilbert", 20, 20)]
)
def test_an_encoder_of_another_type_reads_as_far_as_it_has_positions(
    backbone: Backbone, tmp_path: Path, kind: str, positions: int, longest: int
) -> None:
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    inner, lexicon = backbone.tokenizer, mine(PRODUCTS, [])
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "distilbert":
        shape = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    size = inner.get_vocab_size()
    config = AutoConfig.for_model(kind, vocab_size=size, max_position_embeddings=positions, pad_token_id=1, **shape)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **marks).save_pretrained(tmp_path)
    loaded = load_backbone(str(tmp_path))
    assert loaded.longest == longest
    reader = TextTokenizer(lexicon, loaded)
    coder = EncoderCoder(loaded, lexicon, CodeTrie.build(np.array([[0]]))).eval()
    texts = [Product("x", "red hose " * 60, description="desk lamp " * 60)]
    assert max(reader.products(texts).lengths) <= longest
    assert np.isfinite(coder.represent(texts, Side.PRODUCT, replace(QUERY_CODING, codes=0)).dense).all()
    asked = coder.represent(["red hose desk lamp " * 20], Side.QUERY, replace(QUERY_CODING, codes=0))
    assert np.isfinite(asked.dense).all()
    again = rebuild(loaded.encoder.config.to_dict(), inner.to_str(), "pretrained")  # type: ignore[union-attr, operator]
    assert again.longest == longest


def save_folder(folder: Path, tokenizer: Tokenizer, kind: str, too_few: int = 0, **shape: Any) -> str:
    """A tiny encoder of a type, or the whole model where it is part of one, as transformers saves it."""
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    torch.manual_seed(1)
    size = max(tokenizer.get_vocab().values()) + 1 - too_few
    AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=size, **shape)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return str(folder)


def with_marks(tokenizer: Tokenizer, **names: str) -> Tokenizer:
    """The same words under marks of other names."""
    known = {names.get(token.strip("[]"), token): number for token, number in tokenizer.get_vocab().items()}
    made = Tokenizer(models.WordPiece(known, unk_token=names.get("UNK", "[UNK]")))
    made.normalizer, made.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    return made


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
T5 = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 32, "d_kv": 8}
XLNET = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}
BART = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in
        {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()} | {"d_model": 16}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "shape", "marks", "embedding_width"),
    [
        ("electra", SMALL | {"embedding_size": 8}, {}, 8),
        ("albert", SMALL | {"embedding_size": 8}, {"PAD": "<pad>", "UNK": "<unk>"}, 8),
        ("modernbert", SMALL | {"pad_token_id": 0}, {}, 16),
        ("deberta-v2", SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, {}, 16),
        ("t5", T5, {"PAD": "<pad>", "UNK": "<unk>", "SEP": "</s>", "CLS": "none"}, 16),
        ("bart", BART, {"PAD": "<pad>", "UNK": "<unk>", "SEP": "</s>", "CLS": "<s>"}, 16),
        ("xlnet", XLNET, {"CLS": "<cls>", "SEP": "<sep>", "PAD": "<pad>"}, 16),
    ],
)  # fmt: skip
def test_encoders_of_many_kinds_are_backbones(
    backbone: Backbone, tmp_path: Path, kind: str, shape: dict[str, Any], marks: dict[str, str], embedding_width: int
) -> None:
    tokenizer = with_marks(backbone.tokenizer, **marks)
    loaded = load_backbone(save_folder(tmp_path / "encoder", tokenizer, kind, **shape))
    assert (loaded.width, loaded.embedding_width, loaded.pad_id) == (16, embedding_width, backbone.pad_id)
    assert loaded.longest >= 512
    assert loaded.start_id == (backbone.end_id if kind == "t5" else backbone.start_id)
    assert not any("decoder" in name for name in loaded.encoder.state_dict()), "what writes is left out"
    lexicon = mine(PRODUCTS, [])
    coder = EncoderCoder(loaded, lexicon, CodeTrie.build(np.array([[0]]))).eval()
    coder.read_attributes()
    before = coder.represent(PRODUCTS, Side.PRODUCT, replace(QUERY_CODING, codes=0))
    assert np.isfinite(before.dense).all()
    (tmp_path / "model").mkdir()
    coder.save(tmp_path / "model", {})
    again = EncoderCoder.load(tmp_path / "model", json.loads((tmp_path / "model" / "config.json").read_text()))
    after = again.represent(PRODUCTS, Side.PRODUCT, replace(QUERY_CODING, codes=0))
    np.testing.assert_allclose(after.dense, before.dense, atol=1e-6)


def test_the_encoder_of_a_model_that_writes_is_enough(backbone: Backbone, tmp_path: Path) -> None:
    """As T5's is saved alone; but nothing of it may be missing."""
    folder = Path(save_folder(tmp_path, backbone.tokenizer, "t5", **T5))
    weights = {
        name: w for name, w in load_file(folder / "model.safetensors").items() if not name.startswith("decoder.")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_backbone(str(folder)).width == 16
    del weights["encoder.block.0.layer.1.DenseReluDense.wi.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"its weights lack 1 tensors, such as encoder\.block"):
        load_backbone(str(folder))


REFORMER = {"attn_layers": ["local"], "hidden_size": 16, "num_attention_heads": 2, "attention_head_size": 8,
            "axial_pos_embds": False, "feed_forward_size": 32, "local_attn_chunk_length": 4}  # fmt: skip


GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2}


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_a_tokenizer_with_more_tokens_than_the_encoder_is_refused(
    backbone: Backbone, tmp_path: Path, kind: str
) -> None:
    n = backbone.tokenizer.get_vocab_size()
    folder = save_folder(tmp_path, backbone.tokenizer, kind, too_few=9, **SMALL)
    with pytest.raises(ModelError, match=rf"its tokenizer has {n} tokens, and its encoder embeddings of {n - 9}\. Fix"):
        load_backbone(folder)


@pytest.mark.parametrize(("kind", "shape"), [("gpt2", GPT2), ("roberta", SMALL | {"is_decoder": True})])
def test_a_decoder_is_no_backbone(backbone: Backbone, tmp_path: Path, kind: str, shape: dict[str, Any]) -> None:
    folder = save_folder(tmp_path, backbone.tokenizer, kind, **shape)
    with pytest.raises(ModelError, match=rf"of the type '{kind}', .*as in a decoder\)\. Fix: give an encoder such as"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["tokenizer.json"], r"The folder has no tokenizer\.json\. Couldn't instantiate .* one of: \(1\) a .*\(3\)"),
        (["tokenizer.json", "tokenizer_config.json"], r"no tokenizer\.json\. Its tokenizer has no words\."),
        (["config.json"], r"The folder has no config\.json\. "),
        (["model.safetensors"], r"no file named model\.safetensors"),
    ],
)
def test_a_file_that_is_missing_is_named(bert_folder: Path, files: list[str], told: str) -> None:
    for file in files:
        (bert_folder / file).unlink()
    with pytest.raises(ModelError, match=rf"cannot be loaded: .*{told}"):
        load_backbone(str(bert_folder))


@pytest.mark.parametrize(("kind", "shape"), [("vit", SMALL), ("reformer", REFORMER)])
def test_an_architecture_that_reads_no_texts_as_encoders_do_is_named(
    backbone: Backbone, tmp_path: Path, kind: str, shape: dict[str, Any]
) -> None:
    folder = save_folder(tmp_path, backbone.tokenizer, kind, **shape)
    with pytest.raises(ModelError, match=rf"of the type '{kind}', which does not read .* Fix: give an encoder such as"):
        load_backbone(folder)


def test_a_tokenizer_without_marks_is_told_which(backbone: Backbone, tmp_path: Path) -> None:
    tokenizer = with_marks(backbone.tokenizer, SEP="<eos>")
    with pytest.raises(ModelError, match=r"no mark of a text's end \(\[SEP\], </s>, <sep>\)\. Fix: "):
        load_backbone(save_folder(tmp_path, tokenizer, "electra", **SMALL))


def test_a_backbone_is_rebuilt_from_its_shape_and_weights(bert_folder: Path) -> None:
    loaded = load_backbone(str(bert_folder))
    encoder: Any = loaded.encoder
    again = rebuild(encoder.config.to_dict(), loaded.tokenizer.to_str(), "pretrained")
    again.encoder.load_state_dict(loaded.encoder.state_dict())
    ids = [loaded.start_id, *loaded.tokens_of("hose"), loaded.end_id]
    torch.testing.assert_close(states_of(again, ids), states_of(loaded, ids))


def test_a_folder_that_is_not_there_or_holds_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("gone", "empty"):
        with pytest.raises(ModelError, match=rf"{name}.* cannot be loaded.*Fix: give a folder"):
            load_backbone(str(tmp_path / name))


def test_minilm_weights_that_are_not_the_official_ones_are_refused(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    shutil.copytree(bert_folder, package)
    monkeypatch.setattr(backbones, "_minilm_package", lambda: package)
    with pytest.raises(ModelError, match="not the official all-MiniLM-L6-v2"):
        load_backbone("minilm")
    monkeypatch.setattr(backbones, "MINILM_SHA256", backbones._sha256(package / "model.safetensors"))
    assert load_backbone("minilm").width == 16


def test_scratch_tokens_are_the_same_each_time() -> None:
    texts = [f"{p.title} {p.brand}" for p in PRODUCTS]
    vocabularies = [scratch_backbone(texts, TINY).tokenizer.get_vocab() for _ in range(3)]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]
