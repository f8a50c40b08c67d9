"""First phase: the candidates of one query, with all their features.

Letters: N products of a segment, C candidates, O ordinary products, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRow, each_once, offsets, top_k
from gram.coder.base import QueryRepresentation
from gram.index.entries import gather, merge
from gram.index.segment import Index
from gram.ranking.features import BEST, EVERY, FEATURES, FEEDBACK_CODES, NAMES, CandidateView, Feedback, reads_vectors

FROM_POSTINGS = 600
"""Candidates that postings speak most for."""
NEAREST = 300
"""Candidates nearest by dense vector, besides those of the postings; as many more of these where none is weighed."""

FROM_FEEDBACK = 200
"""Candidates that share most codes with the first ten found."""
FEEDBACK_KEYS = 16
"""Attributes that these are found by."""

COMMON, FEW = 0.02, 100
"""Share, and number, of products that may have such an attribute: what more have tells little and takes long."""
FEW_ALLOWED = 20_000
"""Products that a filter leaves, up to which every vector of theirs is read."""
BESIDE = 100
"""Under a filter: products of the whole segment that postings speak most for, and as many that are nearest, which are
looked at as well, so that what is like the best ones is so of the shop's best, not of the filter's."""

_FIRST = [i for i, feature in enumerate(FEATURES) if feature.first_phase]
_SECOND = [i for i, feature in enumerate(FEATURES) if feature.compute and not feature.feedback]
_FEEDBACK = [i for i, feature in enumerate(FEATURES) if feature.feedback]
_OF_VECTORS = [i for i in _SECOND + _FEEDBACK if reads_vectors(FEATURES[i])]


@dataclass(frozen=True)
class Candidates:
    """Products by their rows, best first, with features (C, F). A later segment's rows go on from an earlier's.
    `ordinary` (O, F) are features of products that no query chose, where they were asked for: those that most products
    have some of, of vectors and of the first phase. `beside` (B, F) are those of the shop's best where a filter left
    out some products."""

    rows: NDArray[np.int64]
    features: NDArray[np.float32]
    ordinary: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, len(FEATURES)), dtype=np.float32))
    beside: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, len(FEATURES)), dtype=np.float32))


@dataclass(frozen=True, eq=False)
class Part:
    """A segment as one search sees it."""

    index: Index
    alive: NDArray[np.bool_] | None = None  # (N,) False for products that are gone
    allowed: NDArray[np.bool_] | None = None  # (N,) of those alive, False for the ones that a filter leaves out

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """(N,) which products may be found; None where all may."""
        return self.alive if self.allowed is None else self.allowed

    @property
    def may_be_found(self) -> NDArray[np.bool_]:
        """(N,)"""
        return np.ones(self.index.n_products, dtype=bool) if self.mask is None else self.mask

    def but(self, rows: NDArray[np.int64]) -> Part:
        """The same without these rows."""
        mask = self.may_be_found.copy()
        mask[rows] = False
        return replace(self, allowed=mask)

    def only(self, rows: NDArray[np.int64]) -> Part:
        """The same of these rows, all of which may be found."""
        mask = np.zeros(self.index.n_products, dtype=bool)
        mask[rows] = True
        return replace(self, allowed=mask)


def find_candidates(
    index: Index,
    query: QueryRepresentation,
    weights: NDArray[np.float32],
    keep: int,
    from_postings: int = FROM_POSTINGS,
    reads: NDArray[np.bool_] = EVERY,
) -> Candidates:
    """The most promising products of a query with all their features, the best `keep` by `weights` (F,).

    The best `from_postings` by what postings of codes and words say are looked at, those that share most codes with the
    first of them, and the `NEAREST` by dense vector, or as many more by postings where that is not weighed; all
    products where the weights are of none of these. A query that no posting answers finds what is near; one without
    words finds nothing. Of features that `reads` (F,) leaves out none is read: they are 0.
    """
    return find_in_parts([Part(index)], query, weights, keep, from_postings, reads=reads)


def find_in_parts(
    parts: Sequence[Part],
    query: QueryRepresentation,
    weights: NDArray[np.float32],
    keep: int | None = None,
    from_postings: int = FROM_POSTINGS,
    ordinary: int = 0,
    reads: NDArray[np.bool_] = EVERY,
) -> Candidates:
    """As `find_candidates`, in several segments as if they were one: what compares candidates compares all of them.

    Some `ordinary` products of the largest segment are looked at as well, the same ones for each query, allowed or not.
    """
    if not query.terms.stems:
        return Candidates(np.zeros(0, dtype=np.int64), np.zeros((0, len(FEATURES)), dtype=np.float32))
    looks = [_FirstLook.at(part, query, weights, from_postings, reads) for part in parts]
    if weights[NAMES.index("prf_codes")] > 0:
        _add_what_is_like_the_first(looks)
    views = [CandidateView(look.part.index, query, look.rows) for look in looks]
    features = [look.features(look.rows) for look in looks]
    for view, table in zip(views, features, strict=True):
        _fill(table, view, _SECOND, reads)
    _feed_back(views, [table @ weights for table in features], reads)
    for view, table in zip(views, features, strict=True):
        _fill(table, view, _FEEDBACK, reads)
    begins = offsets(np.array([part.index.n_products for part in parts]))
    rows = np.concatenate([view.rows + begin for view, begin in zip(views, begins.tolist(), strict=False)])
    every = np.concatenate(features)
    let_through = np.concatenate([look.allowed(look.rows) for look in looks])
    order, _ = top_k(every[let_through] @ weights, from_postings + NEAREST if keep is None else keep)
    found = Candidates(rows[let_through][order], every[let_through][order], beside=every[~let_through])
    if not ordinary:
        return found
    largest = max(range(len(parts)), key=lambda at: parts[at].index.n_products)
    return replace(found, ordinary=_ordinary(looks[largest], views[largest], ordinary, reads))


def _ordinary(look: _FirstLook, found: CandidateView, n: int, reads: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(≤ n, F) what is read of rows that are spread over the segment, as these are seen beside the candidates found."""
    n_products = look.part.index.n_products
    rows = np.arange(0, n_products, max(1, -(-n_products // n)))
    view = CandidateView(look.part.index, found.query, rows)
    view.feedback = found.feedback
    features = look.features(rows)
    _fill(features, view, _OF_VECTORS, reads)
    return features


@dataclass
class _FirstLook:
    """What the first phase finds in one segment."""

    part: Part
    found: NDArray[np.float32]  # (first features, N)
    first: NDArray[np.int64]  # (≤ BEST,) rows of the best by postings, whatever a filter says
    scores: NDArray[np.float32]  # of these
    rows: NDArray[np.int64]  # (C,) of all candidates, and of those that are looked at beside them

    @classmethod
    def at(
        cls,
        part: Part,
        query: QueryRepresentation,
        weights: NDArray[np.float32],
        from_postings: int,
        reads: NDArray[np.bool_],
    ) -> _FirstLook:
        index = part.index
        found = np.zeros((len(_FIRST), index.n_products), dtype=np.float32)
        for row, i in enumerate(_FIRST):
            first_phase = FEATURES[i].first_phase
            sums = first_phase(index, query) if first_phase and reads[i] else None
            if sums is not None:
                found[row] = sums
        scores = weights[_FIRST] @ found  # (N,)
        if part.alive is not None:
            scores = np.where(part.alive, scores, np.float32(0))
        near = weights[NAMES.index("dense")] > 0
        from_postings += 0 if near else NEAREST
        rows, best = _best(scores, from_postings)
        look = cls(part, found, rows[:BEST], best[:BEST], rows)
        if part.allowed is not None:
            beside = rows[:BESIDE]
            rows = _best(np.where(part.allowed, scores, np.float32(0)), from_postings)[0]
            if near and index.n_products:
                beside = np.concatenate([beside, _nearest(index, part.alive, query, BESIDE)])
            rows = np.concatenate([rows, beside])
        if not near and not weights[_FIRST].any():
            rows = np.flatnonzero(part.may_be_found)
        elif near and index.n_products:
            rows = np.concatenate([rows, _nearest(index, part.mask, query, NEAREST)])
        look.rows = each_once(rows)
        return look

    def allowed(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(C,) which rows a filter lets through."""
        return np.ones(len(rows), dtype=bool) if self.part.allowed is None else self.part.allowed[rows]

    def features(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(C, F) of some rows, with those of the first phase."""
        features = np.zeros((len(rows), len(FEATURES)), dtype=np.float32)
        features[:, _FIRST] = self.found[:, rows].T
        return features


def _best(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of the k best scores (N,) above 0, and these."""
    any_found = np.flatnonzero(scores > 0)
    return top_k(scores[any_found], k, any_found)


def _nearest(index: Index, allowed: NDArray[np.bool_] | None, query: QueryRepresentation, k: int) -> NDArray[np.int64]:
    if allowed is None:
        return index.sketch.nearest(index.dense, query.dense, k)
    rows = np.flatnonzero(allowed)
    if len(rows) <= FEW_ALLOWED:
        return top_k(np.take(index.dense, rows, axis=0) @ query.dense, k, rows)[0]
    lost = index.n_products - len(rows)
    near = index.sketch.nearest(index.dense, query.dense, k + min(lost, k))
    return near[allowed[near]][:k]


def _add_what_is_like_the_first(looks: Sequence[_FirstLook]) -> None:
    """Adds products with the codes that the first ones found have in common: a query expanded by feedback."""
    scores = np.concatenate([look.scores for look in looks])
    if not len(scores):
        return
    best, _ = top_k(scores, BEST)
    share, begin, common = np.float32(1 / len(best)), 0, []
    for look in looks:
        chosen = look.first[best[(best >= begin) & (best < begin + len(look.first))] - begin]
        begin += len(look.first)
        common.append(gather(look.part.index.code_rows.read(chosen), np.full(len(chosen), share)))
    every = merge(common)
    at, weights = top_k(every.weight, FEEDBACK_KEYS)
    keys = every.key[at]
    for look in looks:
        index, mask = look.part.index, look.part.mask
        found = np.zeros(index.n_products, dtype=np.float32)
        for postings in (index.lexical, index.expansion):
            known = np.flatnonzero(keys < postings.n_keys)
            holding = postings.start[keys[known] + 1] - postings.start[keys[known]]
            rare = known[holding <= max(FEW, COMMON * index.n_products)]
            postings.accumulate(keys[rare], weights[rare], found)
        rows = np.flatnonzero(found > 0 if mask is None else (found > 0) & mask)
        look.rows = each_once(np.concatenate([look.rows, top_k(found[rows], FROM_FEEDBACK, rows)[0]]))


def _feed_back(views: Sequence[CandidateView], scores: Sequence[NDArray[np.float32]], reads: NDArray[np.bool_]) -> None:
    """Tells each segment's view what the best candidates of all of them have in common."""
    every = np.concatenate(scores)
    if not len(every):
        return
    best, top = top_k(every, BEST)
    share = np.exp(top - top[0])
    share /= share.sum()
    begin, common = 0, []
    for view in views:
        mine = (best >= begin) & (best < begin + len(view.rows))
        common.append(view.in_common(best[mine] - begin, share[mine], reads))
        begin += len(view.rows)
    dense = np.sum([part.dense for part in common], axis=0)
    codes = merge([part.codes for part in common])
    at, weight = top_k(codes.weight, FEEDBACK_CODES)
    codes = SparseRow(codes.key[at], weight)
    code_vector = np.sum([part.code_vector for part in common], axis=0)
    for view in views:
        titles = [_translate(part.titles, other.index, view.index) for part, other in zip(common, views, strict=True)]
        view.feedback = Feedback(dense, merge(titles), codes, code_vector)


def _translate(words: SparseRow, from_: Index, to: Index) -> SparseRow:
    """Words by the keys that they have in another segment; those that it lacks are left out."""
    if from_ is to or not len(words.key):
        return words
    keys = np.array([to.bm25.ids.get(from_.bm25.stems[key], -1) for key in words.key.tolist()], dtype=np.int64)
    return SparseRow(keys[keys >= 0], words.weight[keys >= 0])


def _fill(features: NDArray[np.float32], view: CandidateView, numbers: list[int], reads: NDArray[np.bool_]) -> None:
    for i in numbers if len(features) else ():
        compute = FEATURES[i].compute
        if compute and reads[i]:
            features[:, i] = compute(view)
