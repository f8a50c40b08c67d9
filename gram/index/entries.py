"""Entries of some rows: what products have by keys with weights, to be summed up and compared.

Dimension letters:
    C  rows    S  their entries    G  keys that have a vector    V  its width
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gram.arrays import SparseRow, offsets


class RowEntries(NamedTuple):
    """The entries of some rows, one after another."""

    n_rows: int  # C
    row: NDArray[np.int64]  # (S,) which of the rows
    key: NDArray[np.int32]  # (S,)
    weight: NDArray[np.float32]  # (S,)


def gather(entries: RowEntries, share: NDArray[np.float32]) -> SparseRow:
    """What some rows have in common, each counting its `share` (C,).

    Of titles it is feedback as a relevance model has it (Lavrenko & Croft, SIGIR 2001).
    """
    keys, which = np.unique(entries.key, return_inverse=True)
    return SparseRow(keys, np.bincount(which, share[entries.row] * entries.weight, len(keys)).astype(np.float32))


def merge(parts: list[SparseRow]) -> SparseRow:
    """The keys of all parts, those of several added up."""
    keys, which = np.unique(np.concatenate([part.key for part in parts]), return_inverse=True)
    weight = np.bincount(which, np.concatenate([part.weight for part in parts]), len(keys))
    return SparseRow(keys, weight.astype(np.float32))


def likeness(entries: RowEntries, sought: SparseRow) -> NDArray[np.float32]:
    """(C,) Σ over the keys sought of their weight times the row's."""
    if not (len(sought.key) and len(entries.key)):
        return np.zeros(entries.n_rows, dtype=np.float32)
    table = np.zeros(1 + max(int(sought.key.max()), int(entries.key.max())), dtype=np.float32)  # faster than a search
    table[sought.key] = sought.weight
    return np.bincount(entries.row, table[entries.key] * entries.weight, entries.n_rows).astype(np.float32)


def add_vectors(entries: RowEntries, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, V) the sum of each row's keys' vectors (G, V) by their weights, of unit length. Keys from G on have none; a
    row without any is 0."""
    known = np.flatnonzero(entries.key < len(vectors))
    start = offsets(np.bincount(entries.row[known], minlength=entries.n_rows))
    shape = entries.n_rows, len(vectors)
    summed: NDArray[np.float32] = csr_array((entries.weight[known], entries.key[known], start), shape) @ vectors
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), np.float32(1e-6))  # less is rounding
