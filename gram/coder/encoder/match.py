"""The best match of every attribute over a text's places, with a gradient that costs only what matters.

Letters: B texts, L places of the longest, D width, G attributes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALL = 1e-3
"""Gradients under this share of the largest are dropped: they are noise of attributes far from the text."""
CHUNK = 4
"""Texts matched at a time, so that (CHUNK, L, G) does not leave the cache for long."""


def best_match(places: Tensor, mask: Tensor, attributes: Tensor) -> Tensor:
    """max over l of places[b, l] · attributes[g], (B, G), over the places where `mask` (B, L) is not 0.

    The obvious form, `(places @ attributes.T).amax(1)`, spends four fifths of its time in a backward pass over (B, L,
    G) in which all but one place of each (b, g) is zero.
    """
    best: Tensor = _BestMatch.apply(places, mask, attributes)
    return best


class _BestMatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, places: Tensor, mask: Tensor, attributes: Tensor) -> Tensor:
        if len(places) == 1 and not _tracked(ctx):  # one query: nothing is copied, the table is read once
            return (attributes.to(places.dtype) @ places[0, mask[0] != 0].T).amax(1).unsqueeze(0).float()
        table = attributes.to(places.dtype).T  # (D, G)
        best = places.new_empty(len(places), table.shape[1])  # (B, G)
        where = torch.empty(best.shape, dtype=torch.int64, device=places.device) if _tracked(ctx) else None
        hidden = (mask == 0).unsqueeze(-1)  # (B, L, 1)
        for b in range(0, len(places), CHUNK):
            match = places[b : b + CHUNK] @ table  # (CHUNK, L, G)
            match.masked_fill_(hidden[b : b + CHUNK], -1e4)
            if where is None:
                best[b : b + CHUNK] = match.amax(1)
            else:
                best[b : b + CHUNK], where[b : b + CHUNK] = match.max(1)
        ctx.save_for_backward(places, attributes, *([] if where is None else [where]))
        return best.float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        places, attributes, where = ctx.saved_tensors
        (grad,) = grads
        n_texts, n_places, width = places.shape
        kept = grad.abs() > SMALL * grad.abs().amax() if grad.numel() else grad > 0
        text, attribute = kept.nonzero(as_tuple=True)
        place = text * n_places + where[text, attribute]
        values = grad[text, attribute]
        size = (n_texts * n_places, len(attributes))
        picked = torch.sparse_coo_tensor(torch.stack([place, attribute]), values.float(), size, check_invariants=False)
        to_places = torch.sparse.mm(picked, attributes.float())  # (B · L, D)
        to_attributes = torch.sparse.mm(picked.t(), places.reshape(-1, width).float())  # (G, D)
        return to_places.view_as(places).to(places.dtype), None, to_attributes.to(attributes.dtype)


def _tracked(ctx: Any) -> bool:
    return any(ctx.needs_input_grad)
