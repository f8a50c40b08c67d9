"""Texts on which attributes are tried that are added: the encoder reads them once, whatever is added then.

Letters: N texts, B texts of a batch, L tokens of the longest, D width, G learnt attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gram.coder.base import Side
from gram.coder.encoder.network import Network
from gram.coder.encoder.tokens import TextTokenizer
from gram.coder.precision import computing
from gram.codes.lexicon import Lexicon
from gram.records import Product
from gram.text.fields import field_texts

SIZE = 64
"""Texts that are read together."""


class Positions(NamedTuple):
    """What attributes are matched with in some texts."""

    rows: NDArray[np.int64]  # (B,) which of the texts
    states: Tensor  # (B, L, D)
    mask: Tensor  # (B, L)


@dataclass(frozen=True)
class TriedTexts:
    """N texts of one side, as an encoder has read them. `counts` (G,) says for how many of them it writes each
    attribute that it has learnt with a probability of `least` or more."""

    texts: Sequence[str] | Sequence[Product]
    side: Side
    least: float
    counts: NDArray[np.int64]
    positions: Sequence[Positions]

    @classmethod
    @torch.inference_mode()
    def read(
        cls,
        network: Network,
        tokenizer: TextTokenizer,
        texts: Sequence[str] | Sequence[Product],
        side: Side,
        least: float,
    ) -> TriedTexts:
        tokenized, attributes = tokenizer.read(texts), network.attributes
        device, positions, counts = attributes.device, list[Positions](), torch.zeros(len(attributes)).long()
        for rows in tokenized.by_length(SIZE):
            batch = tokenized.batch(rows).to(device)
            with computing(device, precision_of(side)):
                step = network(batch, side, attributes)
                positions.append(Positions(rows, network.positions(step.states, batch.mask), batch.mask))
            counts += ((step.expansion > 0) & (torch.sigmoid(step.logits) >= least)).sum(0).cpu()
        return cls(texts, side, least, counts.numpy(), positions)

    @torch.inference_mode()
    def chances(self, network: Network, lexicon: Lexicon) -> NDArray[np.float64]:
        """The probabilities, falling, of the attribute that an encoder which reads as the one that read the texts has
        learnt last, for those for which it writes it with `least` or more."""
        last, chance = slice(lexicon.n_learnt - 1, lexicon.n_learnt), np.zeros(len(self.texts))  # (N,)
        attributes = network.attributes
        for rows, states, mask in self.positions:
            with computing(states.device, precision_of(self.side)):
                logits = network.match_logits(states, mask, self.side, attributes, last)  # (B, 1)
            found = torch.sigmoid(logits)
            writes = (logits > -network.floor[self.side]) & (found >= self.least)
            chance[rows] = torch.where(writes, found, 0.0).squeeze(1).cpu().numpy()
        for text in np.flatnonzero(chance).tolist():
            if _holds(self.texts[text], lexicon, last.start):
                chance[text] = 0.0  # it is lexical there
        return np.sort(chance[chance > 0])[::-1]


def precision_of(side: Side) -> torch.dtype | None:
    """What texts of a side are computed in: queries in float32, so that many together are read as each alone; None for
    the device's fast format."""
    return torch.float32 if side == Side.QUERY else None


def _holds(text: str | Product, lexicon: Lexicon, attribute: int) -> bool:
    fields = field_texts(text) if isinstance(text, Product) else [("title", text)]
    rows = [lexicon.analyzer.stems(field) for _, field in fields]
    forms = lexicon.forms[attribute]
    return any(tuple(row[i : i + len(form)]) == form for form in forms for row in rows for i in range(len(row)))
