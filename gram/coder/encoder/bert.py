"""BERT's encoder, which MiniLM and many others are: weights and their names are those of Hugging Face's `BertModel`.

It is written out here because that library takes as long to import as all the rest of a service's start. There is no
dropout: training runs the encoder without (`EncoderCoder.train`).

Letters: B texts, L tokens of the longest, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}

_ONLY = {
    **{"model_type": "bert", "position_embedding_type": "absolute"},
    **{"is_decoder": False, "add_cross_attention": False, "quantization_config": None},
}
"""What a configuration may say of these, where it says anything."""


@dataclass(frozen=True)
class BertConfig:
    """The shape of a BERT; names and defaults are Hugging Face's, of whose configuration this is the part that counts
    here."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> BertConfig | None:
        """The shape that a Hugging Face configuration tells of; None if it is of anything that `Bert` does not do."""
        if "model_type" not in config or any(config.get(key, only) != only for key, only in _ONLY.items()):
            return None
        shape = cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})
        return shape if shape.hidden_act in ACTIVATIONS else None

    def to_dict(self) -> dict[str, Any]:
        """As Hugging Face's configuration is saved, so that its library reads it too."""
        return {"model_type": "bert"} | asdict(self)


class States(NamedTuple):
    """What the encoder says, named as Hugging Face's encoders name it."""

    last_hidden_state: Tensor  # (B, L, D)


class Bert(nn.Module):
    """Called as Hugging Face's encoders are called here; every token is of type 0. Its weights are to be loaded, or
    begun by `start`.

    Raises ValueError for a width that its heads cannot share.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(f"{config.num_attention_heads} heads cannot share a width of {config.hidden_size}")
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))})

    @torch.no_grad()
    def start(self) -> Bert:
        """Itself, with a BERT's random weights: normal, and 0 for biases and for what fills short texts up."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
        return self

    def get_input_embeddings(self) -> nn.Embedding:
        """The tokens' embeddings by id."""
        return self.embeddings.word_embeddings

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor) -> States:
        """`inputs_embeds` (B, L, D), `attention_mask` (B, L): 0 where a text has ended, and nothing is read."""
        states = self.embeddings(inputs_embeds)  # (B, L, D)
        full = bool(attention_mask.all())  # one query always is; attention is faster without a mask
        read = None if full else attention_mask[:, None, None, :].bool()  # (B, 1, 1, L)
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            states = layer(states, read)
        return States(states)


class _Linear(nn.Linear):
    """One without torch's own random weights, which would be drawn for nothing."""

    def reset_parameters(self) -> None:
        pass


class _Embedding(nn.Embedding):
    """As `_Linear`."""

    def reset_parameters(self) -> None:
        pass


class _Embeddings(nn.Module):
    """What is added to tokens' embeddings: the type's and the position's."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = _Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = _Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = _Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, embedded: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: embedded.shape[1]]  # (L, D)
        states: Tensor = self.LayerNorm(embedded + self.token_type_embeddings.weight[0] + positions)
        return states


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (_Linear(width, width) for _ in range(3))

    def forward(self, states: Tensor, read: Tensor | None) -> Tensor:
        query, key, value = (
            project(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, L, D / H)
            for project in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=read)  # (B, H, L, D / H)
        return attended.transpose(1, 2).flatten(2)  # (B, L, D)


class _Output(nn.Module):
    """What a part of a layer has found, added to what it read and normalised."""

    def __init__(self, inner: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = _Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, found: Tensor, states: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(found) + states)
        return out


class _Layer(nn.Module):
    """Self-attention, and a feed-forward part."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        attention = {"self": _SelfAttention(width, config.num_attention_heads), "output": _Output(width, config)}
        self.attention = nn.ModuleDict(attention)
        self.intermediate = nn.ModuleDict({"dense": _Linear(width, inner)})
        self.output = _Output(inner, config)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, states: Tensor, read: Tensor | None) -> Tensor:
        """`states` (B, L, D); `read` (B, 1, 1, L) says which tokens are attended to, all if None."""
        states = self.attention["output"](self.attention["self"](states, read), states)
        out: Tensor = self.output(self.activation(self.intermediate["dense"](states)), states)
        return out
