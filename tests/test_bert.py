"""The encoder written out here against Hugging Face's: states, gradients, names; and what is left to that library."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from gram.coder.encoder.backbone import rebuild
from gram.coder.encoder.bert import Bert, BertConfig

SHAPES: dict[str, dict[str, Any]] = {
    "one head": {"num_attention_heads": 1},
    "deep": {"num_hidden_layers": 5, "num_attention_heads": 2},
    "wide inside": {"num_attention_heads": 8, "intermediate_size": 96},
    "relu": {"hidden_act": "relu", "num_attention_heads": 4},
    "one type": {"type_vocab_size": 1},
    "coarse norm": {"layer_norm_eps": 1e-2},
    "no token for padding": {"pad_token_id": None},
}
BASE = {
    "vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 16,
}  # fmt: skip
TOKENIZER = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}, "[UNK]")).to_str()
MASKS = {
    "one text": [6],
    "texts of one length": [5, 5, 5],
    "texts of all lengths": [7, 1, 4, 2],
}


def pair(shape: dict[str, Any]) -> tuple[Any, Bert]:
    """The library's encoder with weights of which none is 0 or the same as another, and ours of the same weights."""
    from transformers import BertConfig as LibraryConfig
    from transformers import BertModel

    theirs = BertModel(LibraryConfig(**BASE | shape, attn_implementation="sdpa"), add_pooling_layer=False).eval()
    torch.manual_seed(2)
    for weights in theirs.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    config = BertConfig.read(theirs.config.to_dict())
    assert config is not None
    ours = Bert(config)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def texts(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Embeddings (B, L, D) and mask (B, L) of texts of these lengths."""
    mask = (torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]).long()
    return torch.randn(*mask.shape, BASE["hidden_size"], generator=torch.Generator().manual_seed(3)), mask


@pytest.mark.parametrize("lengths", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_states_and_gradients_are_those_of_the_library(shape: dict[str, Any], lengths: list[int]) -> None:
    theirs, ours = pair(shape)
    embedded, mask = texts(lengths)
    found = []
    for encoder in (theirs, ours):
        states = encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state[mask.bool()]
        (states * torch.linspace(-1, 1, states.shape[-1])).sum().backward()
        gradients = {name: weights.grad for name, weights in encoder.named_parameters() if weights.grad is not None}
        found.append((states.detach(), gradients))
    (expected, expected_gradients), (states, gradients) = found
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-4, rtol=1e-4)


def test_bfloat16_is_computed_as_the_library_computes_it() -> None:
    theirs, ours = pair({})
    embedded, mask = texts([7, 3])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = theirs(inputs_embeds=embedded, attention_mask=mask).last_hidden_state[mask.bool()]
        states = ours(inputs_embeds=embedded, attention_mask=mask).last_hidden_state[mask.bool()]
    assert states.dtype == expected.dtype
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)


def test_what_a_mask_hides_is_not_read() -> None:
    _, ours = pair({})
    embedded, mask = texts([7, 3])
    with torch.no_grad():
        alone = ours(inputs_embeds=embedded[1:, :3], attention_mask=mask[1:, :3]).last_hidden_state
        padded = ours(inputs_embeds=embedded, attention_mask=mask).last_hidden_state[1:, :3]
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=0)


def test_a_shape_is_saved_so_that_the_library_reads_it() -> None:
    from transformers import AutoConfig

    shape = BertConfig(**BASE, hidden_act="relu", pad_token_id=3)
    assert BertConfig.read(shape.to_dict()) == shape
    assert BertConfig.read(AutoConfig.for_model(**shape.to_dict()).to_dict()) == shape


def test_defaults_are_those_of_the_library() -> None:
    from transformers import BertConfig as LibraryConfig

    assert BertConfig.read({"model_type": "bert"}) == BertConfig.read(LibraryConfig().to_dict()) == BertConfig()


@pytest.mark.parametrize(
    "other",
    [
        {"model_type": "roberta"},
        {"position_embedding_type": "relative_key"},
        {"hidden_act": "gelu_new"},
        {"is_decoder": True},
        {"quantization_config": {"bits": 4}},
        {"add_cross_attention": True},
    ],
)
def test_what_is_not_done_here_is_left_to_the_library(other: dict[str, Any]) -> None:
    config = {"model_type": "bert", **BASE, **other}
    assert BertConfig.read(config) is None
    if not config.get("add_cross_attention"):  # which the library has in decoders only
        encoder = rebuild(config, TOKENIZER, "pretrained").encoder
        assert type(encoder).__module__.startswith("transformers.")


def test_a_shape_without_a_type_is_not_taken_for_a_bert() -> None:
    assert BertConfig.read(BASE) is None


def test_heads_that_cannot_share_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="5 heads cannot share a width of 32"):
        Bert(BertConfig(**BASE | {"num_attention_heads": 5}))


def test_random_weights_are_those_of_a_bert() -> None:
    torch.manual_seed(0)
    bert = Bert(BertConfig(**BASE | {"vocab_size": 3000, "initializer_range": 0.1})).start()
    tokens = bert.get_input_embeddings().weight
    assert tokens[0].abs().sum() == 0  # what fills short texts up
    assert tokens[1:].std().item() == pytest.approx(0.1, rel=0.02)
    dense = bert.encoder["layer"][1].intermediate["dense"]  # type: ignore[index]
    assert dense.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert dense.bias.abs().sum() == 0
