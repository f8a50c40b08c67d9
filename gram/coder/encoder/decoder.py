"""The decoder: from a text and the first attribute of a code on to compound codes.

Letters: B texts, L tokens, D width, H hypotheses, t attributes written so far, E allowed children of all hypotheses,
G learnt attributes.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gram.coder.base import Side
from gram.codes.trie import MAX_LENGTH

LAYERS, HEADS = 2, 6


class _Layer(nn.Module):
    """Self-attention over the written attributes, attention to the text, and a feed-forward part; pre-normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = HEADS if width % HEADS == 0 else 4
        self.attend_self = nn.Linear(width, 3 * width)
        self.attend_self_out = nn.Linear(width, width)
        self.ask = nn.Linear(width, width)
        self.text = nn.Linear(width, 2 * width)
        self.text_out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        for out in (self.attend_self_out, self.text_out, self.down):
            nn.init.zeros_(out.weight)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (·, heads, ·, D / heads)

    def memory(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the texts' states, (B, heads, L, D / heads) each."""
        keys, values = self.text(states).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, ignored: Tensor) -> Tensor:
        """x (H, t, D); keys, values (H, heads, L, ·); `ignored` (H, 1, 1, L) is added to attention scores."""
        asks, self_keys, self_values = (self._split(p) for p in self.attend_self(self.norms[0](x)).chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(asks, self_keys, self_values, is_causal=True)  # (H, heads, t, ·)
        x = x + self.attend_self_out(attended.transpose(1, 2).flatten(2))
        ask = self._split(self.ask(self.norms[1](x)))
        text = F.scaled_dot_product_attention(ask, keys, values, attn_mask=ignored)  # (H, heads, t, ·)
        x = x + self.text_out(text.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norms[2](x))))


class Memory:
    """What the decoder keeps of a batch of texts: keys and values a layer, and the first step's logits."""

    def __init__(
        self, layers: list[tuple[Tensor, Tensor]], ignored: Tensor, logits: Tensor, attributes: Tensor
    ) -> None:
        self.layers, self.ignored, self.logits, self.attributes = layers, ignored, logits, attributes


class Decoder(nn.Module):
    """Writes the next attribute of a code: the first step's logit of it, and what the text and the prefix add."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(MAX_LENGTH, width))
        self.side = nn.Parameter(torch.zeros(2, width))
        self.layers = nn.ModuleList(_Layer(width) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.out.weight, std=0.5 / width**0.5)
        self.end = nn.Linear(width, 1)
        self.first_step = nn.Parameter(torch.tensor(0.7))

    def remember(self, states: Tensor, mask: Tensor, logits: Tensor, attributes: Tensor) -> Memory:
        """`states` (B, L, D), `mask` (B, L), first-step `logits` (B, G), `attributes` (G, D) of unit length."""
        ignored = torch.zeros(mask.shape, dtype=states.dtype, device=mask.device).masked_fill(mask == 0, -1e4)
        layers = [layer.memory(states) for layer in self.layers]  # type: ignore[operator]
        return Memory(layers, ignored[:, None, None, :], logits, attributes)

    def forward(self, memory: Memory, rows: Tensor, prefixes: Tensor, side: Side) -> Tensor:
        """The state after each attribute of the prefixes (H, t): (H, t, D)."""
        t = prefixes.shape[1]
        x = F.embedding(prefixes.clamp(min=0), memory.attributes) * memory.attributes.shape[1] ** 0.5 / 4
        x = x + self.position[:t] + self.side[side]  # (H, t, D)
        ignored = memory.ignored[rows]
        for layer, (keys, values) in zip(self.layers, memory.layers, strict=True):
            x = layer(x, keys[rows], values[rows], ignored.to(keys.dtype))
        return self.norm(x)

    def child_logits(self, memory: Memory, rows: Tensor, after: Tensor, of: Tensor, tokens: Tensor) -> Tensor:
        """Logits (E,) of children `tokens` (E,) after the states `after` (H, D), `of` (E,) says which; rows (H,)."""
        wish = self.out(after).float()  # (H, D)
        if wish.requires_grad and len(of) > 16 * len(wish):  # every attribute costs less than copies of states
            match = (wish @ memory.attributes.float().T)[of, tokens]  # (E,)
        elif wish.requires_grad:
            match = (wish[of] * memory.attributes[tokens].float()).sum(-1)  # (E,)
        else:
            match = _sampled(wish, memory.attributes.float(), of, tokens)
        return self.first_step * memory.logits[rows[of], tokens] + match

    def end_logits(self, after: Tensor) -> Tensor:
        """Logits (H,) of ending the code after the states `after` (H, D)."""
        return self.end(after).float().squeeze(-1)


def _sampled(wish: Tensor, attributes: Tensor, of: Tensor, tokens: Tensor) -> Tensor:
    """wish[of] · attributes[tokens], (E,), without the (E, D) copies that take 40 times as long; `of` is in order."""
    start = F.pad(torch.bincount(of, minlength=len(wish)).cumsum(0), (1, 0))  # (H + 1,)
    with torch.autocast(wish.device.type, enabled=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "Sparse CSR tensor support is in beta state"
        where = torch.sparse_csr_tensor(
            start, tokens, wish.new_zeros(len(tokens)), (len(wish), len(attributes)), check_invariants=False
        )
        return torch.sparse.sampled_addmm(where, wish, attributes.T, beta=0.0).values()


class NextFromDecoder:
    """What the beam asks of the next attribute: one batch of texts, one side."""

    def __init__(self, decoder: Decoder, memory: Memory, side: Side) -> None:
        self.decoder, self.memory, self.side = decoder, memory, side

    def __call__(self, rows: Tensor, prefixes: Tensor, row_of_child: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        after = self.decoder(self.memory, rows, prefixes, self.side)[:, -1]  # (H, D)
        return self.decoder.child_logits(self.memory, rows, after, row_of_child, tokens), self.decoder.end_logits(after)
