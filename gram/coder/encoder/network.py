"""The coder's network: one encoder for queries and products, and what its one pass says.

Letters: B texts, L tokens, D width, G learnt attributes, A ≥ G all attributes, T lexical attributes of a batch, W width
of a token vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gram.coder.base import Side
from gram.coder.encoder.backbone import Backbone
from gram.coder.encoder.match import best_match
from gram.coder.encoder.tokens import Batch
from gram.codes.lexicon import Lexicon
from gram.text.fields import FIELDS

_FIELD_WEIGHTS = {"title": 1.0, "brand": 0.9, "category": 0.8, "attribute": 0.7, "description": 0.35}
TOKEN_WIDTH = 64  # W; at most the encoder's width
CONTRASTIVE_SHARE = 0.25
"""How much of the contrastive loss's gradient moves what an attribute means; the rest moves only how much it counts. At
1 the attributes drift from what they say: their likelihood falls below that of guessing by frequency."""


class FirstStep(NamedTuple):
    """What one encoder pass says of B texts.

    `logits` are of P(a|x): that a product relevant to the query has attribute a, or that a searcher of the product
    names it. `expansion` and `lexical` are the weights w(a|x) ≥ 0 of single codes; an attribute that a text
    holds is in `lexical` only, in the order of the batch's `tag_row` and `tag_attribute`.
    """

    logits: Tensor  # (B, G)
    expansion: Tensor  # (B, G)
    lexical: Tensor  # (T,)
    vectors: Tensor  # (B, D) of unit length
    states: Tensor  # (B, L, D)
    token_vectors: Tensor  # (B, L, W) of unit length; 0 for the marks around a text
    token_weights: Tensor  # (B, L) that sum to 1 over a text; 0 for the marks, and for a text without tokens


@dataclass(frozen=True)
class NetworkSettings:
    """What of the network is fixed before training."""

    logit_scale: float = 12.0  # of the cosine between an attribute and a position of the text
    logit_bias: float = -9.0
    floor: float = 4.0  # expansion weights start where a logit exceeds −floor


class Network(nn.Module):
    """Encoder, attribute embeddings, gates and base weights."""

    attribute_text: Tensor

    def __init__(self, backbone: Backbone, lexicon: Lexicon, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        settings = settings or NetworkSettings()
        width, n_learnt = backbone.width, lexicon.n_learnt
        self.encoder = backbone.encoder
        self.side = nn.Parameter(torch.zeros(2, backbone.embedding_width))
        self.match = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.match.weight)
        self.register_buffer("attribute_text", torch.zeros(n_learnt, width))  # the encoder's reading, frozen
        self.attribute_shift = nn.Parameter(torch.zeros(n_learnt, width))
        self.logit_scale = nn.Parameter(torch.full((2,), settings.logit_scale))
        self.logit_bias = nn.Parameter(torch.full((2, n_learnt), settings.logit_bias))
        self.floor = nn.Parameter(torch.full((2,), settings.floor))
        idf = torch.from_numpy(lexicon.idf)
        length = torch.tensor([len(forms[0]) for forms in lexicon.forms])
        base = (0.35 * idf.clamp(max=9).sqrt() / length.float().sqrt()).log()  # a phrase repeats what its words say
        self.lexical_base = nn.Parameter(base)  # (A,) logarithms
        self.expansion_base = nn.Parameter(base[:n_learnt] - 1.2)  # (G,) logarithms
        self.gate = nn.Linear(width, 2)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.token_projection = nn.Linear(width, min(TOKEN_WIDTH, width), bias=False)
        nn.init.orthogonal_(self.token_projection.weight)
        self.token_gate = nn.Linear(width, 1)
        nn.init.zeros_(self.token_gate.weight)
        nn.init.zeros_(self.token_gate.bias)
        self.field = nn.Parameter(torch.tensor([_FIELD_WEIGHTS[name] for name in FIELDS]))
        self.length_slope = nn.Parameter(torch.tensor(0.15))

    @property
    def attributes(self) -> Tensor:
        """The learnt attributes' embeddings, (G, D), of unit length."""
        return F.normalize(self.attribute_text + self.attribute_shift, dim=-1)

    def reading(self) -> list[nn.Parameter]:
        """The weights by which `read` reads a text."""
        return [*self.encoder.parameters(), self.side]

    def read(self, batch: Batch, side: Side) -> Tensor:
        """The encoder's states, (B, L, D); a side marker is added to every token."""
        embedded = self.encoder.get_input_embeddings()(batch.token_ids) + self.side[side]  # type: ignore[operator]
        out = self.encoder(inputs_embeds=embedded, attention_mask=batch.mask)
        return out.last_hidden_state

    def forward(self, batch: Batch, side: Side, attributes: Tensor | None = None) -> FirstStep:
        states = self.read(batch, side)  # (B, L, D)
        mean = _mean(states, batch.mask)  # (B, D)
        vectors = F.normalize(mean.float(), dim=-1)  # (B, D)
        positions = self._positions(states, mean)  # (B, L, D)
        logits = self.match_logits(positions, batch.mask, side, self.attributes if attributes is None else attributes)
        base = self.expansion_base.exp()  # (G,)
        damped = logits.detach() + CONTRASTIVE_SHARE * (logits - logits.detach())  # (B, G) of less gradient
        expansion = base * torch.log1p(F.relu(damped + self.floor[side]))  # (B, G)
        both = batch.tag_attribute < self.expansion_base.shape[0]  # (T,)
        keep = torch.ones_like(expansion)
        keep[batch.tag_row[both], batch.tag_attribute[both]] = 0.0
        lexical = self._lexical(states, batch, side)
        return FirstStep(logits, expansion * keep, lexical, vectors, states, *self._token_vectors(states, batch.mask))

    def read_vectors(self, batch: Batch, side: Side) -> tuple[Tensor, Tensor]:
        """Of a pass its vectors alone, (B, D), and the token vectors, (B, L, W)."""
        states = self.read(batch, side)
        return F.normalize(_mean(states, batch.mask).float(), dim=-1), self._token_vectors(states, batch.mask)[0]

    def match_logits(
        self, positions: Tensor, mask: Tensor, side: Side, attributes: Tensor, which: slice = slice(None)
    ) -> Tensor:
        """The best match of each attribute, or of some (G), over positions as `positions` gives them, (B, G)."""
        best = best_match(positions, mask, attributes[which])  # (B, G)
        return self.logit_scale[side] * best + self.logit_bias[side, which]

    def positions(self, states: Tensor, mask: Tensor) -> Tensor:
        """What attributes are matched with: a text's positions, and the text as a whole, (B, L, D) of unit length."""
        return self._positions(states, _mean(states, mask))

    def _positions(self, states: Tensor, mean: Tensor) -> Tensor:
        # the start mark makes room for the mean
        positions = torch.cat([mean.unsqueeze(1), states[:, 1:]], dim=1)  # (B, L, D)
        return F.normalize(self.match(positions), dim=-1)  # (B, L, D)

    def near(self, step: FirstStep, batch: Batch, attributes: Tensor) -> Tensor:
        """How near each learnt attribute comes to what a text says by each attribute that it holds, (T, G)."""
        return self.near_spans(step, batch.tag_row, batch.tag_start, batch.tag_end, attributes)

    def near_spans(self, step: FirstStep, row: Tensor, start: Tensor, end: Tensor, attributes: Tensor) -> Tensor:
        """How near each learnt attribute comes to what stands from some positions up to others, (T, G): the mean over
        these of the cosines whose best over all positions an expansion's logit is made of."""
        positions = F.normalize(self.match(step.states).float(), dim=-1)  # (B, L, D)
        total = F.pad(positions.cumsum(1), (0, 0, 1, 0))  # (B, L + 1, D)
        mean = (total[row, end] - total[row, start]) / (end - start).unsqueeze(-1)  # (T, D)
        return mean @ attributes.float().T

    def _token_vectors(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The token vectors (B, L, W) and their weights (B, L); both 0 for the marks at both ends."""
        inside = torch.zeros_like(mask)
        inside[:, 1:-1] = mask[:, 2:]
        vectors = F.normalize(self.token_projection(states).float(), dim=-1) * inside.unsqueeze(-1)
        gates = self.token_gate(states).float().squeeze(-1).masked_fill(inside == 0, -1e4)  # (B, L)
        return vectors, torch.softmax(gates, dim=1) * inside

    def _lexical(self, states: Tensor, batch: Batch, side: Side) -> Tensor:
        """Base weight × gate, read where the attribute stands, × field, (T,)."""
        gates = self.gate(states).float()[..., side]  # (B, L)
        row, start, end = batch.tag_row, batch.tag_start, batch.tag_end
        total = F.pad(gates.cumsum(1), (1, 0))  # (B, L + 1)
        gate = (total[row, end] - total[row, start]) / (end - start)  # (T,)
        weight = self.lexical_base[batch.tag_attribute].exp() * 2 * torch.sigmoid(gate)
        if side == Side.PRODUCT:
            long = 1 + self.length_slope * (batch.n_words[row] / 12 - 1).clamp(-1, 2)
            weight = weight * self.field[batch.tag_field].clamp(min=0) / long.clamp(min=0.3)
        return weight


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean state of each text, (B, D)."""
    there = mask.unsqueeze(-1).to(states.dtype)  # (B, L, 1)
    return (states * there).sum(1) / there.sum(1)
