"""Coding: what the encoder's one pass, and its decoder's beam, say of many texts, as representations.

Letters: N texts, B texts of a batch, L tokens of the longest, K codes kept, W width of a token's vector.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gram.arrays import SparseRows, offsets, ragged
from gram.coder.base import CodingSettings, Representations, Side
from gram.coder.encoder.beam import BeamOptions, Start, beam_search
from gram.coder.encoder.coder import EncoderCoder
from gram.coder.encoder.decoder import NextFromDecoder
from gram.coder.encoder.network import FirstStep
from gram.coder.encoder.tokens import Batch, TokenizedTexts
from gram.coder.precision import computing
from gram.index.token_vectors import UNIT, TokenVectors

PROGRESS_FROM = 2000  # texts; fewer take no time worth a bar


class _Entries(NamedTuple):
    """Some texts' keys with weights, in any order of texts."""

    text: NDArray[np.int64]
    key: NDArray[np.int64]
    weight: NDArray[np.float32]


_NONE = _Entries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


@torch.inference_mode()
def represent_texts(
    coder: EncoderCoder,
    texts: TokenizedTexts,
    side: Side,
    settings: CodingSettings,
    progress: str = "",
    dtype: torch.dtype | None = None,
) -> Representations:
    """Represents all texts, in batches of like length."""
    if coder.training:
        coder.eval()
    lexical, expansion, probability, compound = [_NONE], [_NONE], [_NONE], [_NONE]
    dense = np.zeros((len(texts), coder.backbone.width), dtype=np.float32)
    lengths = np.maximum(texts.lengths - 2, 0)  # without the marks at both ends
    start = offsets(lengths)  # (N + 1,)
    vectors = np.zeros((int(start[-1]), coder.network.token_projection.out_features), dtype=np.int8)
    token_weights = np.zeros(len(vectors), dtype=np.float32)
    quiet = not progress or len(texts) < PROGRESS_FROM
    for rows in tqdm(texts.by_length(settings.batch), desc=progress, unit="batch", disable=quiet):
        batch = texts.batch(rows).to(coder.device)
        with computing(coder.device, dtype):
            step = coder.network(batch, side, coder.attributes())
            row, attribute, weight, chance = _expansion(step, settings)
            if settings.codes and len(coder.trie) > coder.lexicon.n_learnt:
                compound.append(_compound(coder, batch, step, side, settings, rows))
        lexical.append(_Entries(rows[_np(batch.tag_row)], _np(batch.tag_attribute), _np(step.lexical)))
        expansion.append(_Entries(rows[row], attribute, weight))
        probability.append(_Entries(rows[row], attribute, chance))
        dense[rows] = _np(step.vectors)
        at, row = ragged(start[rows], lengths[rows])
        column = at - start[rows][row] + 1
        vectors[at] = np.rint(_np(step.token_vectors)[row, column] * UNIT)
        token_weights[at] = _np(step.token_weights)[row, column]
    n = len(texts)
    return Representations(
        _join(lexical, n),
        _join(expansion, n),
        _join(probability, n).weight,
        _join(compound, n),
        dense,
        TokenVectors(start, vectors),
        token_weights,
    )


def _expansion(
    step: FirstStep, settings: CodingSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """The heaviest attributes that are likely enough: (row, attribute, weight, probability)."""
    weights, attributes = step.expansion.topk(min(settings.expansion, step.expansion.shape[1]), dim=1)  # (B, kept)
    chance = torch.sigmoid(step.logits.gather(1, attributes))  # (B, kept)
    row, column = ((weights > 0) & (chance >= settings.least)).nonzero(as_tuple=True)
    return _np(row), _np(attributes[row, column]), _np(weights[row, column]), _np(chance[row, column])


def _compound(
    coder: EncoderCoder, batch: Batch, step: FirstStep, side: Side, settings: CodingSettings, rows: NDArray[np.int64]
) -> _Entries:
    """The likeliest compound codes.

    Weights are roots of the kept codes' shares of probability, so that Σ over shared codes of the two sides' product is
    Bhattacharyya's coefficient of what both write.
    """
    memory = coder.decoder.remember(step.states, batch.mask, step.logits, coder.attributes())
    log_probs, first = torch.log_softmax(step.logits, dim=1).topk(min(settings.starts, step.logits.shape[1]), dim=1)
    options = BeamOptions(width=settings.beam, n_codes=settings.codes, min_length=2)
    scorer = NextFromDecoder(coder.decoder, memory, side)
    found = beam_search(coder.torch_trie, scorer, len(rows), options, Start(first, log_probs.float()))
    row, column = (found.code_ids >= 0).nonzero(as_tuple=True)
    kept = torch.softmax(found.log_probs, dim=1).nan_to_num(0.0).sqrt()  # (B, K): shared codes add up to 1 at most
    return _Entries(rows[_np(row)], _np(found.code_ids[row, column]), _np(kept[row, column]))


def _join(parts: list[_Entries], n: int) -> SparseRows:
    text, key, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return SparseRows.build(text, key, weight, n)


def _np(tensor: Tensor) -> NDArray:  # type: ignore[type-arg]
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
