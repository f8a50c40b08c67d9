"""Code rows: what each product's single codes are, product by product, as postings tell it code by code.

Dimension letters:
    N  products              X  entries of all rows
    C  candidates            S  entries of the candidates' rows
    B  best of the candidates
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRow, SparseRows, offsets, ragged, top_k
from gram.folders import REBUILD, check_offsets, load_array

ARRAYS = ("start", "key", "weight")


class RowEntries(NamedTuple):
    """The entries of some rows, one after another."""

    n_rows: int  # C
    row: NDArray[np.int64]  # (S,) which of the rows
    key: NDArray[np.int32]  # (S,)
    weight: NDArray[np.float32]  # (S,)


@dataclass(frozen=True, eq=False)
class CodeRows:
    """The attributes that each product holds or was given, each row's weights of unit length (CSR)."""

    start: NDArray[np.int64]  # (N + 1,)
    key: NDArray[np.int32]  # (X,) attribute ids
    weight: NDArray[np.float32]  # (X,)

    @staticmethod
    def build(lexical: SparseRows, expansion: SparseRows) -> CodeRows:
        """From both kinds of weights of N products; an attribute that stands in several fields is added up."""
        n = len(lexical.start) - 1
        row = np.concatenate([lexical.rows(), expansion.rows()])
        key = np.concatenate([lexical.key, expansion.key])
        weight = np.concatenate([lexical.weight, expansion.weight])
        many = int(key.max(initial=0)) + 1
        both, which = np.unique(row * many + key, return_inverse=True)
        summed = np.bincount(which, weight, len(both)).astype(np.float32)
        row, key = both // many, (both % many).astype(np.int32)
        length = np.sqrt(np.bincount(row, summed.astype(np.float64) ** 2, n))
        return CodeRows(
            offsets(np.bincount(row, minlength=n)), key, (summed / np.maximum(length, 1e-9)[row]).astype(np.float32)
        )

    def __len__(self) -> int:
        return len(self.start) - 1

    def of(self, row: int) -> SparseRow:
        """One product's attributes and weights; views, not copies."""
        at = slice(int(self.start[row]), int(self.start[row + 1]))
        return SparseRow(self.key[at], self.weight[at])

    def read(self, rows: NDArray[np.int64]) -> RowEntries:
        """The entries of C products."""
        at, row = ragged(self.start[rows], self.start[rows + 1] - self.start[rows])
        return RowEntries(len(rows), row, self.key[at], self.weight[at])

    def save(self, folder: str | Path) -> None:
        """Writes `code_rows.*.npy` into an existing folder."""
        for name in ARRAYS:
            np.save(Path(folder, f"code_rows.{name}.npy"), getattr(self, name), allow_pickle=False)

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> CodeRows:
        """What `save` wrote. Raises IndexFolderError if it cannot be used."""
        rows = CodeRows(*(load_array(folder, f"code_rows.{name}.npy", mmap) for name in ARRAYS))
        for values in (rows.key, rows.weight):
            check_offsets(rows.start, len(values), Path(folder, "code_rows.start.npy"), REBUILD)
        return rows


def gather(entries: RowEntries, share: NDArray[np.float32], most: int) -> SparseRow:
    """The `most` heaviest attributes of some rows, each row counting its `share` (B,): what these have in common."""
    keys, which = np.unique(entries.key, return_inverse=True)
    sought = np.bincount(which, share[entries.row] * entries.weight, len(keys)).astype(np.float32)
    best, weight = top_k(sought, most)
    return SparseRow(keys[best], weight)


def likeness(entries: RowEntries, sought: SparseRow) -> NDArray[np.float32]:
    """(C,) Σ over the attributes sought of their weight times the row's."""
    if not len(sought.key):
        return np.zeros(entries.n_rows, dtype=np.float32)
    order = np.argsort(sought.key)
    keys, weights = sought.key[order], sought.weight[order]
    at = np.searchsorted(keys, entries.key).clip(max=len(keys) - 1)
    met = np.where(keys[at] == entries.key, weights[at] * entries.weight, 0.0)
    return np.bincount(entries.row, met, entries.n_rows).astype(np.float32)
