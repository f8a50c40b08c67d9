"""Code rows: what each product's single codes are, product by product, as postings tell it code by code.

Dimension letters:
    N  products              X  entries of all rows
    C  candidates
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRow, SparseRows, offsets, ragged
from gram.folders import load_runs, save_runs
from gram.index.entries import RowEntries


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
        save_runs(folder, "code_rows", start=self.start, key=self.key, weight=self.weight)

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> CodeRows:
        """What `save` wrote. Raises IndexFolderError if it cannot be used."""
        return CodeRows(*load_runs(folder, "code_rows", ("start", "key", "weight"), mmap))
