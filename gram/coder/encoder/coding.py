"""Coding: what the encoder's one pass, and its decoder's beam, say of many texts, as representations.

Letters: N texts, B texts of a batch, L tokens of the longest, S tokens of all, G learnt attributes, K codes kept, X
entries of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gram.arrays import SparseRows, offsets, ragged
from gram.coder.base import CodingSettings, NearAttributes, Representations, Side
from gram.coder.beam import BeamOptions, Start, TorchTrie, beam_search
from gram.coder.encoder.decoder import Decoder, Memory, NextFromDecoder
from gram.coder.encoder.network import FirstStep, Network
from gram.coder.encoder.tokens import Batch, TokenizedTexts
from gram.codes.lexicon import Lexicon
from gram.index.token_vectors import UNIT, TokenVectors

CODE_WIDTH = 128
"""V: of the embeddings' 384 coordinates, those by which codes are compared: docs/log.md, "Codes as vectors"."""
DESCRIPTION_SHARE = 0.4
"""Of a described product's vector; the rest is of its head: docs/log.md, "Descriptions read"."""
NEAR_FROM = 0.3
"""The cosine from which a learnt attribute is near to what a text says: docs/log.md, "Codes that are near"."""
UNSAID, UNSAID_WEIGHT = 6, 0.7
"""Of a word that no attribute of a query says, how many of the nearest attributes the query is given; and what these
weigh, times how near, of what they weigh where a query holds them: docs/log.md, "Words that no attribute says"."""


class Entries(NamedTuple):
    """Some texts' keys with weights, (X,) each, in any order of texts."""

    text: NDArray[np.int64]
    key: NDArray[np.int64]
    weight: NDArray[np.float32]


_NONE = Entries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


class RepresentationBuilder:
    """Collects what is said of N texts, batch by batch."""

    def __init__(self, texts: TokenizedTexts, width: int, token_width: int) -> None:
        self.lexical, self.expansion, self.probability, self.compound = [_NONE], [_NONE], [_NONE], [_NONE]
        self.near: list[NearAttributes] = []
        self.code_vectors: NDArray[np.float32] | None = None
        self.dense = np.zeros((len(texts), width), dtype=np.float32)
        self.texts = texts
        self.lengths = np.maximum(texts.lengths - 2, 0)  # (N,) without the marks at both ends
        further = np.zeros(len(texts), dtype=np.int64)
        further[texts.described] = [len(at) for at in texts.further]
        self.start = offsets(self.lengths + further)  # (N + 1,)
        self.vectors = np.zeros((int(self.start[-1]), token_width), dtype=np.int8)
        self.token_weights = np.zeros(len(self.vectors), dtype=np.float32)  # (S,)

    def add(
        self,
        rows: NDArray[np.int64],
        batch: Batch,
        step: FirstStep,
        settings: CodingSettings,
        unsaid: Unsaid | None = None,
    ) -> None:
        """What one pass says of the texts in `rows` (B,): all but their compound codes."""
        row, attribute, weight, chance = heaviest_expansions(step, settings, unsaid)
        self.lexical.append(Entries(rows[_np(batch.tag_row)], _np(batch.tag_attribute), _np(step.lexical)))
        self.expansion.append(Entries(rows[row], attribute, weight))
        self.probability.append(Entries(rows[row], attribute, chance))
        self.dense[rows] = _np(step.vectors)
        at, of = ragged(self.start[rows], self.lengths[rows])
        column = at - self.start[rows][of] + 1
        self.vectors[at] = np.rint(_np(step.token_vectors)[of, column] * UNIT)
        self.token_weights[at] = _np(step.token_weights)[of, column]

    def add_descriptions(self, rows: NDArray[np.int64], vectors: Tensor, token_vectors: Tensor) -> None:
        """What the descriptions of these numbers (B,) add to vectors of heads that are there: their share of the
        product's vector, and the tokens of words that the head lacks."""
        of = self.texts.described[rows]
        both = (1 - DESCRIPTION_SHARE) * self.dense[of] + DESCRIPTION_SHARE * _np(vectors)
        self.dense[of] = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
        states = _np(token_vectors)
        for row, text, description in zip(range(len(rows)), of.tolist(), rows.tolist(), strict=True):
            end = self.start[text + 1]
            at = self.texts.further[description]
            self.vectors[end - len(at) : end] = np.rint(states[row, at] * UNIT)

    def add_near(self, rows: NDArray[np.int64], batch: Batch, cosines: Tensor, kept: int) -> None:
        """Which attributes come near to those that the texts in `rows` (B,) hold: `cosines` (T, G) are of all, of which
        so many are kept."""
        lexical = batch.tag_attribute
        learnt = (lexical < cosines.shape[1]).nonzero().squeeze(1)
        cosines[learnt, lexical[learnt]] = -1.0  # none is near to itself
        most, attribute = cosines.topk(min(kept, cosines.shape[1]), dim=1)  # (T, kept)
        read = batch.tag_start > 0  # those beyond what is read stand nowhere
        tag, column = ((most > NEAR_FROM) & read.unsqueeze(1)).nonzero(as_tuple=True)
        likeness = (most[tag, column].clamp(max=1.0) - NEAR_FROM) / (1 - NEAR_FROM)
        texts = rows[_np(batch.tag_row[tag])]
        near = (texts, _np(lexical[tag]), _np(attribute[tag, column]), _np(likeness))
        self.near.append(NearAttributes(*near))

    def build(self) -> Representations:
        return Representations(
            self._join(self.lexical),
            self._join(self.expansion),
            self._join(self.probability).weight,
            self._join(self.compound),
            self.dense,
            TokenVectors(self.start, self.vectors),
            self.token_weights,
            self._join_near() if self.near else None,
            self.code_vectors,
        )

    def _join_near(self) -> NearAttributes:
        near = NearAttributes(*map(np.concatenate, zip(*self.near, strict=True)))
        return near.take(np.argsort(near.text, kind="stable"))

    def _join(self, parts: list[Entries]) -> SparseRows:
        text, key, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        return SparseRows.build(text, key, weight, len(self.dense))


