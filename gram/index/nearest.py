"""A sketch of the products' dense vectors: their main coordinates, so that near products are found without reading
every vector.

Dimension letters:
    N  products    D  width of a vector    S  width of a sketch
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.arrays import top_k
from gram.errors import IndexFolderError
from gram.folders import load_array

WIDTH = 64
"""S: of the MiniLM's 384 coordinates these hold two thirds of the variance."""
FEW = 4096
"""Products at most whose vectors are all read."""
LOOKED = 5
"""Vectors that are read for each one that is returned."""
_SAMPLE = 20_000  # vectors at most that the axes are learnt from
_TELLING = 8192  # sketched scores from which the border of the best is told


@dataclass(frozen=True, eq=False)
class Sketch:
    """The vectors' coordinates along their principal axes.

    >>> vectors = np.eye(3, dtype=np.float32)
    >>> Sketch.build(vectors).nearest(vectors, np.array([0.1, 0.9, 0.5], dtype=np.float32), 2).tolist()
    [1, 2]
    """

    axes: NDArray[np.float32]  # (S, D)
    coordinates: NDArray[np.float32]  # (S, N)

    @staticmethod
    def build(vectors: NDArray[np.float32]) -> Sketch:
        """Principal component analysis of vectors (N, D). Few vectors need no sketch: then S is 0."""
        n, width = vectors.shape
        if n <= FEW:
            return Sketch(np.zeros((0, width), np.float32), np.zeros((0, n), np.float32))
        sample = vectors[_drawn(n, _SAMPLE)].astype(np.float64)
        _, axes = np.linalg.eigh(np.cov(sample, rowvar=False))  # by rising variance
        axes = np.ascontiguousarray(axes[:, ::-1][:, :WIDTH].T, dtype=np.float32)
        return Sketch(axes, np.ascontiguousarray((vectors @ axes.T).T))

    def nearest(self, vectors: NDArray[np.float32], query: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Rows of the k products nearest to a query's vector (D,), nearest first.

        Those that are best by the sketch, some `LOOKED` · k, are compared by their vectors (N, D).
        """
        n = len(vectors)
        if len(self.axes) == 0 or LOOKED * k >= n:
            return top_k(vectors @ query, k)[0]
        scores = (self.axes @ query) @ self.coordinates  # (N,)
        some = scores[self._telling]
        rank = len(some) - max(1, len(some) * LOOKED * k // n)
        seen = np.flatnonzero(scores >= np.partition(some, rank)[rank])  # (about LOOKED · k,)
        if len(seen) < k:
            seen, _ = top_k(scores, LOOKED * k)
        return top_k(np.take(vectors, seen, axis=0) @ query, k, seen)[0]

    @cached_property
    def _telling(self) -> NDArray[np.int64]:
        return _drawn(self.coordinates.shape[1], _TELLING)

    def save(self, folder: str | Path) -> None:
        """Writes `sketch.*.npy` into an existing folder."""
        for name in ("axes", "coordinates"):
            np.save(Path(folder, f"sketch.{name}.npy"), getattr(self, name), allow_pickle=False)

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> Sketch:
        """What `save` wrote. Raises IndexFolderError if it cannot be used."""
        sketch = Sketch(*(load_array(folder, f"sketch.{name}.npy", mmap) for name in ("axes", "coordinates")))
        if len(sketch.axes) != len(sketch.coordinates):
            raise IndexFolderError(f"{folder}: the sketch of vectors does not fit together. Fix: build the index again")
        return sketch


def _drawn(n: int, at_most: int) -> NDArray[np.int64]:
    """Some of 0 … n − 1, in order: at random, for catalogues list colours and sizes in turn."""
    return np.sort(np.random.default_rng(0).permutation(n)[:at_most])
