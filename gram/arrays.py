"""Ragged arrays and best-of-many: what every room that computes with NumPy shares.

Rows of unequal length stand one after another in one array, with the offsets of each (CSR form).

Dimension letters:
    K  runs    M  scored candidates
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


def top_k(scores: Floats, k: int, ids: Ints | None = None) -> tuple[NDArray[np.int64], Floats]:
    """The `k` best of `scores` (M,), exactly: their product positions and scores, best first, ties by position.

    `ids` (M,) are the positions of the scored products; without it the scores are of products 0 … M − 1. Fewer than `k`
    come back when there are fewer. Raises ValueError for a score that is not a number.

    >>> top_k(np.array([0.5, 2.0, 0.5, 1.0]), 3)[0].tolist()
    [1, 3, 0]
    """
    if np.isnan(scores).any():
        raise ValueError(f"the score at {int(np.flatnonzero(np.isnan(scores))[0])} is not a number")
    positions = np.arange(len(scores)) if ids is None else np.asarray(ids, dtype=np.int64)  # (M,)
    if len(positions) != len(scores):
        raise ValueError(f"{len(scores)} scores, but {len(positions)} ids")
    k = max(k, 0)
    chosen = np.arange(len(scores))  # (≤ M,)
    if 0 < k < len(scores):  # only the border is sought: np.partition is vectorised, argpartition took 20 times longer
        border = np.partition(scores, len(scores) - k)[len(scores) - k]
        above, equal = np.flatnonzero(scores > border), np.flatnonzero(scores == border)  # both (≤ M,)
        chosen = np.concatenate([above, equal[np.argsort(positions[equal])][: k - len(above)]])  # (k,)
    order = chosen[np.lexsort((positions[chosen], -scores[chosen]))][:k]  # (≤ k,)
    return positions[order], scores[order]


def offsets(counts: Ints) -> NDArray[np.int64]:
    """(K + 1,) where each of K runs of so many begins, one after another, and where the last one ends."""
    begins = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=begins[1:])
    return begins


def number_rows(rows: Ints, n: int) -> NDArray[np.int64]:
    """(n,) the number of each of n rows among some of them, −1 for the others.

    >>> number_rows(np.array([3, 1]), 4).tolist()
    [-1, 1, -1, 0]
    """
    number = np.full(n, -1, dtype=np.int64)
    number[rows] = np.arange(len(rows))
    return number


def each_once(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers in rising order, each once: as `np.unique`, which hashes them, in a third of its time.

    >>> each_once(np.array([7, 3, 7])).tolist(), each_once(np.array([], dtype=np.int64)).tolist()
    ([3, 7], [])
    """
    rising = np.sort(values)
    return rising[np.flatnonzero(np.diff(rising, prepend=rising[:1] - 1))]


def ragged(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions starts[i] … starts[i] + counts[i] − 1 for every i in turn, and the i of each."""
    row = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return starts[row] + within, row


class SparseRow(NamedTuple):
    """The keys of one text and their weights."""

    key: Ints
    weight: NDArray[np.float32]


class SparseRows(NamedTuple):
    """Keys with weights, row after row (CSR).

    >>> rows = SparseRows.build([1, 0, 1], [7, 3, 5], [0.5, 1.0, 2.0], n_rows=3)
    >>> rows.of(1).key.tolist(), rows.counts().tolist()
    ([7, 5], [1, 2, 0])
    """

    start: NDArray[np.int64]  # (N + 1,)
    key: NDArray[np.int64]  # (X,)
    weight: NDArray[np.float32]  # (X,)

    @staticmethod
    def build(row: Any, key: Any, weight: Any, n_rows: int) -> SparseRows:
        """From unordered triples (X,) (X,) (X,); the entries of a row keep their order."""
        rows = np.asarray(row, dtype=np.int64)
        order = np.argsort(rows, kind="stable")
        start = offsets(np.bincount(rows, minlength=n_rows))
        return SparseRows(start, np.asarray(key, np.int64)[order], np.asarray(weight, np.float32)[order])

    def of(self, row: int) -> SparseRow:
        """One row; views, not copies."""
        at = slice(int(self.start[row]), int(self.start[row + 1]))
        return SparseRow(self.key[at], self.weight[at])

    def counts(self) -> NDArray[np.int64]:
        """(N,) how many keys each row has."""
        return np.diff(self.start)

    def rows(self) -> NDArray[np.int64]:
        """(X,) the row of every entry."""
        return np.repeat(np.arange(len(self.start) - 1), self.counts())
