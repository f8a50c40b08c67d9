"""First phase: the candidates of one query, with all their features.

Letters: N products, C candidates, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gram.arrays import each_once, top_k
from gram.coder.base import QueryRepresentation
from gram.index.code_rows import gather
from gram.index.segment import Index
from gram.ranking.features import BEST, FEATURES, NAMES, CandidateView

FROM_POSTINGS = 600
"""Candidates that postings speak most for."""
NEAREST = 300
"""Candidates nearest by dense vector, besides those of the postings."""

FROM_FEEDBACK = 200
"""Candidates that share most codes with the first ten found."""
FEEDBACK_KEYS = 16
"""Attributes that these are found by."""

_FIRST = [i for i, feature in enumerate(FEATURES) if feature.first_phase]
_SECOND = [i for i, feature in enumerate(FEATURES) if feature.compute and not feature.feedback]
_FEEDBACK = [i for i, feature in enumerate(FEATURES) if feature.feedback]


@dataclass(frozen=True)
class Candidates:
    """Products by their rows in the index, best first, with their features (C, F)."""

    rows: NDArray[np.int64]
    features: NDArray[np.float32]


def find_candidates(
    index: Index,
    query: QueryRepresentation,
    weights: NDArray[np.float32],
    keep: int,
    from_postings: int = FROM_POSTINGS,
) -> Candidates:
    """The most promising products of a query with all their features, the best `keep` by `weights` (F,).

    The best `from_postings` by what postings of codes and words say are looked at, and the `NEAREST` by dense vector;
    all products where the weights are of neither. A query that no posting answers finds what is near; one without
    words finds nothing.
    """
    found = np.zeros((len(_FIRST), index.n_products), dtype=np.float32)
    if not query.terms.stems:
        return Candidates(np.zeros(0, dtype=np.int64), np.zeros((0, len(FEATURES)), dtype=np.float32))
    for row, i in enumerate(_FIRST):
        first_phase = FEATURES[i].first_phase
        sums = first_phase(index, query) if first_phase else None
        if sums is not None:
            found[row] = sums
    scores = weights[_FIRST] @ found  # (N,)
    any_found = np.flatnonzero(scores > 0)
    rows, _ = top_k(scores[any_found], from_postings, any_found)
    first = rows[:BEST]
    near = weights[NAMES.index("dense")] > 0
    if not near and not weights[_FIRST].any():
        rows = np.arange(index.n_products)
    elif near:
        rows = each_once(np.concatenate([rows, index.sketch.nearest(index.dense, query.dense, NEAREST)]))
    if len(first) and weights[NAMES.index("prf_codes")] > 0:
        rows = each_once(np.concatenate([rows, _like_the_best(index, first)]))
    features = np.zeros((len(rows), len(FEATURES)), dtype=np.float32)
    features[:, _FIRST] = found[:, rows].T
    if not len(rows):
        return Candidates(rows, features)
    view = CandidateView(index, query, rows)
    _fill(features, view, _SECOND)
    view.best, best = top_k(features @ weights, BEST)
    view.share = np.exp(best - best[0])
    view.share /= view.share.sum()
    _fill(features, view, _FEEDBACK)
    order, _ = top_k(features @ weights, keep)
    return Candidates(rows[order], features[order])


def _like_the_best(index: Index, best: NDArray[np.int64]) -> NDArray[np.int64]:
    """Products with the codes that the first ones found have in common: a query expanded by feedback."""
    keys, weights = gather(index.code_rows.read(best), np.full(len(best), 1 / len(best), np.float32), FEEDBACK_KEYS)
    scores = np.zeros(index.n_products, dtype=np.float32)
    for postings in (index.lexical, index.expansion):
        postings.accumulate(keys, weights, scores)
    found = np.flatnonzero(scores > 0)
    return top_k(scores[found], FROM_FEEDBACK, found)[0]


def _fill(features: NDArray[np.float32], view: CandidateView, numbers: list[int]) -> None:
    for i in numbers:
        compute = FEATURES[i].compute
        if compute:
            features[:, i] = compute(view)
