"""Late interaction: a vector for every token of a product, matched with those of a query's tokens.

How well a query's token is matched is its largest dot product with a token of the product (MaxSim: Khattab & Zaharia,
ColBERT, SIGIR 2020). A vector a text says what a product is; a vector a token says whether each word is matched.

Dimension letters:
    N  products      S  tokens of all products, R of those looked at    W  width of a token's vector
    C  candidates    Q  a query's tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.arrays import ragged
from gram.errors import IndexFolderError
from gram.folders import REBUILD, check_offsets, load_array

AT_ONCE = 8192
"""Products whose tokens are in memory at a time."""
UNIT = 127
"""What a coordinate of 1 is kept as: a byte each is enough for vectors of unit length."""


@dataclass(frozen=True, eq=False)
class TokenVectors:
    """The vectors of texts' tokens, of unit length, text after text."""

    start: NDArray[np.int64]  # (N + 1,)
    vectors: NDArray[np.int8]  # (S, W) in units of 1 / UNIT

    def of(self, text: int) -> NDArray[np.float32]:
        """The vectors (Q, W) of one text's tokens."""
        return self.vectors[int(self.start[text]) : int(self.start[text + 1])].astype(np.float32) / np.float32(UNIT)

    def maxsim(
        self, query: NDArray[np.float32], weights: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """(C, 2) how well the products of these rows match a query's tokens (Q, W), which weigh (Q,): their weighted
        mean, and the worst of them.

        0 for products, and for queries, that have no token.
        """
        if len(rows) > AT_ONCE:
            parts = np.array_split(rows, -(-len(rows) // AT_ONCE))
            return np.concatenate([self.maxsim(query, weights, part) for part in parts])
        out = np.zeros((len(rows), 2), dtype=np.float32)
        lengths = self.start[rows + 1] - self.start[rows]  # (C,)
        some = np.flatnonzero(lengths)
        if not len(some) or not len(query):
            return out
        at, row = ragged(self.start[rows[some]], lengths[some])
        met = np.take(self.vectors, at, axis=0).astype(np.float32) @ (query.T / UNIT)  # (R, Q)
        best = np.maximum.reduceat(met, np.flatnonzero(np.diff(row, prepend=-1)), axis=0)  # (C, Q)
        out[some, 0] = best @ weights
        out[some, 1] = best.min(1)
        return out

    def save(self, folder: str | Path) -> None:
        """Writes `token_vectors.*.npy` into an existing folder."""
        np.save(Path(folder, "token_vectors.start.npy"), self.start, allow_pickle=False)
        np.save(Path(folder, "token_vectors.vectors.npy"), self.vectors, allow_pickle=False)

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> TokenVectors:
        """What `save` wrote. Raises IndexFolderError if it cannot be used."""
        start = load_array(folder, "token_vectors.start.npy", mmap)
        vectors = load_array(folder, "token_vectors.vectors.npy", mmap)
        if vectors.ndim != 2 or vectors.dtype != np.int8:
            raise IndexFolderError(f"{folder}: token vectors are {vectors.dtype} {vectors.shape}. Fix: {REBUILD}")
        check_offsets(start, len(vectors), Path(folder, "token_vectors.start.npy"), REBUILD)
        return TokenVectors(start, vectors)
