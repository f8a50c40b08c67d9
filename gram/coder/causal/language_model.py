"""The language models that write codes: any causal or encoder–decoder model of Hugging Face, with its tokenizer.

Letters: X texts with a code each, L tokens of the longest prompt, t tokens of the longest code, V words of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from gram.errors import ModelError, SettingError

SCRATCH = ("scratch", "scratch-qwen3", "scratch-llama", "scratch-t5")
"""Small models of random weights whose tokens are learnt from the catalogue: for tests, and to see the whole run."""
PROMPT_TOKENS = 160
"""Tokens of a prompt that are read; what a product says last is cut."""
IGNORED = -100


@dataclass(frozen=True)
class LanguageModelSettings:
    """How a language model is loaded and which of its weights are trained."""

    name: str = "scratch"
    lora: int = 16  # rank of the adapters that are trained in place of all weights; 0 trains all
    four_bit: bool = False  # the frozen weights in four bits (QLoRA); wants a GPU and the package bitsandbytes
    checkpointing: bool = False  # computes activations again in the backward pass in place of keeping them
    dtype: str = "auto"  # auto: the fastest that the device has; or float32, bfloat16, float16
    width: int = 128  # of a model from scratch
    layers: int = 2
    vocabulary: int = 4000

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise SettingError("the language model has no name. Fix: give a hub id, a folder, or scratch")
        if self.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise SettingError(f"dtype is auto, float32, bfloat16 or float16, not {self.dtype!r}")
        if self.lora < 0:
            raise SettingError(f"the rank of LoRA's adapters is at least 1, or 0 to train all weights, not {self.lora}")
        if self.four_bit and (self.from_scratch or not self.lora):
            raise SettingError("frozen weights in four bits go with LoRA and a pretrained model. Fix: leave out 4-bit")

    @property
    def from_scratch(self) -> bool:
        return self.name in SCRATCH

    @property
    def adapted(self) -> bool:
        """Whether adapters are trained, not the weights themselves; random weights are worth training whole."""
        return self.lora > 0 and not self.from_scratch


class LanguageModel(nn.Module):
    """A language model and its tokens. Prompt and code are tokenised apart: what one says never changes the other."""

    def __init__(
        self, model: nn.Module, tokenizer: Tokenizer, settings: LanguageModelSettings, end_id: int, origin: str = ""
    ) -> None:
        """`origin` says which weights adapters stand on: `sha256:…` of a folder's, `commit:…` of a hub id's."""
        super().__init__()
        self.origin = origin
        self.model: Any = model
        self.tokenizer, self.settings, self.end_id = tokenizer, settings, end_id
        config: Any = model.config
        self.encodes = bool(config.is_encoder_decoder)
        self.pad_id = int(config.pad_token_id if config.pad_token_id is not None else end_id)
        self.begin_id: int = int(config.decoder_start_token_id or 0) if self.encodes else -1
        base: Any = getattr(model, "get_base_model", lambda: model)
        inner = base()
        forward = inspect.signature(inner.forward)
        self.cache_name = "cache" if "cache" in forward.parameters else "past_key_values"  # as transformers calls it
        self.keeps_few = "logits_to_keep" in forward.parameters
        tokenizer.no_truncation()
        tokenizer.no_padding()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype | None:
        """What is computed in; None for the fastest that the device has."""
        chosen = self.settings.dtype
        return None if chosen == "auto" else getattr(torch, chosen)

    def read_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt, at most PROMPT_TOKENS, with the marks that the model is used to."""
        rows = []
        for row in self.tokenizer.encode_batch(list(prompts)):
            ids = row.ids
            if not self.encodes and ids and ids[-1] == self.end_id:  # the code goes on where the prompt ends
                ids = ids[:-1]
            rows.append(ids if len(ids) <= PROMPT_TOKENS else ids[: PROMPT_TOKENS - TAIL] + ids[-TAIL:])
        return rows

    def read_codes(self, codes: Sequence[str]) -> list[list[int]]:
        """The tokens of each code, without any mark; a causal model's begin with the blank behind the colon."""
        lines = [code if self.encodes else f" {code}" for code in codes]
        return [row.ids for row in self.tokenizer.encode_batch(lines, add_special_tokens=False)]

    def log_probs(self, prompts: Sequence[Sequence[int]], codes: Sequence[Sequence[int]]) -> Tensor:
        """log P of every token of the codes and of the end behind it, given the prompts: (X, t + 1), 0 past the end."""
        ended = [[*code, self.end_id] for code in codes]
        if self.encodes:
            read, mask = self.pad(prompts)
            labels = _pad_right(ended, IGNORED, self.device)
            begun = F.pad(labels.masked_fill(labels == IGNORED, self.pad_id)[:, :-1], (1, 0), value=self.begin_id)
            logits = self.model(input_ids=read, attention_mask=mask, decoder_input_ids=begun).logits
            return _picked(logits, labels)
        # padded on the left, all codes end at the end: the words' logits are computed there alone
        joined = [[*prompt, *code] for prompt, code in zip(prompts, ended, strict=True)]
        longest, kept = max(map(len, joined)), max(map(len, ended))
        ids = torch.tensor([[self.pad_id] * (longest - len(row)) + row for row in joined], device=self.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in joined], device=self.device)
        position = (mask.cumsum(1) - 1).clamp(min=0)
        few = {"logits_to_keep": kept + 1} if self.keeps_few else {}
        logits = self.model(input_ids=ids, attention_mask=mask, position_ids=position, **few).logits[:, -kept - 1 : -1]
        labels = _pad_right(ended, IGNORED, self.device)  # (X, t + 1)
        behind = torch.tensor([kept - len(code) for code in ended], device=self.device)
        at = (behind[:, None] + torch.arange(kept, device=self.device)).clamp(max=kept - 1)  # (X, t + 1)
        return _picked(logits.gather(1, at[:, :, None].expand(-1, -1, logits.shape[-1])), labels)

    def pad(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Prompts padded on the right and their mask, (X, L) each."""
        ids = _pad_right(prompts, self.pad_id, self.device)
        return ids, _pad_right([[1] * len(row) for row in prompts], 0, self.device)

    def trainable(self) -> dict[str, Tensor]:
        """The weights that training changes, and that a model folder keeps: the adapters', or all."""
        if self.settings.adapted:
            return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        return dict(self.model.state_dict())

    def load_trained(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over what `trainable` gave. Raises ModelError for weights of another model, or a part of them."""
        missing, unexpected = self.model.load_state_dict(dict(weights), strict=False)
        lacking = sorted(set(missing) & set(self.trainable()))
        if lacking or unexpected:
            raise ModelError(f"the weights do not fit {self.settings.name} ({', '.join([*lacking, *unexpected][:3])})")

    def describe(self) -> dict[str, Any]:
        """What `rebuild` needs beside the weights and the tokenizer."""
        shape = self.model.config.to_dict()
        return {"settings": asdict(self.settings), "end_id": self.end_id, "shape": shape, "origin": self.origin}


TAIL = 4
"""Tokens of a prompt's end that are kept where it is cut: `code:` must stand there."""


def _pad_right(rows: Sequence[Sequence[int]], value: int, device: torch.device) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], device=device)


def _picked(logits: Tensor, labels: Tensor) -> Tensor:
    """log P of the labels (X, t), 0 where there is none, from logits (X, t, V)."""
    known = labels != IGNORED
    log_prob = torch.log_softmax(logits.float(), dim=-1)
    return log_prob.gather(-1, labels.clamp(min=0)[:, :, None]).squeeze(-1) * known
