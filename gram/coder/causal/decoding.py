"""Decoding that writes only codes that exist: a trie of the tokens of all codes, and the model's next word along it.

The beam (`coder/beam.py`) is the same as the encoder's decoder has; here the steps are tokens, with the keys and values
of what was read kept from step to step.

Letters: B texts, H hypotheses, t tokens written so far, E allowed next tokens of all hypotheses, C codes, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gram.coder.causal.language_model import LanguageModel
from gram.codes.trie import CodeTrie


class TokenTrie(NamedTuple):
    """The codes of a space as a trie of tokens; `code_id` leads from its rows to the space."""

    trie: CodeTrie
    code_id: NDArray[np.int64]  # (rows,)

    @classmethod
    def build(cls, tokens: Sequence[Sequence[int]]) -> TokenTrie:
        """From the tokens of each code (C of them), by the code's id.

        Where a tokenizer reads two codes as the same tokens, the first keeps them and the other is never written; so it
        is with one of no tokens.
        """
        first: dict[tuple[int, ...], int] = {}
        for code, row in enumerate(tokens):
            if row:
                first.setdefault(tuple(row), code)
        longest = max(map(len, first), default=1)
        table = np.full((len(first), longest), -1, dtype=np.int32)
        for i, row in enumerate(first):
            table[i, : len(row)] = row
        return cls(CodeTrie.build(table, longest), np.array(list(first.values()), dtype=np.int64))


class NextToken:
    """What the beam asks of a language model: how likely each allowed next token is, and the end."""

    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        self.model = model
        if model.encodes:
            ids, self.mask = model.pad(prompts)
            encoder: Any = model.model.get_encoder()
            self.states = encoder(input_ids=ids, attention_mask=self.mask).last_hidden_state  # (B, L, D)
            begin = torch.full((len(prompts), 1), model.begin_id, device=model.device)
            self.cache, self.logits = self._ask(begin, None, torch.arange(len(prompts), device=model.device))
        else:
            longest = max(map(len, prompts))
            padded = [[model.pad_id] * (longest - len(row)) + list(row) for row in prompts]  # read from the left on
            ids = torch.tensor(padded, device=model.device)
            lengths = torch.tensor([len(row) for row in prompts], device=model.device)
            self.mask = (torch.arange(longest, device=model.device) >= (longest - lengths)[:, None]).long()
            self.lengths = lengths
            self.cache, self.logits = self._ask(ids, None, torch.arange(len(prompts), device=model.device))
        self.row = torch.arange(len(prompts), device=model.device)  # (H,) of the hypotheses that `cache` is of
        self.prefix = self.row[:, None][:, :0]  # (H, t)

    def __call__(self, rows: Tensor, prefixes: Tensor, row_of_child: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        if prefixes.shape[1]:
            parent = _find(self.row, self.prefix, rows, prefixes[:, :-1])
            self.cache.reorder_cache(parent)
            self.cache, self.logits = self._ask(prefixes[:, -1:], self.cache, rows)
        self.row, self.prefix = rows, prefixes
        return self.logits[row_of_child, tokens], self.logits[:, self.model.end_id]

    def _ask(self, ids: Tensor, cache: Any, rows: Tensor) -> tuple[Any, Tensor]:
        """The cache and the next word's logits (H, V) after some more tokens (H, n) of texts `rows` (H,)."""
        if self.model.encodes:
            out = self.model.model(
                decoder_input_ids=ids,
                encoder_outputs=(self.states[rows],),
                attention_mask=self.mask[rows],
                use_cache=True,
                **{self.model.cache_name: cache},
            )
            return getattr(out, self.model.cache_name), out.logits[:, -1].float()
        mask = self.mask[rows]
        n_before = 0 if cache is None else self.prefix.shape[1]
        if cache is None:
            position = (mask.cumsum(1) - 1).clamp(min=0)
        else:
            mask = torch.cat([mask, mask.new_ones(len(rows), n_before + 1)], dim=1)
            position = (self.lengths[rows] + n_before)[:, None]
        more = {self.model.cache_name: cache} | ({"logits_to_keep": 1} if self.model.keeps_few else {})
        out = self.model.model(input_ids=ids, attention_mask=mask, position_ids=position, use_cache=True, **more)
        return getattr(out, self.model.cache_name), out.logits[:, -1].float()


def _find(row: Tensor, prefix: Tensor, rows: Tensor, prefixes: Tensor) -> Tensor:
    """For each of (rows, prefixes) its place among (row, prefix), in which each stands once and all are found."""
    before = torch.cat([row[:, None], prefix], dim=1)
    after = torch.cat([rows[:, None], prefixes], dim=1)
    _, number = torch.unique(torch.cat([before, after]), dim=0, return_inverse=True)
    number_of = number.new_zeros(int(number.max()) + 1)
    number_of[number[: len(before)]] = torch.arange(len(before), device=row.device)
    return number_of[number[len(before) :]]


def code_tokens(model: LanguageModel, lines: Sequence[str]) -> list[list[int]]:
    """The tokens of each code's line, in parts so that a million lines need no memory at once."""
    tokens: list[list[int]] = []
    for begin in range(0, len(lines), 50_000):
        tokens += model.read_codes(lines[begin : begin + 50_000])
    return tokens
