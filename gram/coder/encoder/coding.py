"""Coding: the attributes and codes that the generator writes for many texts, as flat arrays for an index.

Letters: N texts, B texts of a batch, T held attributes, R generated ones kept, K codes kept, D width, G generated
attributes, S pieces of all texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gram.arrays import offsets, ragged
from gram.coder.encoder.beam import BeamOptions, Start, beam_search
from gram.coder.encoder.decoder import NextFromDecoder
from gram.coder.encoder.generator import Generator
from gram.coder.encoder.network import FirstStep
from gram.coder.encoder.tokens import Batch, EncodedTexts
from gram.coder.precision import computing
from gram.index.token_vectors import UNIT, Pieces

PROGRESS_FROM = 2000  # texts; fewer take no time worth a bar


@dataclass(frozen=True)
class CodingSettings:
    """How much of what the generator says of a text is kept."""

    written: int = 24  # generated attributes, the heaviest ones
    least: float = 0.03  # of the probability that a generated attribute is right
    codes: int = 12  # of two and more attributes; 0 leaves them out
    beam: int = 6
    starts: int = 6  # first attributes that codes begin with
    batch: int = 64


PRODUCT_CODING = CodingSettings()
QUERY_CODING = CodingSettings(written=10, least=0.4, codes=8)


class Coded(NamedTuple):
    """What is kept of N texts; each triple is (text, attribute or code, weight), ordered by text."""

    own: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # attributes that the text holds
    written: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # attributes that were generated
    sure: NDArray[np.float32]  # the probability of each of these
    deep: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # codes of two and more attributes
    vectors: NDArray[np.float32]  # (N, D)
    pieces: Pieces  # of N texts, S in all
    piece_weights: NDArray[np.float32]  # (S,)


@torch.inference_mode()
def code_texts(
    generator: Generator,
    encoded: EncodedTexts,
    side: int,
    settings: CodingSettings,
    progress: str = "",
    dtype: torch.dtype | None = None,
) -> Coded:
    """Codes all texts, in batches of like length. `progress` names the bar shown when there are many."""
    if generator.training:
        generator.eval()
    own, written, deep, sure = [], [], [], []
    vectors = np.zeros((len(encoded), generator.backbone.width), dtype=np.float32)
    lengths = np.maximum(encoded.lengths - 2, 0)  # without the marks at both ends
    start = offsets(lengths)  # (N + 1,)
    pieces = np.zeros((int(start[-1]), generator.network.piece.out_features), dtype=np.int8)
    piece_weights = np.zeros(len(pieces), dtype=np.float32)
    quiet = not progress or len(encoded) < PROGRESS_FROM
    for rows in tqdm(encoded.by_length(settings.batch), desc=progress, unit="batch", disable=quiet):
        batch = encoded.batch(rows).to(generator.device)
        with computing(generator.device, dtype):
            step = generator.network(batch, side, generator.attributes())
            row, attribute, weight, chance = _written(step, settings)
            if settings.codes and len(generator.trie) > generator.lexicon.n_generated:
                deep.append(_deep(generator, batch, step, side, settings, rows))
        own.append((rows[_np(batch.tag_row)], _np(batch.tag_attribute), _np(step.copied)))
        written.append((rows[row], attribute, weight))
        sure.append((rows[row], attribute, chance))
        vectors[rows] = _np(step.vectors)
        at, row = ragged(start[rows], lengths[rows])
        column = at - start[rows][row] + 1
        pieces[at] = np.rint(_np(step.pieces)[row, column] * UNIT)
        piece_weights[at] = _np(step.piece_weights)[row, column]
    kept = Pieces(start, pieces)
    return Coded(_joined(own), _joined(written), _joined(sure)[2], _joined(deep), vectors, kept, piece_weights)


def _written(
    step: FirstStep, settings: CodingSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """The heaviest generated attributes that are sure enough: (row, attribute, weight, probability)."""
    weights, attributes = step.generated.topk(min(settings.written, step.generated.shape[1]), dim=1)  # (B, kept)
    chance = torch.sigmoid(step.logits.gather(1, attributes))  # (B, kept)
    row, place = ((weights > 0) & (chance >= settings.least)).nonzero(as_tuple=True)
    return _np(row), _np(attributes[row, place]), _np(weights[row, place]), _np(chance[row, place])


def _deep(
    generator: Generator, batch: Batch, step: FirstStep, side: int, settings: CodingSettings, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The likeliest codes of two and more attributes: (text, code id, weight).

    Weights are roots of the kept codes' shares of probability, so that Σ over shared codes of the two sides' product is
    Bhattacharyya's coefficient of what both write.
    """
    memory = generator.decoder.remember(step.states, batch.mask, step.logits, generator.attributes())
    log_probs, first = torch.log_softmax(step.logits, dim=1).topk(min(settings.starts, step.logits.shape[1]), dim=1)
    options = BeamOptions(width=settings.beam, n_codes=settings.codes, min_length=2)
    scorer = NextFromDecoder(generator.decoder, memory, side)
    found = beam_search(generator.torch_trie, scorer, len(rows), options, Start(first, log_probs.float()))
    row, place = (found.code_ids >= 0).nonzero(as_tuple=True)
    kept = torch.softmax(found.log_probs, dim=1).nan_to_num(0.0).sqrt()  # (B, K): shared codes add up to 1 at most
    weight = kept[row, place]
    return rows[_np(row)], _np(found.code_ids[row, place]), _np(weight)


def _joined(
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Batches' triples as one, ordered by text."""
    text = np.concatenate([np.zeros(0, np.int64), *(p[0] for p in parts)])
    key = np.concatenate([np.zeros(0, np.int64), *(p[1] for p in parts)])
    weight = np.concatenate([np.zeros(0, np.float32), *(p[2] for p in parts)])
    order = np.argsort(text, kind="stable")
    return text[order], key[order], weight[order]


def _np(tensor: Tensor) -> NDArray:  # type: ignore[type-arg]
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
