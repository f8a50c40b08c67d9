"""Late interaction: a vector for every word piece of a product, met by those of a query's pieces.

How closely a query's piece is met is the product with the nearest of a product's pieces (MaxSim: Khattab & Zaharia,
ColBERT, SIGIR 2020). One vector a text says what a product is; a vector a piece says whether each word is met.

Dimension letters:
    N  products      S  pieces of all products, R of those looked at    W  width of a piece's vector
    C  candidates    Q  a query's pieces
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.arrays import ragged
from gram.errors import IndexFolderError
from gram.folders import load_array

KINDS = (
    "maxsim",  # how closely the query's pieces are met in the product, their weighted mean
    "least_maxsim",  # how closely the one is that is met worst
)
AT_ONCE = 8192
"""Products whose pieces are in memory at a time."""
UNIT = 127
"""What a coordinate of 1 is kept as: a byte each is enough for vectors of unit length."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """The vectors of texts' pieces, of unit length, text after text."""

    start: NDArray[np.int64]  # (N + 1,)
    vectors: NDArray[np.int8]  # (S, W) in units of 1 / UNIT

    def of(self, text: int) -> NDArray[np.float32]:
        """The vectors (Q, W) of one text's pieces."""
        return self.vectors[int(self.start[text]) : int(self.start[text + 1])].astype(np.float32) / np.float32(UNIT)

    def evidence(
        self, query: NDArray[np.float32], weights: NDArray[np.float32], positions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """(C, 2) how products at `positions` meet a query's pieces (Q, W), which weigh (Q,), in the order of `KINDS`.

        0 for products, and for queries, that have no piece.
        """
        if len(positions) > AT_ONCE:
            parts = np.array_split(positions, -(-len(positions) // AT_ONCE))
            return np.concatenate([self.evidence(query, weights, part) for part in parts])
        out = np.zeros((len(positions), len(KINDS)), dtype=np.float32)
        lengths = self.start[positions + 1] - self.start[positions]  # (C,)
        some = np.flatnonzero(lengths)
        if not len(some) or not len(query):
            return out
        at, row = ragged(self.start[positions[some]], lengths[some])
        met = np.take(self.vectors, at, axis=0).astype(np.float32) @ (query.T / UNIT)  # (R, Q)
        best = np.maximum.reduceat(met, np.flatnonzero(np.diff(row, prepend=-1)), axis=0)  # (C, Q)
        out[some, 0] = best @ weights
        out[some, 1] = best.min(1)
        return out

    def save(self, folder: str | Path) -> None:
        """Writes `pieces.*.npy` into an existing folder."""
        np.save(Path(folder, "pieces.start.npy"), self.start, allow_pickle=False)
        np.save(Path(folder, "pieces.vectors.npy"), self.vectors, allow_pickle=False)

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> Pieces:
        """What `save` wrote. Raises IndexFolderError if it cannot be used."""
        start = load_array(folder, "pieces.start.npy", mmap)
        vectors = load_array(folder, "pieces.vectors.npy", mmap)
        if not len(start) or vectors.ndim != 2 or vectors.dtype != np.int8 or start[-1] != len(vectors):
            raise IndexFolderError(f"{folder}: the pieces' vectors do not fit together. Fix: build the index again")
        return Pieces(start, vectors)
