"""The best match of every attribute over a text's positions, with a gradient that costs only what matters.

Letters: B texts, L positions of the longest, D width, G attributes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALL = 1e-3
"""Gradients under this share of the largest are dropped: they are noise of attributes far from the text."""
CHUNK = 4
"""Texts matched at a time, so that (CHUNK, L, G) stays in the processor's cache."""


def best_match(positions: Tensor, mask: Tensor, attributes: Tensor) -> Tensor:
    """max over l of positions[b, l] · attributes[g], (B, G), over the positions where `mask` (B, L) is not 0.

    The obvious form, `(positions @ attributes.T).amax(1)`, spends four fifths of its time in a backward pass over
    (B, L, G) in which all but one position of each (b, g) is zero.
    """
    best: Tensor = _BestMatch.apply(positions, mask, attributes)
    return best


class _BestMatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, mask: Tensor, attributes: Tensor) -> Tensor:
        if len(positions) == 1 and not _tracked(ctx):  # one query: nothing is copied, the table is read once
            return (attributes.to(positions.dtype) @ positions[0, mask[0] != 0].T).amax(1).unsqueeze(0).float()
        table = attributes.to(positions.dtype).T  # (D, G)
        best = positions.new_empty(len(positions), table.shape[1])  # (B, G)
        where = torch.empty(best.shape, dtype=torch.int64, device=positions.device) if _tracked(ctx) else None
        ignored = (mask == 0).unsqueeze(-1)  # (B, L, 1)
        for b in range(0, len(positions), CHUNK):
            match = positions[b : b + CHUNK] @ table  # (CHUNK, L, G)
            match.masked_fill_(ignored[b : b + CHUNK], -1e4)
            if where is None:
                best[b : b + CHUNK] = match.amax(1)
            else:
                best[b : b + CHUNK], where[b : b + CHUNK] = match.max(1)
        ctx.save_for_backward(positions, attributes, *([] if where is None else [where]))
        return best.float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        positions, attributes, where = ctx.saved_tensors
        (grad,) = grads
        n_texts, n_positions, width = positions.shape
        kept = grad.abs() > SMALL * grad.abs().amax() if grad.numel() else grad > 0
        text, attribute = kept.nonzero(as_tuple=True)
        position = text * n_positions + where[text, attribute]
        values = grad[text, attribute]
        size = (n_texts * n_positions, len(attributes))
        picked = torch.sparse_coo_tensor(
            torch.stack([position, attribute]), values.float(), size, check_invariants=False
        )
        to_positions = torch.sparse.mm(picked, attributes.float())  # (B · L, D)
        to_attributes = torch.sparse.mm(picked.t(), positions.reshape(-1, width).float())  # (G, D)
        return to_positions.view_as(positions).to(positions.dtype), None, to_attributes.to(attributes.dtype)


def _tracked(ctx: Any) -> bool:
    return any(ctx.needs_input_grad)