def center_embeddings(embeddings: NDArray[np.float32], lexicon: Lexicon) -> NDArray[np.float32]:
    """Learnt attributes' embeddings (G, D) less their mean, along their main axes, (G, V): each counts as often as
    products hold it, and as much as its rarity says."""
    g = len(embeddings)
    share = (lexicon.products[:g] + 0.5) * np.sqrt(lexicon.idf[:g])  # (G,)
    share /= share.sum()
    centred = (embeddings - share @ embeddings).astype(np.float32)
    _, axes = np.linalg.eigh((centred * share[:, None]).T.astype(np.float64) @ centred)  # by rising variance
    found: NDArray[np.float32] = centred @ axes[:, ::-1][:, :CODE_WIDTH].astype(np.float32)
    return found


class Unsaid(NamedTuple):
    """Attributes nearest to what texts say by words that no attribute has."""

    likeness: Tensor  # (B, G) how near, in [0, 1]; 0 for what the text holds
    weight: Tensor  # (B, G)

    @classmethod
    def read(
        cls,
        network: Network,
        step: FirstStep,
        batch: Batch,
        spans: Sequence[Sequence[tuple[int, int]]],
        attributes: Tensor,
    ) -> Unsaid | None:
        """By the words' positions in each text; None without such words."""
        every = [(row, start, end) for row, here in enumerate(spans) for start, end in here]
        if not every or not len(attributes):
            return None
        row, start, end = torch.tensor(every, device=step.states.device).T
        cosines = network.near_spans(step, row, start, end, attributes)  # (U, G) of U words
        most, nearest = cosines.topk(min(UNSAID, cosines.shape[1]), dim=1)
        near, g = ((most - NEAR_FROM) / (1 - NEAR_FROM)).clamp(0, 1), cosines.shape[1]
        at = (row.unsqueeze(1) * g + nearest).flatten()
        likeness = near.new_zeros(len(spans) * g).scatter_reduce(0, at, near.flatten(), "amax").view(-1, g)
        learnt = batch.tag_attribute < g
        likeness[batch.tag_row[learnt], batch.tag_attribute[learnt]] = 0.0
        return cls(likeness, UNSAID_WEIGHT * likeness * network.lexical_base[:g].exp())


def heaviest_expansions(
    step: FirstStep, settings: CodingSettings, unsaid: Unsaid | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """The heaviest attributes that are likely enough: row in the batch, attribute, weight, probability, (X,) each."""
    chances = torch.sigmoid(step.logits)  # (B, G)
    weighed = step.expansion * chances**settings.certainty if settings.certainty else step.expansion  # (B, G)
    weighed = weighed.masked_fill(chances < settings.least, 0.0)
    if unsaid is not None:
        weighed, chances = torch.maximum(weighed, unsaid.weight), torch.maximum(chances, unsaid.likeness)
    weights, attributes = weighed.topk(min(settings.expansion, weighed.shape[1]), dim=1)  # (B, kept)
    chance = chances.gather(1, attributes)  # (B, kept)
    row, column = (weights > 0).nonzero(as_tuple=True)
    return _np(row), _np(attributes[row, column]), _np(weights[row, column]), _np(chance[row, column])


def likeliest_codes(
    decoder: Decoder, memory: Memory, trie: TorchTrie, side: Side, rows: NDArray[np.int64], settings: CodingSettings
) -> Entries:
    """The likeliest compound codes of the texts in `rows` (B,), of which `memory` is.

    Weights are roots of the kept codes' shares of probability, so that Σ over shared codes of the two sides' product is
    Bhattacharyya's coefficient of the codes of both.
    """
    logits = memory.logits  # (B, G)
    log_probs, first = torch.log_softmax(logits, dim=1).topk(min(settings.starts, logits.shape[1]), dim=1)
    options = BeamOptions(width=settings.beam, n_codes=settings.codes, min_length=2)
    scorer = NextFromDecoder(decoder, memory, side)
    found = beam_search(trie, scorer, len(rows), options, Start(first, log_probs.float()))
    row, column = (found.code_ids >= 0).nonzero(as_tuple=True)
    kept = torch.softmax(found.log_probs, dim=1).nan_to_num(0.0).sqrt()  # (B, K): shared codes add up to 1 at most
    return Entries(rows[_np(row)], _np(found.code_ids[row, column]), _np(kept[row, column]))


def _np(tensor: Tensor) -> NDArray:  # type: ignore[type-arg]
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
