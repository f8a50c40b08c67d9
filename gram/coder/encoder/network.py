"""The generator's network: one encoder for queries and products, and what its first step writes.

Letters: B texts, L pieces, D width, G generated attributes, A ≥ G all attributes, T held (copied) attributes of a
batch, W width of a piece's vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gram.coder.encoder.backbone import Backbone
from gram.coder.encoder.match import best_match
from gram.coder.encoder.tokens import Batch
from gram.codes.lexicon import Lexicon
from gram.text.fields import FIELDS

QUERY, PRODUCT = 0, 1
_FIELD_WEIGHTS = {"title": 1.0, "brand": 0.9, "category": 0.8, "attribute": 0.7, "description": 0.35}
PIECE_WIDTH = 64  # of a piece's own vector, W; at most the encoder's width
MEETING_SHARE = 0.25
"""How much of the meeting loss's gradient moves what an attribute means; the rest moves only how much it counts. At 1
the attributes drift from what they say: their likelihood falls below that of guessing by frequency."""


class FirstStep(NamedTuple):
    """What one encoder pass says of B texts.

    `logits` are of P(a|x): that a product wanted by the query has attribute a, or that a searcher of the product
    names it. `generated` and `copied` are the weights w(a|x) ≥ 0 of one-attribute codes; an attribute that a text
    holds is in `copied` only, aligned with the batch's `tag_row` and `tag_attribute`.
    """

    logits: Tensor  # (B, G)
    generated: Tensor  # (B, G)
    copied: Tensor  # (T,)
    vectors: Tensor  # (B, D) of unit length
    states: Tensor  # (B, L, D)
    pieces: Tensor  # (B, L, W) of unit length; 0 for the marks around a text
    piece_weights: Tensor  # (B, L) that sum to 1 over a text; 0 for the marks, and for a text without pieces


@dataclass(frozen=True)
class NetworkSettings:
    """What of the network is fixed before training."""

    logit_scale: float = 12.0  # of the cosine between an attribute and a place of the text
    logit_bias: float = -9.0
    floor: float = 4.0  # generated weights start where a logit exceeds −floor


class Network(nn.Module):
    """Encoder, attribute embeddings, gates and base weights."""

    attribute_text: Tensor

    def __init__(self, backbone: Backbone, lexicon: Lexicon, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        settings = settings or NetworkSettings()
        width, n_generated = backbone.width, lexicon.n_generated
        self.encoder = backbone.encoder
        self.side = nn.Parameter(torch.zeros(2, width))
        self.match = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.match.weight)
        self.register_buffer("attribute_text", torch.zeros(n_generated, width))  # the encoder's reading, frozen
        self.attribute_shift = nn.Parameter(torch.zeros(n_generated, width))
        self.logit_scale = nn.Parameter(torch.full((2,), settings.logit_scale))
        self.logit_bias = nn.Parameter(torch.full((2, n_generated), settings.logit_bias))
        self.floor = nn.Parameter(torch.full((2,), settings.floor))
        idf = torch.from_numpy(lexicon.idf)
        length = torch.tensor([len(forms[0]) for forms in lexicon.forms])
        base = (0.35 * idf.clamp(max=9).sqrt() / length.float().sqrt()).log()  # a phrase repeats what its words say
        self.copied_base = nn.Parameter(base)  # (A,) logarithms
        self.generated_base = nn.Parameter(base[:n_generated] - 1.2)  # (G,) logarithms
        self.gate = nn.Linear(width, 2)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.piece = nn.Linear(width, min(PIECE_WIDTH, width), bias=False)
        nn.init.orthogonal_(self.piece.weight)
        self.piece_gate = nn.Linear(width, 1)
        nn.init.zeros_(self.piece_gate.weight)
        nn.init.zeros_(self.piece_gate.bias)
        self.field = nn.Parameter(torch.tensor([_FIELD_WEIGHTS[name] for name in FIELDS]))
        self.length_slope = nn.Parameter(torch.tensor(0.15))

    @property
    def attributes(self) -> Tensor:
        """The generated attributes' embeddings, (G, D), of unit length."""
        return F.normalize(self.attribute_text + self.attribute_shift, dim=-1)

    def read(self, batch: Batch, side: int) -> Tensor:
        """The encoder's states, (B, L, D); a side marker is added to every piece."""
        embedded = self.encoder.get_input_embeddings()(batch.pieces) + self.side[side]  # type: ignore[operator]
        out = self.encoder(inputs_embeds=embedded, attention_mask=batch.mask)
        return out.last_hidden_state

    def forward(self, batch: Batch, side: int, attributes: Tensor | None = None) -> FirstStep:
        states = self.read(batch, side)  # (B, L, D)
        mask = batch.mask.unsqueeze(-1).to(states.dtype)  # (B, L, 1)
        mean = (states * mask).sum(1) / mask.sum(1)  # (B, D)
        vectors = F.normalize(mean.float(), dim=-1)  # (B, D)
        logits = self._logits(states, mean, batch.mask, side, self.attributes if attributes is None else attributes)
        base = self.generated_base.exp()  # (G,)
        meant = logits.detach() + MEETING_SHARE * (logits - logits.detach())  # (B, G): the value of logits
        generated = base * torch.log1p(F.relu(meant + self.floor[side]))  # (B, G)
        held = batch.tag_attribute < self.generated_base.shape[0]  # (T,)
        keep = torch.ones_like(generated)
        keep[batch.tag_row[held], batch.tag_attribute[held]] = 0.0
        copied = self._copied(states, batch, side)
        return FirstStep(logits, generated * keep, copied, vectors, states, *self._pieces(states, batch.mask))

    def _logits(self, states: Tensor, mean: Tensor, mask: Tensor, side: int, attributes: Tensor) -> Tensor:
        """The best match of each attribute over the text's places and the text as a whole, (B, G)."""
        places = torch.cat(
            [mean.unsqueeze(1), states[:, 1:]], dim=1
        )  # (B, L, D): the start mark makes room for the mean
        places = F.normalize(self.match(places), dim=-1)  # (B, L, D)
        best = best_match(places, mask, attributes)  # (B, G)
        return self.logit_scale[side] * best + self.logit_bias[side]

    def _pieces(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The pieces' own vectors (B, L, W) and weights (B, L), without the marks at both ends."""
        inside = torch.zeros_like(mask)
        inside[:, 1:-1] = mask[:, 2:]
        vectors = F.normalize(self.piece(states).float(), dim=-1) * inside.unsqueeze(-1)
        gates = self.piece_gate(states).float().squeeze(-1).masked_fill(inside == 0, -1e4)  # (B, L)
        return vectors, torch.softmax(gates, dim=1) * inside

    def _copied(self, states: Tensor, batch: Batch, side: int) -> Tensor:
        """Base weight × gate read from the attribute's own place × field, (T,)."""
        gates = self.gate(states).float()[..., side]  # (B, L)
        row, start, end = batch.tag_row, batch.tag_start, batch.tag_end
        total = F.pad(gates.cumsum(1), (1, 0))  # (B, L + 1)
        gate = (total[row, end] - total[row, start]) / (end - start)  # (T,)
        weight = self.copied_base[batch.tag_attribute].exp() * 2 * torch.sigmoid(gate)
        if side == PRODUCT:
            long = 1 + self.length_slope * (batch.n_words[row] / 12 - 1).clamp(-1, 2)
            weight = weight * self.field[batch.tag_field].clamp(min=0) / long.clamp(min=0.3)
        return weight
