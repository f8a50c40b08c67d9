"""A pretrained encoder as the core of a network of ours: reading texts, pooling them, its weights in a folder.

Letters: B texts of a batch, L tokens of the longest, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gram.errors import ModelError

QUERY_TOKENS, PRODUCT_TOKENS = 24, 48
"""Tokens read of a query and of a product; the rest is cut."""


class PretrainedEncoder(nn.Module):
    """A Hugging Face encoder with its tokenizer."""

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        super().__init__()
        self.encoder, self.tokenizer = encoder, tokenizer
        self.width: int = encoder.config.hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @staticmethod
    def load(model: str | Path, device: str = "cpu") -> PretrainedEncoder:
        """The encoder of a folder or a hub id, in float32. Raises ModelError where there is none."""
        from transformers import AutoModel, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(model))
            encoder = AutoModel.from_pretrained(str(model), dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"The encoder '{model}' cannot be loaded: {str(error).splitlines()[0]} "
                "Fix: give a folder with config.json, model.safetensors and tokenizer.json, or a hub id while online"
            ) from error
        return PretrainedEncoder(encoder, tokenizer).to(device)

    def save(self, folder: Path) -> None:
        """Writes what `load` reads."""
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def token_ids(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """The tokens of each text between the tokenizer's special ones, at most `limit`."""
        limit = min(limit, self.encoder.config.max_position_embeddings)
        return self.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"] if texts else []

    def forward(self, token_ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """States (B, L, D) and which of them are of tokens (B, L), bool."""
        longest = max(map(len, token_ids))
        mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in token_ids])  # (B, L)
        ids = torch.zeros(mask.shape, dtype=torch.int64)  # (B, L)
        ids[mask] = torch.tensor([token for row in token_ids for token in row])
        ids, mask = ids.to(self.device), mask.to(self.device)
        return self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask


def pool(states: Tensor, mask: Tensor) -> Tensor:
    """(B, D) the mean of the states (B, L, D) of a text's tokens, at unit length."""
    kept = mask[..., None].to(states.dtype)  # (B, L, 1)
    return F.normalize((states * kept).sum(1).float() / kept.sum(1).float(), dim=-1)


def by_length(token_ids: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Batches of positions in `token_ids`, texts of like length together."""
    order = sorted(range(len(token_ids)), key=lambda i: (len(token_ids[i]), i))
    for first in range(0, len(order), size):
        yield order[first : first + size]


def two_lengths(token_ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of the shorter and of the longer texts, cut where padding both parts costs least.

    A batch of queries with a few products' texts would else be padded to those: three times the work.
    """
    order = sorted(range(len(token_ids)), key=lambda i: (len(token_ids[i]), i))
    lengths = [len(token_ids[i]) for i in order]
    cut = min(range(len(order), 0, -1), key=lambda n: n * lengths[n - 1] + (len(order) - n) * lengths[-1])
    return [part for part in (order[:cut], order[cut:]) if part]


def computing(bf16: bool, device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16 where wished."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


@torch.no_grad()
def vectors(encoder: PretrainedEncoder, texts: Sequence[str], limit: int, bf16: bool, what: str) -> Tensor:
    """(len(texts), D) float32, on the CPU: `pool` of each text; `what` names them on the progress bar."""
    encoder.eval()
    token_ids = encoder.token_ids(texts, limit)
    out = torch.zeros(len(texts), encoder.width)
    with (
        computing(bf16, encoder.device),
        tqdm(total=len(texts), desc=what, unit=" texts", disable=len(texts) < 1000) as bar,
    ):
        for batch in by_length(token_ids, 128):
            out[batch] = pool(*encoder([token_ids[i] for i in batch])).cpu()
            bar.update(len(batch))
    return out


def groups_of(network: nn.Module, encoder_rate: float = 1e-4, rate: float = 1e-3) -> list[dict[str, Any]]:
    """Two groups for `fit`: the pretrained encoder's weights, and the new ones."""
    inner = [p for name, p in network.named_parameters() if name.startswith("encoder.")]
    outer = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
    return [{"params": inner, "lr": encoder_rate}, {"params": outer, "lr": rate}]


def save_weights(network: Any, folder: Path) -> None:
    """Writes `encoder/` by Hugging Face's own way and the other weights as `head.safetensors`."""
    from safetensors.torch import save_file

    network.encoder.save(folder / "encoder")
    head = {n: t.contiguous() for n, t in network.state_dict().items() if not n.startswith("encoder.")}
    save_file(head, folder / "head.safetensors")


def load_weights(network: nn.Module, folder: Path) -> None:
    """Reads `head.safetensors` into a network whose encoder is loaded already."""
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(folder / "head.safetensors"), strict=False)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{folder / 'head.safetensors'} cannot be used ({error}). Fix: train again") from None
