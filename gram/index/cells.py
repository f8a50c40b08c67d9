"""Cells of the products' vectors: an inverted file (Jégou et al., TPAMI 2011), so that near products are found without
reading every vector.

Dimension letters:
    N  products    D  width of a vector
    C  cells       R  products of the cells that are read
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.errors import IndexFolderError
from gram.folders import load_array
from gram.index.postings import offsets, top_k

FEW = 4096
"""Products at most that stand in one cell: reading all their vectors takes a fraction of a millisecond."""
MANY = 16_384
"""Products at most that are read for a query, unless it asks for more."""
_ROUNDS = 8
_SAMPLE = 40_000  # vectors at most that the centres are learnt from


@dataclass(frozen=True, eq=False)
class Cells:
    """Which products lie near which centre.

    >>> cells = Cells.build(np.eye(3, dtype=np.float32))
    >>> cells.nearest(np.eye(3, dtype=np.float32), np.array([0.1, 0.9, 0.5], dtype=np.float32), 2).tolist()
    [1, 2]
    """

    centres: NDArray[np.float32]  # (C, D) of unit length
    start: NDArray[np.int64]  # (C + 1,)
    product: NDArray[np.int32]  # (N,) positions, cell by cell

    @staticmethod
    def build(vectors: NDArray[np.float32], seed: int = 0) -> Cells:
        """Spherical k-means over unit vectors (N, D), about 2·√N cells."""
        n = len(vectors)
        n_cells = 1 if n <= FEW else int(2 * n**0.5)
        random = np.random.default_rng(seed)
        sample = vectors[np.sort(random.permutation(n)[:_SAMPLE])]
        centres = sample[random.permutation(len(sample))[:n_cells]]
        for _ in range(_ROUNDS if n_cells > 1 else 0):
            near = _closest(sample, centres)
            order = np.argsort(near, kind="stable")
            held = np.bincount(near, minlength=n_cells)
            begin = np.cumsum(held) - held
            filled = held > 0
            sums = np.add.reduceat(sample[order], begin[filled])  # (filled cells, D)
            centres[filled] = sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-9)
        cell = _closest(vectors, centres)
        start = offsets(np.bincount(cell, minlength=n_cells))
        return Cells(centres, start, np.argsort(cell, kind="stable").astype(np.int32))

    def nearest(
        self,
        vectors: NDArray[np.float32],
        query: NDArray[np.float32],
        k: int,
        share: float = 0.03,
    ) -> NDArray[np.int64]:
        """Positions of the k products nearest to a query's vector (D,), nearest first, among the nearest cells.

        Cells are read until `share` of the catalogue, at most MANY products and at least 5 k, have been seen.
        """
        n = len(self.product)
        order = np.argsort(-(self.centres @ query), kind="stable")  # (C,)
        held = np.diff(self.start)[order]
        enough = int(np.searchsorted(np.cumsum(held), min(n, max(min(share * n, MANY), 5 * k)))) + 1
        parts = [self.product[self.start[c] : self.start[c + 1]] for c in order[:enough].tolist()]
        seen = np.sort(np.concatenate(parts)).astype(np.int64)  # (R,)
        best, _ = top_k(np.take(vectors, seen, axis=0) @ query, k, seen)
        return best

    def save(self, folder: str | Path) -> None:
        """Writes `cells.*.npy` into an existing folder."""
        for name in ("centres", "start", "product"):
            np.save(Path(folder, f"cells.{name}.npy"), getattr(self, name), allow_pickle=False)

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> Cells:
        """What `save` wrote. Raises IndexFolderError if it cannot be used."""
        cells = Cells(*(load_array(folder, f"cells.{name}.npy", mmap) for name in ("centres", "start", "product")))
        if len(cells.start) != len(cells.centres) + 1 or cells.start[-1] != len(cells.product):
            raise IndexFolderError(f"{folder}: the cells of vectors do not fit together. Fix: build the index again")
        return cells


def _closest(vectors: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """The cell of each vector, (N,)."""
    parts = [(vectors[begin : begin + 8192] @ centres.T).argmax(1) for begin in range(0, len(vectors), 8192)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
