"""Evidence: what speaks for each candidate product of one query, read from the index.

Letters: N products, C candidates, F kinds of evidence, D width, Q pieces of the query of width W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import each_once, top_k
from gram.codes.slots import STOPWORDS, UNIT_NAMES
from gram.index.segment import Index
from gram.index.titles import KINDS as TITLE_KINDS
from gram.index.token_vectors import KINDS as PIECE_KINDS
from gram.text.words import has_digit

EVIDENCE = (
    "own_own",  # attributes that both texts hold: Σ w(a|q) · w(a|p)
    "own_written",  # that the query holds and the generator wrote for the product
    "written_own",  # the other way round
    "written_written",  # written on both sides
    "deep",  # codes of two and more attributes that both sides write
    "vectors",  # dot product of the two vectors
    "words",  # plain BM25 over all fields
    "covered",  # share of the query's words, by idf, that the product holds
    "all_covered",  # whether it holds all of them
    "numbers",  # share of the query's numbers that it holds
    "contradicted",  # share of the query's measures that it has in another size
    *TITLE_KINDS,  # where the query's words stand in the title
    *PIECE_KINDS,  # how closely each piece of the query is met by the product's
    "alike",  # dot product with the mean vector of the best ten found: what is like them is often wanted too
    "alike_words",  # mean cosine of the title with the best ten's, words by idf
    "value",  # what the shop says it is worth
)
"""The kinds of evidence, in the order of every feature array."""
SPARSE = EVIDENCE.index("vectors")
"""Kinds before this one, and `words`, are read from postings."""
TITLE = EVIDENCE.index(TITLE_KINDS[0])
PIECE = EVIDENCE.index(PIECE_KINDS[0])
ALIKE = EVIDENCE.index("alike")
FOUND = 600
"""Products that postings speak most for."""
NEAR = 300
"""Products nearest by vector that are looked at besides those that postings find."""
BEST = 10


class CodedQuery(NamedTuple):
    """One query as the generator coded it; keys are attribute ids, or code ids for `deep`."""

    stems: Sequence[str]
    own: tuple[NDArray[np.int64], NDArray[np.float32]]
    written: tuple[NDArray[np.int64], NDArray[np.float32]]
    deep: tuple[NDArray[np.int64], NDArray[np.float32]]
    vector: NDArray[np.float32]  # (D,)
    pieces: NDArray[np.float32]  # (Q, W)
    piece_weights: NDArray[np.float32]  # (Q,)


@dataclass(frozen=True)
class Candidates:
    """Found products, by position, with their evidence (C, F)."""

    positions: NDArray[np.int64]
    features: NDArray[np.float32]


def gather(
    index: Index, query: CodedQuery, weights: NDArray[np.float32], keep: int, n_candidates: int = FOUND
) -> Candidates:
    """The most promising products of a query with all their evidence.

    Products are found by postings of codes and words, ranked by `weights` (F,) of what postings tell, the best
    `n_candidates` of them; and by nearness of vectors, the `NEAR` nearest. Only these are looked at in full. The best
    `keep` of them by `weights` are returned, best first.
    A query that no posting answers finds what is near; one without words finds nothing.
    """
    n = index.n_products
    found = np.zeros((SPARSE + 1, n), dtype=np.float32)  # one row a kind, words last
    for row, (keys, by), postings in (
        (0, query.own, index.own),
        (1, query.own, index.written),
        (2, query.written, index.own),
        (3, query.written, index.written),
        (4, query.deep, index.deep),
    ):
        known = (keys < postings.n_keys) & (keys >= 0)
        if known.any():
            found[row] = postings.score(keys[known], by[known], n)
    found[SPARSE] = index.words.score(query.stems)
    use = np.concatenate([weights[:SPARSE], weights[SPARSE + 1 : SPARSE + 2]])
    scores = use @ found  # (N,)
    any_found = np.flatnonzero(scores > 0)
    positions, _ = top_k(scores[any_found], n_candidates, any_found)
    if query.stems and weights[SPARSE] > 0:
        near = index.sketch.nearest(index.vectors, query.vector, NEAR)
        positions = each_once(np.concatenate([positions, near]))
    features = np.zeros((len(positions), len(EVIDENCE)), dtype=np.float32)
    features[:, :SPARSE] = found[:SPARSE, positions].T
    vectors = np.take(index.vectors, positions, axis=0)  # (C, D): faster than indexing
    features[:, SPARSE] = vectors @ query.vector
    features[:, SPARSE + 1] = found[SPARSE, positions]
    distinct = [s for s in dict.fromkeys(query.stems) if s not in STOPWORDS]
    features[:, SPARSE + 2 : SPARSE + 6] = _coverage(index, query.stems, distinct, positions)
    titles = index.titles.read(positions)
    features[:, TITLE : TITLE + len(TITLE_KINDS)] = index.titles.evidence(index.words, query.stems, distinct, titles)
    met = index.pieces.evidence(query.pieces, query.piece_weights, positions)
    features[:, PIECE : PIECE + len(PIECE_KINDS)] = met
    features[:, -1] = index.value[positions]
    if len(positions):
        best, top = top_k(features @ weights, BEST)
        share = np.exp(top - top[0])
        share /= share.sum()
        features[:, ALIKE] = vectors @ (share @ vectors[best])  # feedback from what was found (Rocchio 1971)
        features[:, ALIKE + 1] = index.titles.likeness(titles, best, share)
    best, _ = top_k(features @ weights, keep)
    return Candidates(positions[best], features[best])


def _coverage(
    index: Index, stems: Sequence[str], distinct: Sequence[str], positions: NDArray[np.int64]
) -> NDArray[np.float32]:
    """covered, all_covered, numbers, contradicted of the candidates, (C, 4)."""
    n = len(positions)
    out = np.zeros((n, 4), dtype=np.float32)
    if not n or not distinct:
        return out
    place = np.full(index.n_products, -1, dtype=np.int32)
    place[positions] = np.arange(n)
    holds: dict[str, NDArray[np.bool_]] = {}
    for stem in dict.fromkeys(stems):
        row = np.zeros(n, dtype=bool)
        at = place[index.words.holding(stem)]
        row[at[at >= 0]] = True
        holds[stem] = row
    idf = {s: index.words.idf(s) for s in distinct}
    total = sum(idf.values()) or 1.0
    out[:, 0] = sum(holds[s] * np.float32(idf[s] / total) for s in distinct)
    out[:, 1] = out[:, 0] > 0.999
    numbers = [s for s in distinct if has_digit(s)]
    if numbers:
        out[:, 2] = sum(holds[s].astype(np.float32) for s in numbers) / len(numbers)
    measures = [(a, b) for a, b in pairwise(stems) if has_digit(a) and b in UNIT_NAMES]
    if measures:
        out[:, 3] = sum((holds[unit] & ~holds[number]).astype(np.float32) for number, unit in measures) / len(measures)
    return out
